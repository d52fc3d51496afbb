"""The figures of the paper, redrawn from our data."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax.data import Dataset
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Picture, first_images, picture
from experiments.studies.ilyas2019 import gaussian
from experiments.studies.ilyas2019.learning import Score, det
from experiments.studies.ilyas2019.theory import Useful

PER_CENT = (0.0, 100.0)


def examples(made: Mapping[str, Dataset], eps: float) -> Picture:
    """Figure 1 and 2: an image of each set, in the same column."""
    titles = {
        'D': 'original images',
        'D_R': 'robust features only',
        'D_NR': 'non-robust features',
        'D_rand': f'moved to a random class, eps {eps:g}',
        det(eps): f'moved to the next class, eps {eps:g}',
    }
    rows = [
        {
            'title': title,
            'images': made[name].images[:10, ..., 0] / 255,
            'captions': [str(label) for label in made[name].labels[:10]],
        }
        for name, title in titles.items()
    ]
    return picture(
        'The data sets (figures 1 and 2)',
        'Each column begins with one image of the training set. The second and third '
        'row have the same representation as it, in a robust and a standard network; '
        'what that representation does not hold comes from another image. The last two '
        'rows carry labels (below the images) that look wrong.',
        first_images,
        rows,
    )


def accuracies(scores: Mapping[str, Score]) -> Picture:
    """Figure 2b: accuracies of networks trained on each set."""
    titles = {
        'D_few': 'D (as many images)',
        'D_R': 'D_R (robust features)',
        'D_NR': 'D_NR (non-robust)',
    }

    series = {'clean test images': [scores[n].clean for n in titles]}
    for eps in scores['D_R'].robust:
        series[f'under L2 PGD, eps {eps:g}'] = [scores[n].robust[eps] for n in titles]
    return picture(
        'Trained normally, and robust by its data (figure 2b)',
        'All three networks are trained without any attack; only their training images '
        'differ. The clean test set is the original one.',
        charts.bars,
        list(titles.values()),
        series,
        Axis('right answers (%)', limits=PER_CENT),
    )


def sweep(scores: Mapping[float, Score], random: Score, eps: float) -> Picture:
    """D_det over the radius it was made with."""
    at = list(scores)
    return picture(
        'What the labels of D_det teach',
        'In D_det the non-robust features say the label, and the robust ones say the '
        'class before it, just as surely. Which of the two a network learns shows on '
        'clean images: the right class, or the one after it.',
        charts.lines,
        [
            Line('D_det: right answers', at, [s.clean for s in scores.values()]),
            Line('D_det: the class after it', at, [s.next for s in scores.values()]),
            Line(f'D_rand at {eps:g}: right answers', [eps], [random.clean]),
        ],
        Axis('L2 eps that D_det was made with'),
        Axis('share of clean test images (%)', limits=PER_CENT),
        levels={'chance': 10.0},
    )


def usefulness(found: Mapping[str, Useful], eps: float) -> Picture:
    """Features by rho and gamma."""
    points = {name: (u.rho, u.gamma) for name, u in found.items()}

    def chart(axes):
        gamma = Axis(f'gamma at L2 eps {eps:g}', limits=(-3, 1))
        charts.scatter_on(axes, points, Axis('rho, usefulness'), gamma)
        axes.axhline(0, color='#5d6875', lw=1.2)

    return picture(
        'Useful features, robust and not',
        'Each point is a feature of 3 against 7, scaled to mean 0, mean square 1: how '
        'well it goes with the label, and what an adversary leaves of that. Below zero '
        'it is useful, but not robust. Points below -3 are not shown.',
        charts.panels,
        [chart],
        height=4.8,
    )


def transfer(
    found: Mapping[str, Mapping[str, float]], given: Mapping[str, float]
) -> Picture:
    """Figure 3: who learns from the features of a network is fooled by it."""

    def chart(axes, name, eps):
        rates = f'transfer at {eps:g}'
        at = [row[name] for row in found.values()]
        rate = [row[rates] for row in found.values()]
        texts = [(a, r, arch) for a, r, arch in zip(at, rate, found, strict=True)]
        charts.scatter_on(
            axes, {'': (at, rate)},
            Axis('accuracy on clean test images (%)'), Axis(f'{rates} (%)'),
            texts=texts, title=f'trained on {name}',
        )  # fmt: skip
        axes.margins(x=0.4, y=0.15)

    return picture(
        'Transfer against learning (figure 3)',
        'Each point is an architecture. Upwards: how often adversarial images of the '
        'standard network, of the radius of that data set, fool it, trained on clean '
        'images. To the right: its accuracy '
        'after training on the relabelled images of that network.',
        charts.panels,
        [functools.partial(chart, name=n, eps=eps) for n, eps in given.items()],
    )


def metric(given: Mapping[str, Any]) -> Picture:
    """Figure 4: level lines of the robust Gaussian, and its gradient."""
    truth = gaussian.gaussian(given['mean'], given['variances'])
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])

    def chart(axes, eps):
        made = gaussian.robust(truth, eps)[0] if eps else truth
        root = np.linalg.cholesky(np.asarray(made.covariance, float))
        # One standard deviation, drawn at one size, so that shapes can be compared.
        ring = root @ circle * (2 / np.abs(root).max())
        way = np.asarray(gaussian.weights(made), float)
        way *= 1.8 / np.linalg.norm(way)
        mean = np.asarray(given['mean']) * 1.8 / np.linalg.norm(given['mean'])
        charts.lines_on(
            axes,
            [
                Line('level line of the density', ring[0], ring[1], dashed=True),
                Line('gradient', [0, way[0]], [0, way[1]]),
                Line('mean', [0, mean[0]], [0, mean[1]]),
            ],
            Axis(limits=(-2.3, 2.3)), Axis(limits=(-2.3, 2.3)),
            title=f'eps {eps:g}' if eps else 'standard',
        )  # fmt: skip
        axes.set_aspect('equal')

    return picture(
        'Two Gaussians, learnt robustly (figure 4)',
        'The robust covariance is a blend of the true one and a multiple of the '
        'identity: its level lines become circles, and the gradient, which an attack '
        'follows, turns towards the mean of the class.',
        charts.panels,
        [functools.partial(chart, eps=eps) for eps in (0.0, 0.5, 2.0)],
        height=4.0,
    )
