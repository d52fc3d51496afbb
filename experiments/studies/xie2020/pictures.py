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
    radii = sorted({eps for _, eps in sweep})
    # The same trainings in the same order, so that each has one colour in both figures.
    at_all_radii = sweep | {('clean', eps): grid['clean', middle] for eps in radii}

    def lines(found, at):
        auxiliary = [found['advprop', each][1] for each in at]
        return [
            *(
                _line(word, at, [found[name, each][0] for each in at])
                for name, word in WORDS.items()
            ),
            _line('AdvProp, auxiliary branch', at, auxiliary, True),
        ]

    return [
        picture(
            'Clean accuracy by size of the training set',
            f'Mean and standard deviation of {config.seeds} networks per point. All '
            'three trainings see the same images in the same order. The dashed line is '
            'AdvProp asked through the branch of the adversarial images.',
            charts.lines,
            lines(grid, config.sizes),
            charts.Axis('training images', 'log'),
            y,
        ),
        picture(
            'What a stronger adversary does',
            f'Clean accuracy at {middle} training images. A weak adversary is as good '
            'a teacher through one normalisation as through two; the stronger it is, '
            'the more it helps to keep the two kinds of images apart.',
            charts.lines,
            lines(at_all_radii, radii),
            charts.Axis('radius of the adversary (Linf)'),
            y,
        ),
        picture(
            'Statistics of the two branches',
            'Every point is a channel. On the dashed line both branches would agree.',
            charts.panels,
            [
                functools.partial(_compare, own, 'mean', 'running mean'),
                functools.partial(_compare, own, 'var', 'running variance'),
            ],
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
