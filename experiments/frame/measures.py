"""Small measures that several experiments take."""

from collections.abc import Sequence

import jax
import numpy as np
from scipy import stats

from advjax.evaluation.verify import logits_of
from advjax.types import HostArray, LogitsFn


def answers(
    logits_fn: LogitsFn, x: HostArray, batch_size: int | None = None
) -> np.ndarray:
    """The class that a network gives each image, (N,).

    Args:
      logits_fn: the network.
      x: (N, H, W, C) images.
      batch_size: images at a time; all at once by default.
    """
    size = batch_size or len(x)
    parts = [logits_of(logits_fn, x[i : i + size]) for i in range(0, len(x), size)]
    return np.concatenate(parts).argmax(axis=1)


def accuracy(logits_fn: LogitsFn, x: HostArray, y: HostArray) -> float:
    """The share of images that a network gets right, in per cent."""
    return 100 * float(np.mean(answers(logits_fn, x) == np.asarray(y)))


@jax.jit
def run_attack(attack, logits_fn, key, x, y, *target):
    """One compiled call of any attack, towards target classes if they are given."""
    return attack(logits_fn, key, x, y, *target)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, between -1 and 1; 0 where either does not vary."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(stats.spearmanr(a, b)[0])
