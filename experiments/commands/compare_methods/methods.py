"""The rows of the table: every method, and what it is expected to withstand.

Numbers of a method are those of its paper for MNIST where it has any, else the
library's defaults. Attacks within the training have as many steps as make an update of
every iterative method cost the same as one of PGD-AT.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from advjax import balls, training
from advjax.balls import Ball
from advjax.training import Method
from advjax.types import LogitsFn
from experiments.commands.choices import growing

Networks = Mapping[str, LogitsFn]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all methods have in common.

    Attributes:
      ball: the threat model.
      steps: attack steps of PGD-AT, whose update costs one gradient more.
      degrees, pixels: largest rotation and translation of spatial training.
    """

    ball: Ball
    steps: int
    degrees: float = 30.0
    pixels: float = 3.0

    def leaving(self, outer: int) -> int:
        """Attack steps that are left beside ``outer`` gradients of the outer loss."""
        return max(1, self.steps + 1 - outer)

    def named(self) -> dict[str, Any]:
        """Options that are the same in every method that has them."""
        return {
            'degrees': self.degrees,
            'pixels': self.pixels,
            'replays': self.steps + 1,
        }


@dataclasses.dataclass(frozen=True)
class Row:
    """One training of the table.

    Attributes:
      entry: of the catalogue.
      name: for the command line and for folders.
      title: in the table.
      options: of the method, where not its defaults.
      note: what to know about it.
      why: why it falls to that adversary; said only if it does.
      needs: rows whose networks it takes.
      averaging: of the weights, or None.
      variant: of another row, and left out of 'all'.
    """

    entry: training.Entry
    name: str
    title: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ''
    why: str = ''
    needs: tuple[str, ...] = ()
    averaging: Any = None
    variant: bool = False

    @property
    def defends(self) -> bool:
        """Whether it is meant to withstand the table's adversary."""
        return not self.entry.weakness

    @property
    def split(self) -> bool:
        """Whether its network has split batch normalisation.

        The auxiliary branch is evaluated as well.
        """
        return self.entry.network == 'branches'

    def build(self, setting: Setting, networks: Networks) -> Method:
        """Makes the method, from what is common and the networks it needs."""
        entry, given = self.entry, dict(self.options)
        if 'ball' in entry.needs or 'method' in entry.needs:
            given.setdefault('ball', setting.ball)
        if entry.steps is not None:
            given['steps'] = setting.leaving(entry.cost[1])
        if 'teacher' in entry.needs:
            given['teacher'] = networks[self.needs[0]]
        if 'sources' in entry.needs:
            given['sources'] = [networks[name] for name in self.needs]
        for name, value in setting.named().items():
            if name in entry.options:
                given.setdefault(name, value)
        return entry.build(**given)


NO_ADVERSARY = 'no adversary in training'

_SAID: dict[str, dict[str, Any]] = {
    'gaussian': {
        'title': 'Gaussian noise 0.25',
        'options': {'sigma': 0.25},
        'note': 'for smoothing',
    },
    'noise': {'variant': True},
    'grad_align': {
        'options': {'coefficient': 2.0},
        'note': 'lambda 2',
        'why': 'that weight was published for 16 / 255, and not tuned for this radius',
    },
    'trades': {'options': {'beta': 1.0}, 'note': 'beta 1'},
    'mart': {'note': 'lambda 5'},
    'alp': {'note': 'lambda 0.5'},
    'clp': {'note': 'noise 0.5, lambda 0.5'},
    'squeezing': {'note': 'noise 0.5, lambda 0.5', 'variant': True},
    'llr': {'note': 'lambda 4, mu 3'},
    'awp': {'note': 'gamma 0.01'},
    'advprop': {'note': 'split batch normalisation'},
    'joint': {'variant': True},
    'ensemble_at': {
        'note': 'sources: standard, Gaussian noise',
        'needs': ('standard', 'gaussian'),
    },
    'vat': {'options': {'ball': 2.0}, 'note': 'L2 2'},
    'at_temperature': {'note': 'teacher of distillation'},
    'distillation': {'note': 'T 20', 'needs': ('at_temperature',)},
    'ard': {'note': 'teacher: PGD-AT; T 30', 'needs': ('pgd_at',)},
    'rslad': {'note': 'teacher: PGD-AT', 'needs': ('pgd_at',), 'variant': True},
    'smooth_labels': {'note': 'amount 0.1'},
}
"""What the table says and sets beyond the catalogue, by the method's name."""

_NEEDS = {'teacher': ('pgd_at',), 'sources': ('standard', 'gaussian')}
"""Rows that serve as other networks, unless said otherwise."""


def _row(entry: training.Entry) -> Row:
    needs = tuple(name for need in entry.needs for name in _NEEDS.get(need, ()))
    known: dict[str, Any] = {
        'title': entry.title,
        'why': entry.weakness,
        'needs': needs,
    }
    return Row(entry, entry.name, **{**known, **_SAID.get(entry.name, {})})


# A network that states a loss of its own is another network than that of all rows.
_LISTED = tuple(_row(e) for e in training.catalogue() if e.network != 'own loss')
_ROWS = (
    *_LISTED,
    dataclasses.replace(
        next(row for row in _LISTED if row.name == 'pgd_at'),
        name='ema',
        title='PGD-AT, EMA',
        note='decay 0.995',
        averaging=training.ema(0.995),
    ),
)

ROWS = {row.name: row for row in _ROWS}
"""By name, each after those that it needs."""


def chosen(names: str) -> list[Row]:
    """The rows that are asked for, those that they need, and ``standard``.

    Args:
      names: 'all', or names with commas between.

    Raises:
      ValueError: for a name that there is not.
    """
    wanted = {n.strip() for n in names.split(',')}
    if names == 'all':
        wanted = {row.name for row in _ROWS if not row.variant}
    if not wanted <= set(ROWS):
        unknown = ', '.join(sorted(wanted - set(ROWS)))
        raise ValueError(
            f'methods must be all, or some of {", ".join(ROWS)}, got {unknown}'
        )
    needed = {need for name in wanted for need in ROWS[name].needs}
    return [row for row in _ROWS if row.name in wanted | needed | {'standard'}]


def warmed(method: Method, updates: int) -> Method:
    """The method, its radius growing from 0 over the first updates, if it has one."""
    if not balls.of(method):
        return method
    return training.scheduled(method, eps=growing(updates))
