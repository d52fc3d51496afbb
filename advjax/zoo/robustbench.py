"""The networks behind RobustBench's names for CIFAR-10.

    model = zoo.robustbench('Rice2020Overfitting')
    params, state = zoo.load_published('Rice2020Overfitting.pt', model)

What a file of weights cannot tell is here: the layout, the activation, and how pixels
are normalised. Listed is every entry whose architecture the zoo has.
"""

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from advjax import models
from advjax.zoo.residual import CIFAR10_MEAN, CIFAR10_STD
from advjax.zoo.resnet import preact_resnet18, resnet18, resnet50
from advjax.zoo.wide_resnet import wide_resnet

_CIFAR = {'mean': CIFAR10_MEAN, 'std': CIFAR10_STD}
_HALF = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
_AUGUSTIN = {
    'mean': (0.4913997551666284, 0.48215855929893703, 0.4465309133731618),
    'std': (0.24703225141799082, 0.24348516474564, 0.26158783926049628),
}
_ENGSTROM = {'mean': CIFAR10_MEAN, 'std': (0.2023, 0.1994, 0.2010)}
_RONY = {'mean': (0.491, 0.482, 0.447), 'std': (0.247, 0.243, 0.262)}


def _wide(depth: int, width: int, **options: Any) -> Callable[..., models.Model]:
    return functools.partial(wide_resnet, depth, width, **options)


_28_10, _34_10, _34_20, _70_16 = (
    _wide(*size) for size in ((28, 10), (34, 10), (34, 20), (70, 16))
)
_GOWAL_28_10, _GOWAL_34_10, _GOWAL_34_20, _GOWAL_70_16, _GOWAL_106_16 = (
    _wide(*size, layout='gowal2020', activation=nnx.silu, **_CIFAR)
    for size in ((28, 10), (34, 10), (34, 20), (70, 16), (106, 16))
)
_GOWAL_R18 = functools.partial(
    preact_resnet18, layout='gowal2021', activation=nnx.silu, **_CIFAR
)
_WONG = functools.partial(preact_resnet18, layout='wong2020')
_RICE = functools.partial(preact_resnet18, layout='rice2020', **_CIFAR)

