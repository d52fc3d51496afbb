"""Rank correlation of a few measured pairs."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, between -1 and 1; 0 where either does not vary."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(stats.spearmanr(a, b)[0])
