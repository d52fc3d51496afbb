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
next, and an example whose search has ended does not change any more.

Reference: Carlini and Wagner 2017, arXiv 1608.04644, sections V and VI, with the
constants of the authors' code. Deviations: the range is the ball's, and without one
there is no change of variables; the start lies 1e-4 inside the range, not 1e-6; the
Linf search bisects between the last tau that failed and the last that succeeded, and
ends at 1/4096 of the range instead of 1/256; L2 and Linf end in a bisection
(``refine``) towards the clean image.
"""

import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_l0 import search_l0
from advjax.attacks.carlini_wagner_linf import search_linf
from advjax.attacks.carlini_wagner_solve import Problem, squared
from advjax.attacks.checks import check_count, check_positive, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call
from advjax.types import Array, Ball, Found, Key, dataclass


@dataclass
class CarliniWagner:
    """The attack in the norm of its ball; build it with ``carlini_wagner``."""

    ball: Ball
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The most model calls per example; most runs stop early."""
        in_l0 = self.ball.norm_name == 'l0'
        return 1 + self.searches * (self.steps + in_l0) + self.refine

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        del key
        goal = goal.with_loss(losses.margin)
        if self.ball.norm_name == 'l0':
            return minimum.result(self, search_l0(self, goal, x), x)
        find = search_linf if self.ball.norm_name == 'linf' else _search_l2
        return minimum.confident(self, find(self, goal, x), goal, x)

    __call__ = call


def _search_l2(attack: CarliniWagner, goal: Goal, x: Array) -> Nearest:
    """Binary search over c."""
    clean = minimum.begin(goal, x)
    problem = Problem(attack, goal, x, clean, squared, -1.0)
    allowed, start = problem.free, problem.start
    active = jnp.ones_like(clean.norm, bool)

    def run(c):
        return problem.solve(start, c, (), allowed, active).nearest

    return minimum.search_constant(run, clean, attack.c, attack.searches)


def carlini_wagner(
    ball: Ball | None = None,
    steps: int = 1000,
    searches: int | None = None,
    kappa: float = 0.0,
    c: float | None = None,
    rate: float | None = None,
    refine: int = 10,
) -> CarliniWagner:
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
    if not kappa >= 0:
        raise ValueError(f'kappa must be >= 0, got {kappa}')
    usual = {'l2': (9, 1e-3, 1e-2), 'linf': (100, 1e-5, 5e-3), 'l0': (200, 1e-3, 1e-2)}
    its_searches, its_c, its_rate = usual[ball.norm_name]
    searches = its_searches if searches is None else searches
    c = its_c if c is None else c
    rate = its_rate if rate is None else rate
    return CarliniWagner(
        ball=ball,
        kappa=jnp.float32(kappa),
        c=jnp.float32(check_positive('c', c)),
        steps=check_count('steps', steps),
        searches=check_count('searches', searches),
        rate=check_positive('rate', rate),
        refine=0 if ball.norm_name == 'l0' else check_count('refine', refine, 0),
    )
