r"""The boundary attack: a random walk along the boundary, from decisions alone.

From an adversarial start, every step proposes a move of length
:math:`\delta \|x - x_0\|` orthogonal to the way home, and after it one of
:math:`\epsilon \|x - x_0\|` towards the clean image; it is taken if the model still
errs. Both step sizes follow the share of proposals that succeed.

Reference: Brendel et al. 2018, arXiv 1712.04248, algorithm 1 and section 2.4.
Deviations: success rates are running means of every example (decay 0.9) instead of
statistics of the last 30 and 100 proposals; both proposals of a step cost one query
each, and the second is asked only of examples whose first succeeded.

Only the model's decisions are used, with one exception: a decision that rounding could
flip (``attacks.minimum.TIE``) counts as not fooled, so that the result stays
adversarial when another program computes it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.minimum import Clean, Nearest, Verdict
from advjax.attacks.search import call, iterate_while
from advjax.balls import clip
from advjax.rows import choose, ones, total, wide
from advjax.types import Array, Ball, Found, Key, dataclass


def adversarial_start(
    goal: Goal, key: Key, x0: Array, ball: Ball, tries: int
) -> tuple[Nearest, Array]:
    """A random image that the model gets wrong; the clean one where it does already.

    Args:
      goal: what counts as success.
      key: (B,) keys.
      x0: (B, ...) clean images.
      ball: its bounds are the range; without bounds noise around the image is drawn.
      tries: most draws.

    Returns:
      The image, with its distance, and queries (B,).
    """

    def draw(k, i):
        if ball.bounds is not None:
            return jax.random.uniform(k, x0.shape[1:], x0.dtype, *ball.bounds)
        # Twice as far with every draw.
        return jax.random.normal(k, x0.shape[1:], x0.dtype) * 2.0**i

    def attempt(carry):
        i, start, queries = carry
        drawn = keys.draw(lambda k: draw(k, i), keys.fold(key, i))
        point = x0 + drawn if ball.bounds is None else drawn
        point = ball.confine(point, x0)
        won, rank = start.judge(goal, goal.logits_fn(point))
        seen = Verdict(won & ~start.found, rank)
        return i + 1, start.update(ball, point, x0, seen), queries + ones(~start.found)

    def unfinished(carry):
        return (carry[0] < tries) & ~jnp.all(carry[1].found)

    queries = jnp.ones(x0.shape[:1], jnp.int32)
    carry = jnp.zeros((), jnp.int32), minimum.begin(goal, x0), queries
    _, start, queries = jax.lax.while_loop(unfinished, attempt, carry)
    return start, queries


class BoundaryState(NamedTuple):
    """Where the walk stands; step sizes and rates are (B,)."""

    x: Array
    rank: Array
    side: Array
    forward: Array
    side_rate: Array
    forward_rate: Array
    queries: Array
    found: Array
    done: Array
    clean: Clean
    key: Key
    time: Array


@dataclass
class Boundary:
    """The boundary attack; build it with ``boundary``."""

    ball: Ball
    queries: int = struct.field(pytree_node=False)
    tries: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    def _active(self, state: BoundaryState) -> Array:
        return ~state.done & (state.queries + 2 <= self.queries)

    def init(self, goal: Goal, key: Key, x0: Array) -> BoundaryState:
        """Finds an adversarial image, and brings it close to the boundary."""
        start, queries = adversarial_start(
            goal, keys.fold(key, 0), x0, self.ball, self.tries
        )
        nearest = minimum.refine(start, goal, self.ball, x0, 10)
        low = jnp.zeros_like(nearest.norm)
        return BoundaryState(
            x=nearest.x,
            rank=nearest.rank,
            side=low + 0.1,
            forward=low + 0.1,
            side_rate=low + 0.5,
            forward_rate=low + 0.5,
            queries=queries + 10,
            found=nearest.found,
            done=~nearest.found | (nearest.norm == 0),
            clean=nearest.clean,
            key=key,
            time=jnp.zeros((), jnp.int32),
        )

    def step(self, goal: Goal, x0: Array, state: BoundaryState) -> BoundaryState:
        """A move along the boundary, and one towards the clean image."""
        active = self._active(state)
        own = keys.fold(state.key, state.time + 1)
        noise = keys.draw(lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype), own)
        home = x0 - state.x
        length = jnp.sqrt(total(home**2))
        unit = home / wide(jnp.maximum(length, 1e-12), x0)
        noise = self.ball.confine(noise)
        noise -= wide(total(noise * unit), x0) * unit
        size = jnp.maximum(jnp.sqrt(total(noise**2)), 1e-12)
        aside = state.x + noise * wide(state.side * length / size, x0)
        # Back to the sphere around the clean image.
        away = aside - x0
        far = jnp.maximum(jnp.sqrt(total(away**2)), 1e-12)
        aside = clip(self.ball, x0 + away * wide(length / far, x0))
        first = minimum.judge(goal, goal.logits_fn(aside), state.clean.scale)
        stays = first.won & active
        ahead = clip(self.ball, aside + wide(state.forward, x0) * (x0 - aside))
        second = minimum.judge(goal, goal.logits_fn(ahead), state.clean.scale)
        nearer = second.won & stays

        side_rate = _mean(state.side_rate, stays, active)
        forward_rate = _mean(state.forward_rate, nearer, stays)
        side = _adapt(state.side, side_rate, 0.5, 0.2, active)
        forward = _adapt(state.forward, forward_rate, 0.25, 0.1, stays)
        new = choose(nearer, ahead, choose(stays, aside, state.x))
        rank = jnp.where(nearer, second.rank, jnp.where(stays, first.rank, state.rank))
        # Rounding and clipping may lead outwards; such a step is not kept.
        closer = total((new - x0) ** 2) <= total((state.x - x0) ** 2) * (1 + 1e-4)
        return state._replace(
            x=choose(closer, new, state.x),
            rank=jnp.where(closer, rank, state.rank),
            side=jnp.clip(side, 1e-7, 1.0),
            forward=jnp.clip(forward, 1e-7, 0.9),
            side_rate=side_rate,
            forward_rate=forward_rate,
            queries=state.queries + ones(active) + ones(stays),
            time=state.time + 1,
        )

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        goal = goal.with_loss(losses.margin)
        state = iterate_while(self, self._active, goal, key, x)
        norm = jnp.where(state.found, self.ball.norm(state.x - x), jnp.inf)
        nearest = Nearest(state.x, norm, state.rank, state.clean)
        return minimum.result(self, nearest, x, state.queries)

    __call__ = call


def _mean(mean: Array, event: Array, counts: Array) -> Array:
    return jnp.where(counts, 0.9 * mean + 0.1 * event.astype(mean.dtype), mean)


def _adapt(size: Array, rate: Array, high: float, low: float, counts: Array) -> Array:
    factor = jnp.where(rate > high, 1.1, jnp.where(rate < low, 1 / 1.1, 1.0))
    return jnp.where(counts, size * factor, size)


def boundary(
    ball: Ball | None = None, queries: int = 5000, tries: int = 50
) -> Boundary:
    """The boundary attack: the model's answers are all it sees.

    Args:
      ball: an L2 ball: the range, and the radius beyond which nothing is returned;
        ``l2(inf)`` by default.
      queries: budget of model calls per example.
      tries: most random images tried as a start.

    Raises:
      ValueError: for another ball, or a budget that does not pay for the start.

    Reference: Brendel et al. 2018, arXiv 1712.04248.
    """
    tries = check_count('tries', tries)
    return Boundary(
        ball=norm_ball(ball, 'boundary', ('l2',)),
        queries=check_count('queries', queries, tries + 13),
        tries=tries,
    )
