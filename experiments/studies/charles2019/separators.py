"""One direction against every linear separator, and against those of other data."""

from typing import Any

import numpy as np

from advjax import geometry
from advjax.geometry import Hyperplane
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.two_classes import Pair, margins
from experiments.frame.work import Work


def one_direction(
    work: Work, task: Pair, planes: dict[str, Hyperplane], shares: tuple[float, ...]
) -> Findings:
    """The maximum-margin direction of the data against classifiers of all kinds."""
    train = np.stack([margins(p, task.x, task.y) for p in planes.values()])
    test = np.stack([margins(p, task.test_x, task.test_y) for p in planes.values()])
    medians = np.median(train, axis=1, keepdims=True)
    body, worst, slack, directions = [], np.inf, np.inf, []
    for share in shares:
        kept = (train > np.maximum(share * medians, 1e-6)).all(axis=0)
        gap = _gap(work, f'hulls-{share:g}', task.x[kept], task.y[kept])
        directions.append(gap.direction)
        for k, (name, plane) in enumerate(planes.items()):
            alpha = train[k, kept].min()
            cosine = plane.normal @ gap.direction
            slack = min(slack, cosine * gap.gamma / alpha)
            right = test[k] > 0
            x, y = task.test_x[right], task.test_y[right]
            bound = geometry.flip_bound(plane, x, gap.gamma, alpha)
            needed = geometry.flip_distance(plane, x, gap.direction)
            # Moved by the bound, and looked at.
            step = (y * bound * (1 + 1e-9) + 1e-12 * y)[:, None] * gap.direction
            turned = 100 * np.mean(margins(plane, x - step, y) <= 0)
            worst = min(worst, turned)
            body.append((
                f'{share:g}', int(kept.sum()), gap.gamma, name, alpha,
                np.degrees(np.arccos(cosine)), 1 / cosine, np.median(needed),
                np.median(bound), turned,
            ))  # fmt: skip
    claims = [
        claim(
            'test images turned within the bound s gamma / alpha, by one direction, on '
            f'{len(planes)} linear classifiers and {len(shares)} sets: the least',
            worst, paper='100', band=(99, 100), unit='%',
        ),
        claim(
            'cosine of that direction to any separator, in units of alpha / gamma: the '
            'least',
            slack, paper='>= 1', band=(1 - 1e-6, None),
        ),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    budgets = np.linspace(0, 6, 61)
    noise = rng.normal(size=task.x.shape[1])

    def turned_at(k, plane, direction):
        needed = geometry.flip_distance(plane, task.test_x, direction)
        needed = np.where(test[k] > 0, needed, 0)
        return np.array([100 * np.mean(needed <= t) for t in budgets])

    lines = [
        Line(name, budgets, turned_at(k, plane, directions[-1]))
        for k, (name, plane) in enumerate(planes.items())
    ]
    first = next(iter(planes.values()))
    noisy = turned_at(0, first, noise * np.sign(noise @ first.normal))
    lines.append(Line('a random direction', budgets, noisy, dashed=True))
    shown = table(
        'One direction v against every linear classifier',
        ('margin kept', 'points', 'gamma', 'classifier', 'alpha', 'angle to v',
         'cost of v', 'needed', 'bound', 'turned %'),
        body,
        'Points: training images that all classifiers get right, by at least this '
        'share of their median distance; v joins the closest points of the two hulls. '
        'Cost: distance along v over the shortest. Needed and bound: medians over test '
        'images answered rightly, L2.',
    )  # fmt: skip
    drawn = picture(
        'One direction turns the answers of all of them',
        'v is computed from the data alone. The random direction is measured on the '
        'perceptron.',
        charts.lines,
        lines,
        Axis('L2 distance moved along v'),
        Axis('test error (%)', limits=(0, 101)),
    )
    return Findings(claims, [drawn], [shown])


def _gap(work: Work, name: str, x: np.ndarray, y: np.ndarray) -> geometry.HullGap:
    found = work.keep(name, lambda: geometry.hull_gap(x[y > 0], x[y < 0])._asdict())
    return geometry.HullGap(
        found['positive'], found['negative'], float(found['gamma']),
        float(found['margin']),
    )  # fmt: skip


def disjoint(work: Work, task: Pair, sizes: tuple[int, ...], splits: int) -> Findings:
    """Maximum-margin directions of disjoint training sets."""

    def compute() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for size in sizes:
            rows = [_two_halves(task, size, split) for split in range(splits)]
            found[f'{size}'] = np.array(rows)
        return found

    found = work.keep('disjoint', compute)
    every = np.concatenate([found[str(size)] for size in sizes])
    chance = task.x.shape[1] ** -0.5
    claims = [
        claim(
            'cosine of the directions of two disjoint training sets: the least of '
            f'{len(every)} pairs',
            every[:, 0].min(), paper='> 0', band=(0, None),
        ),
        claim(
            'test images turned on one half when moved along the direction of the '
            'other, as far as the class means are apart: the mean',
            every[:, 1].mean(), unit='%',
        ),
    ]  # fmt: skip
    shown = table(
        'Maximum-margin directions of disjoint training sets',
        ('images in each', 'pairs', 'cosine', 'least', 'cost of the other', 'turned %'),
        [
            (
                size, splits, found[str(size)][:, 0].mean(),
                found[str(size)][:, 0].min(), (1 / found[str(size)][:, 0]).mean(),
                found[str(size)][:, 1].mean(),
            )
            for size in sizes
        ],
        f'Random directions have a cosine of about {chance:.2g}, and cost '
        f'{1 / chance:.0f} times the shortest way. Turned: test images answered '
        'rightly on the one half, moved along the direction of the other as far as the '
        'means of the two classes are apart.',
    )  # fmt: skip
    return Findings(claims, [], [shown])


def _two_halves(task: Pair, size: int, split: int) -> tuple[float, float]:
    """Cosine of the two directions, and the share (%) of answers turned."""
    rng = np.random.default_rng(split)
    order = rng.permutation(len(task.y))
    size = min(size, len(order) // 2)
    gaps = []
    for part in (order[:size], order[size : 2 * size]):
        x, y = task.x[part], task.y[part]
        gaps.append(geometry.hull_gap(x[y > 0], x[y < 0]))
    cosine = float(gaps[0].direction @ gaps[1].direction)
    plane = gaps[0].plane
    right = margins(plane, task.test_x, task.test_y) > 0
    needed = geometry.flip_distance(plane, task.test_x[right], gaps[1].direction)
    i, j = task.means
    return cosine, 100 * float(np.mean(needed <= np.linalg.norm(j - i)))
