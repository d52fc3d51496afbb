"""The figures: accuracy by attack and over the radius, and the signs that fire."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax.report import charts
from experiments.frame.findings import Picture, picture
from experiments.studies.athalye2018.measured import FACTORS, Figures


def bars(config: Any, undefended: Figures, figures: Mapping[str, Figures]) -> Picture:
    """Accuracy of every defence: clean, under a naive and under an adaptive attack."""
    kinds = {'clean': 'clean', 'naive': 'naive attack', 'adaptive': 'adaptive attack'}
    series = {
        title: [100 * float(got[kind]) for got in figures.values()]
        for kind, title in kinds.items()
    }
    return picture(
        'What each attack leaves',
        'Accuracy without an attack, under PGD on the gradient that the deployed '
        'model happens to have, and under PGD on the gradient of someone who knows '
        f'the defence; all within eps = {config.eps:g} in Linf, judged on the '
        'deployed model. The network without a defence is left with '
        f'{100 * float(undefended["pgd"]):.1f} %.',
        charts.bars,
        list(figures),
        series,
        charts.Axis('accuracy (%)', limits=(0, 100)),
    )


def curves(config: Any, figures: Mapping[str, Figures]) -> Picture:
    """Both attacks over the radius, a panel per defence."""
    radii = np.array([0.0, *(config.eps * f for f in (*FACTORS, 1.0))])
    order = np.argsort(radii)

    def line(got, kind):
        values = 100 * np.append(got['clean'], got[f'{kind} curve'])
        return charts.Line(f'{kind} attack', radii[order], values[order])

    panels = [
        functools.partial(
            charts.lines_on,
            lines=[line(got, kind) for kind in ('naive', 'adaptive')],
            x=charts.Axis('eps'),
            y=charts.Axis('accuracy (%)', limits=(-3, 103)),
            title=name,
        )
        for name, got in figures.items()
    ]
    return picture(
        'Accuracy over the radius',
        'A curve that stays up while the radius grows is a sign of masked '
        'gradients: a larger ball holds every adversarial example of a smaller '
        'one.',
        charts.panels,
        panels,
        height=2.6,
    )


def signs(reports: Mapping[str, Figures]) -> Picture:
    """Which signs fire on which model; on its side where the page is narrow."""
    models, names = list(reports), list(next(iter(reports.values()))['names'])
    values = np.array([report['fired'] for report in reports.values()], float)

    def draw(width):
        shown = (values, models, names) if width < 8 else (values.T, names, models)
        return charts.matrix(*shown, form='{:.0f}', width=width)

    return picture(
        'Signs of masked gradients',
        'Which signs fire (1) on which model. The last three networks have no '
        'defence, and hide nothing on purpose.',
        draw,
    )
