r"""NES and SPSA: ascent along a gradient that is estimated from scores alone.

Both are an ``Ascent`` whose gradient source asks for differences along random
directions (``attacks.gradients.Differences``): normal ones in NES, signs in SPSA. Each
example stops at its first success, and within a budget of queries.

Reference: Ilyas et al. 2018, arXiv 1804.08598, section 2 (NES); Uesato et al. 2018,
arXiv 1802.05666, algorithm 1 (SPSA).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks.ascent import Ascent, AscentState
from advjax.attacks.checks import check_count, check_loss, check_positive
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import Differences
from advjax.attacks.search import call, iterate_while
from advjax.attacks.starts import clean
from advjax.attacks.transforms import adam
from advjax.balls import as_ball
from advjax.rows import choose, ones
from advjax.types import Array, Ball, Found, Key, Loss, dataclass


class EstimatedState(NamedTuple):
    """The ascent, and the queries that it cost every example."""

    ascent: AscentState
    queries: Array

    @property
    def time(self) -> Array:
        """Steps made."""
        return self.ascent.time


@dataclass
class Estimated:
    """An ascent by queries that stops at success; build it with ``nes`` or ``spsa``."""

    ascent: Ascent
    queries: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def init(self, goal: Goal, key: Key, x0: Array) -> EstimatedState:
        """Returns the state before the first step."""
        queries = jnp.zeros(x0.shape[:1], jnp.int32)
        return EstimatedState(self.ascent.init(goal, key, x0), queries)

    def step(self, goal: Goal, x0: Array, state: EstimatedState) -> EstimatedState:
        """A step of every example that is not fooled yet."""
        before = state.ascent
        # A success is seen at the point that the step started from.
        active = before.worst.rank <= 0

        def pick(new, old):
            batched = jnp.ndim(new) > 0 and jnp.shape(new)[0] == x0.shape[0]
            return choose(active, new, old) if batched else new

        # Keys do not change, and ``choose`` does not take them.
        after = self.ascent.step(goal, x0, before)._replace(key=x0)
        after = jax.tree.map(pick, after, before._replace(key=x0))
        queries = state.queries + self.ascent.gradient.calls * ones(active)
        return EstimatedState(after._replace(key=before.key), queries)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The first success, or the worst iterate."""
        goal = goal.with_loss(self.ascent.loss)
        steps = max((self.queries - 1) // self.ascent.gradient.calls, 0)
        state = iterate_while(
            self, lambda s: s.ascent.worst.rank <= 0, goal, key, x, steps
        )
        last, worst = state.ascent.x, state.ascent.worst
        active = worst.rank <= 0
        rank = goal.value_and_rank(last, keys.fold(key, self.queries + 1))[1]
        worst = worst.update(last, jnp.where(active, rank, -jnp.inf))
        return worst.found(state.queries + ones(active))

    __call__ = call


def _estimated(
    ball: Ball | float, queries: int, rate: float, source: Differences, **options: Any
) -> Estimated:
    check_count('queries', queries, source.calls + 1)
    ascent = Ascent(
        ball=as_ball(ball),
        rate=jnp.float32(check_positive('rate', rate)),
        steps=max((queries - 1) // source.calls, 1),
        gradient=source,
        keep_best=True,
        start=clean,
        **options,
    )
    return Estimated(ascent=ascent, queries=queries)


def nes(
    ball: Ball | float,
    queries: int = 5000,
    samples: int = 25,
    sigma: float = 1e-3,
    rate: float = 0.1,
    loss: Loss = losses.cross_entropy,
) -> Estimated:
    """PGD with natural evolution strategies instead of a gradient.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      queries: budget of model calls per example.
      samples: antithetic pairs per step (50 calls in the paper).
      sigma: search variance, in pixels.
      rate: step size in radii.
      loss: what to maximise.

    Raises:
      ValueError: if the budget does not pay for one step.

    Reference: Ilyas et al. 2018, arXiv 1804.08598.
    """
    source = Differences(
        sigma=jnp.float32(check_positive('sigma', sigma)),
        samples=check_count('samples', samples),
    )
    return _estimated(ball, queries, rate, source, loss=check_loss(loss))


def spsa(
    ball: Ball | float,
    queries: int = 5000,
    samples: int = 64,
    sigma: float = 0.01,
    rate: float = 0.05,
    loss: Loss = losses.margin,
) -> Estimated:
    """Simultaneous perturbation stochastic approximation with Adam.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      queries: budget of model calls per example.
      samples: pairs per step.
      sigma: the paper's delta, in pixels.
      rate: step size in radii.
      loss: what to maximise; the margin in the paper.

    Raises:
      ValueError: if the budget does not pay for one step.

    Reference: Uesato et al. 2018, arXiv 1802.05666. Deviation: Adam's direction enters
    as a gradient transformation, as in ``adam_pgd``.
    """
    source = Differences(
        sigma=jnp.float32(check_positive('sigma', sigma)),
        samples=check_count('samples', samples),
        signs=True,
    )
    return _estimated(
        ball, queries, rate, source, loss=check_loss(loss), transform=adam()
    )
