"""Everything that ``python -m experiments`` runs: its name, a line, its cost.

Nothing is imported before it is run. A new study is a package of ``studies`` with a
``STUDY``, and one entry here.
"""

import importlib
from types import ModuleType
from typing import NamedTuple


class Entry(NamedTuple):
    """What can be run.

    Attributes:
      name: what is typed.
      line: what it shows, in a line.
      minutes: what it takes on two cores, as it stands.
      module: where it is; a study has ``STUDY`` there, any other command ``cli``.
    """

    name: str
    line: str
    minutes: float
    module: str

    def load(self) -> ModuleType:
        """Imports its module."""
        return importlib.import_module(self.module)


def _study(name: str, line: str, minutes: float) -> Entry:
    return Entry(name, line, minutes, f'experiments.studies.{name}')


STUDIES = (
    _study(
        'szegedy2014',
        'small changes fool every network, and networks trained on other images too',
        7,
    ),
    _study(
        'goodfellow2015',
        'linearity, the sign put right, adversarial training, transfer, RBF, rubbish',
        8.5,
    ),
    _study(
        'papernot2016',
        'distillation hides the temperature, not the adversarial examples',
        4,
    ),
    _study(
        'tanay2016',
        'Strength is the angle of the boundary; linearity is neither necessary nor '
        'enough',
        1,
    ),
    _study(
        'madry2018',
        'PGD as the inner maximum, what withstands it, and what capacity has to do '
        'with it',
        14.5,
    ),
    _study(
        'athalye2018',
        'Nine defences that fool a naive attack, the adaptive attacks that break '
        'them, and a report of the signs.',
        6,
    ),
    _study(
        'ilyas2019',
        'useful and robust features; D_R, D_NR, D_rand, D_det; the Gaussian model',
        6,
    ),
    _study(
        'tsipras2019',
        'a distribution where accuracy costs robustness; sample sizes; gradients that '
        'show edges',
        4,
    ),
    _study(
        'charles2019',
        'One direction, from the data alone, turns every linear separator; ReLU '
        'networks share directions too',
        0.5,
    ),
    _study(
        'xie2020',
        'a batch normalisation of their own lets adversarial images help clean ones',
        3,
    ),
    _study(
        'wong2020',
        'one gradient step from a random start trains as robustly as seven, for a '
        'quarter of the gradients',
        10,
    ),
    _study(
        'andriushchenko2020',
        'FGSM training bends the gradient until one step leads nowhere; aligned '
        'gradients prevent it',
        4,
    ),
    _study(
        'rice2020',
        'robust accuracy on new images peaks and then falls; the best epoch is kept',
        5,
    ),
    _study(
        'geometry',
        'Spheres with known errors, eps m n over dimension, distances and slices',
        0.5,
    ),
)
"""The studies, in the order of their papers."""


def _command(name: str, line: str, minutes: float, module: str = '') -> Entry:
    return Entry(name, line, minutes, f'experiments.{module or "commands." + name}')


COMMANDS = (
    _command(
        'train',
        'trains a network normally and adversarially, attacks both, shows it',
        0.5,
    ),
    _command('recipes', 'lists the published settings that train --recipe knows', 0),
    _command('readme', 'writes the tables of README.md from the catalogues', 0),
    _command(
        'attack', 'attacks a trained network with any attack of the catalogue', 0.5
    ),
    _command(
        'compare_methods',
        'every training method on one network and one budget, under AutoAttack',
        37,
    ),
    _command(
        'benchmark',
        'measures speed against the bare gradient',
        20,
        'benchmarks.command',
    ),
    _command(
        'reproduce',
        'runs all studies and writes the scoreboard',
        sum(study.minutes for study in STUDIES),
    ),
)

NAMES = tuple(study.name for study in STUDIES)


def entry(name: str) -> Entry:
    """Returns a study or a command by its name.

    Raises:
      ValueError: if there is none of that name.
    """
    known = {each.name: each for each in (*COMMANDS, *STUDIES)}
    if name not in known:
        raise ValueError(f'what there is: {", ".join(known)}; got {name!r}')
    return known[name]
