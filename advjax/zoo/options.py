"""The options that all networks for natural images share."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import jax.numpy as jnp
from flax import nnx

from advjax.types import Array
from advjax.zoo.split_norm import SplitBatchNorm, check_branches


class Options(TypedDict, total=False):
    """Keyword arguments of every network for natural images; see ``Common``."""

    branches: int
    activation: Callable[[Array], Array]
    dtype: Any
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


class Common(NamedTuple):
    """The values of ``Options``.

    Attributes:
      branches: normalisations per layer (``SplitBatchNorm``); the network answers to
        the view ``branch=b``.
      activation: the nonlinearity.
      dtype: what layers compute in; pixels, parameters, batch statistics, features and
        logits stay float32.
      mean: subtracted from the pixels, per channel, such as ``zoo.CIFAR10_MEAN``.
      std: what they are then divided by, such as ``zoo.CIFAR10_STD``.
    """

    branches: int = 1
    activation: Callable[[Array], Array] = nnx.relu
    dtype: Any = jnp.float32
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def check(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Validates the options, and what else every network is given."""
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f'shape must be (height, width, channels), got {shape}')
        if not (isinstance(num_classes, int) and num_classes >= 1):
            raise ValueError(
                f'num_classes must be an integer >= 1, got {num_classes!r}'
            )
        check_branches(self.branches)
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f'dtype must be a floating-point type, got {self.dtype!r}')
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f'mean and std must be given together, got {self.mean} and {self.std}'
            )
        for name, value in (('mean', self.mean), ('std', self.std)):
            if value is not None and len(value) != shape[-1]:
                raise ValueError(
                    f'{name} must hold a number for each of {shape[-1]} channels, '
                    f'got {value}'
                )
        if self.std is not None and not min(self.std) > 0:
            raise ValueError(f'std must be positive, got {self.std}')

    def norm(self, features: int, rngs: nnx.Rngs) -> SplitBatchNorm:
        """A batch normalisation with all branches."""
        return SplitBatchNorm(features, self.branches, dtype=self.dtype, rngs=rngs)

    def normalised(self, x: Array) -> Array:
        """Pixels less the mean, over the standard deviation, if there are any."""
        if self.mean is None or self.std is None:
            return x
        less, by = (
            jnp.array(value, x.dtype)[None, None, None]
            for value in (self.mean, self.std)
        )
        return (x - less) / by
