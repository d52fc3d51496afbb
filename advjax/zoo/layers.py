"""Convolutions with fast gradients, and how PyTorch initialises a layer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from advjax import convolutions
from advjax.types import Array

Conv = functools.partial(
    nnx.Conv, conv_general_dilated=convolutions.conv_general_dilated
)
"""``nnx.Conv`` with the convolution of ``advjax.convolutions``."""

TORCH_INIT = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
"""Kernels by default: uniform in +-1 / sqrt(fan_in), with fan_in from their shape."""


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """The same for an array whose shape does not show fan_in, such as a bias."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_linear(fan_in: int, units: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A float32 linear layer that starts as PyTorch's does."""
    bias_init = torch_uniform(fan_in)
    return nnx.Linear(
        fan_in, units, kernel_init=TORCH_INIT, bias_init=bias_init, rngs=rngs
    )


def check_shape(shape: tuple[int, ...], least: int) -> None:
    """Validates the shape of an image that a network halves several times."""
    if len(shape) != 3 or min(shape[:2]) < least:
        raise ValueError(
            f'shape must be (height, width, channels) with sides of at least {least}, '
            f'got {shape}'
        )
