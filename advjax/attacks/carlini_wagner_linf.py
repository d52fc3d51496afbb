"""Carlini and Wagner in Linf: a shrinking cube; see ``carlini_wagner``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem
from advjax.attacks.goal import Goal
from advjax.attacks.minimum import Nearest
from advjax.rows import choose, total, wide
from advjax.types import Array


class LinfState(NamedTuple):
    """What every example tries next; tau is half the side of its cube.

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


def search_linf(attack: Any, goal: Goal, x: Array) -> Nearest:
    """The closest adversarial example of a ``CarliniWagner``."""
    best = minimum.begin(goal, x)
    low, high = attack.ball.bounds or (0.0, 1.0)
    span = high - low

    def beyond(delta, tau):
        return total(jnp.maximum(jnp.abs(delta) - wide(tau, delta), 0))

    problem = Problem(attack, goal, x, best, beyond, 1e-4)
    allowed, clean = problem.free, problem.start

    def unfinished(state):
        return (state.runs < attack.searches) & jnp.any(state.active)

    def run(state):
        solution = problem.solve(state.w, state.c, state.tau, allowed, state.active)
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
    start = zero + attack.c
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
    return jax.lax.while_loop(unfinished, run, state).best
