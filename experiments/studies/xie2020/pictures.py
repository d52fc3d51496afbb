"""The figures of the page."""

import functools
from typing import Any

import numpy as np

from advjax.report import charts
from experiments.frame.findings import picture
from experiments.studies.xie2020.networks import WORDS, distances


def pictures_of(config, grid, sweep, own, middle) -> list:
    """The figures of the page."""
    y = charts.Axis('clean accuracy (%)')

    def by_size(width):
        lines = [
            _line(word, config.sizes, [grid[name, s][0] for s in config.sizes])
            for name, word in WORDS.items()
        ]
        aux = [grid['advprop', s][1] for s in config.sizes]
        lines.append(_line('AdvProp, auxiliary branch', config.sizes, aux, True))
        x = charts.Axis('training images', 'log')
        return charts.lines(lines, x, y, width=width)

    radii = sorted({eps for _, eps in sweep})

    def by_radius(width):
        lines = [
            _line(WORDS[name], radii, [sweep[name, eps][0] for eps in radii])
            for name in ('joint', 'advprop')
        ]
        aux = [sweep['advprop', eps][1] for eps in radii]
        lines.append(_line('AdvProp, auxiliary branch', radii, aux, True))
        # First, so that every training has the colour it has above.
        lines.insert(
            0, _line('clean images', radii, [grid['clean', middle][0]] * len(radii))
        )
        x = charts.Axis('radius of the adversary (Linf)')
        return charts.lines(lines, x, y, width=width)

    def branches(width):
        return charts.panels(
            [
                functools.partial(_compare, own, kind, word)
                for kind, word in (
                    ('mean', 'running mean'),
                    ('var', 'running variance'),
                )
            ],
            width=width,
        )

    return [
        picture(
            'Clean accuracy by size of the training set',
            f'Mean and standard deviation of {config.seeds} networks per point. All '
            'three trainings see the same images in the same order. The dashed line is '
            'AdvProp asked through the branch of the adversarial images.',
            by_size,
        ),
        picture(
            'What a stronger adversary does',
            f'Clean accuracy at {middle} training images. A weak adversary is as good '
            'a teacher through one normalisation as through two; the stronger it is, '
            'the more it helps to keep the two kinds of images apart.',
            by_radius,
        ),
        picture(
            'Statistics of the two branches',
            'Every point is a channel. On the dashed line both branches would agree.',
            branches,
        ),
    ]


def _line(name: str, at: Any, values: list[np.ndarray], dashed: bool = False):
    mean, sd = (np.array([f(v) for v in values]) for f in (np.mean, np.std))
    return charts.Line(name, at, mean, (mean - sd, mean + sd), dashed)


def _compare(found, kind, word, axes):
    """One statistic of the auxiliary branch against the main one."""
    layers = len(distances(found))
    points = {
        f'layer {i + 1}': (found[f'{kind}{i}a'], found[f'{kind}{i}b'])
        for i in range(layers)
    }
    every = np.concatenate([np.concatenate(pair) for pair in points.values()])
    scale = 'log' if kind == 'var' else 'linear'
    ends = [every.min(), every.max()]
    x, y = (charts.Axis(f'{word}, {b}', scale) for b in ('main', 'auxiliary'))
    charts.scatter_on(axes, points, x, y)
    axes.plot(ends, ends, color='gray', ls='--', lw=1.2, zorder=1)