_NAMES: Mapping[str, Mapping[str, Callable[..., models.Model]]] = {
    'Linf': {
        'Addepalli2021Towards_RN18': resnet18,
        'Addepalli2021Towards_WRN34': _34_10,
        'Addepalli2022Efficient_RN18': resnet18,
        'Addepalli2022Efficient_WRN_34_10': _34_10,
        'Andriushchenko2020Understanding': _WONG,
        'Carmon2019Unlabeled': _28_10,
        'Chen2020Efficient': _wide(34, 10, **_CIFAR),
        'Chen2021LTD_WRN34_10': _34_10,
        'Chen2021LTD_WRN34_20': _34_20,
        'Cui2020Learnable_34_10': _34_10,
        'Cui2020Learnable_34_20': _34_20,
        'Engstrom2019Robustness': functools.partial(resnet50, **_ENGSTROM),
        'Gowal2020Uncovering_28_10_extra': _GOWAL_28_10,
        'Gowal2020Uncovering_34_20': _GOWAL_34_20,
        'Gowal2020Uncovering_70_16': _GOWAL_70_16,
        'Gowal2020Uncovering_70_16_extra': _GOWAL_70_16,
        'Gowal2021Improving_28_10_ddpm_100m': _GOWAL_28_10,
        'Gowal2021Improving_70_16_ddpm_100m': _GOWAL_70_16,
        'Gowal2021Improving_R18_ddpm_100m': _GOWAL_R18,
        'Hendrycks2019Using': _wide(28, 10, **_HALF),
        'Huang2020Self': _34_10,
        'Jia2022LAS-AT_34_10': _34_10,
        'Jia2022LAS-AT_70_16': _70_16,
        'Pang2022Robustness_WRN28_10': _GOWAL_28_10,
        'Pang2022Robustness_WRN70_16': _GOWAL_70_16,
        'Rade2021Helper_R18_ddpm': _GOWAL_R18,
        'Rade2021Helper_R18_extra': _GOWAL_R18,
        'Rade2021Helper_ddpm': _GOWAL_28_10,
        'Rade2021Helper_extra': _GOWAL_34_10,
        'Rebuffi2021Fixing_106_16_cutmix_ddpm': _GOWAL_106_16,
        'Rebuffi2021Fixing_28_10_cutmix_ddpm': _GOWAL_28_10,
        'Rebuffi2021Fixing_70_16_cutmix_ddpm': _GOWAL_70_16,
        'Rebuffi2021Fixing_70_16_cutmix_extra': _GOWAL_70_16,
        'Rebuffi2021Fixing_R18_ddpm': _GOWAL_R18,
        'Rice2020Overfitting': _wide(34, 20, **_CIFAR),
        'Sehwag2020Hydra': _28_10,
        'Sehwag2021Proxy': _34_10,
        'Sehwag2021Proxy_R18': resnet18,
        'Sitawarin2020Improving': _34_10,
        'Sridhar2021Robust': _28_10,
        'Sridhar2021Robust_34_15': _wide(34, 15),
        'Standard': _28_10,
        'Wang2020Improving': _28_10,
        'Wang2023Better_WRN-28-10': _GOWAL_28_10,
        'Wang2023Better_WRN-70-16': _GOWAL_70_16,
        'Wong2020Fast': functools.partial(_WONG, **_CIFAR),
        'Wu2020Adversarial': _34_10,
        'Wu2020Adversarial_extra': _28_10,
        'Xu2023Exploring_WRN-28-10': _GOWAL_28_10,
        'Zhang2019Theoretically': _34_10,
        'Zhang2019You': _34_10,
        'Zhang2020Attacks': _34_10,
        'Zhang2020Geometry': _28_10,
    },
    'L2': {
        'Augustin2020Adversarial': functools.partial(resnet50, **_AUGUSTIN),
        'Augustin2020Adversarial_34_10': _wide(34, 10, **_AUGUSTIN),
        'Augustin2020Adversarial_34_10_extra': _wide(34, 10, **_AUGUSTIN),
        'Engstrom2019Robustness': functools.partial(resnet50, **_ENGSTROM),
        'Gowal2020Uncovering': _GOWAL_70_16,
        'Gowal2020Uncovering_extra': _GOWAL_70_16,
        'Rade2021Helper_R18_ddpm': _GOWAL_R18,
        'Rebuffi2021Fixing_28_10_cutmix_ddpm': _GOWAL_28_10,
        'Rebuffi2021Fixing_70_16_cutmix_ddpm': _GOWAL_70_16,
        'Rebuffi2021Fixing_70_16_cutmix_extra': _GOWAL_70_16,
        'Rebuffi2021Fixing_R18_cutmix_ddpm': _GOWAL_R18,
        'Rice2020Overfitting': _RICE,
        'Rony2019Decoupling': _wide(28, 10, **_RONY),
        'Sehwag2021Proxy': _34_10,
        'Sehwag2021Proxy_R18': resnet18,
        'Standard': _28_10,
        'Wang2023Better_WRN-28-10': _GOWAL_28_10,
        'Wang2023Better_WRN-70-16': _GOWAL_70_16,
        'Wu2020Adversarial': _34_10,
    },
    'corruptions': {
        'Addepalli2021Towards_WRN34': _34_10,
        'Addepalli2022Efficient_WRN_34_10': _34_10,
        'Hendrycks2020AugMix_WRN': _wide(40, 2, **_HALF),
        'Kireev2021Effectiveness_AugMixNoJSD': _RICE,
        'Kireev2021Effectiveness_Gauss50percent': _RICE,
        'Kireev2021Effectiveness_RLAT': _RICE,
        'Kireev2021Effectiveness_RLATAugMix': _RICE,
        'Kireev2021Effectiveness_RLATAugMixNoJSD': _RICE,
        'Rebuffi2021Fixing_70_16_cutmix_extra_L2': _GOWAL_70_16,
        'Rebuffi2021Fixing_70_16_cutmix_extra_Linf': _GOWAL_70_16,
        'Standard': _28_10,
    },
}


def robustbench(name: str, threat_model: str = 'Linf', **options: Any) -> models.Model:
    """The network of an entry of RobustBench for CIFAR-10, without its weights.

    Args:
      name: the model's name there, such as 'Wong2020Fast'.
      threat_model: 'Linf', 'L2' or 'corruptions'; some names stand for different
        networks in each.
      **options: further arguments of the network, such as ``branches=2``.

    Raises:
      ValueError: for a threat model that there is not, and for an entry that there is
        not or whose architecture the zoo lacks.

    Reference: Croce et al. 2021, arXiv 2010.09670, and the code of its model zoo.
    """
    if threat_model not in _NAMES:
        raise ValueError(
            f'threat_model must be one of {list(_NAMES)}, got {threat_model!r}'
        )
    entries = _NAMES[threat_model]
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
        raise ValueError(
            f'name must be one of the {len(entries)} entries for {threat_model}, such '
            f'as {near or sorted(entries)[:3]}, got {name!r}'
        )
    return entries[name](shape=(32, 32, 3), num_classes=10, **options)
