"""The white-box table, and adversarial images that move from one net to another."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax import attacks, evaluation, losses
from advjax.balls import Ball
from advjax.data import Dataset
from advjax.report import charts
from advjax.report.charts import Axis
from advjax.types import LogitsFn
from experiments.frame import measures
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.work import Work

CW_LOSS = functools.partial(losses.margin, kappa=50.0)
"""The loss of Carlini and Wagner as the challenges' code has it, less a constant."""


def white_box_attacks(ball: Ball, restarts: int) -> dict[str, Any]:
    """The paper's rows in their order; steps of eps / 30 are its 0.01 on MNIST."""
    small = functools.partial(attacks.pgd, ball, rate=1 / 30)
    return {
        'FGSM': attacks.fgm(ball),
        'PGD-40': small(40),
        'PGD-50': small(50),
        'PGD-100': small(100),
        f'PGD-100 x {restarts}': attacks.restarts(small(100), restarts),
        'PGD-40, CW loss': small(40, loss=CW_LOSS),
    }


def left(found: evaluation.Evaluation) -> dict[str, float]:
    """Accuracy in per cent without an attack and under each."""
    standing = found.clean_correct & ~found.success
    return {
        'natural': 100 * found.clean_accuracy,
        **dict(zip(found.names, 100 * standing.mean(axis=1), strict=True)),
    }


def study(
    work: Work,
    nets: Mapping[str, LogitsFn],
    test: Dataset,
    x: np.ndarray,
    y: np.ndarray,
    ball: Ball,
    restarts: int,
) -> Findings:
    """Attacks every network on x and returns the table.

    ``nets`` are 'natural', 'robust', and 'golden' where its weights are at hand; clean
    accuracy is of all of ``test``.
    """
    every = white_box_attacks(ball, restarts)
    weak = {name: every[name] for name in ('FGSM', 'PGD-40')}
    images, labels = work.images(test)
    found, clean = {}, {}
    for name, net in nets.items():
        chosen = weak if name == 'natural' else every
        kept = work.keep(
            f'white-box-{name}',
            lambda net=net, chosen=chosen: left(work.evaluate(net, x, y, chosen)),
        )
        found[name] = {attack: float(value) for attack, value in kept.items()}
        clean[name] = measures.accuracy(net, images, labels)
    return findings(found, clean, len(y))


def findings(
    found: Mapping[str, Mapping[str, float]], clean: Mapping[str, float], images: int
) -> Findings:
    """The white-box table and its order.

    Args:
      found: {net: {'natural' or attack: accuracy in per cent}}.
      clean: {net: accuracy on all test images}.
      images: number of test images attacked.
    """
    robust = found['robust']
    last = list(robust)[-2]
    in_order = ['natural', 'FGSM', 'PGD-40', 'PGD-100', last]
    paper = {
        'natural': '98.8', 'FGSM': '95.6', 'PGD-40': '93.2', 'PGD-100': '91.8',
        last: '89.3 (20 restarts)', 'PGD-40, CW loss': '94.0',
    }  # fmt: skip
    claims = [
        claim(
            'natural net under FGSM', found['natural']['FGSM'],
            paper='6.4', tag='R', unit='%',
        ),
        claim(
            'natural net under PGD-40', found['natural']['PGD-40'],
            paper='0', tag='R', band=(0, 5), unit='%',
        ),
        claim(
            'robust net, clean, all test images', clean['robust'],
            paper='98.8', tag='C', band=(98, 100), unit='%',
        ),
        *(
            claim(
                f'robust net under {name}, {images} images', robust[name],
                paper=paper[name], tag='R', unit='%',
            )
            for name in [*in_order[1:], 'PGD-40, CW loss']
        ),
        claim(
            f'robust net under {last}, well above 60', robust[last],
            paper='72 to 89', tag='C', band=(60, 100), unit='%',
        ),
    ]  # fmt: skip
    claims += [
        claim(
            f'{name} net: smallest gap in the order natural > FGSM > PGD-40 > '
            'PGD-100 > restarts',
            -np.diff([found[name][attack] for attack in in_order]).max() + 0.0,
            paper='1.4', tag='R', band=(0, None), unit='%',
        )
        for name in found if name != 'natural'
    ]  # fmt: skip
    if 'golden' in found:
        # Three standard errors of a sample of this size around the 10,000's figure.
        error = 300 * np.sqrt(0.9095 * 0.0905 / images)
        claims += [
            claim(
                'golden weights, clean, all test images', clean['golden'],
                paper='98.50', tag='C', band=(98.48, 98.52), unit='%',
            ),
            claim(
                f'golden weights under PGD-50, {images} images',
                found['golden']['PGD-50'], paper='90.95 (all images)', tag='C',
                band=(90.95 - error, 90.95 + error), unit='%',
            ),
        ]  # fmt: skip
    rows = [
        [
            attack,
            *(round(v[attack], 2) if attack in v else None for v in found.values()),
            paper.get(attack, ''),
        ]
        for attack in robust
    ]
    columns = ['attack', *(f'{net} net' for net in found), 'paper, robust net']

    drawn = picture(
        'The same net under stronger and stronger attacks',
        f'Right answers on {images} test images; every adversarial image was verified '
        'from outside.',
        charts.bars,
        list(robust),
        {
            f'{net} net': [values.get(a, np.nan) for a in robust]
            for net, values in found.items()
        },
        Axis('right answers (%)', limits=(0, 100)),
    )
    shown = table('White box: right answers (%)', columns, rows)
    return Findings(claims, [drawn], [shown])
