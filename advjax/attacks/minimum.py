"""What minimum-norm attacks share: the closest adversarial example found so far.

Such an attack looks for the smallest perturbation that succeeds. Its ball names the
norm and the range, and its radius how far the search may end: infinite by default,
the threat model's where only adversarial examples within it are of use. It returns
the closest adversarial example, and the clean image where none was found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax.attacks.goal import Goal
from advjax.balls import Ball, contains
from advjax.rows import choose, wide
from advjax.types import Array, LogitsFn, Loss

TIE = 2e-6
"""A margin below this share of the largest logit, here or clean, is a tie.

The closest adversarial example lies on the decision boundary, where the rounding of
another program (another batch size, another device) could turn the answer back.
"""


class Nearest(NamedTuple):
    """The closest adversarial example so far, and its distance: infinite for none."""

    x: Array
    norm: Array

    @property
    def found(self) -> Array:
        """(B,) whether there is one."""
        return jnp.isfinite(self.norm)


def goal_at(
    x0: Array, logits_fn: LogitsFn, loss: Loss, y: Array, target: Any = None
) -> Goal:
    """The goal of an attack at clean images, at the price of a model call."""
    return begin(x0, logits_fn, loss, y, target)[0]


def begin(
    x0: Array, logits_fn: LogitsFn, loss: Loss, y: Array, target: Any = None
) -> tuple[Goal, Nearest]:
    """The goal, and the clean image itself where it is a success: one model call."""
    logits = logits_fn(x0)
    size = jnp.max(jnp.abs(logits.astype(jnp.float32)), axis=1)
    # What is no number is no scale; it is decided where it occurs.
    goal = Goal(logits_fn, loss, y, target, jnp.nan_to_num(size, posinf=0))
    norm = jnp.where(succeeds(goal, logits), 0.0, jnp.inf).astype(x0.dtype)
    return goal, Nearest(x0, norm)


def succeeds(goal: Goal, logits: Array, kappa: float | Array = 0.0) -> Array:
    """Whether these logits (B, K) are a success by a margin above ``kappa``."""
    rank = goal.rank(logits)
    size = jnp.max(jnp.abs(logits.astype(jnp.float32)), axis=1)
    # Logits may vanish on the boundary; the terms that cancel there do not.
    tie = TIE * (size if goal.scale is None else jnp.maximum(size, goal.scale))
    return jnp.isposinf(rank) | (rank > kappa + tie)


def none(x0: Array) -> Nearest:
    """Nothing found yet."""
    return Nearest(x0, jnp.full_like(x0, jnp.inf, shape=x0.shape[:1]))


def update(best: Nearest, ball: Ball, x: Array, x0: Array, won: Array) -> Nearest:
    """Takes ``x`` where it is a success and closer."""
    norm = jnp.where(won, ball.norm(x - x0), jnp.inf).astype(best.norm.dtype)
    return closer(best, Nearest(x, norm))


def closer(one: Nearest, other: Nearest) -> Nearest:
    """The closer of two per example, the first of equals."""
    better = other.norm < one.norm
    x = choose(better, other.x, one.x)
    return Nearest(x, jnp.where(better, other.norm, one.norm))


def search_constant(
    solve: Callable[[Array], Nearest], best: Nearest, first: Array, searches: int
) -> Nearest:
    """Searches the constant c with the closest success, example by example.

    Tenfold after a failure as long as nothing has succeeded, then by bisection between
    the largest c that failed and the smallest that succeeded.

    Args:
      solve: c (B,) -> the closest success found with it.
      best: what is known before.
      first: the first c.
      searches: number of values.
    """

    def search(carry, _):
        best, low, high, c = carry
        new = solve(c)
        high = jnp.where(new.found, jnp.minimum(high, c), high)
        low = jnp.where(new.found, low, jnp.maximum(low, c))
        c = jnp.where(jnp.isfinite(high), (low + high) / 2, c * 10)
        return (closer(best, new), low, high, c), None

    zero = jnp.zeros_like(best.norm)
    carry = best, zero, zero + jnp.inf, zero + first
    return jax.lax.scan(search, carry, length=searches)[0][0]


def refine(
    best: Nearest,
    goal: Goal,
    ball: Ball,
    x0: Array,
    steps: int,
    path: Callable[[Array], Array] | None = None,
) -> Nearest:
    """Bisects the way from the clean image to the example found.

    ``steps`` model calls bring it 2^-steps of the way close to the boundary.

    Args:
      best: the example found.
      goal: what counts as success.
      ball: its norm decides what is closer.
      x0: clean images.
      steps: number of bisections.
      path: share (B,) of the way in [0, 1] -> points; the segment by default.
    """

    def segment(share):
        return x0 + wide(share, x0) * (end - x0)

    def halve(carry, _):
        best, low, high = carry
        middle = (low + high) / 2
        x = (path or segment)(middle)
        won = succeeds(goal, goal.logits_fn(x)) & best.found
        best = update(best, ball, x, x0, won)
        return (best, jnp.where(won, low, middle), jnp.where(won, middle, high)), None

    end = best.x
    low = jnp.zeros_like(best.norm)
    carry = best, low, jnp.ones_like(low)
    return jax.lax.scan(halve, carry, length=steps)[0][0]


def result(best: Nearest, ball: Ball, x0: Array) -> Array:
    """The example found, and the clean image where none lies in the ball."""
    return choose(best.found & contains(ball, best.x, x0), best.x, x0)


def finish(attack: Any, best: Nearest, goal: Goal, x0: Array) -> Array:
    """The result, refined unless it was to be confident (``attack.kappa`` > 0)."""
    refined = refine(best, goal, attack.ball, x0, attack.refine)
    # A confident example must not be moved back to the boundary.
    confident = attack.kappa > 0
    x = jnp.where(confident, best.x, refined.x)
    norm = jnp.where(confident, best.norm, refined.norm)
    return result(Nearest(x, norm), attack.ball, x0)
