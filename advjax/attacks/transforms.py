"""Gradient transformations of optax with one value per example, cached.

A transformation is static structure: two equal attacks must hold the same one to share
a compiled program.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax.attacks.checks import check_count, check_positive
from advjax.types import Array


def _mean_one() -> optax.GradientTransformation:
    """Divides every example's gradient by its mean absolute coordinate."""

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        del params, extra
        gradient = updates
        axes = tuple(range(1, gradient.ndim))
        # Relative to the largest entry, so that tiny gradients do not underflow.
        scale = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True, initial=0.0)
        scaled = gradient / jnp.where(scale > 0, scale, 1)
        mean = jnp.mean(jnp.abs(scaled), axis=axes, keepdims=True)
        return scaled / jnp.where(mean > 0, mean, 1), state

    return optax.GradientTransformation(init, update)


@functools.cache
def momentum(decay: float = 1.0) -> optax.GradientTransformation:
    r"""Momentum, :math:`g \leftarrow \mu g + \nabla L / \|\nabla L\|_1`.

    The norm is the mean, not the sum, of absolute coordinates, as in the authors'
    codes: the same direction, and a scale at which a look-ahead means something.

    Cached, because a transformation is static structure: two equal attacks must
    hold the same one to share a compiled program.
    """
    return optax.chain(_mean_one(), optax.trace(decay))


@functools.cache
def adam(b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """``optax.scale_by_adam``, cached for the reason given in ``momentum``."""
    return optax.scale_by_adam(b1, b2)


@functools.cache
def translation(size: int = 7, sigma: float = 3.0) -> optax.GradientTransformation:
    r"""Translation invariance: the gradient convolved with a Gaussian.

    .. math:: W * \nabla_x L(x, y)

    Args:
      size: side of the kernel, odd; 15 for ImageNet in the paper.
      sigma: its standard deviation in pixels.

    Raises:
      ValueError: if ``size`` is even.

    Reference: Dong et al. 2019, arXiv 1904.02884, equation 9 (TI).
    """
    check_positive('sigma', sigma)
    if check_count('size', size) % 2 == 0:
        raise ValueError(f'size must be odd, got {size}')
    reach = size // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()

    def smooth(x: Array, axis: int) -> Array:
        # The kernel is separable, and shifts are fast everywhere.
        widths = [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)]
        wide = jnp.pad(x, widths)
        length = x.shape[axis]
        parts = [
            w * jax.lax.slice_in_dim(wide, i, i + length, axis=axis)
            for i, w in enumerate(kernel.astype(np.float32))
        ]
        return sum(parts[1:], parts[0])

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        del params, extra
        return smooth(smooth(updates, 1), 2), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@functools.cache
def chain(*transforms: optax.GradientTransformation) -> optax.GradientTransformation:
    """``optax.chain``, cached: equal attacks share a compiled program."""
    return optax.chain(*transforms)
