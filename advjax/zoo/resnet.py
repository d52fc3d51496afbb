"""PreActResNet-18, ResNet-18 and ResNet-50.

Papers leave open what matters to a weight file: where a shortcut starts, whether a
normalisation closes the network, how a stride pads. The details here are those of the
code that trained the published weights. Such a set of details is a ``layout``, named
after work that used it.
"""

import functools
from typing import Unpack

from advjax import models
from advjax.zoo.layers import TORCH_INIT
from advjax.zoo.options import Common, Options
from advjax.zoo.published import GOWAL_PREACT, KUANGLIU, TORCHVISION
from advjax.zoo.residual import (
    KAIMING_INIT,
    Basic,
    Bottleneck,
    Plan,
    PreActivation,
    Style,
    build,
)

# The block, whether a norm closes the network, whether strides pad as 'SAME' does.
_LAYOUTS = {
    'rice2020': (PreActivation, True, False, KUANGLIU),
    'kuangliu': (PreActivation, False, False, KUANGLIU),
    'wong2020': (functools.partial(PreActivation, raw=True), False, False, KUANGLIU),
    'gowal2021': (
        functools.partial(PreActivation, raw=True, size=3),
        True,
        True,
        GOWAL_PREACT,
    ),
}


def _stages(widths: tuple[int, ...], blocks: tuple[int, ...], expansion: int = 1):
    if not 1 <= len(widths) <= len(blocks) or min(widths) < 1:
        raise ValueError(
            f'widths must hold 1 to {len(blocks)} integers >= 1, got {widths}'
        )
    return tuple(
        (expansion * width, count) for width, count in zip(widths, blocks, strict=False)
    )


@functools.cache
def preact_resnet18(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    layout: str = 'rice2020',
    widths: tuple[int, ...] = (64, 128, 256, 512),
    **options: Unpack[Options],
) -> models.Model:
    r"""PreActResNet-18: four stages of two pre-activation blocks.

    .. math:: y = h(x) + W_2\, a(\mathrm{BN}(W_1\, a(\mathrm{BN}(x))))

    with :math:`h` the identity, or a projection where the shape changes. Layouts:

    ===========  ===========================  =========  ==========  =================
    layout       projection                   last norm  parameters  weights of
    ===========  ===========================  =========  ==========  =================
    'rice2020'   1x1 of the activated input   yes        11,172,170  Rice, Kireev
    'kuangliu'   1x1 of the activated input   no         11,171,146
    'wong2020'   1x1 of the input             no         11,171,146  Wong,
                                                                     Andriushchenko
    'gowal2021'  3x3 of the input             yes        12,548,426  Gowal, Rebuffi,
                                                                     Rade
    ===========  ===========================  =========  ==========  =================

    'gowal2021' pads a stride as 'SAME' does, and its weights want
    ``activation=nnx.silu`` and the normalisation of CIFAR-10.

    Args:
      shape: (H, W, C) of one image.
      num_classes: K.
      layout: the row of the table.
      widths: features of each stage; fewer than four make a smaller network.
      **options: branches, activation a, dtype, mean and std; see ``zoo.Common``.

    Reference: He et al. 2016, arXiv 1603.05027; Rice et al. 2020, arXiv 2002.11569;
    Wong et al. 2020, arXiv 2001.03994; Gowal et al. 2021, arXiv 2110.09468.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f'layout must be one of {list(_LAYOUTS)}, got {layout!r}')
    block, last_norm, same, naming = _LAYOUTS[layout]
    stages = _stages(widths, (2, 2, 2, 2))
    plan = Plan(shape, num_classes, block, widths[0], stages, last_norm=last_norm)
    return build(plan, Style(Common(**options), TORCH_INIT, same), naming)


@functools.cache
def resnet18(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    stem: str = 'cifar',
    widths: tuple[int, ...] = (64, 128, 256, 512),
    **options: Unpack[Options],
) -> models.Model:
    """ResNet-18: four stages of two basic blocks.

    11,173,962 parameters with the stem of small images, a 3x3 convolution;
    11,689,512 with ``stem='imagenet', num_classes=1000``: a 7x7 convolution of stride
    2 and 3x3 max pooling of stride 2.

    Args:
      shape: (H, W, C) of one image.
      num_classes: K.
      stem: 'cifar' or 'imagenet'.
      widths: features of each stage; fewer than four make a smaller network.
      **options: branches, activation, dtype, mean and std; see ``zoo.Common``.

    Reference: He et al. 2015, arXiv 1512.03385.
    """
    stages = _stages(widths, (2, 2, 2, 2))
    return _resnet(shape, num_classes, Basic, stem, widths, stages, options)


@functools.cache
def resnet50(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    stem: str = 'cifar',
    widths: tuple[int, ...] = (64, 128, 256, 512),
    **options: Unpack[Options],
) -> models.Model:
    """ResNet-50: stages of 3, 4, 6 and 3 bottlenecks.

    23,520,842 parameters with the stem of small images, 25,557,032 with
    ``stem='imagenet', num_classes=1000``. The 3x3 convolution of a bottleneck strides,
    not the first one as in the paper, as in all published weights. The arguments are
    those of ``resnet18``; a stage ends with four times as many features as its width.

    Reference: He et al. 2015, arXiv 1512.03385.
    """
    stages = _stages(widths, (3, 4, 6, 3), Bottleneck.expansion)
    return _resnet(shape, num_classes, Bottleneck, stem, widths, stages, options)


def _resnet(shape, num_classes, block, stem, widths, stages, options) -> models.Model:
    if stem not in ('cifar', 'imagenet'):
        raise ValueError(f"stem must be one of ['cifar', 'imagenet'], got {stem!r}")
    imagenet = stem == 'imagenet'
    plan = Plan(shape, num_classes, block, widths[0], stages, imagenet, stem_norm=True)
    style = Style(Common(**options), KAIMING_INIT if imagenet else TORCH_INIT)
    return build(plan, style, KUANGLIU, TORCHVISION)
