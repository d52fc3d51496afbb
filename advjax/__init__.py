"""advjax: adversarial examples and adversarial training as pure JAX functions.

    import advjax

    ball = advjax.linf(0.3)
    attack = advjax.attacks.pgd(ball, steps=40)
    x_adv = attack(logits_fn, key, x, y)        # pure: call it inside your jit

The rooms: ``attacks`` (searches for the worst input in a ball), ``training``
(methods, the pure step, the loop), ``evaluation`` (verified robust accuracy),
``report`` (pages and charts), ``models`` and ``zoo`` (networks), ``data``; and the
vocabulary they share: ``types``, ``balls``, ``losses``, ``keys``.
"""

import importlib
from typing import TYPE_CHECKING

from advjax.version import __version__

if TYPE_CHECKING:
    from advjax import attacks as attacks
    from advjax import balls as balls
    from advjax import certify as certify
    from advjax import data as data
    from advjax import defenses as defenses
    from advjax import evaluation as evaluation
    from advjax import features as features
    from advjax import files as files
    from advjax import geometry as geometry
    from advjax import keys as keys
    from advjax import losses as losses
    from advjax import masks as masks
    from advjax import models as models
    from advjax import projections as projections
    from advjax import report as report
    from advjax import sharding as sharding
    from advjax import testing as testing
    from advjax import training as training
    from advjax import types as types
    from advjax import zoo as zoo
    from advjax.balls import l0 as l0
    from advjax.balls import l1 as l1
    from advjax.balls import l2 as l2
    from advjax.balls import linf as linf

_ROOMS = (
    'attacks', 'balls', 'certify', 'data', 'defenses', 'evaluation', 'features',
    'files', 'geometry', 'keys', 'losses', 'masks', 'models', 'projections', 'report',
    'sharding', 'testing', 'training', 'types', 'zoo',
)  # fmt: skip
_BALLS = ('l0', 'l1', 'l2', 'linf')

__all__ = ['__version__', *_ROOMS, *_BALLS]


def __getattr__(name: str):
    # Rooms are imported when first used: flax and optax take longer to import than
    # JAX itself, and many programs need one room only.
    if name in _ROOMS:
        return importlib.import_module(f'advjax.{name}')
    if name in _BALLS:
        return getattr(importlib.import_module('advjax.balls'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(__all__)
