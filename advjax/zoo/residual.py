"""The parts of residual networks, and how a network is made of them.

Pixels are float32 in [0, 1]; ``mean`` and ``std`` normalise them inside the network, so
that a radius stays a radius in pixels.

Convolutions go through ``advjax.convolutions``, whose gradients are fast in loops on
CPU and have no forward mode. Networks are initialised as in PyTorch. One thing differs:
PyTorch's running variance is the unbiased estimate, here it is the variance of the
batch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from advjax import convolutions, models
from advjax.types import Array
from advjax.zoo.layers import Conv, torch_linear
from advjax.zoo.options import Common
from advjax.zoo.published import Naming, with_published
from advjax.zoo.split_norm import SplitBatchNorm

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
"""Means of the channels of CIFAR-10, as Wong et al. 2020 and most others print them."""

CIFAR10_STD = (0.2471, 0.2435, 0.2616)
"""Their standard deviations over all pixels."""

# The initialisation of He et al. 2015 for layers before a ReLU.
KAIMING_INIT = nnx.initializers.variance_scaling(2, 'fan_out', 'normal')


class Style(NamedTuple):
    """What all layers of one network have in common.

    Attributes:
      common: the options of the network.
      init: initialises the kernels of convolutions.
      same: whether a strided convolution pads as 'SAME' does (more after the image
        than before it) instead of equally on both sides.
    """

    common: Common
    init: Callable[..., Array]
    same: bool = False

    def conv(self, a: int, b: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
        """A convolution without bias, which the normalisation after it would remove."""
        return Conv(
            a,
            b,
            (size, size),
            strides=stride,
            padding='SAME' if self.same else size // 2,
            use_bias=False,
            dtype=self.common.dtype,
            kernel_init=self.init,
            rngs=rngs,
        )

    def norm(self, features: int, rngs: nnx.Rngs) -> SplitBatchNorm:
        """A normalisation with all branches."""
        return self.common.norm(features, rngs)


class Basic(nnx.Module):
    """Two 3x3 convolutions, activated after the sum (He et al. 2015)."""

    expansion = 1

    def __init__(self, style: Style, a: int, b: int, stride: int, rngs: nnx.Rngs):
        self.activation = style.common.activation
        self.conv1, self.norm1 = style.conv(a, b, 3, stride, rngs), style.norm(b, rngs)
        self.conv2, self.norm2 = style.conv(b, b, 3, 1, rngs), style.norm(b, rngs)
        self.projected = stride != 1 or a != b
        if self.projected:
            self.shortcut = style.conv(a, b, 1, stride, rngs)
            self.shortcut_norm = style.norm(b, rngs)

    def __call__(self, x: Array, branch: int) -> Array:
        """Passes through one branch of the normalisations."""
        y = self.activation(self.norm1(self.conv1(x), branch))
        y = self.norm2(self.conv2(y), branch)
        if self.projected:
            x = self.shortcut_norm(self.shortcut(x), branch)
        return self.activation(x + y)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions; the 3x3 one strides (ResNet "v1.5")."""

    expansion = 4

    def __init__(self, style: Style, a: int, b: int, stride: int, rngs: nnx.Rngs):
        self.activation = style.common.activation
        inner = b // self.expansion
        self.conv1 = style.conv(a, inner, 1, 1, rngs)
        self.conv2 = style.conv(inner, inner, 3, stride, rngs)
        self.conv3 = style.conv(inner, b, 1, 1, rngs)
        self.norm1, self.norm2 = (style.norm(inner, rngs) for _ in range(2))
        self.norm3 = style.norm(b, rngs)
        self.projected = stride != 1 or a != b
        if self.projected:
            self.shortcut = style.conv(a, b, 1, stride, rngs)
            self.shortcut_norm = style.norm(b, rngs)

    def __call__(self, x: Array, branch: int) -> Array:
        """Passes through one branch of the normalisations."""
        y = self.activation(self.norm1(self.conv1(x), branch))
        y = self.activation(self.norm2(self.conv2(y), branch))
        y = self.norm3(self.conv3(y), branch)
        if self.projected:
            x = self.shortcut_norm(self.shortcut(x), branch)
        return self.activation(x + y)


