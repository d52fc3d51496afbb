"""Random resize and pad: the image shrunk by a random factor, at a random position.

Every draw has a gradient, but that of one draw misleads (stochastic gradients). Broken
by EOT.

Reference: Xie et al. 2018, arXiv 1711.01991. Deviation: the paper enlarges 299 pixels
to at most 331 and pads; here the size of the network's input stays, so images shrink.
"""

import jax
import jax.numpy as jnp

from advjax.defenses.defended import (
    Defended,
    Preprocessed,
    check_pictures,
    randomised,
)
from advjax.types import Array, Key, LogitsFn, as_pytree, dataclass


@dataclass
class Resized:
    """Images (B, H, W, C) shrunk to ``low`` .. 1 of their size on black."""

    low: Array

    def __call__(self, key: Key, x: Array) -> Array:
        """An array like ``x``; one draw for the whole batch."""
        check_pictures(x)
        scale, place = jax.random.split(key)
        factor = jax.random.uniform(scale, (), x.dtype, self.low, 1)
        room = (1 - factor) * jnp.asarray(x.shape[1:3], x.dtype)
        shift = jax.random.uniform(place, (2,), x.dtype) * room
        both = jnp.stack([factor, factor])

        def one(image):
            return jax.image.scale_and_translate(
                image, image.shape, (0, 1), both, shift, 'linear'
            )

        return jax.vmap(one)(x)


def resize_pad(
    logits_fn: LogitsFn, low: float = 0.8, *, answers: int = 10, draws: int = 30
) -> Defended:
    """A network that sees its input at a random size and position.

    Args:
      logits_fn: the network, on images (B, H, W, C).
      low: smallest factor, in (0, 1].
      answers: draws that the deployed model averages over.
      draws: draws per gradient of the adaptive attacker (30 in Athalye et al.).

    Raises:
      ValueError: if an argument is out of range.
    """
    if not 0 < low <= 1:
        raise ValueError(f'low must lie in (0, 1], got {low!r}')
    fn = Preprocessed(as_pytree(logits_fn), Resized(jnp.float32(low)))
    return randomised(fn, answers=answers, draws=draws)
