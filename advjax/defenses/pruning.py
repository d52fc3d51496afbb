r"""Stochastic activation pruning: small activations are dropped more often.

In a layer of activations h, :math:`p_j = |h_j| / \sum_i |h_i|`, and r draws with
replacement would hit unit j with probability

.. math:: q_j = 1 - (1 - p_j)^r

Unit j is kept with this probability and then divided by it, which preserves the
expectation of a layer. Every draw has a gradient, but only that of the draw (stochastic
gradients). Broken by EOT.

Reference: Dhillon et al. 2018, arXiv 1803.01442, algorithm 1. Deviation: units are kept
independently of each other, with the marginal probabilities of the r draws.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from advjax.defenses.activations import with_noise
from advjax.defenses.defended import Defended, randomised
from advjax.types import Array, Key, LogitsFn, as_pytree, dataclass


def kept_with(activations: Array, draws: Array | float) -> Array:
    """The probability that a unit is kept, for (B, ...) activations of a layer."""
    size = jnp.abs(activations)
    total = jnp.sum(size, axis=tuple(range(1, size.ndim)), keepdims=True)
    share = size / jnp.where(total > 0, total, 1)
    # 1 - (1 - p)^r, exact for the tiny shares of large layers.
    return -jnp.expm1(draws * jnp.log1p(-jnp.minimum(share, 1 - 1e-6)))


@dataclass
class Pruned:
    """A network with random activations; ``fraction`` is r over the layer's size."""

    logits_fn: Any
    fraction: Array

    def __call__(self, key: Key, x: Array) -> Array:
        """Logits (B, K)."""

        def change(h: Array, noise: Array) -> Array:
            draws = self.fraction * math.prod(h.shape[1:])
            chance = jax.lax.stop_gradient(kept_with(h, draws))
            kept = noise < chance
            return jnp.where(kept, h / jnp.where(kept, chance, 1), 0)

        return with_noise(self.logits_fn, change)(key, x)


def activation_pruning(
    logits_fn: LogitsFn, fraction: float = 1.0, *, answers: int = 10, draws: int = 30
) -> Defended:
    """A network that prunes activations at random, after every ReLU.

    Args:
      logits_fn: any network with ReLUs; it is not retrained.
      fraction: draws per layer as a share of its units (1 = 100 % in the paper).
      answers: as in ``randomised``.
      draws: as in ``randomised``.

    Raises:
      ValueError: if ``fraction`` is not positive.
    """
    if not fraction > 0:
        raise ValueError(f'fraction must be > 0, got {fraction!r}')
    fn = Pruned(as_pytree(logits_fn), jnp.float32(fraction))
    return randomised(fn, answers=answers, draws=draws)
