"""Carlini and Wagner in L0: a shrinking set of pixels; see ``carlini_wagner``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem, solve, to_free
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call
from advjax.rows import choose, flat, total, wide
from advjax.types import Array, Ball, Found, Key, dataclass


class L0State(NamedTuple):
    """The pixels left, c and the start of every example's next run."""

    best: Nearest
    allowed: Array
    c: Array
    w: Array
    active: Array
    runs: Array


@dataclass
class CarliniWagnerL0:
    """The L0 attack; build it with ``carlini_wagner``."""

    ball: Ball
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The most model calls per example; most runs stop at their success."""
        return 1 + self.searches * (self.steps + 1)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Returns the sparsest adversarial example found, else ``x``."""
        del key
        goal = goal.with_loss(losses.margin)
        best = minimum.begin(goal, x)
        problem = Problem(
            goal, self.ball, x, best, lambda d, _: total(d**2), self.kappa, jnp.inf
        )
        clean = to_free(x, self.ball.bounds)
        every = self.ball.confine(jnp.ones_like(x, bool), False)

        def unfinished(state):
            return (state.runs < self.searches) & jnp.any(state.active)

        def run(state):
            solution = solve(
                problem,
                state.w,
                state.c,
                (),
                state.allowed,
                self.steps,
                self.rate,
                state.active,
            )
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
            w = choose(won, to_free(found, self.ball.bounds), state.w)
            return L0State(best, allowed, c, w, active, state.runs + 1)

        c = jnp.zeros_like(best.norm) + self.c
        state = L0State(best, every, c, clean, ~best.found, jnp.zeros((), int))
        best = jax.lax.while_loop(unfinished, run, state).best
        return minimum.result(self, best, x)

    __call__ = call


def _keep(use: Array, changed: Array) -> Array:
    """Drops the pixels that were not changed, and the least useful of the others.

    As the authors' code: 0.3 times the root of their number at once, at least one.
    """
    count = total(changed.astype(use.dtype))
    drop = jnp.maximum(jnp.floor(0.3 * jnp.sqrt(count)), 1)
    use = jnp.where(changed, use, jnp.inf)
    rows = flat(use)
    place = jnp.argsort(jnp.argsort(rows, axis=1), axis=1)
    return changed & (place >= drop[:, None]).reshape(use.shape)
