r"""Carlini and Wagner's attacks in L2, Linf and L0.

All three minimise by Adam, over a variable w without constraint,

.. math::
    D(x' - x) + c\, \max(-\mathrm{margin}(x'), -\kappa), \qquad
    x' = \tfrac{u + l}{2} + \tfrac{u - l}{2} \tanh w

and search for the constant c, and for what else D holds, example by example:

    L2     D = |x' - x|^2; c by binary search
    Linf   D = sum of (|x' - x| - tau)_+; tau shrinks by a tenth after every success
    L0     D = |x' - x|^2 on a shrinking set of pixels

One program serves the whole search: the state of every example says what it tries
next, and those that are done are not touched any more.

Reference: Carlini and Wagner 2017, arXiv 1608.04644, sections V and VI, with the
constants of the authors' code. Deviations: the range is the ball's, and without one
there is no change of variables; the start lies 1e-4 inside the range, not 1e-6; the
Linf search bisects between the last tau that failed and the last that succeeded, and
ends at 1/4096 of the range instead of 1/256; L2 and Linf end in a bisection
(``refine``) towards the clean image.
"""

from typing import Any

import jax.numpy as jnp

from advjax.attacks.carlini_wagner_l0 import CarliniWagnerL0
from advjax.attacks.carlini_wagner_l2 import CarliniWagnerL2
from advjax.attacks.carlini_wagner_linf import CarliniWagnerLinf
from advjax.attacks.checks import check_count, check_positive, norm_ball
from advjax.types import Ball


def carlini_wagner(
    ball: Ball | None = None,
    steps: int = 1000,
    searches: int | None = None,
    kappa: float = 0.0,
    c: float | None = None,
    rate: float | None = None,
    refine: int = 10,
) -> CarliniWagnerL2 | CarliniWagnerLinf | CarliniWagnerL0:
    """The attack of Carlini and Wagner in the norm of the ball.

    Args:
      ball: an L2 (default), Linf or L0 ball: the norm, the range, and the radius
        beyond which nothing is returned. L0 counts numbers of the input.
      steps: most steps of Adam per minimisation; 10,000 in the paper, 1,000 in
        most libraries.
      searches: minimisations; 9 values of c in L2, at most 100 in Linf, 200 in L0.
      kappa: the margin asked for, in logits: confidence, for transfer.
      c: the first constant; 1e-3 in L2 and L0, 1e-5 in Linf.
      rate: Adam's; 1e-2 in L2 and L0, 5e-3 in Linf.
      refine: bisection steps at the end; 0 is the paper's algorithm. None in L0.

    Raises:
      ValueError: for another ball, a count below 1, or kappa < 0.

    Reference: Carlini and Wagner 2017, arXiv 1608.04644.
    """
    ball = norm_ball(ball, 'carlini_wagner', ('l2', 'linf', 'l0'))
    kind = ball.norm_name
    if not kappa >= 0:
        raise ValueError(f'kappa must be >= 0, got {kappa}')
    searches = {'l2': 9, 'linf': 100, 'l0': 200}[kind] if searches is None else searches
    c = {'l2': 1e-3, 'linf': 1e-5, 'l0': 1e-3}[kind] if c is None else c
    rate = {'l2': 1e-2, 'linf': 5e-3, 'l0': 1e-2}[kind] if rate is None else rate
    common: dict[str, Any] = {
        'ball': ball,
        'kappa': jnp.float32(kappa),
        'c': jnp.float32(check_positive('c', c)),
        'steps': check_count('steps', steps),
        'searches': check_count('searches', searches),
        'rate': check_positive('rate', rate),
    }
    if kind == 'l0':
        return CarliniWagnerL0(**common)
    common['refine'] = check_count('refine', refine, 0)
    return CarliniWagnerL2(**common) if kind == 'l2' else CarliniWagnerLinf(**common)
