"""What the study claims, beside what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.frame.findings import Claim, claim
from experiments.studies.athalye2018.defences import Planted
from experiments.studies.athalye2018.measured import FACTORS, Figures

REASONS = {
    'FGSM-RS net': 'masking in earnest, if little: black boxes beat PGD on such nets '
    '(the published one has 88.8 % under PGD, 82.9 % under AutoAttack)',
}
"""Why a figure may lie outside its band, where that was looked into."""


def claims(
    config: Any,
    undefended: Figures,
    planted: Sequence[Planted],
    figures: Mapping[str, Figures],
    reports: Mapping[str, Figures],
) -> list[Claim]:
    """What each attack leaves, and which models show signs of masking.

    ``undefended``, ``figures`` (by defence) and ``reports`` (by defence or network) are
    those of ``measured``.
    """
    where = f'eps {config.eps:g}, {config.images} images'
    rows = [
        claim(
            f'Undefended: accuracy under PGD-{config.steps}, {where}',
            100 * undefended['pgd'],
            paper='about 0',
            band=(0, 5),
            unit='%',
        )
    ]
    for one in planted:
        got = figures[one.name]
        rows += [
            claim(
                f'{one.name}: accuracy under naive PGD, {where}',
                100 * got['naive'],
                paper='high',
                band=(50, 100),
                unit='%',
            ),
            claim(
                f'{one.name}: accuracy under {one.by}, {where}',
                100 * got['adaptive'],
                paper=one.paper or 'about the undefended value',
                tag=one.tag,
                band=(0, one.limit),
                unit='%',
                reason=_further(config, got),
            ),
            claim(
                f'{one.name}: signs of masking that fire',
                reports[one.name]['fired'].sum(),
                paper='some',
                band=(1, None),
            ),
        ]
    rows += [
        claim(
            f'{name}: signs of masking that fire',
            reports[name]['fired'].sum(),
            paper='none',
            band=(0, 0),
            reason=REASONS.get(name, ''),
        )
        for name in ('natural net', 'PGD net', 'FGSM-RS net')
    ]
    if 'saturated logits' in reports:
        report = reports['saturated logits']
        zero = report['values'][list(report['names']).index('zero gradients')]
        rows.append(
            claim(
                'saturated logits: images without a gradient',
                100 * zero,
                paper='about 100',
                band=(90, 100),
                unit='%',
            )
        )
    return rows


def _further(config: Any, got: Figures) -> str:
    """What another attack, or the same at the largest radius, does."""
    if got['ignored'] < got['adaptive']:
        return (
            'the gradient of the network alone is the better guide: PGD on it leaves '
            f'{100 * got["ignored"]:.1f} %'
        )
    eps, left = FACTORS[-1] * config.eps, got['adaptive curve'][len(FACTORS) - 1]
    return f'not understood; at eps {eps:g} the same attack leaves {100 * left:.1f} %'
