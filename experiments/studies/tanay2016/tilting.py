"""Tilting the nearest-centroid classifier along principal components."""

from collections.abc import Sequence

import numpy as np

from advjax import geometry
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.two_classes import Pair, error
from experiments.frame.work import Work

ANGLES = (0, 30, 60, 80, 89)
"""Degrees by which the nearest-centroid classifier is tilted."""

TILTED_BEFORE = {
    0: (3.5, 12.2, 41, 54),
    10: (3.7, 10.9, 31, 48),
    50: (3.4, 4.9, 13.7, 44),
    100: (3.2, 3.3, 6.3, 39),
    200: (3.5, 3.8, 5.2, 33),
    400: (3.4, 3.4, 3.7, 16),
    500: (3.4, 3.4, 3.6, 6.0),
}
"""Test error (%) at 30, 60, 80 and 89 degrees in an earlier run on MNIST, tag C."""


def components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of rows, (K, n), and their standard deviations."""
    centred = x - x.mean(axis=0)
    # Of the covariance: ten times as fast as of the data, and exact enough here.
    squares, columns = np.linalg.eigh(centred.T @ centred / len(x))
    return columns.T[::-1], np.sqrt(np.maximum(squares[::-1], 0))


def tilted(task: Pair, directions: np.ndarray) -> dict[str, np.ndarray]:
    """'errors' on the test set and 'strengths' of tilted classifiers, (K, ANGLES).

    A component has no sign, and the two ways to tilt differ a little: the mean of both.
    """
    i, j = task.means
    centre, middle = geometry.halfway(i, j), (i + j) / 2
    errors, strengths = [], []
    for z in directions:
        planes = [
            [geometry.tilt(centre, sign * z, angle, middle) for sign in (1, -1)]
            for angle in ANGLES
        ]
        errors.append([
            np.mean([error(p, task.test_x, task.test_y) for p in both])
            for both in planes
        ])  # fmt: skip
        strengths.append([geometry.strength(both[0], i, j) for both in planes])
    return {'errors': np.array(errors), 'strengths': np.array(strengths)}


def findings(work: Work, task: Pair, wanted: Sequence[int], known: bool) -> Findings:
    """Test errors of tilted classifiers, all of one strength."""
    rows, sizes = components(task.x)
    chosen = [k for k in wanted if sizes[min(k, len(sizes) - 1)] > 1e-6]
    found = work.keep('tilting', lambda: tilted(task, rows[chosen]))
    errors, strengths = 100 * found['errors'], found['strengths']
    at = ANGLES.index(80)
    secant = 1 / np.cos(np.radians(ANGLES))
    quiet = [n for n, k in enumerate(chosen) if k >= 400] if known else [-1]
    claims = [
        claim(
            'tilted classifiers: largest relative difference of strength and secant',
            np.abs(strengths / secant - 1).max(),
            paper='0',
            band=(0, 1e-6),
        ),
        claim(
            'tilting by 80 degrees along components of little variance: strength',
            strengths[quiet, at].max(),
            paper='5.76', tag='C', band=(5.7, 5.8),
        ),
        claim(
            'tilting by 80 degrees along components of little variance: added error',
            (errors[quiet, at] - errors[quiet, 0]).max(),
            paper='< 0.4', tag='C', band=(None, 0.4) if known else None, unit='%',
        ),
        claim(
            'tilting by 80 degrees along the first component: added test error',
            errors[0, at] - errors[0, 0],
            paper='37.8', tag='C', unit='%',
        ),
    ]  # fmt: skip

    some = chosen if len(chosen) <= 5 else [chosen[n] for n in (0, 1, 3, -2, -1)]
    lines = [
        Line(f'component {k} (deviation {sizes[k]:.2g})', ANGLES, errors[n])
        for n, k in enumerate(chosen)
        if k in some
    ]
    body = []
    for n, k in enumerate(chosen):
        before = TILTED_BEFORE.get(k) if known else None
        said = '' if before is None else ' / '.join(f'{b:g}' for b in before)
        body.append((k, sizes[k], *errors[n, 1:], said))
    at_each = ', '.join(
        f'{s:.3g} at {a} degrees' for s, a in zip(strengths[0], ANGLES, strict=True)
    )
    shown = table(
        'Test error (%) of the nearest-centroid classifier, tilted',
        ('component', 'deviation', *(f'{a} degrees' for a in ANGLES[1:]), '(C)'),
        body,
        f'Strength is {at_each}, whatever the component. Mean of tilting one way and '
        'the other; column (C): an earlier run, which tilted one way.',
    )
    drawn = picture(
        'Tilting the boundary along principal components',
        'The same tilt, hence the same strength, for every line. Along components in '
        'which images hardly vary it goes unseen by the test error.',
        charts.lines,
        lines,
        Axis('tilt (degrees)'),
        Axis('test error (%)'),
    )
    return Findings(claims, [drawn], [shown])
