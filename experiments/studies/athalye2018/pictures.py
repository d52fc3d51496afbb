"""The figures: accuracy by attack and over the radius, and the signs that fire."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax.report import charts
from experiments.frame.findings import Picture, picture
from experiments.studies.athalye2018.measured import FACTORS, Figures


def bars(config: Any, undefended: Figures, figures: Mapping[str, Figures]) -> Picture:
    """Accuracy of every defence: clean, under a naive and under an adaptive attack."""
    names = list(figures)

    def draw(width):
        series = {
            'clean': [100 * float(figures[n]['clean']) for n in names],
            'naive attack': [100 * float(figures[n]['naive']) for n in names],
            'adaptive attack': [100 * float(figures[n]['adaptive']) for n in names],
        }
        axis = charts.Axis('accuracy (%)', limits=(0, 100))
        return charts.bars(names, series, axis, width=width)

    return picture(
        'What each attack leaves',
        'Accuracy without an attack, under PGD on the gradient that the deployed '
        'model happens to have, and under PGD on the gradient of someone who knows '
        f'the defence; all within eps = {config.eps:g} in Linf, judged on the '
        'deployed model. The network without a defence is left with '
        f'{100 * float(undefended["pgd"]):.1f} %.',
        draw,
    )


def curves(config: Any, figures: Mapping[str, Figures]) -> Picture:
    """Both attacks over the radius, a panel per defence."""

    def draw(width):
        radii = [0.0, *(config.eps * f for f in (*FACTORS, 1.0))]
        order = np.argsort(radii)

        def panel(axes, name):
            got = figures[name]
            lines = [
                charts.Line(
                    f'{kind} attack',
                    np.array(radii)[order],
                    100 * np.append(got['clean'], got[f'{kind} curve'])[order],
                )
                for kind in ('naive', 'adaptive')
            ]
            charts.lines_on(
                axes,
                lines,
                charts.Axis('eps'),
                charts.Axis('accuracy (%)', limits=(-3, 103)),
                title=name,
            )

        drawn = [functools.partial(panel, name=name) for name in figures]
        return charts.panels(drawn, width=width, height=2.6)

    return picture(
        'Accuracy over the radius',
        'A curve that stays up while the radius grows is a sign of masked '
        'gradients: a larger ball holds every adversarial example of a smaller '
        'one.',
        draw,
    )


def signs(reports: Mapping[str, Figures]) -> Picture:
    """Which signs fire on which model; on its side where the page is narrow."""

    def draw(width):
        models = list(reports)
        rows = list(reports[models[0]]['names'])
        values = np.full((len(rows), len(models)), math.nan)
        for column, model in enumerate(models):
            values[:, column] = reports[model]['fired']
        if width < 8:
            return _marks(values.T, models, rows, width)
        return _marks(values, rows, models, width)

    return picture(
        'Signs of masked gradients',
        'Which signs fire (1) on which model. The last three networks have no '
        'defence, and hide nothing on purpose.',
        draw,
    )


def _marks(values, rows, columns, width):
    return charts.matrix(values, rows, columns, form='{:.0f}', width=width)
