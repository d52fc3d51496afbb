"""Carlini and Wagner in Linf: a cube of half side tau that shrinks.

See ``carlini_wagner``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem, solve, to_free
from advjax.attacks.goal import Goal
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call
from advjax.rows import choose, total, wide
from advjax.types import Array, Ball, Found, Key, dataclass


class LinfState(NamedTuple):
    """What every example tries next.

    ``low`` is the largest tau that failed, ``high`` the smallest that succeeded, and
    ``works`` the c that it succeeded with.
    """

    best: Nearest
    tau: Array
    low: Array
    high: Array
    works: Array
    c: Array
    w: Array
    active: Array
    runs: Array


@dataclass
class CarliniWagnerLinf:
    """The Linf attack; build it with ``carlini_wagner``."""

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
        """The most model calls per example; most runs stop at their success."""
        return 1 + self.searches * self.steps + self.refine

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        goal = goal.with_loss(losses.margin)
        best = minimum.begin(goal, x)
        span = (
            1.0
            if self.ball.bounds is None
            else (self.ball.bounds[1] - self.ball.bounds[0])
        )

        def beyond(delta, tau):
            return total(jnp.maximum(jnp.abs(delta) - wide(tau, delta), 0))

        problem = Problem(goal, self.ball, x, best, beyond, self.kappa, 1e-4)
        allowed = self.ball.confine(jnp.ones_like(x, bool), False)
        clean = to_free(x, self.ball.bounds)

        def unfinished(state):
            return (state.runs < self.searches) & jnp.any(state.active)

        def run(state):
            solution = solve(
                problem,
                state.w,
                state.c,
                state.tau,
                allowed,
                self.steps,
                self.rate,
                state.active,
            )
            best = minimum.closer(state.best, solution.nearest)
            won = solution.done & state.active
            lost = ~won & state.active & (2 * state.c > 20)
            high = jnp.where(won, jnp.minimum(state.tau, best.norm), state.high)
            low = jnp.where(lost, state.tau, state.low)
            # Downwards by tenths until a tau fails, from there by bisection.
            tau = jnp.where(low > 0, (low + high) / 2, 0.9 * high)
            tau = jnp.where(won | lost, tau, state.tau)
            works = jnp.where(won, state.c, state.works)
            c = jnp.where(won, state.c, jnp.where(lost, works, 2 * state.c))
            # From the end of a run that came within tau, else from the clean image.
            w = choose(won, solution.w, clean)
            going = jnp.isinf(high) | (high - low > 0.002 * high)
            active = state.active & going & (high > span / 4096)
            active &= ~(lost & jnp.isinf(high))
            return LinfState(best, tau, low, high, works, c, w, active, state.runs + 1)

        zero = jnp.zeros_like(best.norm)
        start = zero + self.c
        state = LinfState(
            best,
            zero + span,
            zero,
            zero + jnp.inf,
            start,
            start,
            clean,
            ~best.found,
            jnp.zeros((), int),
        )
        best = jax.lax.while_loop(unfinished, run, state).best
        return minimum.confident(self, best, goal, x)

    __call__ = call
