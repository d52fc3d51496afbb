"""Claims, figures and tables."""

import functools
from typing import Any

import numpy as np

from advjax import training
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import claim, picture, table
from experiments.studies.andriushchenko2020.networks import ALIGNED, FGSM

DROP = 0.05
"""Fall of robust accuracy that is called catastrophic: the best is no 20 % here."""

NEEDED = ('train_loss', 'held_out_robust')

COLUMNS = {
    'held_out_clean': 'clean',
    'held_out_fgsm': 'FGSM',
    'held_out_robust': 'PGD-10',
}


def turning_point(run: dict) -> int:
    """The look at which PGD accuracy was best; what comes later is its fall."""
    return int(np.argmax(run['held_out_robust']))


def left(run: dict, column: str) -> float:
    """Mean of a figure at the last three looks, as a share of its best."""
    values = run[column]
    return float(values[-3:].mean() / max(values.max(), 1e-9))


def halved_at(run: dict, column: str) -> float:
    """The epoch from which on a figure stays below half of its best, or infinity."""
    values = run[column]
    above = np.flatnonzero(values >= 0.5 * values.max())
    after = above[-1] + 1
    return float(run['epoch'][after]) if after < len(values) else np.inf


def detected_at(run: dict) -> int:
    """The first epoch after which the history shows catastrophic overfitting, or 0."""
    whole = np.flatnonzero(run['epoch'] == np.round(run['epoch']))
    history: list[dict[str, Any]] = [
        {'epoch': int(run['epoch'][k]), **{c: float(run[c][k]) for c in NEEDED}}
        for k in whole
    ]
    for count in range(1, len(history) + 1):
        if training.catastrophic_overfitting(history[:count], drop=DROP):
            return history[count - 1]['epoch']
    return 0


def claims_of(config: Any, found: dict) -> list:
    """The scoreboard."""
    plain, aligned = found[FGSM], found[ALIGNED]
    turn = turning_point(plain)
    gap = 100 * (plain['held_out_fgsm'] - plain['held_out_robust'])
    moment = [halved_at(plain, c) for c in ('held_out_robust', 'alignment')]
    # Where one of them never falls there is no such moment: as far apart as can be.
    apart = float(plain['epoch'][-1])
    if np.isfinite(moment).all():
        apart = abs(moment[0] - moment[1])
    return [
        claim(
            f'{FGSM} training, held-out images: PGD-10 accuracy at the end, as a share '
            'of its best',
            left(plain, 'held_out_robust'), paper='collapses', band=(0, 0.5),
            reason='training is too short, or the images are too easy',
        ),
        claim(
            f'{FGSM} training: FGSM accuracy at the end - when PGD accuracy was best',
            100 * (plain['held_out_fgsm'][-1] - plain['held_out_fgsm'][turn]),
            paper='stays high', band=(0, None), unit='points',
        ),
        claim(
            f'{FGSM} training: FGSM - PGD-10 accuracy, the end against the best epoch',
            gap[-1] - gap[turn], paper='> 0', band=(0, None), unit='points',
        ),
        claim(
            f'{FGSM} training: gradient alignment at the end, as a share of its value '
            'when PGD accuracy was best',
            plain['alignment'][-3:].mean() / plain['alignment'][turn],
            paper='drops towards 0', band=(None, 0.5),
        ),
        claim(
            f'{FGSM} training: time between PGD accuracy and alignment falling below '
            'half of their best for good',
            apart, paper='the same moment', band=(0, 0.25 * config.epochs),
            unit='epochs',
        ),
        claim(
            f'{FGSM} training: cosine of the FGSM and PGD perturbations at the end - '
            'when PGD accuracy was best',
            plain['fgsm_pgd'][-1] - plain['fgsm_pgd'][turn], paper='< 0',
            band=(None, 0),
        ),
        claim(
            f'{ALIGNED}: PGD-10 accuracy at the end, as a share of its best',
            left(aligned, 'held_out_robust'), paper='does not collapse',
            band=(0.8, 1),
        ),
        claim(
            f'{ALIGNED}: least gradient alignment from the best epoch on',
            aligned['alignment'][turning_point(aligned):].min(), paper='stays high',
            band=(0.5, 1),
        ),
        claim(
            f'PGD-50 with {config.restarts} restarts, {config.attacked} test images: '
            f'{ALIGNED} - {FGSM}',
            aligned['test_robust'] - plain['test_robust'],
            paper='> 0', tag='D', band=(0, None),
            unit='points',
        ),
        claim(
            'gradient alignment at the first look, mean of both trainings',
            (plain['alignment'][0] + aligned['alignment'][0]) / 2,
            paper='about 1 at the start of wide networks', tag='M',
        ),
        claim(
            f'{FGSM} training: the epoch of the diagnosis, {DROP:.0%} below the best '
            'at a lower loss; 0 for never',
            detected_at(plain), paper='detected', band=(1, config.epochs),
            reason='nothing there to be detected',
        ),
        claim(
            f'{ALIGNED}: the epoch of the same diagnosis; 0 for never',
            detected_at(aligned), paper='nothing to be detected', band=(0, 0),
        ),
    ]  # fmt: skip


def pictures_of(found: dict) -> list:
    """The figures of the page."""
    detected = {name: detected_at(run) for name, run in found.items()}
    accuracies = [
        functools.partial(
            charts.lines_on,
            lines=[
                Line(text, run['epoch'], 100 * run[column])
                for column, text in COLUMNS.items()
            ],
            x=Axis('epoch'),
            y=Axis('held-out accuracy (%)', limits=(0, None)),
            marks={'detected': float(detected[name])} if detected[name] else {},
            title=name,
        )
        for name, run in found.items()
    ]
    alignment = [
        functools.partial(
            charts.lines_on,
            lines=[
                Line(name, run['epoch'], run[column]) for name, run in found.items()
            ],
            x=Axis('epoch'),
            y=Axis('cosine', limits=(None, 1.02)),
            title=title,
        )
        for column, title in (
            ('alignment', 'gradients at x and at a random point'),
            ('fgsm_pgd', 'perturbations of FGSM and of PGD-10'),
        )
    ]
    return [
        picture(
            'Catastrophic overfitting of a network of one layer',
            'FGSM training learns to withstand FGSM: what PGD leaves goes down while '
            'what FGSM leaves goes up. With the regulariser both go up.',
            charts.panels,
            accuracies,
        ),
        picture(
            'What happens inside',
            'The gradient loses its direction within the ball, so that one step along '
            'it leads nowhere; the regulariser keeps it.',
            charts.panels,
            alignment,
        ),
    ]


def tables_of(config: Any, found: dict) -> list:
    """The tables of the page."""

    def row(name, run, at):
        return [
            name, float(run['epoch'][at]), 100 * run['train_accuracy'][at],
            *(100 * run[column][at] for column in COLUMNS), run['alignment'][at],
            run['fgsm_pgd'][at],
        ]  # fmt: skip

    return [
        table(
            'When PGD accuracy was best, and at the end',
            ['training', 'epoch', 'on its own attack %', 'clean %', 'FGSM %',
             'PGD-10 %', 'gradient alignment', 'FGSM and PGD, cosine'],
            [
                row(name, run, at)
                for name, run in found.items()
                for at in (turning_point(run), -1)
            ],
            'Held-out images; on its own attack: training images.',
        ),
        table(
            'Test images, after training',
            ['training', 'clean %', f'PGD-50 x {config.restarts} %'],
            [
                [name, run['test_clean'], run['test_robust']]
                for name, run in found.items()
            ],
            f'{config.attacked} random test images.',
        ),
    ]  # fmt: skip
