"""Carlini and Wagner in L2: a binary search over c; see ``carlini_wagner``."""

import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem, solve, to_free
from advjax.attacks.goal import Goal
from advjax.attacks.search import call
from advjax.rows import total
from advjax.types import Array, Ball, Found, Key, dataclass


@dataclass
class CarliniWagnerL2:
    """The L2 attack; build it with ``carlini_wagner``."""

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
        """The most model calls per example; a run may stop early."""
        return 1 + self.searches * self.steps + self.refine

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        goal = goal.with_loss(losses.margin)
        best = minimum.begin(goal, x)
        problem = Problem(
            goal, self.ball, x, best, lambda d, _: total(d**2), self.kappa, -1.0
        )
        allowed = self.ball.confine(jnp.ones_like(x, bool), False)
        start = to_free(x, self.ball.bounds)
        active = jnp.ones_like(best.norm, bool)

        def run(c):
            return solve(
                problem, start, c, (), allowed, self.steps, self.rate, active
            ).nearest

        best = minimum.search_constant(run, best, self.c, self.searches)
        return minimum.confident(self, best, goal, x)

    __call__ = call
