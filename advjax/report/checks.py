"""What an evaluation has verified independently of the attacks, in words."""

from collections.abc import Sequence
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

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(e, name).ravel() for e in found])

    claims = joined('success') | joined('rejected')
    norm, ranged, margin = (
        joined(name)[claims] for name in ('norm', 'in_range', 'margin')
    )
    finite = joined('finite')
    eps, checked = float(ball.eps), int(claims.sum())
    largest = f'largest distance {norm.max():.7f}' if checked else 'none was found'
    rows = [
        {
            'claim': f'Every adversarial image lies within {eps:.4g} of its original'
            if np.isfinite(eps)
            else 'Every adversarial image lies at a finite distance of its original',
            'checked': checked,
            'failed': int((~(norm <= limit(eps)) | np.isinf(norm)).sum()),
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
