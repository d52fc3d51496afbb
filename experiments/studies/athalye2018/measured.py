"""What is measured on one model: accuracies under attack, and signs of masking."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax import attacks, balls, evaluation
from advjax.defenses import Defended
from advjax.types import LogitsFn
from experiments.frame.work import Work

Figures = Mapping[str, np.ndarray]
"""Numbers and arrays by name, as ``work.keep`` returns them."""

FACTORS = (0.5, 1.5)
"""Further radii of the curves, in units of eps."""


def undefended(
    config: Any, work: Work, f: LogitsFn, x: np.ndarray, y: np.ndarray
) -> dict[str, float]:
    """Accuracies of the network without a defence: clean, and under PGD."""
    pgd = attacks.pgd(balls.linf(config.eps), config.steps)
    found = work.evaluate(f, x, y, pgd)
    return {'clean': found.clean_accuracy, 'pgd': found.robust_accuracy}


def attacked(
    config: Any,
    work: Work,
    defended: Defended,
    f: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
) -> dict[str, Any]:
    """Accuracies of one defence: clean, and by radius under three attacks."""
    accuracy: dict[str, list[float]] = {'ignored': [], 'naive': [], 'adaptive': []}
    for factor in (*FACTORS, 1.0):
        pgd = attacks.pgd(balls.linf(factor * config.eps), config.steps)
        each = {
            'ignored': attacks.surrogate(pgd, f),
            'naive': defended.naively(pgd),
            'adaptive': defended.adaptively(pgd),
        }
        found = work.evaluate(defended.deployed, x, y, each)
        for name, values in accuracy.items():
            values.append(found.accuracy(name))
    return {
        'clean': found.clean_accuracy,
        **{name: values[-1] for name, values in accuracy.items()},
        **{f'{name} curve': values for name, values in accuracy.items()},
    }


def report(
    config: Any,
    work: Work,
    model: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    eps: float,
    substitute: LogitsFn | None,
) -> dict[str, Any]:
    """A masking report as arrays, its signs in the order of ``THRESHOLDS``."""
    few = slice(config.report_images)
    found = evaluation.masking(
        model,
        x[few],
        y[few],
        eps,
        key=work.key,
        substitute=substitute,
        steps=config.steps,
        queries=config.queries,
        samples=config.samples,
        batch_size=min(500, config.report_images),
    )
    signs = {sign.name: sign for sign in found.signs}
    return {
        'names': list(signs),
        'values': [sign.value for sign in signs.values()],
        'fired': [sign.fired for sign in signs.values()],
        'sentences': [sign.sentence for sign in signs.values()],
        'clean': found.clean,
        'iterative': found.accuracy['iterative'],
    }
