"""Claims, figures and tables."""

import functools
from typing import Any

import numpy as np

from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import claim, picture, table
from experiments.studies.wong2020.networks import FAST, PGD, ZERO


def best(runs: list) -> dict[str, np.ndarray]:
    """The run whose best epoch is the most robust on held-out images."""
    return max(runs, key=lambda run: float(run['chosen']))


def ratio(times: dict) -> float:
    """Time of a step of FGSM-RS over that of PGD-7, in the median round."""
    return float(np.median(times[FAST] / times[PGD]))


def claims_of(config: Any, found: dict, times: dict, gradients: dict) -> list:
    """The scoreboard."""
    fast, pgd, zero = best(found[FAST]), found[PGD][0], found[ZERO][0]
    attack = f'PGD-50 with {config.restarts} restarts'
    return [
        claim(
            f'{FAST}: clean accuracy, the better of {config.seeds} seeds on held-out '
            'images',
            fast['clean'], paper='98.50', tag='C', band=(98, None), unit='%',
        ),
        claim(
            f'{FAST}: {attack}',
            fast['best'], paper='88.77 (10 restarts)', tag='C', band=(80, None),
            unit='%',
            reason='of ten seeds run before, 72 to 89 and two failures',
        ),
        claim(
            f'{PGD}: clean accuracy', pgd['clean'], tag='C', band=(98, None), unit='%',
            reason='the band is that of FGSM-RS; more steps cost clean accuracy',
        ),
        claim(f'{PGD}: {attack}', pgd['best'], tag='C', band=(80, None), unit='%'),
        claim(
            f'{attack}: {FAST} - {PGD}; the band is half the range of ten seeds run '
            'before',
            fast['best'] - pgd['best'], paper='+0.3 (CIFAR-10)', tag='C',
            band=(-8.5, None), unit='points',
        ),
        claim(
            f'time of the training steps alone, {FAST} / {PGD}, the median of '
            f'{config.timed_rounds} rounds',
            ratio(times), paper='1/4 of the gradients', band=(None, 1 / 3),
            reason='the update of so small a network takes as long as two gradients '
            'of the attack: it needs that of the weights, too',
        ),
        claim(
            f'{FAST}: gradient evaluations per step, counted', gradients[FAST],
            paper='2', band=(2, 2),
        ),
        claim(
            f'{PGD}: gradient evaluations per step, counted', gradients[PGD],
            paper='8', band=(8, 8),
        ),
        claim(
            f'{ZERO}, without a random start: {attack} after the last epoch',
            zero['last'], paper='0.00 (CIFAR-10)', tag='M', unit='%',
        ),
        claim(
            f'{attack} after the last epoch: {FAST} - {ZERO}',
            fast['last'] - zero['last'], paper='> 0', band=(0, None), unit='points',
        ),
        claim(
            f'{ZERO}: accuracy on its own attack in the last epoch, minus that under '
            f'{attack}',
            100 * zero['train_accuracy'][-1] - zero['last'],
            paper='> 20 is called catastrophic', band=(20, None), unit='points',
        ),
        claim(
            f'{ZERO}: best robust held-out accuracy of any epoch, PGD-10',
            100 * zero['held_out_robust'].max(), unit='%',
        ),
        claim(
            f'{ZERO}: epoch at which the loop has noted a fall of 20 points; 0 for '
            'never',
            said_at(zero['events']),
        ),
    ]  # fmt: skip


def said_at(events: np.ndarray) -> int:
    """The epoch named by the event of catastrophic overfitting, or 0."""
    for event in events:
        words = str(event).split(':')[0].split()
        if words[0] == 'catastrophic':
            return int(words[-1])
    return 0


def pictures_of(found: dict, times: dict, steps: int) -> list:
    """The figures of the page."""

    def line(name, run, column):
        shown = run['attempt'] == run['attempt'][-1]
        return Line(name, run['epoch'][shown], 100 * run[column][shown])

    panels = [
        functools.partial(
            charts.lines_on,
            lines=[line(name, best(runs), column) for name, runs in found.items()],
            x=Axis('epoch'),
            y=Axis('%', limits=(0, 101)),
            title=title,
        )
        for column, title in (
            ('train_accuracy', 'on the attack of the training itself'),
            ('held_out_robust', 'held-out images, PGD-10'),
        )
    ]
    cost = {
        name: (
            [steps * float(np.median(times[name]))] * len(found[name]),
            [float(run['best']) for run in found[name]],
        )
        for name in (FAST, PGD)
    }
    return [
        picture(
            'Robust on its own attack, and on PGD',
            'Without a random start one step learns to defeat just that step: the '
            'accuracy that training sees goes up, the one under PGD down.',
            charts.panels,
            panels,
        ),
        picture(
            'What robustness costs',
            'Each point is a network; time is that of the training steps alone.',
            charts.scatter,
            cost,
            Axis('seconds of training steps', limits=(0, None)),
            Axis('robust accuracy (%), PGD-50', limits=(0, 101)),
        ),
    ]


def tables_of(
    config: Any, found: dict, times: dict, gradients: dict, steps: int
) -> list:
    """The tables of the page."""
    return [
        table(
            'All networks',
            ['training', 'seed', 'clean %', 'PGD-50 %, best epoch',
             'PGD-50 %, last epoch', 'what happened'],
            [
                [name, seed, run['clean'], run['best'], run['last'],
                 '; '.join(map(str, run['events']))]
                for name, runs in found.items()
                for seed, run in enumerate(runs)
            ],
            f'PGD-50, {config.restarts} restarts, {config.attacked} random test '
            'images; clean accuracy is that of the best epoch on held-out images, on '
            'all test images.',
        ),
        table(
            'Cost',
            ['training', 'gradients per step', 'ms per step', 'seconds in all'],
            [
                [name, int(gradients[name]), 1e3 * float(np.median(times[name])),
                 steps * float(np.median(times[name]))]
                for name in (FAST, PGD)
            ],
            f'Training steps alone, {config.batch_size} images; median of '
            f'{config.timed_rounds} rounds in which the methods take turns.',
        ),
    ]  # fmt: skip
