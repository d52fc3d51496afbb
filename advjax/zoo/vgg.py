"""VGG-11 and VGG-16 for small images, with batch normalisation.

The form that papers on CIFAR-10 use: the convolutions of Simonyan and Zisserman, a
normalisation after each, and one linear layer in place of their three. Images of more
than 32 pixels are averaged over what five poolings leave; at 32 that is one pixel.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from advjax import convolutions, models
from advjax.types import Array
from advjax.zoo.pixels import check_options, normalised
from advjax.zoo.published import LEAVES, with_published
from advjax.zoo.split_norm import SplitBatchNorm
from advjax.zoo.torch_init import TORCH_INIT, torch_uniform

# Convolutions of each stage, and the features of all stages.
_VGG11 = (1, 1, 2, 2, 2)
_VGG16 = (2, 2, 3, 3, 3)
_WIDTHS = (64, 128, 256, 512, 512)


class _Vgg(nnx.Module):
    def __init__(
        self,
        stages: tuple[int, ...],
        widths: tuple[int, ...],
        channels: int,
        num_classes: int,
        branches: int,
        activation: Callable[[Array], Array],
        dtype: Any,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        rngs: nnx.Rngs,
    ):
        self.stages, self.activation = stages, activation
        self.mean, self.std = mean, std
        features = [w for w, n in zip(widths, stages, strict=True) for _ in range(n)]
        self.convs = nnx.List(
            nnx.Conv(
                a,
                b,
                (3, 3),
                padding=1,
                dtype=dtype,
                kernel_init=TORCH_INIT,
                bias_init=torch_uniform(9 * a),
                conv_general_dilated=convolutions.conv_general_dilated,
                rngs=rngs,
            )
            for a, b in zip([channels, *features], features, strict=False)
        )
        self.norms = nnx.List(
            SplitBatchNorm(b, branches, dtype=dtype, rngs=rngs) for b in features
        )
        self.out = nnx.Linear(
            widths[-1],
            num_classes,
            kernel_init=TORCH_INIT,
            bias_init=torch_uniform(widths[-1]),
            rngs=rngs,
        )

    def features(self, x, branch=0):
        x = normalised(x, self.mean, self.std)
        layers = zip(self.convs, self.norms, strict=True)
        for count in self.stages:
            for _ in range(count):
                conv, norm = next(layers)
                x = self.activation(norm(conv(x), branch))
            x = convolutions.max_pool(x, (2, 2), (2, 2))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

    def __call__(self, x, branch=0):
        return self.out(self.features(x, branch))


def _naming(stages: tuple[int, ...]) -> Callable[[Sequence[Any]], str]:
    """Names of kuangliu/pytorch-cifar, where a layer is a number in a sequence.

    Every convolution takes three of them (with its normalisation and activation), and
    every pooling one.
    """
    numbers = []
    at = 0
    for count in stages:
        numbers += [at + 3 * k for k in range(count)]
        at += 3 * count + 1

    def name(path):
        kind, *rest, leaf = path
        if kind == 'out':
            return f'classifier.{LEAVES[leaf]}'
        number = numbers[rest[0]] + (1 if kind == 'norms' else 0)
        return f'features.{number}.{LEAVES[leaf]}'

    return name


def _vgg(
    stages, shape, num_classes, widths, branches, activation, dtype, mean, std
) -> models.Model:
    check_options(shape, num_classes, branches, dtype, mean, std)
    if len(widths) != len(stages) or min(widths) < 1:
        raise ValueError(f'widths must hold {len(stages)} integers >= 1, got {widths}')
    least = 2 ** len(stages)
    if min(shape[:2]) < least:
        raise ValueError(f'shape must have sides of at least {least}, got {shape}')
    model = models.from_nnx(
        functools.partial(
            _Vgg,
            stages,
            widths,
            shape[-1],
            num_classes,
            branches,
            activation,
            dtype,
            mean,
            std,
        )
    )
    return with_published(model, [_naming(stages)], mean, std)


@functools.cache
def vgg16(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = _WIDTHS,
    branches: int = 1,
    activation: Callable[[Array], Array] = nnx.relu,
    dtype: Any = jnp.float32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> models.Model:
    """VGG-16 for small images: stages of 2, 2, 3, 3 and 3 convolutions.

    Each is 3x3 with a bias, normalised and activated; each stage ends with 2x2 max
    pooling. 14,728,266 parameters. The representation is averaged over space and read
    by one linear layer. There is no dropout.

    Args:
      shape: (H, W, C) of one image, with sides of at least 32.
      num_classes: K.
      widths: features of each stage.
      branches: normalisations per layer (``SplitBatchNorm``); the network answers to
        the view ``branch=b``.
      activation: the nonlinearity.
      dtype: what is computed in; parameters, statistics and logits are float32.
      mean: subtracted from the pixels, per channel, such as ``zoo.CIFAR10_MEAN``.
      std: what they are then divided by, such as ``zoo.CIFAR10_STD``.

    Raises:
      ValueError: for a value out of range.

    Reference: Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D; the form
    for CIFAR-10 is that of kuangliu/pytorch-cifar, whose names weights have.
    """
    return _vgg(
        _VGG16, shape, num_classes, widths, branches, activation, dtype, mean, std
    )


@functools.cache
def vgg11(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = _WIDTHS,
    branches: int = 1,
    activation: Callable[[Array], Array] = nnx.relu,
    dtype: Any = jnp.float32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> models.Model:
    """VGG-11 for small images: stages of 1, 1, 2, 2 and 2 convolutions.

    Otherwise ``vgg16``. 9,231,114 parameters.

    Args:
      shape: (H, W, C) of one image, with sides of at least 32.
      num_classes: K.
      widths: as in ``vgg16``, like all that follow.
      branches: normalisations per layer.
      activation: the nonlinearity.
      dtype: what is computed in.
      mean: subtracted from the pixels.
      std: what they are then divided by.

    Raises:
      ValueError: for a value out of range.

    Reference: Simonyan and Zisserman 2014, arXiv 1409.1556, configuration A.
    """
    return _vgg(
        _VGG11, shape, num_classes, widths, branches, activation, dtype, mean, std
    )
