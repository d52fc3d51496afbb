"""Carlini and Wagner in L0: a shrinking set of pixels; see ``carlini_wagner``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem, squared, to_free
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest
from advjax.rows import choose, flat, total, wide
from advjax.types import Array


class L0State(NamedTuple):
    """The pixels left, c and the start of every example's next run."""

    best: Nearest
    allowed: Array
    c: Array
    w: Array
    active: Array
    runs: Array


def search_l0(attack: Any, goal: Goal, x: Array) -> Nearest:
    """The sparsest adversarial example of a ``CarliniWagner``."""
    best = minimum.begin(goal, x)
    problem = Problem(attack, goal, x, best, squared, jnp.inf)
    clean, every = problem.start, problem.free

    def unfinished(state):
        return (state.runs < attack.searches) & jnp.any(state.active)

    def run(state):
        solution = problem.solve(state.w, state.c, (), state.allowed, state.active)
        won = solution.nearest.found & state.active
        found = solution.nearest.x
        _, _, pull = with_logits(goal.logits_fn, goal.value_of, found)
        use = (found - x) * jnp.nan_to_num(pull)
        allowed = jnp.where(
            wide(won, x), state.allowed & _keep(use, found != x), state.allowed
        )
        c = jnp.where(won | ~state.active, state.c, 2 * state.c)
        left = flat(allowed).any(axis=1)
        active = state.active & (c < 2e6) & left
        best = minimum.closer(state.best, solution.nearest)
        w = choose(won, to_free(found, attack.ball.bounds), state.w)
        return L0State(best, allowed, c, w, active, state.runs + 1)

    c = jnp.zeros_like(best.norm) + attack.c
    state = L0State(best, every, c, clean, ~best.found, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, run, state).best


def _keep(use: Array, changed: Array) -> Array:
    """Drops the pixels that were not changed, and the least useful of the others.

    As the authors' code: 0.3 times the root of their number at once, at least one.
    """
    count = total(changed.astype(use.dtype))
    drop = jnp.maximum(jnp.floor(0.3 * jnp.sqrt(count)), 1)
    use = jnp.where(changed, use, jnp.inf)
    rows = flat(use)
    place = jnp.argsort(jnp.argsort(rows, axis=1), axis=1)
    return changed & (place.astype(drop.dtype) >= drop[:, None]).reshape(use.shape)
