"""The figures of the paper, redrawn from our data."""

import functools

import numpy as np

from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Picture, first_images, picture

PER_CENT = (0.0, 100.0)

TRAININGS = ('natural', 'Linf', 'L2')


def bound(found: dict[str, np.ndarray], p: float) -> Picture:
    """Theorem 2.1 and classifiers."""
    clean = np.linspace(1 - (1 - p) / p, 1, 50)
    names = {
        'random': 'linear classifiers',
        'natural': 'SVM, natural training',
        'adversarial': 'SVM, adversarial training',
    }

    def per_cent(name):
        return 100 * np.atleast_1d(found[name])

    points = {
        title: (per_cent(f'{name} clean'), per_cent(f'{name} robust'))
        for name, title in names.items()
    }

    def chart(axes):
        charts.scatter_on(
            axes, points, Axis('accuracy (%)', limits=(90, 100.3)),
            Axis('accuracy at eps = 2 eta (%)', limits=(-2, 102)),
        )  # fmt: skip
        line = 100 * p / (1 - p) * (1 - clean)
        axes.plot(100 * clean, line, color='#1d2733', lw=1.6, label='theorem 2.1')

    return picture(
        'Accuracy costs robustness (theorem 2.1)',
        'Each point is a classifier of the distribution, with its exact accuracies. '
        'None can lie above the line: who is right more often than the robust feature '
        'must use features that an adversary turns round.',
        charts.panels,
        [chart],
        height=4.8,
    )


def weights(found: dict[str, np.ndarray]) -> Picture:
    """What both SVMs learnt."""

    def share(name):
        size = np.abs(found[name]) / np.abs(found[name]).sum()
        return [100 * size[0], 100 * size[1:].sum()]

    return picture(
        'Where the weight goes (theorem 2.2)',
        'The same samples, the same loss: only the adversary makes the difference.',
        charts.bars,
        ['x_1, robust', 'x_2 and on, weak'],
        {f'{name} training': share(name) for name in ('natural', 'adversarial')},
        Axis('share of all weight (%)', limits=PER_CENT),
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

    panels = [
        functools.partial(
            charts.lines_on,
            lines=[line(name, which) for name in names],
            x=Axis('training images', 'log'),
            y=Axis('accuracy (%)', limits=(least, 101)),
            title=title,
        )
        for which, least, title in (
            (0, lowest, 'clean'),
            (1, -2, f'PGD, Linf {eps:g}'),
        )
    ]
    return picture(
        'How many images robustness takes (figure 2)',
        'The same network, trained naturally and against FGSM from random starts, on '
        'more and more images. The last points are trained on the whole set, and for '
        'longer. Where a line leaves the picture, training has collapsed to one '
        'answer, with every seed that was tried.',
        charts.panels,
        panels,
    )


def centred(images: np.ndarray) -> np.ndarray:
    """Signed pictures on [0, 1]: zero is grey, clipped at three standard deviations."""
    axes = tuple(range(1, images.ndim))
    scale = 3 * np.std(images, axis=axes, keepdims=True)
    return np.clip(0.5 + 0.5 * images / np.where(scale > 0, scale, 1), 0, 1)


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
        first_images,
        rows,
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
        first_images,
        rows,
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
    return picture(
        'Between an image and its adversarial one (figure 5)',
        'Straight lines in pixels to what fools the network trained in L2.',
        charts.adversarial_grid,
        rows,
        columns=8,
    )


def pixels(found: dict[str, np.ndarray], eps: float) -> Picture:
    """The linear experiment on pixels that go with the label."""
    return picture(
        'Fewer, better features',
        'Logistic regressions of 3 against 7, trained normally, that only see pixels '
        'whose correlation with the label exceeds tau.',
        charts.lines,
        [
            Line('clean', found['taus'], found['clean']),
            Line(f'Linf eps {eps:g}, exact', found['taus'], found['robust']),
        ],
        Axis('tau: least correlation of a pixel with the label'),
        Axis('accuracy (%)', limits=PER_CENT),
    )
