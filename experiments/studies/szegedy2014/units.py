r"""Section 3: the images that excite one hidden unit, or one random direction, most.

.. math:: x' = \arg\max_{x \in I} \langle \phi(x), v \rangle

over images that were not trained on, for v a unit vector of the basis or a random
direction. The paper shows a few and finds both alike to the eye; here coherence is
measured on all units and as many directions: how often the most frequent class occurs
among the top images (purity), and how far these are apart.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from advjax import models
from advjax.training import Fit
from experiments.frame import nets
from experiments.frame.datasets import Sets
from experiments.frame.findings import Findings, claim, image_grid, picture, table
from experiments.frame.work import Work


class Coherence(NamedTuple):
    """How alike the top images are, per unit or direction."""

    top: np.ndarray
    """(V, k) positions of images."""
    purity: np.ndarray
    """(V,) share of the most frequent class, in per cent."""
    distance: np.ndarray
    """(V,) mean Euclidean distance of two of them, in pixels."""


def _coherence(top: np.ndarray, x: np.ndarray, y: np.ndarray) -> Coherence:
    purity = [100 * np.bincount(row).max() / len(row) for row in y[top]]
    flat = x.reshape(len(x), -1)[top].astype(np.float64)
    k = top.shape[1]
    gaps = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)
    return Coherence(top, np.array(purity), gaps.sum(axis=(1, 2)) / (k * (k - 1)))


def compare(config: Any, work: Work, fit: Fit, sets: Sets) -> dict[str, Coherence]:
    """Units, random directions, and groups of images drawn without looking."""
    x, y = work.images(sets.test)

    features = models.features_fn(fit.model, fit.params, fit.model_state)
    parts = [features(jnp.asarray(x[i : i + 1000])) for i in range(0, len(x), 1000)]
    phi = np.concatenate(parts)
    units = phi.shape[1]
    random = np.random.RandomState(config.seed)
    directions = random.normal(size=(units, units))

    def top(values):
        return np.argsort(-values, axis=0, kind='stable')[: config.top].T

    # A unit that is never active orders nothing.
    alive = phi.max(axis=0) > phi.min(axis=0)
    groups = np.stack(
        [random.choice(len(x), config.top, replace=False) for _ in range(units)]
    )
    return {
        'units': _coherence(top(phi[:, alive]), x, y),
        'random directions': _coherence(top(phi @ directions.T), x, y),
        'random groups': _coherence(groups, x, y),
    }


def findings(config: Any, work: Work, sets: Sets, fits: Mapping[str, Fit]) -> Findings:
    """Section 3: single units against random directions."""
    taken = {'FC100': fits['FC100']}
    if config.conv_nets:
        taken['conv, natural'] = nets.natural(work, sets)
    x, y = work.images(sets.test)
    claims, rows, pictures = [], [], []
    for name, fit in taken.items():
        kinds = compare(config, work, fit, sets)
        by_kind = {kind: c.purity.mean() for kind, c in kinds.items()}
        claims += [
            claim(f'purity of random directions above that of random groups, {name}',
                  by_kind['random directions'] - by_kind['random groups'],
                  band=(0, None), unit='%'),
            claim(f'purity of random directions over that of units, {name}',
                  by_kind['random directions'] / by_kind['units'],
                  paper='indistinguishable', tag='M'),
        ]  # fmt: skip
        rows += [
            [name, kind, len(c.top), c.purity.mean(), c.distance.mean()]
            for kind, c in kinds.items()
        ]
        shown = [
            {'title': f'{title} {i + 1}', 'images': x[kinds[kind].top[i]],
             'captions': [str(label) for label in y[kinds[kind].top[i]]]}
            for kind, title in (('units', 'unit'),
                                ('random directions', 'random direction'))
            for i in range(3)
        ]  # fmt: skip
        pictures.append(
            picture(
                f'Units and random directions: {name}',
                'The test images that excite a unit of the last hidden layer most, and '
                'those that lie farthest along a random direction of the same layer, '
                'with their labels.',
                image_grid,
                shown,
                config.top,
                4,
            )
        )
    return Findings(
        claims,
        pictures,
        [
            table(
                f'Coherence of the top {config.top} images',
                ['network', 'of', 'how many', 'purity (%)', 'mean distance'], rows,
                'Purity: the share of the most frequent class among them. Distance: '
                'between two of them, Euclidean, in pixels.',
            )
        ],
    )  # fmt: skip
