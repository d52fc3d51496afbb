"""The first layer of the robust network: a few thresholds?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax.types import LogitsFn
from experiments.frame.findings import Findings, claim, image_grid, picture


def measure(nets: Mapping[str, LogitsFn]) -> dict[str, np.ndarray]:
    """First-layer filters (n, h, w) and biases of the answer, by net."""
    found = {}
    for name, net in nets.items():
        params: Any = getattr(net, 'args')[0]  # noqa: B009
        kernel = np.asarray(params['conv1']['kernel'])
        found[f'{name} filters'] = np.moveaxis(kernel.mean(axis=2), -1, 0)
        found[f'{name} bias'] = np.asarray(params['out']['bias'])
    return found


def findings(found: Mapping[str, np.ndarray]) -> Findings:
    """Whether the robust net's first layer is a few thresholds."""
    claims, share = [], {}
    for net in ('natural', 'robust'):
        size = np.abs(found[f'{net} filters']).reshape(len(found[f'{net} filters']), -1)
        norm = np.linalg.norm(size, axis=1)
        used = norm > 0.1 * norm.max()
        share[net] = 100 * np.mean(size[used].max(axis=1) / size[used].sum(axis=1))
        claims += [
            claim(
                f'{net} net: filters of the first layer in use (over a tenth of the '
                f'largest norm), of {len(used)}',
                float(used.sum()),
                paper='3 of 32' if net == 'robust' else '',
                tag='R',
            ),
            claim(
                f'{net} net: share of the largest weight in a filter in use',
                share[net],
                paper='100' if net == 'robust' else '',
                tag='R',
                unit='%',
            ),
        ]
    claims += [
        claim(
            'the largest weight of a filter has a larger share in the robust net',
            share['robust'] - share['natural'],
            paper='one weight per filter',
            tag='R',
            band=(0, None),
            unit='%',
        ),
        claim(
            'spread of the ten biases of the answer, robust / natural net',
            np.std(found['robust bias']) / np.std(found['natural bias']),
            paper='strongly non-uniform',
            tag='R',
            band=(1, None),
        ),
    ]

    rows = []
    for net in ('natural', 'robust'):
        weights = found[f'{net} filters']
        grey = 0.5 + 0.5 * weights / np.abs(weights).max()
        rows.append({'title': f'{net} net', 'images': grey})
    drawn = picture(
        'What the first layer became',
        'First-layer filters; grey is zero, white and black the largest weight.',
        image_grid,
        rows,
        16,
        8,
    )
    return Findings(claims, [drawn])
