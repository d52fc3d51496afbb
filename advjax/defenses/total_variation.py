r"""Total-variation minimisation: pixels dropped at random, and the image smoothed.

.. math::
    g(x; r) = \arg\min_z\; \tfrac12 \|r \odot (z - x)\|_2^2
              + \lambda \sum_{ij} \sqrt{|\nabla z|_{ij}^2 + \mu^2}

with a random mask r of pixels that are kept, drawn at every call. The minimum is found
by an accelerated gradient method with a fixed number of steps. No gradient passes the
solver, as in the paper. Broken by BPDA with the identity and EOT over the mask.

Reference: Rudin et al. 1992; Guo et al. 2018, arXiv 1711.00117, section 4.3. Deviation:
the variation is smoothed by mu, so that gradient steps converge.
"""

import jax
import jax.numpy as jnp
from flax import struct

from advjax.attacks.checks import check_count, check_positive
from advjax.defenses.defended import (
    Defended,
    Preprocessed,
    Swapped,
    check_pictures,
    randomised,
)
from advjax.types import Array, Key, LogitsFn, as_pytree, dataclass


def objective(z: Array, x: Array, kept: Array, weight: Array, mu: Array) -> Array:
    """The objective of the smoothed image, summed over the batch (B, H, W, C)."""
    down = jnp.diff(z, axis=1, append=z[:, -1:])
    across = jnp.diff(z, axis=2, append=z[:, :, -1:])
    variation = jnp.sum(jnp.sqrt(down**2 + across**2 + mu**2))
    return jnp.sum(jnp.square(kept * (z - x))) / 2 + weight * variation


@dataclass
class Smoothed:
    """Images (B, H, W, C) with dropped pixels filled in and the rest smoothed."""

    weight: Array
    keep: Array
    mu: Array
    steps: int = struct.field(pytree_node=False)

    def __call__(self, key: Key, x: Array) -> Array:
        """An array like ``x``; the mask is one for the whole batch."""
        check_pictures(x)
        kept = jax.random.bernoulli(key, self.keep, x.shape[1:3]).astype(x.dtype)
        return self.solve(x, kept[None, :, :, None])

    def solve(self, x: Array, kept: Array) -> Array:
        """The minimum for a given mask."""
        slope = jax.grad(objective)
        # The Hessian of the smoothed variation is at most 8 / mu.
        rate = 1 / (1 + 8 * self.weight / self.mu)

        def step(i, carry):
            z, ahead = carry
            new = ahead - rate * slope(ahead, x, kept, self.weight, self.mu)
            i = i.astype(x.dtype)
            return new, new + i / (i + 3) * (new - z)

        start = kept * x
        z, _ = jax.lax.fori_loop(0, self.steps, step, (start, start))
        return jax.lax.stop_gradient(jnp.clip(z, 0, 1))


def total_variation(
    logits_fn: LogitsFn,
    weight: float = 0.03,
    keep: float = 0.5,
    steps: int = 30,
    mu: float = 0.05,
    *,
    answers: int = 10,
    draws: int = 30,
) -> Defended:
    """A network that sees smoothed images.

    Args:
      logits_fn: the network, on images (B, H, W, C) in [0, 1].
      weight: of the variation, lambda (0.03 in the paper).
      keep: share of pixels that are kept (0.5 in the paper).
      steps: of the solver.
      mu: pixel differences below it are smoothed, not counted.
      answers: draws that the deployed model averages over.
      draws: draws per gradient of the adaptive attacker.

    Raises:
      ValueError: if an argument is out of range.
    """
    check_positive('weight', weight)
    check_positive('mu', mu)
    check_count('steps', steps)
    if not 0 < keep <= 1:
        raise ValueError(f'keep must lie in (0, 1], got {keep!r}')
    net = as_pytree(logits_fn)
    smoothed = Smoothed(
        weight=jnp.float32(weight),
        keep=jnp.float32(keep),
        mu=jnp.float32(mu),
        steps=steps,
    )
    return randomised(
        Preprocessed(net, smoothed),
        Preprocessed(net, Swapped(smoothed)),
        answers=answers,
        draws=draws,
    )
