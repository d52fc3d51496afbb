"""The tables: what each attack leaves, and all signs in full."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.frame.findings import Table, table
from experiments.studies.athalye2018.defences import Planted
from experiments.studies.athalye2018.measured import Figures


def accuracies(
    config: Any,
    undefended: Figures,
    planted: Sequence[Planted],
    figures: Mapping[str, Figures],
    reports: Mapping[str, Figures],
) -> Table:
    """A row per defence: its gradients, accuracies, and the signs that fire."""

    def percent(value: Any) -> str:
        return f'{100 * float(value):.1f}'

    rows = [
        ['none', '', '', percent(undefended['clean']), percent(undefended['pgd'])]
        + [percent(undefended['pgd'])] * 2
        + [', '.join(_fired(reports['natural net'])) or 'none']
    ]
    for one in planted:
        got = figures[one.name]
        numbers = [percent(got[k]) for k in ('clean', 'ignored', 'naive', 'adaptive')]
        fired = ', '.join(_fired(reports[one.name])) or 'none'
        rows.append([one.name, one.hides, one.by, *numbers, fired])
    columns = ['defence', 'gradients', 'adaptive attack', 'clean %']
    columns += ['defence ignored %', 'naive %', 'adaptive %', 'signs that fire']
    return table(
        f'Accuracy under attack, eps = {config.eps:g} in Linf',
        columns,
        rows,
        note='"Defence ignored": PGD on the network alone, judged behind the '
        'defence. "Naive": PGD on the gradient of the deployed model, or of one '
        'frozen draw.',
    )


def signs(reports: Mapping[str, Figures]) -> Table:
    """A row per model and sign."""
    lines = [
        [model, sign, 'fired' if fired else '', sentence]
        for model, report in reports.items()
        for sign, fired, sentence in zip(
            report['names'], report['fired'], report['sentences'], strict=True
        )
    ]
    return table('Masking reports', ['model', 'sign', '', 'measured'], lines)


def _fired(report: Figures) -> list[str]:
    return [str(n) for n, f in zip(report['names'], report['fired'], strict=True) if f]
