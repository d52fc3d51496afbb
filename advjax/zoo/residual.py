"""The parts of residual networks, and how a network is made of them.

Pixels are float32 in [0, 1]; ``mean`` and ``std`` normalise them inside the network, so
a radius stays a radius in pixels. With ``dtype=jnp.bfloat16`` layers compute in
bfloat16, while pixels, parameters, batch statistics, features and logits are float32.

Convolutions go through ``advjax.convolutions``, whose gradients are fast in loops on
CPU and have no forward mode. A network starts as PyTorch's do. One thing differs from
PyTorch: its running variance is the unbiased one, here it is that of the batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from advjax import convolutions, models
from advjax.types import Array
from advjax.zoo.pixels import check_options, normalised
from advjax.zoo.published import Naming, with_published
from advjax.zoo.split_norm import SplitBatchNorm
from advjax.zoo.torch_init import TORCH_INIT, torch_uniform

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
"""Means of the channels of CIFAR-10, as Wong et al. 2020 and most others print them."""

CIFAR10_STD = (0.2471, 0.2435, 0.2616)
"""Their standard deviations over all pixels."""

# He's, for what a ReLU reads.
KAIMING_INIT = nnx.initializers.variance_scaling(2, 'fan_out', 'normal')


class Style(NamedTuple):
    """What all layers of one network have in common.

    Attributes:
      activation: the nonlinearity.
      branches: of every normalisation.
      dtype: what is computed in.
      init: of the kernels of convolutions.
      same: whether a stride pads as 'SAME' does (more behind than before) instead of
        alike on both sides.
    """

    activation: Callable[[Array], Array]
    branches: int
    dtype: Any
    init: Callable[..., Array]
    same: bool = False

    def conv(self, a: int, b: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
        """A convolution without bias: a normalisation would take it away again."""
        return nnx.Conv(
            a,
            b,
            (size, size),
            strides=stride,
            padding='SAME' if self.same else size // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.init,
            conv_general_dilated=convolutions.conv_general_dilated,
            rngs=rngs,
        )

    def norm(self, features: int, rngs: nnx.Rngs) -> SplitBatchNorm:
        """A normalisation in all branches."""
        return SplitBatchNorm(features, self.branches, dtype=self.dtype, rngs=rngs)


class Basic(nnx.Module):
    """Two 3x3 convolutions, activated after the sum (He et al. 2015)."""

    expansion = 1

    def __init__(self, style: Style, a: int, b: int, stride: int, rngs: nnx.Rngs):
        self.activation = style.activation
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
        self.activation = style.activation
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
        self.activation, self.raw = style.activation, raw
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
      mean: subtracted from the pixels, per channel; None for nothing.
      std: what they are then divided by.
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
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    imagenet: bool = False
    stem_norm: bool = False
    last_norm: bool = False


class _Residual(nnx.Module):
    def __init__(self, plan: Plan, style: Style, rngs: nnx.Rngs):
        self.plan, self.activation = plan, style.activation
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
        self.out = nnx.Linear(
            before,
            plan.num_classes,
            kernel_init=TORCH_INIT,
            bias_init=torch_uniform(before),
            rngs=rngs,
        )

    def features(self, x, branch=0):
        plan = self.plan
        x = self.stem(normalised(x, plan.mean, plan.std))
        if plan.stem_norm:
            x = self.activation(self.stem_norm(x, branch))
        if plan.imagenet:
            x = convolutions.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                x = block(x, branch)
        if plan.last_norm:
            x = self.activation(self.norm(x, branch))
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
    check_options(
        plan.shape,
        plan.num_classes,
        style.branches,
        style.dtype,
        plan.mean,
        plan.std,
    )
    model = models.from_nnx(functools.partial(_Residual, plan, style))
    return with_published(model, namings, plan.mean, plan.std)
