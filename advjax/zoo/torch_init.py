"""How layers of PyTorch start."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from advjax.types import Array

TORCH_INIT = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
"""Kernels by default: uniform in +-1 / sqrt(fan_in), which is read off their shape."""


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """The same for an array whose shape does not tell, such as a bias."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
