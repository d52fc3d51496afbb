"""Rubbish class examples: inputs of no class at all, and how sure a model is of them.

A model that answers with a class where there is none makes an error of a kind that
test accuracy does not see.

Reference: Goodfellow et al. 2015, arXiv 1412.6572, appendix A; the name from LeCun et
al. 1998.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.attacks.checks import check_count
from advjax.evaluation.verify import logits_of
from advjax.types import Array, Key, LogitsFn, as_pytree


class Rubbish(NamedTuple):
    """What a model made of noise.

    Attributes:
      error: share of the samples where some class has more than half the probability.
      confidence: mean of that probability over those samples; NaN if there are none.
      classes: (K,) how many of those samples were taken for each class.
    """

    error: float
    confidence: float
    classes: np.ndarray


def rubbish(
    logits_fn: LogitsFn,
    shape: tuple[int, ...],
    *,
    key: Key,
    samples: int = 10_000,
    probabilities: str = 'softmax',
    batch_size: int = 500,
) -> Rubbish:
    r"""Counts the classes that a model sees in Gaussian noise, :math:`N(0, I)`.

    Args:
      logits_fn: the model, x -> (B, K) logits; a pytree does not recompile.
      shape: shape of one input.
      key: one key; sample i is drawn from ``fold_in(key, i)``.
      samples: how many are drawn.
      probabilities: 'softmax', or 'sigmoid' for a model whose classes do not compete.
      batch_size: samples per compiled call.

    Raises:
      ValueError: if ``samples`` is no positive integer.
    """
    check_count('samples', samples)
    model = as_pytree(logits_fn)
    size = min(batch_size, samples)
    found = []
    for start in range(0, samples, size):
        noise = _draw(keys.typed(key), jnp.arange(start, start + size), tuple(shape))
        found.append(logits_of(model, noise))
    logits = jnp.asarray(np.concatenate(found)[:samples])
    p = np.asarray(getattr(jax.nn, probabilities)(logits))
    best, answer = p.max(axis=1), p.argmax(axis=1)
    seen = best > 0.5
    return Rubbish(
        error=float(seen.mean()),
        confidence=float(best[seen].mean()) if seen.any() else float('nan'),
        classes=np.bincount(answer[seen], minlength=p.shape[1]),
    )


@functools.partial(jax.jit, static_argnums=2)
def _draw(key: Key, index: Array, shape: tuple[int, ...]) -> Array:
    each = keys.of_index(key, index)
    return keys.draw(lambda k: jax.random.normal(k, shape), each)
