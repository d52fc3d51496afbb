r"""The boundary attack: a random walk along the boundary, from decisions alone.

From an adversarial start, every step proposes a move of length
:math:`\delta \|x - x_0\|` orthogonal to the way home, and after it one of
:math:`\epsilon \|x - x_0\|` towards the clean image; it is taken if the model still
errs. Both step sizes follow the share of proposals that succeed.

Reference: Brendel et al. 2018, arXiv 1712.04248, algorithm 1 and section 2.4.
Deviations: success rates are running means of every example (decay 0.9) instead of
statistics of the last 30 and 100 proposals; both proposals of a step cost one query
each, and the second is asked only of examples whose first succeeded.

Of the model only the answer is used, with one exception: answers that rounding alone
could turn (``attacks.minimum.TIE``) count as not fooled, so that what is returned stays
adversarial in another program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count
from advjax.attacks.found import Found
from advjax.attacks.goal import Goal
from advjax.balls import Ball, clip, confine, l2
from advjax.rows import choose, total, wide
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


def adversarial_start(
    goal: Goal, key: Key, x0: Array, ball: Ball, tries: int
) -> tuple[Array, Array, Array]:
    """A random image that the model gets wrong; the clean one where it does already.

    Args:
      goal: what counts as success.
      key: (B,) keys.
      x0: (B, ...) clean images.
      ball: its bounds are the range; without bounds noise around the image is drawn.
      tries: most draws.

    Returns:
      x (B, ...), found (B,), queries (B,).
    """

    def draw(k, i):
        if ball.bounds is not None:
            return jax.random.uniform(k, x0.shape[1:], x0.dtype, *ball.bounds)
        # Twice as far with every draw.
        return jax.random.normal(k, x0.shape[1:], x0.dtype) * 2.0**i

    def attempt(carry):
        i, x, found, queries = carry
        drawn = keys.draw(lambda k: draw(k, i), keys.fold(key, i))
        point = x0 + drawn if ball.bounds is None else drawn
        point = confine(ball, point, x0)
        won = minimum.succeeds(goal, goal.logits_fn(point)) & ~found
        return i + 1, choose(won, point, x), found | won, queries + ~found

    def unfinished(carry):
        return (carry[0] < tries) & ~jnp.all(carry[2])

    home = minimum.succeeds(goal, goal.logits_fn(x0))
    queries = jnp.ones(x0.shape[:1], jnp.int32)
    carry = jnp.zeros((), jnp.int32), x0, home, queries
    _, x, found, queries = jax.lax.while_loop(unfinished, attempt, carry)
    return x, found, queries


class BoundaryState(NamedTuple):
    """Where the walk stands; step sizes and rates are (B,)."""

    x: Array
    side: Array
    forward: Array
    side_rate: Array
    forward_rate: Array
    queries: Array


@dataclass
class Boundary:
    """The boundary attack; build it with ``boundary``."""

    ball: Any
    queries: int = struct.field(pytree_node=False)
    tries: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def search(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Found:
        """Attacks ``logits_fn`` at ``x``; queries are counted per example."""
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        each = keys.per_example(key, x.shape[0])
        start, found, queries = adversarial_start(
            goal, keys.fold(each, 0), x, self.ball, self.tries
        )
        norm = jnp.where(found, self.ball.norm(start - x), jnp.inf)
        # Ten bisections bring the start close to the boundary.
        nearest = minimum.refine(minimum.Nearest(start, norm), goal, self.ball, x, 10)
        low = jnp.zeros_like(norm)
        state = BoundaryState(
            x=nearest.x,
            side=low + 0.1,
            forward=low + 0.1,
            side_rate=low + 0.5,
            forward_rate=low + 0.5,
            queries=queries + 10,
        )
        done = ~found | (nearest.norm == 0)

        def step(carry):
            i, state = carry
            active = ~done & (state.queries + 2 <= self.queries)
            own = keys.fold(each, i + 1)
            noise = keys.draw(lambda k: jax.random.normal(k, x.shape[1:], x.dtype), own)
            home = x - state.x
            length = jnp.sqrt(total(home**2))
            unit = home / wide(jnp.maximum(length, 1e-12), x)
            noise = confine(self.ball, noise)
            noise -= wide(total(noise * unit), x) * unit
            size = jnp.maximum(jnp.sqrt(total(noise**2)), 1e-12)
            aside = state.x + noise * wide(state.side * length / size, x)
            # Back to the sphere around the clean image.
            away = aside - x
            far = jnp.maximum(jnp.sqrt(total(away**2)), 1e-12)
            aside = clip(self.ball, x + away * wide(length / far, x))
            stays = minimum.succeeds(goal, logits_fn(aside)) & active
            ahead = clip(self.ball, aside + wide(state.forward, x) * (x - aside))
            nearer = minimum.succeeds(goal, logits_fn(ahead)) & stays

            side_rate = _mean(state.side_rate, stays, active)
            forward_rate = _mean(state.forward_rate, nearer, stays)
            side = _adapt(state.side, side_rate, 0.5, 0.2, active)
            forward = _adapt(state.forward, forward_rate, 0.25, 0.1, stays)
            new = choose(nearer, ahead, choose(stays, aside, state.x))
            # The walk may drift outwards by rounding and clipping, never the result.
            closer = total((new - x) ** 2) <= total((state.x - x) ** 2) * (1 + 1e-4)
            state = BoundaryState(
                choose(closer, new, state.x),
                jnp.clip(side, 1e-7, 1.0),
                jnp.clip(forward, 1e-7, 0.9),
                side_rate,
                forward_rate,
                state.queries + active + stays,
            )
            return i + 1, state

        def unfinished(carry):
            _, state = carry
            return jnp.any(~done & (state.queries + 2 <= self.queries))

        carry = jnp.zeros((), jnp.int32), state
        state = jax.lax.while_loop(unfinished, step, carry)[1]
        norm = jnp.where(found, self.ball.norm(state.x - x), jnp.inf)
        best = minimum.Nearest(state.x, norm)
        return Found(minimum.result(best, self.ball, x), state.queries)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        return self.search(logits_fn, key, x, y, target).x


def _mean(mean: Array, event: Array, counts: Array) -> Array:
    return jnp.where(counts, 0.9 * mean + 0.1 * event, mean)


def _adapt(size: Array, rate: Array, high: float, low: float, counts: Array) -> Array:
    factor = jnp.where(rate > high, 1.1, jnp.where(rate < low, 1 / 1.1, 1.0))
    return jnp.where(counts, size * factor, size)


def boundary(
    ball: Ball | None = None, queries: int = 5000, tries: int = 50
) -> Boundary:
    """The boundary attack: the model's answers are all it sees.

    ``attack.search(...)`` also returns the queries spent on every example.

    Args:
      ball: an L2 ball: the range, and the radius beyond which nothing is returned;
        ``l2(inf)`` by default.
      queries: budget of model calls per example.
      tries: most random images tried as a start.

    Raises:
      ValueError: for another ball, or a budget that does not pay for the start.

    Reference: Brendel et al. 2018, arXiv 1712.04248.
    """
    ball = l2(float('inf')) if ball is None else ball
    tries = check_count('tries', tries)
    return Boundary(
        ball=check_ball(ball, 'boundary', ('l2',)),
        queries=check_count('queries', queries, tries + 13),
        tries=tries,
    )
