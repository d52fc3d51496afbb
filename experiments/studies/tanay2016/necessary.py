"""Is local linearity necessary for adversarial examples, and is it enough? Neither."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, geometry, losses
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame import two_classes
from experiments.frame.findings import Findings, claim, picture
from experiments.frame.two_classes import Pair
from experiments.frame.work import Work
from experiments.studies.tanay2016 import bent as networks


def attacked(
    work: Work,
    named: dict[str, LogitsFn],
    x: Any,
    y: Any,
    ball: balls.Ball,
    restarts: int,
) -> dict[str, float]:
    """Accuracies by network: 'clean', under 'fgsm', under 'pgd' with restarts.

    PGD climbs the margin.
    """
    searches = {
        'fgsm': attacks.fgsm(ball),
        'pgd': attacks.restarts(attacks.pgd(ball, 40, loss=losses.margin), restarts),
    }
    found = {}
    for name, network in named.items():
        e = work.evaluate(network, x, y, searches)
        found[f'{name} clean'] = e.clean_accuracy
        found |= {f'{name} {kind}': e.accuracy(kind) for kind in searches}
    return found


def findings(work: Work, task: Pair, eps: float, level: float, images: int) -> Findings:
    """A linear classifier, a bent one and a strong one under the same attacks."""
    plane = geometry.halfway(*task.means)
    bent = networks.bent_network(task, level, 100.0, 0.99)
    ball = balls.linf(eps, bounds=None)
    some = np.random.default_rng(0).permutation(len(task.test_y))[:images]
    part = task._replace(test_x=task.test_x[some], test_y=task.test_y[some])
    x, y = task.images(part.test_x), np.where(part.test_y > 0, 1, 0)
    toy = networks.halves((28, 28, 1), images)
    toy_plane = geometry.nearest_centroid(toy.x[toy.y < 0], toy.x[toy.y > 0])
    toy_network = two_classes.as_network(toy_plane, toy.shape)
    toy_x, toy_y = toy.images(toy.test_x), np.where(toy.test_y > 0, 1, 0)
    wide = balls.linf(0.2, bounds=None)

    def attack():
        both = {'linear': bent.linear, 'bent': bent.network}
        near = networks.reach(bent, x, y)
        return {
            **attacked(work, both, x, y, ball, 10),
            **attacked(work, {'toy': toy_network}, toy_x, toy_y, wide, 10),
            **{f'reach {k}': v for k, v in near.items()},
        }

    found = work.keep('necessary', attack)
    percent = {k: 100 * v for k, v in found.items() if not k.startswith('reach')}
    exact = 100 * networks.certain(plane, part, eps)
    right = found['reach z'] > 0
    steps = {k: np.median(found[f'reach {k}'][right]) for k in ('z', 'fgsm')}
    where = f'{len(y)} test images, Linf eps {eps:g}, no range'
    claims = [
        claim(
            f'linear classifier: accuracy under PGD less the closed form ({where})',
            percent['linear pgd'] - exact, paper='0', band=(-0.5, 0.5), unit='%',
        ),
        claim(
            'bent network: clean accuracy less that of the linear classifier',
            percent['bent clean'] - percent['linear clean'],
            paper='0', band=(-1.5, 1.5), unit='%',
        ),
        claim(
            'bent network under FGSM, less the linear classifier under FGSM: the '
            'linear guess sees no difference',
            percent['bent fgsm'] - percent['linear fgsm'],
            paper='0', band=(-5, 5), unit='%',
        ),
        claim(
            'bent network: accuracy under PGD, 10 restarts',
            percent['bent pgd'], paper='0', band=(0, 5), unit='%',
        ),
        claim(
            "L2 distance to its boundary along FGSM's step over that along z, medians",
            steps['fgsm'] / steps['z'], band=(10, None),
        ),
        claim(
            'linear classifier of bright halves: accuracy under PGD, eps 0.2',
            percent['toy pgd'], paper='100', band=(100, 100), unit='%',
        ),
        claim(
            'linear classifier of bright halves: accuracy in closed form, eps 0.2',
            100 * networks.certain(toy_plane, toy, 0.2),
            paper='100', band=(100, 100), unit='%',
        ),
    ]  # fmt: skip
    names = {'linear': 'linear', 'bent': 'two ReLUs more', 'toy': 'bright halves'}
    series = {
        label: [float(percent[f'{name} {kind}']) for name in names]
        for label, kind in (('no attack', 'clean'), ('FGSM', 'fgsm'), ('PGD', 'pgd'))
    }
    far = 1.3 * steps['fgsm']
    steps_at = np.linspace(-far, far, 1201)
    at = int(np.flatnonzero(right)[0])
    sign = -1 if y[at] else 1

    def along(direction):
        moved = x[at : at + 1].reshape(1, -1) + steps_at[:, None] * direction
        logits = bent.network(jnp.asarray(task.images(moved)))
        return -sign * np.asarray(logits)[:, 1]

    step = np.sign(plane.normal) / np.sqrt(plane.normal.size)
    pictures = [
        picture(
            'Local linearity is neither necessary nor enough',
            'A linear classifier of 3 and 7 that keeps its answers at eps '
            f'{eps:g}; the same with two ReLU units, which FGSM cannot tell '
            'apart and PGD turns; and a linear classifier of images with a bright '
            'half, of which no answer turns at a fifth of the whole range of pixels.',
            charts.bars,
            list(names.values()),
            series,
            Axis('accuracy (%)', limits=(0, 101)),
        ),
        picture(
            'What FGSM does not see',
            'The score of one test image by the bent network. Its gradient points '
            'along a direction in which the boundary is far away.',
            charts.lines,
            [
                Line("along FGSM's step", steps_at, along(sign * step)),
                Line('along z', steps_at, along(sign * bent.direction)),
            ],
            Axis('L2 distance from the image (pixels)'),
            Axis('score of the right class', limits=(-6, 6)),
            levels={'decision boundary': 0.0},
        ),
    ]
    return Findings(claims, pictures)
