"""Evaluation: verified robust accuracy, curves over the radius, and the report page."""

from advjax.evaluation.accuracy import CLEAN_ERROR, ROBUST, Evaluation, evaluate
from advjax.evaluation.curves import Curve, robustness_curve
from advjax.evaluation.verify import Verified, verify

__all__ = [
    'CLEAN_ERROR',
    'ROBUST',
    'Curve',
    'Evaluation',
    'Verified',
    'evaluate',
    'robustness_curve',
    'verify',
]
