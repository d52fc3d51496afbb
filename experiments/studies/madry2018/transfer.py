"""Adversarial images made on one network and shown to another."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from advjax import attacks
from advjax.balls import Ball
from advjax.report import charts
from advjax.types import LogitsFn
from experiments.frame.findings import Findings, claim, picture
from experiments.frame.work import Work
from experiments.studies.madry2018.white_box import left


def measure(
    work: Work,
    sources: Mapping[str, LogitsFn],
    targets: Mapping[str, LogitsFn],
    x: np.ndarray,
    y: np.ndarray,
    ball: Ball,
) -> dict[str, np.ndarray]:
    """Accuracy left in per cent, {attack: (sources + 1, targets)}.

    The last row is the target's own gradient: the white-box attack.
    """
    searches = {'FGSM': attacks.fgm(ball), 'PGD-40': attacks.pgd(ball, 40, 1 / 30)}
    table = {name: np.zeros((len(sources) + 1, len(targets))) for name in searches}
    for column, target in enumerate(targets.values()):
        rows = [
            {n: attacks.surrogate(a, source) for n, a in searches.items()}
            for source in sources.values()
        ]
        for row, named in enumerate([*rows, searches]):
            found = left(work.evaluate(target, x, y, named, ball=ball))
            for name in searches:
                table[name][row, column] = found[name]
    return table


def findings(
    found: Mapping[str, np.ndarray], sources: Sequence[str], targets: Sequence[str]
) -> Findings:
    """What adversarial images made on ``sources`` do to ``targets``, by ``measure``."""
    to = {name: i for i, name in enumerate(targets)}
    of = {name: i for i, name in enumerate(sources)}
    fgsm, pgd = found['FGSM'], found['PGD-40']
    own, natural = len(sources), (of['natural'], to['natural'])
    claims = [
        claim(
            'PGD-40, natural copy to natural net', pgd[natural],
            paper='26.0', tag='R', band=(10, 50), unit='%',
        ),
        claim(
            'FGSM, natural copy to natural net', fgsm[natural],
            paper='41.9', tag='R', unit='%',
        ),
        claim(
            'natural copy to natural net: FGSM leaves more than PGD-40',
            fgsm[natural] - pgd[natural],
            paper='15.9', tag='R', band=(0, None), unit='%',
        ),
        claim(
            'FGSM-trained net under FGSM', fgsm[own, to['FGSM']],
            paper='99.9', tag='R', band=(80, 100), unit='%',
        ),
        claim(
            'FGSM-trained net under PGD-40', pgd[own, to['FGSM']],
            paper='0', tag='R', band=(0, 5), unit='%',
        ),
        claim(
            'FGSM, FGSM-trained copy to FGSM-trained net', fgsm[of['FGSM'], to['FGSM']],
            paper='62.0', tag='R', unit='%',
        ),
        claim(
            'PGD-40, FGSM-trained copy to FGSM-trained net',
            pgd[of['FGSM'], to['FGSM']], paper='54.1', tag='R', unit='%',
        ),
        claim(
            'PGD-40, PGD-trained copy to robust net', pgd[of['PGD'], to['robust']],
            paper='96.0', tag='R', unit='%',
        ),
        claim(
            'robust net: PGD-40 from a copy leaves more than PGD-40 on itself',
            pgd[of['PGD'], to['robust']] - pgd[own, to['robust']],
            paper='2.8', tag='R', band=(0, None), unit='%',
        ),
    ]  # fmt: skip
    rows = [*(f'from {name} copy' for name in sources), 'its own gradient']
    columns = [f'{name} net' for name in targets]

    panels = [
        functools.partial(
            charts.matrix_on,
            values=values,
            rows=rows,
            columns=columns,
            title=f'{name}: right answers left (%)',
        )
        for name, values in found.items()
    ]
    drawn = picture(
        'Transfer',
        'Adversarial images are made on the net of the row and shown to that of the '
        'column. Low numbers mean that they transfer.',
        charts.panels,
        panels,
        height=3.4,
    )
    return Findings(claims, [drawn])
