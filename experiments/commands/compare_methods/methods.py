"""The rows of the table: every method, and what it is expected to withstand.

Numbers of a method are those of its paper for MNIST where it has any, else the
library's defaults. Attacks within the training have as many steps as make an update of
every iterative method cost the same as one of PGD-AT.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import optax

from advjax import balls, training
from advjax.balls import Ball
from advjax.training import Method
from advjax.types import LogitsFn

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


@dataclasses.dataclass(frozen=True)
class Row:
    """One training of the table.

    Attributes:
      name: for the command line and for folders.
      title: in the table.
      build: makes the method, from what is common and the networks it needs.
      defends: whether it is meant to withstand the table's adversary.
      note: what to know about it.
      why: why it falls to that adversary; said only if it does.
      needs: rows whose networks it takes.
      averaging: of the weights, or None.
      split: a network with split batch normalisation; its auxiliary branch is
        evaluated besides.
      variant: of another row, and left out of 'all'.
    """

    name: str
    title: str
    build: Callable[[Setting, Networks], Method]
    defends: bool = False
    note: str = ''
    why: str = ''
    needs: tuple[str, ...] = ()
    averaging: Any = None
    split: bool = False
    variant: bool = False


NO_ADVERSARY = 'no adversary in training'

_ROWS = (
    Row('standard', 'standard', lambda s, _: training.standard(), why=NO_ADVERSARY),
    Row(
        'gaussian',
        'Gaussian noise 0.25',
        lambda s, _: training.gaussian_augmentation(0.25),
        note='for smoothing',
        why='random noise is no adversary',
    ),
    Row(
        'fgsm_at',
        'FGSM-AT',
        lambda s, _: training.fgsm_at(s.ball),
        why='one step from the image itself, which the network learns to mislead',
    ),
    Row('pgd_at', 'PGD-AT', lambda s, _: training.pgd_at(s.ball, s.steps), True),
    Row('fast', 'Fast (FGSM-RS)', lambda s, _: training.fast(s.ball), True),
    Row(
        'grad_align',
        'GradAlign',
        lambda s, _: training.grad_align(s.ball, 2.0),
        True,
        note='lambda 2',
        why='that weight was published for 16 / 255, and not tuned for this radius',
    ),
    Row(
        'free',
        'Free',
        lambda s, _: training.free(s.ball, s.steps + 1),
        True,
    ),
    Row(
        'trades',
        'TRADES',
        lambda s, _: training.trades(s.ball, 1.0, s.leaving(2)),
        True,
        note='beta 1',
    ),
    Row(
        'mart',
        'MART',
        lambda s, _: training.mart(s.ball, steps=s.leaving(2)),
        True,
        note='lambda 5',
    ),
    Row(
        'alp',
        'ALP',
        lambda s, _: training.adversarial_logit_pairing(s.ball, steps=s.leaving(2)),
        True,
        note='lambda 0.5',
    ),
    Row(
        'clp',
        'CLP',
        lambda s, _: training.clean_logit_pairing(),
        note='noise 0.5, lambda 0.5',
        why=f'{NO_ADVERSARY}: small logits make the loss hard to search, not flat',
    ),
    Row(
        'squeezing',
        'logit squeezing',
        lambda s, _: training.logit_squeezing(),
        note='noise 0.5, lambda 0.5',
        why=f'{NO_ADVERSARY}: small logits make the loss hard to search, not flat',
        variant=True,
    ),
    Row(
        'llr',
        'LLR',
        lambda s, _: training.llr(s.ball, steps=max(1, s.steps - 3)),
        True,
        note='lambda 4, mu 3',
    ),
    Row(
        'awp',
        'AWP on PGD-AT',
        lambda s, _: training.awp(training.pgd_at(s.ball, s.leaving(2))),
        True,
        note='gamma 0.01',
    ),
    Row(
        'advprop',
        'AdvProp',
        lambda s, _: training.advprop(s.ball, steps=s.leaving(2)),
        note='split batch normalisation',
        why='the main branch is trained on clean images',
        split=True,
    ),
    Row(
        'ensemble_at',
        'ensemble AT',
        lambda s, nets: training.ensemble_at(
            s.ball, [nets['standard'], nets['gaussian']]
        ),
        note='sources: standard, Gaussian noise',
        why='single steps on static sources: against transfer, not white boxes',
        needs=('standard', 'gaussian'),
    ),
    Row(
        'vat',
        'VAT',
        lambda s, _: training.virtual_adversarial(2.0),
        note='L2 2',
        why='one power iteration in an L2 ball, for unlabelled images',
    ),
    Row(
        'spatial',
        'worst-of-10 spatial',
        lambda s, _: training.spatial_at(s.degrees, s.pixels),
        why='another threat model: rotations and shifts',
    ),
    Row(
        'teacher',
        'softmax at T = 20',
        lambda s, _: training.at_temperature(20.0),
        note='teacher of distillation',
        why=NO_ADVERSARY,
    ),
    Row(
        'distillation',
        'defensive distillation',
        lambda s, nets: training.distillation(nets['teacher'], 20.0),
        note='T 20',
        why='hides the gradient of cross entropy; AutoAttack takes another loss',
        needs=('teacher',),
    ),
    Row(
        'ard',
        'ARD',
        lambda s, nets: training.adversarially_robust_distillation(
            nets['pgd_at'], s.ball, steps=s.leaving(2)
        ),
        True,
        note='teacher: PGD-AT; T 30',
        needs=('pgd_at',),
    ),
    Row(
        'rslad',
        'RSLAD',
        lambda s, nets: training.rslad(nets['pgd_at'], s.ball, steps=s.leaving(2)),
        True,
        note='teacher: PGD-AT',
        needs=('pgd_at',),
        variant=True,
    ),
    Row(
        'smooth_labels',
        'PGD-AT, smooth labels',
        lambda s, _: training.smooth_labels(training.pgd_at(s.ball, s.steps), 0.1),
        True,
        note='amount 0.1',
    ),
    Row(
        'ema',
        'PGD-AT, EMA',
        lambda s, _: training.pgd_at(s.ball, s.steps),
        True,
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


@functools.cache
def _warm(updates: int) -> optax.Schedule:
    return optax.linear_schedule(0.0, 1.0, max(1, updates))


def warmed(method: Method, updates: int) -> Method:
    """The method, its radius growing from 0 over the first updates, if it has one."""
    if not balls.of(method):
        return method
    return training.scheduled(method, eps=_warm(updates))
