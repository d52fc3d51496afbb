"""Strength along the regularisation path, and the mirror images it goes with."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from advjax import geometry
from advjax.geometry import Hyperplane
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Findings, claim, image_grid, picture, table
from experiments.frame.two_classes import Pair, error, fitted, margins
from experiments.frame.work import Work

COMPUTED_BEFORE = {
    1e-6: (3.68, 1.4),
    1e-5: (3.58, 4.4),
    1e-4: (2.80, 20.7),
    1e-3: (1.96, 38.7),
    1e-2: (1.42, 53.5),
    1e-1: (1.67, 68.1),
    1.0: (1.91, 78.1),
    10.0: (2.21, 82.7),
}
"""Test error (%) and angle (degrees) of an earlier run on MNIST, tag C."""


class Path(NamedTuple):
    """Linear classifiers from strong to weak regularisation; arrays are (C,).

    Attributes:
      costs: the cost of an error.
      planes: the classifiers.
      train_error: share of training images they err on.
      test_error: share of test images they err on.
      degrees: deviation angle.
      strength: as the ratio of distances.
      distance: mean distance of the test images that they are right on.
      kinds: 0, 1 or 2, the taxonomy.
    """

    costs: np.ndarray
    planes: list[Hyperplane]
    train_error: np.ndarray
    test_error: np.ndarray
    degrees: np.ndarray
    strength: np.ndarray
    distance: np.ndarray
    kinds: list[int]

    @property
    def best(self) -> int:
        """The classifier of least test error."""
        return int(self.test_error.argmin())


def regularisation_path(
    work: Work, task: Pair, costs: Sequence[float], iterations: int
) -> Path:
    """Trains a linear support vector machine for each cost of an error.

    Liblinear regularises the intercept as one more weight; in units of ten pixels it is
    nearly free.
    """

    def train() -> dict[str, Any]:
        from sklearn.svm import LinearSVC

        # The weakest regularisation needs more than any number of iterations.
        machines = [
            LinearSVC(
                C=cost, loss='hinge', intercept_scaling=10, tol=1e-5,
                max_iter=iterations, random_state=0,
            )
            for cost in costs
        ]  # fmt: skip
        return {'weights': np.stack([fitted(m, task.x, task.y) for m in machines])}

    weights = work.keep('path', train)['weights']
    planes = [geometry.hyperplane(w[:-1], w[-1]) for w in weights]
    i, j = task.means
    test = [margins(plane, task.test_x, task.test_y) for plane in planes]
    strength = np.array([geometry.strength(plane, i, j) for plane in planes])
    errors = np.array([np.mean(m <= 0) for m in test])
    return Path(
        costs=np.array(costs),
        planes=planes,
        train_error=np.array([error(plane, task.x, task.y) for plane in planes]),
        test_error=errors,
        degrees=np.array([geometry.deviation_angle(plane, i, j) for plane in planes]),
        strength=strength,
        distance=np.array([m[m > 0].mean() for m in test]),
        kinds=geometry.taxonomy(np.maximum.accumulate(strength), errors),
    )


def findings(path: Path, task: Pair, known: bool) -> Findings:
    """Errors and strengths along the path."""
    best = path.best
    secant = 1 / np.cos(np.radians(path.degrees))
    errors = 100 * path.test_error

    def band(low, high):
        return (low, high) if known else None

    claims = [
        claim(
            'strength (ratio of distances) is the secant of the deviation angle: '
            'largest relative difference along the path',
            np.abs(path.strength / secant - 1).max(),
            paper='0',
            band=(0, 1e-6),
        ),
        claim(
            'strength grows as regularisation weakens: least step',
            np.diff(path.strength).min(),
            paper='> 0',
            band=(0, None),
        ),
        claim(
            'test error at the best cost',
            errors[best], paper='1.42', tag='C', band=band(1.2, 1.7), unit='%',
        ),
        claim(
            'deviation angle at the best cost',
            path.degrees[best],
            paper='53.5', tag='C', band=band(45, 60), unit='degrees',
        ),
        claim(
            'test error of the strongest regularisation above the best',
            errors[0] - errors[best],
            paper='> 0 (2.26)', tag='C', band=band(0, None), unit='%',
        ),
        claim(
            'test error of the weakest regularisation above the best',
            errors[-1] - errors[best],
            paper='> 0 (0.79)', tag='C', band=band(0, None), unit='%',
        ),
        claim(
            'strength at the weakest regularisation: overfitting',
            path.strength[-1], paper='7.89', tag='C', band=band(7, 9),
        ),
    ]  # fmt: skip
    lines = {
        'Error (%)': [
            Line('test error (%)', path.costs, errors),
            Line('training error (%)', path.costs, 100 * path.train_error),
        ],
        'Strength': [Line('', path.costs, path.strength)],
        'Mean L2 distance': [Line('', path.costs, path.distance)],
    }
    panels = [
        functools.partial(
            charts.lines_on,
            lines=some,
            x=Axis('cost of an error, C', 'log'),
            marks={'least test error': path.costs[best]},
            title=title,
        )
        for title, some in lines.items()
    ]
    rows = []
    for k, c in enumerate(path.costs):
        before = COMPUTED_BEFORE.get(c) if known else None
        rows.append((
            f'{c:g}', path.kinds[k], 100 * path.train_error[k], errors[k],
            before and before[0], path.degrees[k], before and before[1],
            path.strength[k], path.distance[k],
        ))  # fmt: skip
    shown = table(
        'The regularisation path: linear support vector machines, 3 against 7',
        ('C', 'type', 'train error %', 'test error %', '(C)', 'angle', '(C)',
         'strength', 'mean L2 distance'),
        rows,
        'Type 0: about the strength of the nearest-centroid classifier; 1: stronger, '
        'and better for it; 2: stronger still, for nothing. Columns (C): an earlier '
        'run on the same data. Distances of the test images answered rightly.',
    )  # fmt: skip
    drawn = picture(
        'Strength along the regularisation path',
        'Regularisation weakens to the right. Errors fall and rise again while the '
        'boundary only comes nearer: right of the mark strength is overfitting.',
        charts.panels,
        panels,
        height=3.6,
    )
    return Findings(claims, [drawn], [shown])


def mirrors(path: Path, task: Pair) -> Findings:
    """Images and their mirror images in three boundaries."""
    centre = geometry.halfway(*task.means)
    right = margins(centre, task.test_x, task.test_y) > 0
    shown = np.concatenate(
        [np.flatnonzero(right & (task.test_y == sign))[:4] for sign in (-1, 1)]
    )
    x = task.test_x[shown].reshape(-1, *task.shape)
    rows: list[dict[str, Any]] = [{'title': 'test image', 'images': np.float32(x)}]
    named = [
        ('nearest centroid', centre),
        (f'least test error, C = {path.costs[path.best]:g}', path.planes[path.best]),
        (f'weakest regularisation, C = {path.costs[-1]:g}', path.planes[-1]),
    ]
    for name, plane in named:
        images = np.clip(geometry.mirror_image(plane, x), 0, 1)
        away = 2 * np.abs(geometry.signed_distance(plane, x))
        rows.append({
            'title': f'mirror image: {name}',
            'images': np.float32(images),
            'captions': [f'{d:.2f}' for d in away],
        })  # fmt: skip
    drawn = picture(
        'Mirror images',
        'Each image and its mirror image in three boundaries, with the L2 distance '
        'between them (clipped to the range of pixels for display). All three give the '
        'mirror image the other class, as surely as they gave the image its own. The '
        'nearer the boundary, the less there is to see.',
        image_grid,
        rows,
        8,
        4,
    )
    return Findings([], [drawn])
