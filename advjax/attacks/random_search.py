"""Random search: the attack that every gradient attack must beat.

Draws points of the ball and keeps the worst. If it does better than a gradient attack
at the same radius, the gradients are masked (Carlini et al. 2019, arXiv 1902.06705).
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks.checks import check_count
from advjax.attacks.search import Worst, call, iterate_while, nothing
from advjax.balls import as_ball
from advjax.rows import ones
from advjax.types import AnyGoal, Array, Ball, Found, Key, dataclass


class RandomSearchState(NamedTuple):
    """The worst draw, and the queries of every example."""

    worst: Worst
    queries: Array
    key: Key
    time: Array


@dataclass
class RandomSearch:
    """Independent draws from the ball; build it with ``random_search``."""

    ball: Ball
    queries: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def init(self, goal: AnyGoal, key: Key, x0: Array) -> RandomSearchState:
        """Nothing drawn yet."""
        del goal
        none = jnp.zeros(x0.shape[:1], jnp.int32)
        return RandomSearchState(nothing(x0), none, key, jnp.zeros((), jnp.int32))

    def step(
        self, goal: AnyGoal, x0: Array, state: RandomSearchState
    ) -> RandomSearchState:
        """A draw for every example that is not fooled yet."""
        own = keys.fold(state.key, state.time)
        point = self.ball.project(self.ball.sample(own, x0), x0)
        active = state.worst.rank <= 0
        rank = jnp.where(active, goal.value_and_rank(point, own)[1], -jnp.inf)
        worst = state.worst.update(point, rank)
        return RandomSearchState(
            worst, state.queries + ones(active), state.key, state.time + 1
        )

    def search(self, goal: AnyGoal, key: Key, x: Array) -> Found:
        """The first success, or the worst draw."""
        goal = goal.with_loss(losses.margin)
        state = iterate_while(
            self, lambda s: s.worst.rank <= 0, goal, key, x, self.queries
        )
        return state.worst.found(state.queries)

    __call__ = call


def random_search(ball: Ball | float, queries: int = 1000) -> RandomSearch:
    """The worst of ``queries`` uniform draws from the ball.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      queries: budget of model calls per example.

    Raises:
      ValueError: if ``queries`` is not a positive integer.
    """
    return RandomSearch(ball=as_ball(ball), queries=check_count('queries', queries))
