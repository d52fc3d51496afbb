"""Sums of small changes: eps m n over the dimension."""

import functools
from typing import Any

import numpy as np

from advjax import geometry
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.two_classes import Pair, fitted, margins
from experiments.frame.work import Work
from experiments.studies.geometry import concentration


def findings(work: Work, task: Pair, factors: tuple[int, ...], images: int) -> Findings:
    """Grows eps m n with the dimension: random weights, one task at several sizes."""
    eps = 0.1
    sizes = np.unique(np.geomspace(10, 100_000, 25).astype(int))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=n) for n in sizes]
    worst = np.array([concentration.accumulation(w, eps) for w in weights])
    noise = np.array([eps * np.linalg.norm(w) for w in weights])
    slope = np.polyfit(np.log(sizes), np.log(worst), 1)[0]
    noisy = np.polyfit(np.log(sizes), np.log(noise), 1)[0]

    def measure() -> dict[str, Any]:
        from sklearn.svm import LinearSVC

        order = np.random.default_rng(0).permutation(len(task.y))[:images]
        x, y = task.x[order].reshape(-1, *task.shape), task.y[order]
        test = task.test_x[:500].reshape(-1, *task.shape)
        rows = []
        for factor in factors:
            large, large_test = (concentration.upscaled(a, factor) for a in (x, test))
            flat = large.reshape(len(large), -1)
            # A pixel counts factor^2 times: the same regularisation, per pixel.
            machine = LinearSVC(
                C=1e-2 / factor**2, loss='hinge', intercept_scaling=10 * factor,
                max_iter=2000, random_state=0,
            )  # fmt: skip
            w = fitted(machine, flat, y)
            plane = geometry.hyperplane(w[:-1], w[-1])
            margin = margins(plane, large_test, task.test_y[:500])
            cube = margins(plane, large_test, task.test_y[:500], 'linf')
            i, j = flat[y < 0].mean(axis=0), flat[y > 0].mean(axis=0)
            right = margin > 0
            rows.append((
                flat.shape[1], concentration.accumulation(plane.normal, eps),
                np.median(margin[right]), np.median(cube[right]),
                100 * np.mean(cube > eps), geometry.strength(plane, i, j),
            ))  # fmt: skip
        return {'rows': np.array(rows)}

    rows = work.keep('accumulation', measure)['rows']
    growth = np.polyfit(np.log(rows[:, 0]), np.log(rows[:, 1]), 1)[0]
    claims = [
        claim(
            'random weights: exponent of n in eps m n, the growth of a linear score',
            slope, paper='1', band=(0.97, 1.03),
        ),
        claim(
            'random weights: exponent of n in the growth by random signs',
            noisy, paper='0.5', band=(0.47, 0.53),
        ),
        claim(
            f'3 against 7 enlarged up to {factors[-1]} times a side: exponent of n in '
            'eps |c|_1, c of unit length',
            growth, paper='0.5', band=(0.4, 0.6),
        ),
        claim(
            'eps |c|_1 over the L2 distance to the boundary, largest size over '
            'smallest: both grow alike',
            (rows[-1, 1] / rows[-1, 2]) / (rows[0, 1] / rows[0, 2]),
            paper='1', band=(0.9, 1.1),
        ),
        claim(
            f'accuracy at Linf eps {eps:g} in all those sizes: largest difference',
            np.ptp(rows[:, 4]), paper='0', band=(0, 3), unit='%',
        ),
    ]  # fmt: skip

    left = functools.partial(
        charts.lines_on,
        lines=[
            Line('worst change: eps m n', sizes, worst),
            Line('change by random signs', sizes, noise),
        ],
        x=Axis('dimension n', 'log'),
        y=Axis('change of the score', 'log'),
        title='Random weights',
    )
    right = functools.partial(
        charts.lines_on,
        lines=[
            Line('worst change: eps m n', rows[:, 0], rows[:, 1]),
            Line('', [], []),
            Line('distance to the boundary', rows[:, 0], rows[:, 2]),
        ],
        x=Axis('pixels n', 'log'),
        y=Axis('change or distance (L2)', 'log'),
        title='3 against 7, enlarged',
    )
    shown = table(
        '3 against 7 with every pixel repeated: a linear classifier trained anew',
        ('pixels', 'eps |c|_1', 'median L2 distance', 'median Linf distance',
         f'accuracy at eps {eps:g} %', 'strength'),
        [tuple(row) for row in rows],
        f'{images} training images, 500 test images.',
    )  # fmt: skip
    drawn = picture(
        'Does dimension make linear classifiers weak?',
        'Left: many small changes add up to much, if the weights keep their size. '
        'Right: in more pixels of the same image the distance to the boundary grows as '
        'much, and nothing is gained for the attacker.',
        charts.panels,
        [left, right],
    )
    return Findings(claims, [drawn], [shown])
