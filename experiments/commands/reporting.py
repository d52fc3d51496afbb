"""What experiments that attack networks report: proofs, examples, a text table."""

from typing import Any

import jax
import numpy as np

from advjax import data, evaluation
from advjax.balls import Ball, limit
from advjax.types import LogitsFn


def proofs(found: list[evaluation.Evaluation], ball: Ball, extra: list) -> list[dict]:
    """What was checked from outside, in words."""
    claims = np.concatenate([(e.success | e.rejected).ravel() for e in found])
    norm = np.concatenate([e.norm.ravel() for e in found])[claims]
    ranged = np.concatenate([e.in_range.ravel() for e in found])[claims]
    margin = np.concatenate([e.margin.ravel() for e in found])[claims]
    finite = np.concatenate([e.finite.ravel() for e in found])
    eps, checked = float(ball.eps), int(claims.sum())
    low, high = ball.bounds
    largest = f'largest distance {norm.max():.7f}' if checked else 'none was found'
    return [
        {
            'claim': f'Every adversarial image lies within {eps:.4g} of its original'
            if np.isfinite(eps)
            else 'Every adversarial image lies at a finite distance of its original',
            'checked': checked,
            'failed': int((~(norm <= limit(eps)) | np.isinf(norm)).sum()),
            'detail': f'{largest}, measured again in double precision',
        },
        {
            'claim': f'Every adversarial image has pixels between {low:g} and {high:g}',
            'checked': checked,
            'failed': int((~ranged).sum()),
            'detail': 'checked exactly, without tolerance',
        },
        {
            'claim': 'A separate run of the network confirms every wrong answer',
            'checked': checked,
            'failed': int((~(margin >= 0)).sum()),
            'detail': 'in single precision, outside the attack',
        },
        {
            'claim': 'The network gave a finite answer to every image',
            'checked': int(finite.size),
            'failed': int((~finite).sum()),
            'detail': 'no NaN, no infinity',
        },
        *extra,
    ]


def examples_of(
    nets: list[tuple[str, LogitsFn]],
    found: list[evaluation.Evaluation],
    test: data.Dataset,
    count: int = 9,
) -> dict[str, Any]:
    """Images for the page: the first that every network is right on unattacked."""
    right = np.flatnonzero(np.all([e.clean_correct for e in found], axis=0))
    # One of each class first: a grid of equal digits teaches less.
    _, first = np.unique(test.labels[right], return_index=True)
    order = np.concatenate([right[np.sort(first)], right])
    chosen = np.array(list(dict.fromkeys(order))[:count], int)
    clean = np.asarray(data.to_float(test.images[chosen]))
    shown_nets = []
    for (name, logits_fn), e in zip(nets, found, strict=True):
        shown = e.worst[chosen]
        before, after = (_confidence(logits_fn, images) for images in (clean, shown))
        shown_nets.append(
            {
                'name': name,
                'adversarial': shown,
                'clean_prediction': before[0],
                'clean_confidence': before[1],
                'prediction': after[0],
                'confidence': after[1],
            }
        )
    return {'clean': clean, 'labels': test.labels[chosen], 'nets': shown_nets}


def _confidence(logits_fn: LogitsFn, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(jax.nn.softmax(logits_fn(x)))
    return p.argmax(axis=1), p.max(axis=1)


def table(results: dict[str, Any]) -> str:
    """The accuracies of all networks as a text table."""
    nets = results['nets']
    rows = [('', *(net['name'] for net in nets))]
    rows.append(('clean', *(f'{net["clean_accuracy"]:.2%}' for net in nets)))
    for i, attack in enumerate(nets[0]['attacks']):
        figures = (f'{net["attacks"][i]["robust_accuracy"]:.2%}' for net in nets)
        rows.append((attack['name'], *figures))
    rows.append(('worst case', *(f'{net["robust_accuracy"]:.2%}' for net in nets)))
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join(
        '  '.join([row[0].ljust(wide[0]), *map(str.rjust, row[1:], wide[1:])])
        for row in rows
    )
