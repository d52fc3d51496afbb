r"""HopSkipJump: gradient-like steps from decisions alone (L2, Linf).

From a point on the boundary, the direction of the gradient is estimated from answers,

.. math:: v = \frac1N \sum_{b=1}^N (\phi_b - \bar\phi)\, u_b, \qquad
          \phi_b = \pm 1 \text{ as } x_t + \delta_t u_b \text{ is adversarial or not},

a step :math:`\xi_t = \|x_t - x_0\|_p / \sqrt t` along it (its sign in Linf) is halved
until it is adversarial, and a bisection towards the clean image leads back to the
boundary. The number of directions grows as :math:`N_t = N_0 \sqrt t`.

Reference: Chen, Jordan and Wainwright 2020, arXiv 1904.02144, algorithms 1 and 2, with
:math:`\delta_t = \sqrt d\, \theta \|x_t - x_0\|_2` (L2) or :math:`d\, \theta \|x_t -
x_0\|_\infty` (Linf), :math:`\theta = d^{-3/2}` (L2) or :math:`d^{-2}` (Linf), floored
so that float32 sees it. Deviation: halvings and bisections have fixed counts.

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
from advjax.attacks.boundary import adversarial_start
from advjax.attacks.checks import check_count, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.linearised import length
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call, iterate
from advjax.balls import clip, inside
from advjax.rows import choose, ones, wide
from advjax.types import Array, Ball, Found, Key, dataclass

_HALVINGS = 10


class HopSkipJumpState(NamedTuple):
    """The point on the boundary; ``active`` is False for examples that are done."""

    nearest: Nearest
    queries: Array
    active: Array
    key: Key
    time: Array


@dataclass
class HopSkipJump:
    """HopSkipJump; build it with ``hop_skip_jump``."""

    ball: Ball
    queries: int = struct.field(pytree_node=False)
    first: int = struct.field(pytree_node=False)
    tries: int = struct.field(pytree_node=False)
    bisections: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

    @property
    def steps(self) -> int:
        """As many as the budget pays for."""
        return len(self._plan())

    def _plan(self) -> list[int]:
        """The number of directions of every step that the budget pays for."""
        left = self.queries - 1 - self.tries - self.bisections
        plan = []
        while True:
            directions = int(self.first * (len(plan) + 1) ** 0.5)
            left -= directions + _HALVINGS + self.bisections
            if left < 0:
                return plan
            plan.append(directions)

    def init(self, goal: Goal, key: Key, x0: Array) -> HopSkipJumpState:
        """Finds an adversarial image, and brings it to the boundary."""
        start, queries = adversarial_start(
            goal, keys.fold(key, 0), x0, self.ball, self.tries
        )
        nearest = self._to_boundary(goal, x0, start)
        return HopSkipJumpState(
            nearest=nearest,
            queries=queries + self.bisections * ones(start.found),
            active=start.found & (nearest.norm > 0),
            key=key,
            time=jnp.zeros((), jnp.int32),
        )

    def step(self, goal: Goal, x0: Array, state: HopSkipJumpState) -> HopSkipJumpState:
        """A step along an estimated gradient, and the way back to the boundary."""
        best, time = state.nearest, state.time + 1
        directions = jnp.asarray(self._plan() or [0], jnp.int32)[state.time]
        norm, size = self.ball.norm_name, float(jnp.size(x0[0]))
        theta = size**-1.5 if norm == 'l2' else size**-2.0
        factor = size**0.5 * theta if norm == 'l2' else size * theta
        radius = jnp.maximum(factor * best.norm, 2e-4)
        own = keys.fold(state.key, time)
        gradient = self._estimate(goal, own, best, radius, directions, x0)
        if norm == 'linf':
            move = jnp.sign(gradient)
        else:
            longest = jnp.maximum(length('l2', gradient), 1e-12)
            move = gradient / wide(longest, gradient)

        def halve(carry, _):
            rate, point, rank, done = carry
            new = clip(self.ball, best.x + wide(rate, x0) * move)
            seen = best.judge(goal, goal.logits_fn(new))
            won = seen.won & ~done
            point = choose(won, new, point)
            return (rate / 2, point, jnp.where(won, seen.rank, rank), done | won), None

        rate = best.norm / jnp.sqrt(time.astype(x0.dtype))
        rate = jnp.where(jnp.isfinite(rate), rate, 0)
        carry = rate, best.x, best.rank, ~state.active
        (_, point, rank, _), _ = jax.lax.scan(halve, carry, length=_HALVINGS)
        away = jnp.where(state.active, self.ball.norm(point - x0), jnp.inf)
        ended = best._replace(x=point, norm=away.astype(x0.dtype), rank=rank)
        spent = directions + _HALVINGS + self.bisections
        return state._replace(
            nearest=minimum.closer(best, self._to_boundary(goal, x0, ended)),
            queries=state.queries + spent * ones(state.active),
            time=time,
        )

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        goal = goal.with_loss(losses.margin)
        state = iterate(self, goal, key, x)
        return minimum.result(self, state.nearest, x, state.queries)

    __call__ = call

    def _estimate(
        self,
        goal: Goal,
        key: Key,
        best: Nearest,
        radius: Array,
        count: Array,
        x0: Array,
    ) -> Array:
        """The mean direction, weighted by answers less their mean."""
        x = best.x

        def add(carry):
            i, weighted, plain, answers = carry

            def draw(k):
                u = jax.random.normal(k, x.shape[1:], x.dtype)
                if self.ball.norm_name == 'linf':
                    u = jax.random.uniform(k, x.shape[1:], x.dtype, -1, 1)
                return u / jnp.sqrt(jnp.sum(u**2))

            point = x + wide(radius, x) * keys.draw(draw, keys.fold(key, i))
            point = inside(self.ball, point, x0)
            # What clipping left of the direction.
            u = (point - x) / wide(radius, x)
            seen = best.judge(goal, goal.logits_fn(point))
            answer = jnp.where(seen.won, 1.0, -1.0)
            return i + 1, weighted + wide(answer, x) * u, plain + u, answers + answer

        zero = jnp.zeros_like(x)
        carry = jnp.zeros((), jnp.int32), zero, zero, jnp.zeros_like(radius)
        _, weighted, plain, answers = jax.lax.while_loop(
            lambda carry: carry[0] < count, add, carry
        )
        mean = answers / jnp.maximum(count, 1).astype(answers.dtype)
        gradient = weighted - wide(mean, x) * plain
        # All answers alike: the mean direction, away from or towards their side.
        same = jnp.abs(mean) >= 1
        return choose(same, wide(mean, x) * plain, gradient)

    def _to_boundary(self, goal: Goal, x0: Array, start: Nearest) -> Nearest:
        """Bisection to the clean image: on the segment (L2) or by cubes (Linf)."""
        if self.ball.norm_name == 'l2':
            return minimum.refine(start, goal, self.ball, x0, self.bisections)
        top = jnp.where(start.found, start.norm, 0)

        def shrunk(share):
            cube = wide(share * top, x0)
            return jnp.clip(start.x, x0 - cube, x0 + cube)

        return minimum.refine(start, goal, self.ball, x0, self.bisections, shrunk)


def hop_skip_jump(
    ball: Ball | None = None,
    queries: int = 5000,
    first: int = 100,
    tries: int = 50,
    bisections: int = 12,
) -> HopSkipJump:
    """HopSkipJump: the model's answers are all it sees.

    Args:
      ball: an L2 (default) or Linf ball: the norm, the range, and the radius beyond
        which nothing is returned.
      queries: budget of model calls per example.
      first: directions of the first estimate.
      tries: most random images tried as a start.
      bisections: model calls of every return to the boundary.

    Raises:
      ValueError: for another ball, or a budget that does not pay for the start.

    Reference: Chen, Jordan and Wainwright 2020, arXiv 1904.02144.
    """
    check_count('tries', tries)
    check_count('bisections', bisections)
    return HopSkipJump(
        ball=norm_ball(ball, 'hop_skip_jump', ('l2', 'linf')),
        queries=check_count('queries', queries, 1 + tries + bisections),
        first=check_count('first', first),
        tries=tries,
        bisections=bisections,
    )
