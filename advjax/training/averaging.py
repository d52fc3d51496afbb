r"""Weight averaging: EMA and SWA of the weights along training.

    fit = training.fit(..., averaging=training.ema(0.995))

Held-out accuracy, the best epoch and the result are those of the mean. Running
statistics of BatchNorm are averaged like weights.
"""

from typing import Any

import jax
import jax.numpy as jnp

from advjax.attacks.checks import check_count
from advjax.types import Array, dataclass


@dataclass
class Ema:
    """Exponential moving average; see ``ema``."""

    decay: Array

    def __call__(self, mean: Any, new: Any, step: Array) -> Any:
        """The mean after update number ``step``, 0 being the first."""
        time = step.astype(jnp.float32)
        decay = jnp.minimum(self.decay, (1 + time) / (10 + time))
        return _towards(mean, new, 1 - decay)


@dataclass
class Swa:
    """Stochastic weight averaging; see ``swa``."""

    first: Array
    every: Array

    def __call__(self, mean: Any, new: Any, step: Array) -> Any:
        """The mean after update number ``step``, 0 being the first."""
        since = step + 1 - self.first
        count = jnp.maximum(since // self.every, 0)
        taken = (since >= 0) & (since % self.every == 0)
        share = jnp.where(taken, 1 / (1 + count.astype(jnp.float32)), 0)
        return _towards(mean, new, jnp.where(since < 0, 1.0, share))


def _towards(mean: Any, new: Any, share: Array) -> Any:
    def one(m, n):
        if not jnp.issubdtype(m.dtype, jnp.floating):
            return n
        moved = m + share.astype(m.dtype) * (n - m)
        # m + (n - m) is not always n.
        return jnp.where(share >= 1, n, moved)

    return jax.tree.map(one, mean, new)


def ema(decay: float = 0.995) -> Ema:
    r"""Exponential moving average of the weights.

    .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t)\,\theta, \qquad
        d_t = \min\big(d, (1 + t) / (10 + t)\big)

    Args:
      decay: d, in [0, 1).

    Raises:
      ValueError: if it lies outside.

    Reference: Gowal et al. 2020, arXiv 2010.03593, section 4.3 (model weight
    averaging); their code uses 0.995.
    """
    if not 0 <= decay < 1:
        raise ValueError(f'decay must lie in [0, 1), got {decay}')
    return Ema(jnp.float32(decay))


def swa(first: int, every: int = 1) -> Swa:
    r"""Stochastic weight averaging: the plain mean from some update on.

    .. math:: \bar\theta \leftarrow \frac{n \bar\theta + \theta}{n + 1}
        \quad\text{after updates first, first + every, ...}

    Until then the mean is the network itself.

    Args:
      first: the number of updates after which the first network is taken.
      every: updates between two; the paper takes one per epoch.

    Raises:
      ValueError: if first is negative or every below 1.

    Reference: Izmailov et al. 2018, arXiv 1803.05407, algorithm 1; for adversarial
    training Chen et al. 2021 (ICLR). Unlike there, running statistics are averaged,
    not computed anew.
    """
    check_count('first', first, 0)
    check_count('every', every)
    return Swa(jnp.int32(first), jnp.int32(every))
