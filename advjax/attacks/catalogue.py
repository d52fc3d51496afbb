"""Every attack of the library: norms, what it must know, what it costs, its paper.

    for entry in attacks.catalogue():
        print(entry.name, entry.norms, entry.cost)

The table of the README is ``advjax.attacks.catalogue.table()``.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal

from advjax import balls
from advjax.attacks.apgd import apgd
from advjax.attacks.autoattack import autoattack
from advjax.attacks.boundary import boundary
from advjax.attacks.carlini_wagner import carlini_wagner
from advjax.attacks.ddn import ddn
from advjax.attacks.deepfool import deepfool
from advjax.attacks.ead import ead
from advjax.attacks.estimation import nes, spsa
from advjax.attacks.fab import fab
from advjax.attacks.fmn import fmn
from advjax.attacks.frank_wolfe import frank_wolfe
from advjax.attacks.hop_skip_jump import hop_skip_jump
from advjax.attacks.jsma import jsma
from advjax.attacks.lbfgs import lbfgs
from advjax.attacks.named import (
    adam_pgd,
    bim,
    fgm,
    fgsm,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pgd_l0,
    pgd_l1,
    rand_fgsm,
    vmi_fgsm,
)
from advjax.attacks.random_search import random_search
from advjax.attacks.spatial import spatial
from advjax.attacks.square import square
from advjax.attacks.universal import universal

Knowledge = Literal['white box', 'scores', 'decisions', 'transfer']


@dataclasses.dataclass(frozen=True)
class Entry:
    """One attack of the library.

    Attributes:
      name: of its factory in ``advjax.attacks``.
      factory: the function; its first argument is the ball, if there are norms.
      norms: of the balls it is defined on, the usual one first.
      goal: 'fixed radius', 'minimum norm' or 'other'.
      knowledge: what it must know of the model.
      paper: first author, year, arXiv id.
    """

    name: str
    factory: Callable[..., Any]
    norms: tuple[str, ...]
    goal: str
    knowledge: Knowledge
    paper: str

    def build(
        self, norm: str | None = None, eps: float | None = None, **options: Any
    ) -> Any:
        """The attack in a ball on [0, 1].

        Args:
          norm: one of ``norms``; the first by default.
          eps: the radius; by default infinite for minimum-norm attacks, and for the
            others 0.3, 2, 10 and 10 in Linf, L2, L1 and L0.
          **options: of the factory; its own defaults by default.

        Raises:
          ValueError: if the attack is not defined in that norm, or has no such option.
        """
        known = inspect.signature(self.factory).parameters
        for option in options:
            if option not in known:
                raise ValueError(f'{self.name} has no option {option!r}')
        if not self.norms:
            return self.factory(**options)
        norm = norm or self.norms[0]
        if norm not in self.norms:
            raise ValueError(
                f'norm of {self.name} must be one of {list(self.norms)}, got {norm!r}'
            )
        if eps is None:
            usual = {'linf': 0.3, 'l2': 2.0, 'l1': 10.0, 'l0': 10.0}[norm]
            eps = float('inf') if self.goal == 'minimum norm' else usual
        return self.factory(balls.of_norm(norm, eps), **options)

    @property
    def cost(self) -> int | None:
        """Model calls per example with default settings, at most."""
        return getattr(self.build(), 'calls', None)


_ALL = ('linf', 'l2', 'l1', 'l0')
_THREE = ('linf', 'l2', 'l1')
_L2_FIRST = ('l2', 'linf', 'l1', 'l0')
_FIXED, _MINIMUM, _OTHER = 'fixed radius', 'minimum norm', 'other'
_WHITE: Knowledge = 'white box'

_ENTRIES = (
    Entry('fgsm', fgsm, ('linf',), _FIXED, _WHITE, 'Goodfellow 2015, 1412.6572'),
    Entry('fgm', fgm, _ALL, _FIXED, _WHITE, 'Goodfellow 2015, 1412.6572'),
    Entry('rand_fgsm', rand_fgsm, ('linf',), _FIXED, _WHITE, 'Tramer 2018, 1705.07204'),
    Entry('bim', bim, _ALL, _FIXED, _WHITE, 'Kurakin 2017, 1607.02533'),
    Entry('pgd', pgd, _ALL, _FIXED, _WHITE, 'Madry 2018, 1706.06083'),
    Entry('pgd_l1', pgd_l1, ('l1',), _FIXED, _WHITE, 'Tramer 2019, 1904.13000'),
    Entry('pgd_l0', pgd_l0, ('l0',), _FIXED, _WHITE, 'Croce 2019, 1909.05040'),
    Entry('adam_pgd', adam_pgd, _ALL, _FIXED, _WHITE, 'Uesato 2018, 1802.05666'),
    Entry('apgd', apgd, _THREE, _FIXED, _WHITE, 'Croce 2020, 2003.01690'),
    Entry('frank_wolfe', frank_wolfe, _THREE, _FIXED, _WHITE, 'Chen 2020, 1811.10828'),
    Entry('autoattack', autoattack, _THREE, _FIXED, _WHITE, 'Croce 2020, 2003.01690'),
    Entry('mi_fgsm', mi_fgsm, _ALL, _FIXED, 'transfer', 'Dong 2018, 1710.06081'),
    Entry('ni_fgsm', ni_fgsm, _ALL, _FIXED, 'transfer', 'Lin 2020, 1908.06281'),
    Entry('vmi_fgsm', vmi_fgsm, _ALL, _FIXED, 'transfer', 'Wang 2021, 2103.15571'),
    Entry('lbfgs', lbfgs, ('l2',), _MINIMUM, _WHITE, 'Szegedy 2014, 1312.6199'),
    Entry(
        'deepfool',
        deepfool,
        ('l2', 'linf', 'l1'),
        _MINIMUM,
        _WHITE,
        'Moosavi-Dezfooli 2016, 1511.04599',
    ),
    Entry(
        'carlini_wagner',
        carlini_wagner,
        ('l2', 'linf', 'l0'),
        _MINIMUM,
        _WHITE,
        'Carlini 2017, 1608.04644',
    ),
    Entry('ead', ead, ('l1',), _MINIMUM, _WHITE, 'Chen 2018, 1709.04114'),
    Entry('ddn', ddn, ('l2',), _MINIMUM, _WHITE, 'Rony 2019, 1811.09600'),
    Entry(
        'fmn',
        fmn,
        ('l2', 'linf', 'l1', 'l0'),
        _MINIMUM,
        _WHITE,
        'Pintor 2021, 2102.12827',
    ),
    Entry('fab', fab, _THREE, _MINIMUM, _WHITE, 'Croce 2020, 1907.02044'),
    Entry('jsma', jsma, ('l0',), _MINIMUM, _WHITE, 'Papernot 2016, 1511.07528'),
    Entry(
        'square', square, _THREE, _FIXED, 'scores', 'Andriushchenko 2020, 1912.00049'
    ),
    Entry('spsa', spsa, _ALL, _FIXED, 'scores', 'Uesato 2018, 1802.05666'),
    Entry('nes', nes, _ALL, _FIXED, 'scores', 'Ilyas 2018, 1804.08598'),
    Entry('random_search', random_search, _ALL, _FIXED, 'scores', 'a baseline'),
    Entry(
        'boundary', boundary, ('l2',), _MINIMUM, 'decisions', 'Brendel 2018, 1712.04248'
    ),
    Entry(
        'hop_skip_jump',
        hop_skip_jump,
        ('l2', 'linf'),
        _MINIMUM,
        'decisions',
        'Chen 2020, 1904.02144',
    ),
    Entry('spatial', spatial, (), _OTHER, 'scores', 'Engstrom 2019, 1712.02779'),
    Entry('universal', universal, _ALL, _OTHER, _WHITE, 'Shafahi 2020, 1811.11304'),
)


def catalogue() -> tuple[Entry, ...]:
    """All attacks, in the order fixed radius, transfer, minimum norm, black box."""
    return _ENTRIES


def table() -> str:
    """The catalogue in Markdown."""
    lines = [
        '| attack | norms | looks for | knowledge | model calls | paper |',
        '|---|---|---|---|---:|---|',
    ]
    for entry in _ENTRIES:
        calls = entry.cost
        cost = f'{calls:,}' if calls else 'as needed'
        norms = (
            ', '.join(norm.capitalize() for norm in entry.norms) or 'rotation, shift'
        )
        lines.append(
            f'| `{entry.name}` | {norms} | {entry.goal} | {entry.knowledge} | {cost} | '
            f'{entry.paper} |'
        )
    return '\n'.join(lines)
