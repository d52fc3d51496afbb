"""ReLU networks: directions far out, and which directions turn which answers."""

from typing import Any

import jax
import numpy as np

from advjax import attacks, balls, geometry, losses
from advjax.evaluation.verify import logits_of
from advjax.geometry import Hyperplane
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame import two_classes
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.measures import run_attack
from experiments.frame.two_classes import Pair
from experiments.frame.work import Work


@jax.jit
def _distance(network, x, y, direction):
    return geometry.distance_along(
        network, x, y, direction, 1e4, geometric=True, grid=24, halvings=8
    )


def _score(network: LogitsFn, x: Any) -> np.ndarray:
    logits = logits_of(network, x)
    return logits[:, 1] - logits[:, 0]


def homogeneous(
    work: Work, task: Pair, networks: dict[str, LogitsFn], directions: int
) -> Findings:
    """Mean images and training images as directions against networks."""
    means = task.images(np.stack(task.means))
    x, y = task.images(task.test_x), np.where(task.test_y > 0, 1, 0)
    order = np.random.default_rng(0).permutation(len(y))[:500]
    x, y = x[order], y[order]
    picked = np.random.default_rng(1).permutation(len(task.y))[:directions]
    others, labels = task.images(task.x[picked]), np.where(task.y[picked] > 0, 1, 0)

    def measure() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, network in networks.items():
            found[f'{name} right'] = np.mean((_score(network, x) > 0) == y)
            found[f'{name} means'] = _score(network, means)
            # Each image is moved by the mean image of the other class.
            found[f'{name} distance'] = np.asarray(
                _distance(network, x, y, means[1 - y])
            )
            # Single training images as directions, of the other class and rightly so.
            own = (_score(network, others) > 0) == labels
            turned = [
                np.isfinite(_distance(network, x, y, np.broadcast_to(u, x.shape)))[
                    y != label
                ]
                for u, label in zip(others[own], labels[own], strict=True)
            ]
            found[f'{name} singles'] = 100 * np.mean(np.concatenate(turned))
        return found

    found = work.keep('homogeneous', measure)
    turned = {
        name: 100 * np.isfinite(found[f'{name} distance']).mean() for name in networks
    }
    signs = min(
        min(-found[f'{name} means'][0], found[f'{name} means'][1]) for name in networks
    )
    claims = [
        claim(
            'networks answer the mean images of both classes rightly: the least '
            'margin, in logits',
            signs, paper='> 0', band=(0, None),
        ),
        claim(
            'test images turned by the mean image of the other class, one direction '
            f'for all {len(networks)} ReLU networks without biases: the least',
            min(turned.values()), paper='100', band=(99, 100), unit='%',
        ),
        claim(
            'test images turned by any rightly classified training image of the other '
            'class: the least over networks',
            min(found[f'{name} singles'] for name in networks),
            paper='100', band=(99, 100), unit='%',
        ),
    ]  # fmt: skip
    scales = np.geomspace(0.1, 1000, 25)
    image = x[np.flatnonzero(y == 1)[0]][None]

    def limits(network):
        at = _score(network, means[:1])[0]
        moved = image + np.float32(scales).reshape(-1, 1, 1, 1) * means[:1]
        return _score(network, np.float32(moved)) / scales / at

    shown = table(
        'Two-layer ReLU networks without biases, moved along the mean image of the '
        'other class',
        ('network', 'clean %', 'turned %', 'median L2 distance', 'turned by single '
         'training images %'),
        [
            (
                name, 100 * float(found[f'{name} right']), turned[name],
                np.median(found[f'{name} distance']), float(found[f'{name} singles']),
            )
            for name in networks
        ],
        f'{len(y)} test images; moved by up to 10,000.',
    )  # fmt: skip
    drawn = picture(
        'A direction that turns every answer, far enough out',
        'One test 7 moved by t times the mean 3: the score over t goes to the score of '
        'the mean 3 itself, on every network.',
        charts.lines,
        [Line(name, scales, limits(f)) for name, f in networks.items()],
        Axis('t', 'log'),
        Axis('f(x + tu) / t over f(u)', limits=(-4, 2)),
        levels={'limit': 1.0, 'answer turns': 0.0},
    )
    return Findings(claims, [drawn], [shown])


def transfer(
    work: Work,
    task: Pair,
    planes: dict[str, Hyperplane],
    networks: dict[str, LogitsFn],
    eps: float,
) -> Findings:
    """Gradients of each classifier against all of them."""
    every = {
        name: two_classes.as_network(plane, task.shape)
        for name, plane in planes.items()
    } | networks
    x, y = task.images(task.test_x), np.where(task.test_y > 0, 1, 0)
    attack = attacks.fgm(balls.l2(eps, bounds=None), loss=losses.margin)

    def measure() -> dict[str, Any]:
        rows = []
        right = {name: (_score(f, x) > 0) == y for name, f in every.items()}
        for source in every.values():
            moved = run_attack(attack, source, jax.random.key(0), x, y)
            rows.append([
                100 * np.mean(((_score(f, moved) > 0) != y)[right[name]])
                for name, f in every.items()
            ])  # fmt: skip
        return {'matrix': np.array(rows)}

    matrix = work.keep('transfer', measure)['matrix']
    count = len(planes)
    to_linear, to_relu = matrix[count:, :count].mean(), matrix[:count, count:].mean()
    claims = [
        claim(
            'answers turned by gradients of ReLU networks against linear classifiers, '
            f'L2 {eps:g}',
            to_linear, unit='%',
        ),
        claim(
            'answers turned by directions of linear classifiers against ReLU networks, '
            f'L2 {eps:g}',
            to_relu, unit='%',
        ),
        claim(
            'the asymmetry: from ReLU networks to linear ones, less the way back',
            to_linear - to_relu, paper='> 0', tag='M', unit='%',
        ),
    ]  # fmt: skip
    drawn = picture(
        'Which directions turn which answers',
        f'Share of test images that are answered rightly without a change and wrongly '
        f'after one step of L2 length {eps:g}: along the gradient of the '
        'classifier of the row, answered by that of the column.',
        _matrix,
        matrix,
        list(every),
    )
    return Findings(claims, [drawn])


def _matrix(matrix: np.ndarray, names: list[str], width: float):
    # A narrow window has no room for long names.
    short = [n.replace(', seed ', '.').replace('SVM, C = ', 'SVM ') for n in names]
    shown = names if width > 8 else short
    return charts.matrix(matrix, shown, short, form='{:.0f}', width=width)
