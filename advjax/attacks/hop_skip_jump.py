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

Of the model only the answer is used, with one exception: answers that rounding alone
could turn (``attacks.minimum.TIE``) count as not fooled, so that what is returned stays
adversarial in another program.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys, losses
from advjax.attacks import minimum
from advjax.attacks.boundary import adversarial_start
from advjax.attacks.checks import check_ball, check_count
from advjax.attacks.fab import length
from advjax.attacks.found import Found
from advjax.attacks.goal import Goal
from advjax.balls import Ball, clip, inside, l2
from advjax.rows import choose, wide
from advjax.types import Array, Key, LogitsFn, check_images, dataclass

_HALVINGS = 10


@dataclass
class HopSkipJump:
    """HopSkipJump; build it with ``hop_skip_jump``."""

    ball: Any
    queries: int = struct.field(pytree_node=False)
    first: int = struct.field(pytree_node=False)
    tries: int = struct.field(pytree_node=False)
    bisections: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The budget of model calls per example."""
        return self.queries

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

    def search(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Found:
        """Attacks ``logits_fn`` at ``x``; queries are counted per example."""
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        each = keys.per_example(key, x.shape[0])
        kind, size = balls.kind(self.ball), float(jnp.size(x[0]))
        start, found, queries = adversarial_start(
            goal, keys.fold(each, 0), x, self.ball, self.tries
        )
        best = self._to_boundary(goal, x, start, found)
        active = found & (best.norm > 0)
        queries = queries + self.bisections * found
        plan = jnp.asarray(self._plan() or [0], jnp.int32)
        theta = size**-1.5 if kind == 'l2' else size**-2.0
        factor = size**0.5 * theta if kind == 'l2' else size * theta

        def step(carry, entry):
            best, queries = carry
            t, directions = entry
            own = keys.fold(each, t)
            radius = jnp.maximum(factor * best.norm, 2e-4)
            gradient = self._estimate(goal, own, best.x, radius, directions, x)
            move = (
                jnp.sign(gradient)
                if kind == 'linf'
                else gradient
                / wide(jnp.maximum(length('l2', gradient), 1e-12), gradient)
            )

            def halve(carry, _):
                rate, point, done = carry
                new = clip(self.ball, best.x + wide(rate, x) * move)
                won = minimum.succeeds(goal, logits_fn(new)) & ~done
                return (rate / 2, choose(won, new, point), done | won), None

            rate = best.norm / jnp.sqrt(t.astype(x.dtype))
            carry = jnp.where(jnp.isfinite(rate), rate, 0), best.x, ~active
            (_, point, _), _ = jax.lax.scan(halve, carry, length=_HALVINGS)
            new = self._to_boundary(goal, x, point, active)
            best = minimum.closer(best, new)
            spent = directions + _HALVINGS + self.bisections
            return (best, queries + spent * active), None

        entries = jnp.arange(1, len(plan) + 1), plan
        if self._plan():
            (best, queries), _ = jax.lax.scan(step, (best, queries), entries)
        return Found(minimum.result(best, self.ball, x), queries)

    def _estimate(
        self, goal: Goal, key: Key, x: Array, radius: Array, count: Array, x0: Array
    ) -> Array:
        """The mean direction, weighted by answers less their mean."""

        def add(carry):
            i, weighted, plain, answers = carry

            def draw(k):
                u = jax.random.normal(k, x.shape[1:], x.dtype)
                if balls.kind(self.ball) == 'linf':
                    u = jax.random.uniform(k, x.shape[1:], x.dtype, -1, 1)
                return u / jnp.sqrt(jnp.sum(u**2))

            point = x + wide(radius, x) * keys.draw(draw, keys.fold(key, i))
            point = inside(self.ball, point, x0)
            # What clipping left of the direction.
            u = (point - x) / wide(radius, x)
            won = minimum.succeeds(goal, goal.logits_fn(point))
            answer = jnp.where(won, 1.0, -1.0)
            return i + 1, weighted + wide(answer, x) * u, plain + u, answers + answer

        zero = jnp.zeros_like(x)
        carry = jnp.zeros((), jnp.int32), zero, zero, jnp.zeros_like(radius)
        _, weighted, plain, answers = jax.lax.while_loop(
            lambda carry: carry[0] < count, add, carry
        )
        mean = answers / jnp.maximum(count, 1)
        gradient = weighted - wide(mean, x) * plain
        # All answers alike: the mean direction, away from or towards their side.
        same = jnp.abs(mean) >= 1
        return choose(same, wide(mean, x) * plain, gradient)

    def _to_boundary(
        self, goal: Goal, x0: Array, x: Array, won: Array
    ) -> minimum.Nearest:
        """Bisection home: along the segment (L2) or by a shrinking cube (Linf)."""
        norm = jnp.where(won, self.ball.norm(x - x0), jnp.inf)
        nearest = minimum.Nearest(x, norm.astype(x.dtype))
        if balls.kind(self.ball) == 'l2':
            return minimum.refine(nearest, goal, self.ball, x0, self.bisections)
        top = jnp.where(won, nearest.norm, 0)

        def shrunk(share):
            cube = wide(share * top, x)
            return jnp.clip(x, x0 - cube, x0 + cube)

        return minimum.refine(nearest, goal, self.ball, x0, self.bisections, shrunk)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        return self.search(logits_fn, key, x, y, target).x


def hop_skip_jump(
    ball: Ball | None = None,
    queries: int = 5000,
    first: int = 100,
    tries: int = 50,
    bisections: int = 12,
) -> HopSkipJump:
    """HopSkipJump: the model's answers are all it sees.

    ``attack.search(...)`` also returns the queries spent on every example.

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
    ball = l2(float('inf')) if ball is None else ball
    check_count('tries', tries)
    check_count('bisections', bisections)
    return HopSkipJump(
        ball=check_ball(ball, 'hop_skip_jump', ('l2', 'linf')),
        queries=check_count('queries', queries, 1 + tries + bisections),
        first=check_count('first', first),
        tries=tries,
        bisections=bisections,
    )
