"""What an evaluation has verified independently of the attacks, in words."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from advjax.balls import Ball, limit
from advjax.evaluation import Evaluation


def checks_of(found: Sequence[Evaluation], ball: Ball) -> list[dict[str, Any]]:
    """Claims about all adversarial images, how many were checked, how many failed.

    Args:
      found: the evaluation of each network.
      ball: the threat model.
    """

    def joined(values: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([value.ravel() for value in values])

    claims = joined(e.success | e.rejected for e in found)
    norm = joined(e.norm for e in found)[claims]
    beyond = joined(e.norm > limit(ball, e.worst) for e in found)[claims]
    ranged = joined(e.in_range for e in found)[claims]
    margin = joined(e.margin for e in found)[claims]
    finite = joined(e.finite for e in found)
    eps, checked = float(ball.eps), int(claims.sum())
    largest = f'largest distance {norm.max():.7f}' if checked else 'none was found'
    rows = [
        {
            'claim': f'Every adversarial image lies within {eps:.4g} of its original'
            if np.isfinite(eps)
            else 'Every adversarial image lies at a finite distance of its original',
            'checked': checked,
            'failed': int((beyond | ~np.isfinite(norm)).sum()),
            'detail': f'{largest}, measured again in double precision',
        },
        {
            'claim': 'A separate run of the network confirms every wrong answer',
            'checked': checked,
            'failed': int((~(margin >= 0)).sum()),
            'detail': 'in single precision, outside the attack',
        },
        {
            'claim': 'The network gave a finite answer to every image',
            'checked': finite.size,
            'failed': int((~finite).sum()),
            'detail': 'no NaN, no infinity',
        },
    ]
    if ball.bounds is not None:
        low, high = ball.bounds
        pixels = {
            'claim': f'Every adversarial image has pixels between {low:g} and {high:g}',
            'checked': checked,
            'failed': int((~ranged).sum()),
            'detail': 'checked exactly, without tolerance',
        }
        rows.insert(1, pixels)
    return rows
