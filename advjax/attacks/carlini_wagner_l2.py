"""Carlini and Wagner in L2: a binary search over c; see ``carlini_wagner``."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.carlini_wagner_solve import Problem, solve, to_free
from advjax.balls import confine
from advjax.rows import total
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


@dataclass
class CarliniWagnerL2:
    """The L2 attack; build it with ``carlini_wagner``."""

    ball: Any
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The most model calls per example; a run may stop early."""
        return 1 + self.searches * self.steps + self.refine

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal, best = minimum.begin(x, logits_fn, losses.margin, y, target)
        problem = Problem(
            goal, self.ball, x, lambda d, _: total(d**2), self.kappa, -1.0
        )
        allowed = confine(self.ball, jnp.ones_like(x, bool), False)
        start = to_free(x, self.ball.bounds)
        active = jnp.ones_like(best.norm, bool)

        def run(c):
            return solve(
                problem, start, c, (), allowed, self.steps, self.rate, active
            ).nearest

        best = minimum.search_constant(run, best, self.c, self.searches)
        return minimum.finish(self, best, goal, x)
