"""The numbers behind the figures."""

import numpy as np

from experiments.frame.findings import table
from experiments.studies.xie2020.networks import WORDS


def tables_of(config, grid, sweep, own, still, attacked) -> list:
    """The numbers behind the figures."""

    def text(values):
        return f'{np.mean(values):.2f} ± {np.std(values):.2f}'

    def row(size):
        clean, joint, advprop = (grid[n, size][0] for n in WORDS)
        gain = advprop - clean, advprop - joint
        return [size, *map(text, (clean, joint, advprop, grid['advprop', size][1])),
                *map(text, gain)]  # fmt: skip

    return [
        table(
            f'Clean accuracy (%), eps {config.eps:g}, mean ± standard deviation of '
            f'{config.seeds} seeds',
            ['training images', 'clean', 'joint', 'AdvProp', 'AdvProp, auxiliary',
             'AdvProp - clean', 'AdvProp - joint'],
            [row(size) for size in config.sizes],
            'Differences are of pairs with the same images, start and order.',
        ),
        table(
            'Clean accuracy (%) by radius',
            ['eps', 'joint', 'AdvProp', 'AdvProp, auxiliary'],
            [
                [eps, text(sweep['joint', eps][0]), *map(text, sweep['advprop', eps])]
                for eps in sorted({eps for _, eps in sweep})
            ],
        ),
        table(
            'Distance of the statistics of the two branches, in standard deviations',
            ['layer', f'eps {config.eps:g}', 'eps 0'],
            [[i + 1, a, b] for i, (a, b) in enumerate(zip(own, still, strict=True))],
            'Mean over channels of |difference of means| / pooled standard deviation.',
        ),
        table(
            f'Robust accuracy (%) through each branch, PGD-20, eps {config.eps:g}',
            ["training's attack looks through", 'main branch', 'auxiliary branch'],
            [
                [words, *(float(attacked[f'{name}{branch}']) for branch in (0, 1))]
                for name, words in (
                    ('own', 'the auxiliary branch (AdvProp)'),
                    ('main', 'the main branch (a mistake)'),
                )
            ],
            'Each branch is attacked through itself.',
        ),
    ]  # fmt: skip