class PreActivation(nnx.Module):
    """Normalised and activated before each of two 3x3 convolutions (He et al. 2016).

    A projection is a ``size`` x ``size`` convolution of the activated input (He et
    al.), or of the input itself where ``raw``.
    """

    expansion = 1

    def __init__(self, style, a, b, stride, rngs, size=1, raw=False):
        self.activation, self.raw = style.common.activation, raw
        self.norm1, self.conv1 = style.norm(a, rngs), style.conv(a, b, 3, stride, rngs)
        self.norm2, self.conv2 = style.norm(b, rngs), style.conv(b, b, 3, 1, rngs)
        self.projected = stride != 1 or a != b
        if self.projected:
            self.shortcut = style.conv(a, b, size, stride, rngs)

    def __call__(self, x: Array, branch: int) -> Array:
        """Passes through one branch of the normalisations."""
        active = self.activation(self.norm1(x, branch))
        if self.projected:
            x = self.shortcut(x if self.raw else active)
        y = self.conv1(active)
        return x + self.conv2(self.activation(self.norm2(y, branch)))


class Plan(NamedTuple):
    """A residual network, from the pixels to the logits.

    Attributes:
      shape: (H, W, C) of one image.
      num_classes: K.
      block: ``(style, features in, features out, stride, rngs) -> module``.
      stem: features of the first convolution.
      stages: features and number of blocks of each stage; all but the first halve the
        image.
      imagenet: whether the stem is 7x7 with stride 2, before 3x3 max pooling with
        stride 2, and not 3x3.
      stem_norm: whether a normalisation and an activation follow the stem.
      last_norm: whether they close the last stage.
    """

    shape: tuple[int, ...]
    num_classes: int
    block: Callable[..., nnx.Module]
    stem: int
    stages: tuple[tuple[int, int], ...]
    imagenet: bool = False
    stem_norm: bool = False
    last_norm: bool = False


class _Residual(nnx.Module):
    def __init__(self, plan: Plan, style: Style, rngs: nnx.Rngs):
        self.plan, self.common = plan, style.common
        size = (7, 2) if plan.imagenet else (3, 1)
        self.stem = style.conv(plan.shape[-1], plan.stem, *size, rngs)
        if plan.stem_norm:
            self.stem_norm = style.norm(plan.stem, rngs)
        before, stages = plan.stem, []
        for number, (features, blocks) in enumerate(plan.stages):
            stage = []
            for k in range(blocks):
                stride = 2 if number and not k else 1
                stage.append(plan.block(style, before, features, stride, rngs))
                before = features
            stages.append(nnx.List(stage))
        self.stages = nnx.List(stages)
        if plan.last_norm:
            self.norm = style.norm(before, rngs)
        self.out = torch_linear(before, plan.num_classes, rngs)

    def features(self, x, branch=0):
        plan, activation = self.plan, self.common.activation
        x = self.stem(self.common.normalised(x))
        if plan.stem_norm:
            x = activation(self.stem_norm(x, branch))
        if plan.imagenet:
            x = convolutions.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                x = block(x, branch)
        if plan.last_norm:
            x = activation(self.norm(x, branch))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

    def __call__(self, x, branch=0):
        return self.out(self.features(x, branch))


def build(plan: Plan, style: Style, *namings: Naming) -> models.Model:
    """Makes a model of a plan, after checking both.

    Args:
      plan: the network.
      style: its layers.
      *namings: how published PyTorch weights may name them.

    Raises:
      ValueError: for a value out of range.
    """
    common = style.common
    common.check(plan.shape, plan.num_classes)
    model = models.from_nnx(functools.partial(_Residual, plan, style))
    return with_published(model, namings, common.mean, common.std)
