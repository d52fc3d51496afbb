"""Evaluation: verified robust accuracy, curves over the radius, masked gradients."""

from advjax.evaluation.accuracy import evaluate
from advjax.evaluation.curves import Curve, robustness_curve
from advjax.evaluation.masking import masking
from advjax.evaluation.masking_report import Masking, Sign
from advjax.evaluation.progress_file import OtherEvaluationError
from advjax.evaluation.record import CLEAN_ERROR, ROBUST, Evaluation
from advjax.evaluation.verify import Verified, verify

__all__ = [
    'CLEAN_ERROR',
    'ROBUST',
    'Curve',
    'Evaluation',
    'Masking',
    'OtherEvaluationError',
    'Sign',
    'Verified',
    'evaluate',
    'masking',
    'robustness_curve',
    'verify',
]
