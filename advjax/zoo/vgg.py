"""VGG-11 and VGG-16 for small images, with batch normalisation.

The form that papers on CIFAR-10 use: the convolutions of Simonyan and Zisserman, a
normalisation after each, and one linear layer in place of their three. The features are
averaged over the positions that five poolings leave, which is one for 32x32 images.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from flax import nnx

from advjax import convolutions, models
from advjax.zoo.layers import TORCH_INIT, Conv, torch_linear, torch_uniform
from advjax.zoo.options import Common, Options
from advjax.zoo.published import LEAVES, with_published

_WIDTHS = (64, 128, 256, 512, 512)


class _Vgg(nnx.Module):
    def __init__(self, stages, widths, channels, num_classes, common, rngs):
        self.stages, self.common = stages, common
        features = [w for w, n in zip(widths, stages, strict=True) for _ in range(n)]
        self.convs = nnx.List(
            Conv(
                a,
                b,
                (3, 3),
                padding=1,
                dtype=common.dtype,
                kernel_init=TORCH_INIT,
                bias_init=torch_uniform(9 * a),
                rngs=rngs,
            )
            for a, b in zip([channels, *features], features, strict=False)
        )
        self.norms = nnx.List(common.norm(b, rngs) for b in features)
        self.out = torch_linear(widths[-1], num_classes, rngs)

    def features(self, x, branch=0):
        x = self.common.normalised(x)
        layers = zip(self.convs, self.norms, strict=True)
        for count in self.stages:
            for _ in range(count):
                conv, norm = next(layers)
                x = self.common.activation(norm(conv(x), branch))
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


def _vgg(stages, shape, num_classes, widths, options) -> models.Model:
    common = Common(**options)
    common.check(shape, num_classes)
    if len(widths) != len(stages) or min(widths) < 1:
        raise ValueError(f'widths must hold {len(stages)} integers >= 1, got {widths}')
    least = 2 ** len(stages)
    if min(shape[:2]) < least:
        raise ValueError(f'shape must have sides of at least {least}, got {shape}')
    made = functools.partial(_Vgg, stages, widths, shape[-1], num_classes, common)
    model = models.from_nnx(made)
    return with_published(model, [_naming(stages)], common.mean, common.std)


@functools.cache
def vgg16(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = _WIDTHS,
    **options: Unpack[Options],
) -> models.Model:
    """VGG-16 for small images: stages of 2, 2, 3, 3 and 3 convolutions.

    Each is 3x3 with a bias, normalised and activated; each stage ends with 2x2 max
    pooling. 14,728,266 parameters. The representation is averaged over space and read
    by one linear layer. There is no dropout.

    Args:
      shape: (H, W, C) of one image, with sides of at least 32.
      num_classes: K.
      widths: features of each stage.
      **options: branches, activation, dtype, mean and std; see ``zoo.Common``.

    Reference: Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D; the form
    for CIFAR-10 is that of kuangliu/pytorch-cifar, whose names weights have.
    """
    return _vgg((2, 2, 3, 3, 3), shape, num_classes, widths, options)


@functools.cache
def vgg11(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = _WIDTHS,
    **options: Unpack[Options],
) -> models.Model:
    """VGG-11 for small images: stages of 1, 1, 2, 2 and 2 convolutions.

    Otherwise, and in its arguments, it is as ``vgg16``. 9,231,114 parameters.

    Reference: Simonyan and Zisserman 2014, arXiv 1409.1556, configuration A.
    """
    return _vgg((1, 1, 2, 2, 2), shape, num_classes, widths, options)
