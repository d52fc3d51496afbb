r"""NES and SPSA: ascent along a gradient that is estimated from scores alone.

Both are an ``Ascent`` whose gradient source asks for differences along random
directions (``attacks.gradients.Differences``): normal ones in NES, signs in SPSA. Each
example stops at its first success, and within a budget of queries.

Reference: Ilyas et al. 2018, arXiv 1804.08598, section 2 (NES); Uesato et al. 2018,
arXiv 1802.05666, algorithm 1 (SPSA).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks.ascent import Ascent, AscentState
from advjax.attacks.checks import check_count, check_loss, check_positive
from advjax.attacks.found import Found
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import Differences
from advjax.attacks.starts import clean
from advjax.attacks.transforms import adam
from advjax.balls import Ball, as_ball
from advjax.rows import choose
from advjax.types import Array, Key, LogitsFn, Loss, check_images, dataclass


@dataclass
class Estimated:
    """An ascent by queries that stops at success; build it with ``nes`` or ``spsa``."""

    ascent: Any
    queries: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def search(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Found:
        """Attacks ``logits_fn`` at ``x``; the queries of every example are counted."""
        check_images(x)
        goal = Goal(logits_fn, self.ascent.loss, y, target)
        each = keys.per_example(key, x.shape[0])
        cost = self.ascent.gradient.calls

        def frozen(state: AscentState, new: AscentState, active: Array) -> AscentState:
            """The new state, except for examples that are done."""

            def pick(a, b):
                batched = jnp.ndim(a) > 0 and jnp.shape(a)[0] == x.shape[0]
                return choose(active, a, b) if batched else a

            # Keys do not change, and are no arrays to choose from.
            kept = jax.tree.map(pick, new._replace(key=x), state._replace(key=x))
            return kept._replace(key=state.key)

        def unfinished(carry):
            state, _ = carry
            return (state.time < steps) & jnp.any(state.rank <= 0)

        def step(carry):
            state, queries = carry
            active = state.rank <= 0
            new = self.ascent.step(goal, x, state)
            # A success is seen at the point that the step started from.
            return frozen(state, new, active), queries + cost * active

        steps = max((self.queries - 1) // cost, 0)
        state = self.ascent.init(each, x)
        queries = jnp.zeros(x.shape[:1], jnp.int32)
        state, queries = jax.lax.while_loop(unfinished, step, (state, queries))
        active = state.rank <= 0
        rank = goal.rank(goal.evaluate(state.x, keys.fold(each, self.queries + 1))[1])
        better = active & (rank > state.rank)
        return Found(choose(better, state.x, state.best), queries + active)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``: see ``advjax.types.Attack``."""
        return self.search(logits_fn, key, x, y, target).x


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
