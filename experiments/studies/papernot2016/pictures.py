"""The figures of the page."""

from typing import Any

import numpy as np

from advjax.report import charts
from experiments.frame.findings import picture
from experiments.studies.papernot2016.measures import ATTACKS, percent


def pictures_of(config: Any, rows: Any, curve: np.ndarray) -> list:
    """The figures of the page."""
    temperatures = list(rows)
    x = charts.Axis('temperature T', 'log')
    success = [
        charts.Line(word, temperatures, [percent(r, name) for r in rows.values()])
        for name, word in ATTACKS.items()
    ]
    gradients = {
        f'T = {t:g} ({percent(row, "zero"):.0f} % zero in float32)': np.maximum(
            row['gradient'], -200
        )
        for t, row in rows.items()
    }
    low, middle, high = (
        [np.nanquantile(row['distance'], q) for row in rows.values()]
        for q in (0.25, 0.5, 0.75)
    )
    names = (
        'the network attacked',
        'another, trained on other images',
        f'distilled at T = {config.temperatures[-1]:g}',
    )
    transfers = [
        charts.Line(name, config.kappas, 100 * curve[:, i])
        for i, name in enumerate(names)
    ]
    return [
        picture(
            'What distillation stops',
            'Attacks that follow the gradient of the softmax fail as T grows. The same '
            'attacks on logits divided by T, and one that never used the softmax, do '
            'not notice.',
            charts.lines,
            success,
            x,
            charts.Axis('attacks that succeed (%)', limits=(-3, 103)),
        ),
        picture(
            'The gradient that is hidden',
            'Size of the gradient of cross entropy, in exact arithmetic (all below '
            '1e-200 at the left end): what float32 sees of most of it is zero.',
            charts.histograms,
            gradients,
            charts.Axis('log10 of the gradient (L1 norm)'),
        ),
        picture(
            'How far the nearest target is',
            "Carlini and Wagner's distance to a random target. If distillation had "
            'moved the boundary, it would grow with T.',
            charts.lines,
            [charts.Line('median and quartiles', temperatures, middle, (low, high))],
            x,
            charts.Axis('L2 distance to target', limits=(0, 1.1 * max(high))),
        ),
        picture(
            'Examples made with confidence transfer',
            'Untargeted examples of an undistilled network that must be wrong by a '
            'margin of kappa, shown to two networks that the attacker has not seen.',
            charts.lines,
            transfers,
            charts.Axis('confidence kappa'),
            charts.Axis('fooled (%)', limits=(-3, 103)),
        ),
    ]
