"""The figures of the paper, redrawn from our data."""

import functools
from typing import Any

import numpy as np

from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Picture, picture

PER_CENT = (0.0, 100.0)

TRAININGS = ('natural', 'Linf', 'L2')


def bound(found: dict[str, np.ndarray], p: float) -> Picture:
    """Theorem 2.1 and classifiers."""
    clean = np.linspace(1 - (1 - p) / p, 1, 50)

    def draw(width):
        points = {
            'linear classifiers': (
                100 * found['random clean'], 100 * found['random robust'],
            ),
            **{
                f'SVM, {name} training': (
                    [100 * float(found[f'{name} clean'])],
                    [100 * float(found[f'{name} robust'])],
                )
                for name in ('natural', 'adversarial')
            },
        }  # fmt: skip

        def chart(axes):
            charts.scatter_on(
                axes, points, Axis('accuracy (%)', limits=(90, 100.3)),
                Axis('accuracy at eps = 2 eta (%)', limits=(-2, 102)),
            )  # fmt: skip
            line = 100 * p / (1 - p) * (1 - clean)
            axes.plot(100 * clean, line, color='#1d2733', lw=1.6, label='theorem 2.1')

        return charts.panels([chart], width=width, height=4.8)

    return picture(
        'Accuracy costs robustness (theorem 2.1)',
        'Each point is a classifier of the distribution, with its exact accuracies. '
        'None can lie above the line: who is right more often than the robust feature '
        'must use features that an adversary turns round.',
        draw,
    )


def weights(found: dict[str, np.ndarray]) -> Picture:
    """What both SVMs learnt."""

    def draw(width):
        def share(name):
            size = np.abs(found[name]) / np.abs(found[name]).sum()
            return [100 * size[0], 100 * size[1:].sum()]

        series = {
            f'{name} training': share(name) for name in ('natural', 'adversarial')
        }
        groups = ['x_1, robust', 'x_2 and on, weak']
        axis = Axis('share of all weight (%)', limits=PER_CENT)
        return charts.bars(groups, series, axis, width=width)

    return picture(
        'Where the weight goes (theorem 2.2)',
        'The same samples, the same loss: only the adversary makes the difference.',
        draw,
    )


def sizes(found: dict[str, np.ndarray], names: list[str], eps: float) -> Picture:
    """Section 3.1 (figure 2)."""

    def line(name, which):
        values = found[name][:, :, which]
        ends = (values.min(axis=1), values.max(axis=1))
        title = name if name == 'natural' else f'adversarial, {name}'
        spread = ends if values.shape[1] > 1 else None
        return Line(title, found['sizes'].tolist(), values.mean(axis=1), spread)

    # From a little below the fewest images' accuracy: there the lines part.
    lowest = float(found['natural'][0, :, 0].min()) - 8

    def chart(axes, which, limits, title):
        charts.lines_on(
            axes, [line(n, which) for n in names], Axis('training images', 'log'),
            Axis('accuracy (%)', limits=limits), title=title,
        )  # fmt: skip

    def draw(width):
        panels = [
            functools.partial(chart, which=0, limits=(lowest, 101), title='clean'),
            functools.partial(
                chart, which=1, limits=(-2, 101), title=f'PGD, Linf {eps:g}'
            ),
        ]
        return charts.panels(panels, width=width)

    return picture(
        'How many images robustness takes (figure 2)',
        'The same network, trained naturally and against FGSM from random starts, on '
        'more and more images. The last points are trained on the whole set, and for '
        'longer. Where a line leaves the picture, training has collapsed to one '
        'answer, with every seed that was tried.',
        draw,
    )


def centred(images: np.ndarray) -> np.ndarray:
    """Signed pictures on [0, 1]: zero is grey, clipped at three standard deviations."""
    axes = tuple(range(1, images.ndim))
    scale = 3 * np.std(images, axis=axes, keepdims=True)
    return np.clip(0.5 + 0.5 * images / np.where(scale > 0, scale, 1), 0, 1)


def _grid(rows: list[dict[str, Any]]):
    def draw(width):
        columns = len(rows[0]['images']) if width > 8 else len(rows[0]['images']) // 2
        shown = [
            {k: v if k == 'title' else v[:columns] for k, v in row.items()}
            for row in rows
        ]
        return charts.adversarial_grid(shown, width=width, columns=columns)

    return draw


def saliency(found: dict[str, np.ndarray]) -> Picture:
    """Section 3.2 (figure 3)."""
    rows = [
        {'title': 'images', 'images': found['images']},
        *(
            {
                'title': f'gradient, {name} training',
                'images': centred(found[f'{name} gradient']),
            }
            for name in TRAININGS
        ),
    ]
    return picture(
        'What the loss depends on (figure 3)',
        'Grey is no influence, bright pixels raise the loss, dark ones lower it. '
        'Nothing is smoothed.',
        _grid(rows),
    )


def large(
    images: np.ndarray, labels: np.ndarray, found: dict[str, np.ndarray], eps: float
) -> Picture:
    """Section 3.3 (figures 4 and 5): large perturbations, and the way there."""
    rows = [
        {
            'title': 'images',
            'images': images,
            'captions': [str(label) for label in labels],
        },
        *(
            {
                'title': f'{name} training, L2 {eps:g}',
                'images': found[f'{name} adv'],
                'captions': [str(a) for a in found[f'{name} answers']],
            }
            for name in TRAININGS
        ),
    ]
    return picture(
        'Adversarial images of a large radius (figure 4)',
        'L2 PGD against three networks, with their answers below: as much change as it '
        'takes to make one digit into another.',
        _grid(rows),
    )


def ways(
    images: np.ndarray, labels: np.ndarray, found: dict[str, np.ndarray]
) -> Picture:
    """Interpolations (figure 5)."""
    shares = np.linspace(0, 1, 8)
    answers = found['L2 answers']
    fooled = np.flatnonzero(answers != labels)[:3]
    rows = [
        {
            'title': f'from {labels[i]} to {answers[i]}',
            'images': np.stack([
                (1 - t) * images[i] + t * found['L2 adv'][i] for t in shares
            ]),
            'captions': [f'{t:.2f}' for t in shares],
        }
        for i in (fooled if len(fooled) else [0])
    ]  # fmt: skip

    def draw(width):
        return charts.adversarial_grid(rows, width=width, columns=8)

    return picture(
        'Between an image and its adversarial one (figure 5)',
        'Straight lines in pixels to what fools the network trained in L2.',
        draw,
    )


def pixels(found: dict[str, np.ndarray], eps: float) -> Picture:
    """The linear experiment on pixels that go with the label."""

    def draw(width):
        lines = [
            Line('clean', found['taus'], found['clean']),
            Line(f'Linf eps {eps:g}, exact', found['taus'], found['robust']),
        ]
        x = Axis('tau: least correlation of a pixel with the label')
        return charts.lines(
            lines, x, Axis('accuracy (%)', limits=PER_CENT), width=width
        )

    return picture(
        'Fewer, better features',
        'Logistic regressions of 3 against 7, trained normally, that only see pixels '
        'whose correlation with the label exceeds tau.',
        draw,
    )
