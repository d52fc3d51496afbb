"""What a network looks at: loss gradients, and how much of the image is in them.

Reference: Tsipras et al. 2019, arXiv 1805.12152, section 3.2, who show gradients of
robust networks beside the images; the numbers here say how alike they are.
"""

import jax
import jax.numpy as jnp

from advjax import losses, rows
from advjax.types import Array, LogitsFn, Loss


def input_gradient(
    logits_fn: LogitsFn, x: Array, y: Array, loss: Loss = losses.cross_entropy
) -> Array:
    """The gradient of the loss of each example with respect to its input, like x."""
    return jax.grad(lambda z: jnp.sum(loss(logits_fn(z), y)))(x)


def edges(x: Array) -> Array:
    """Sobel's edge strength of images (B, H, W, C), of the same shape.

    Outside the image is what is at its rim.

    Raises:
      ValueError: if ``x`` is not (B, H, W, C).
    """
    if x.ndim != 4:
        raise ValueError(f'x must be images (B, H, W, C), got shape {x.shape}')
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')

    def filtered(image, axis, taps):
        size = x.shape[axis]
        parts = [
            tap * jax.lax.slice_in_dim(image, i, i + size, axis=axis)
            for i, tap in enumerate(taps)
        ]
        return sum(parts[1:], parts[0])

    across = filtered(filtered(padded, 1, (1, 2, 1)), 2, (-1, 0, 1))
    down = filtered(filtered(padded, 2, (1, 2, 1)), 1, (-1, 0, 1))
    return jnp.sqrt(jnp.square(across) + jnp.square(down))


def correlation(a: Array, b: Array) -> Array:
    """Pearson's correlation of two images, per example: (B, ...) twice -> (B,).

    0 where either does not vary.
    """
    a, b = rows.flat(a), rows.flat(b)
    a = a - jnp.mean(a, axis=1, keepdims=True)
    b = b - jnp.mean(b, axis=1, keepdims=True)
    spread = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    product = jnp.sum(a * b, axis=1)
    return jnp.where(spread > 0, product / jnp.where(spread > 0, spread, 1), 0)
