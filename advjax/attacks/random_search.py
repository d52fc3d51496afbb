"""Random search: the attack that every gradient attack must beat.

Draws points of the ball and keeps the worst. If it does better than a gradient attack
at the same radius, the gradients are masked (Carlini et al. 2019, arXiv 1902.06705).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks.checks import check_count
from advjax.attacks.found import Found
from advjax.attacks.goal import Goal
from advjax.balls import Ball, as_ball
from advjax.rows import choose
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


@dataclass
class RandomSearch:
    """Independent draws from the ball; build it with ``random_search``."""

    ball: Any
    queries: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def search(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Found:
        """Attacks ``logits_fn`` at ``x``; an example stops at its first success."""
        check_images(x)
        goal = Goal(logits_fn, losses.margin, y, target)
        each = keys.per_example(key, x.shape[0])

        def unfinished(carry):
            i, _, rank, _ = carry
            return (i < self.queries) & jnp.any(rank <= 0)

        def query(carry):
            i, best, rank, queries = carry
            own = keys.fold(each, i)
            point = self.ball.project(self.ball.sample(own, x), x)
            active = rank <= 0
            new = goal.rank(goal.evaluate(point, own)[1])
            better = active & (new > rank)
            best = choose(better, point, best)
            return i + 1, best, jnp.where(better, new, rank), queries + active

        rank = jnp.full_like(x, -jnp.inf, shape=x.shape[:1])
        none = jnp.zeros(x.shape[:1], jnp.int32)
        carry = jnp.zeros((), jnp.int32), x, rank, none
        _, best, _, queries = jax.lax.while_loop(unfinished, query, carry)
        return Found(best, queries)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``: see ``advjax.types.Attack``."""
        return self.search(logits_fn, key, x, y, target).x


def random_search(ball: Ball | float, queries: int = 1000) -> RandomSearch:
    """The worst of ``queries`` uniform draws from the ball.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      queries: budget of model calls per example.

    Raises:
      ValueError: if ``queries`` is not a positive integer.
    """
    return RandomSearch(ball=as_ball(ball), queries=check_count('queries', queries))
