"""What the networks of the zoo for natural images agree on, and check alike."""

from typing import Any

import jax.numpy as jnp

from advjax.types import Array
from advjax.zoo.split_norm import check_branches


def normalised(
    x: Array, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Array:
    """Pixels less a mean and over a standard deviation per channel, if there are."""
    if mean is None or std is None:
        return x
    less, by = (jnp.array(value, x.dtype)[None, None, None] for value in (mean, std))
    return (x - less) / by


def check_options(
    shape: tuple[int, ...],
    num_classes: int,
    branches: int,
    dtype: Any,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> None:
    """Validates what every such network is given."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f'shape must be (height, width, channels), got {shape}')
    if not (isinstance(num_classes, int) and num_classes >= 1):
        raise ValueError(f'num_classes must be an integer >= 1, got {num_classes!r}')
    check_branches(branches)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f'dtype must be a floating-point type, got {dtype!r}')
    if (mean is None) != (std is None):
        raise ValueError(f'mean and std must be given together, got {mean} and {std}')
    for name, value in (('mean', mean), ('std', std)):
        if value is not None and len(value) != shape[-1]:
            raise ValueError(
                f'{name} must hold a number for each of {shape[-1]} channels, '
                f'got {value}'
            )
    if std is not None and not min(std) > 0:
        raise ValueError(f'std must be positive, got {std}')
