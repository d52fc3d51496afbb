"""Wide residual networks."""

import functools
from typing import Any, Unpack

from advjax import models
from advjax.zoo.options import Common, Options
from advjax.zoo.published import GOWAL_WIDE, TRADES
from advjax.zoo.residual import KAIMING_INIT, Plan, PreActivation, Style, build

_LAYOUTS = {'trades': (False, TRADES), 'gowal2020': (True, GOWAL_WIDE)}


@functools.cache
def wide_resnet(
    depth: int,
    width: int,
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    layout: str = 'trades',
    channels: int = 16,
    **options: Unpack[Options],
) -> models.Model:
    r"""WRN-depth-width: three stages of (depth - 4) / 6 pre-activation blocks.

    A 3x3 convolution to 16 features, stages of 16, 32 and 64 times ``width``, a last
    normalisation. No dropout, as in the robustness literature. The two layouts have
    the same parameters; on an image of even sides the strided convolutions of
    'gowal2020' see it shifted by one pixel, because they pad as 'SAME' does.

    ===========  =====================================================================
    layout       weights of
    ===========  =====================================================================
    'trades'     Zhang (TRADES), Carmon, Rice, Wu, Sehwag, Wang 2020 and most others
    'gowal2020'  Gowal, Rebuffi, Rade, Pang 2022, Wang 2023, with
                 ``activation=nnx.silu`` and the normalisation of CIFAR-10
    ===========  =====================================================================

    Args:
      depth: number of layers, 6 n + 4 with n blocks in each stage.
      width: the factor of the features.
      shape: (H, W, C) of one image.
      num_classes: K.
      layout: the row of the table.
      channels: features of the first convolution; fewer make a smaller network.
      **options: branches, activation, dtype, mean and std; see ``zoo.Common``.

    Reference: Zagoruyko and Komodakis 2016, arXiv 1605.07146; Zhang et al. 2019, arXiv
    1901.08573; Gowal et al. 2020, arXiv 2010.03593.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f'layout must be one of {list(_LAYOUTS)}, got {layout!r}')
    if not (isinstance(depth, int) and depth >= 10 and depth % 6 == 4):
        raise ValueError(f'depth must be 10, 16, 22, 28, ..., got {depth!r}')
    for name, value in (('width', width), ('channels', channels)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f'{name} must be an integer >= 1, got {value!r}')
    same, naming = _LAYOUTS[layout]
    blocks = (depth - 4) // 6
    stages = tuple((factor * channels * width, blocks) for factor in (1, 2, 4))
    plan = Plan(shape, num_classes, PreActivation, channels, stages, last_norm=True)
    return build(plan, Style(Common(**options), KAIMING_INIT, same), naming)


def wide_resnet_28_10(
    shape: tuple[int, ...] = (32, 32, 3), num_classes: int = 10, **options: Any
) -> models.Model:
    """WRN-28-10, 36,479,194 parameters; options as in ``wide_resnet``."""
    return wide_resnet(28, 10, shape, num_classes, **options)


def wide_resnet_34_10(
    shape: tuple[int, ...] = (32, 32, 3), num_classes: int = 10, **options: Any
) -> models.Model:
    """WRN-34-10, 46,160,474 parameters; options as in ``wide_resnet``."""
    return wide_resnet(34, 10, shape, num_classes, **options)


def wide_resnet_70_16(
    shape: tuple[int, ...] = (32, 32, 3), num_classes: int = 10, **options: Any
) -> models.Model:
    """WRN-70-16, 266,796,506 parameters; options as in ``wide_resnet``."""
    return wide_resnet(70, 16, shape, num_classes, **options)
