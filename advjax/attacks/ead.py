r"""EAD: the elastic-net attack, sparse perturbations by soft thresholding.

.. math:: \min_x\; c\, \max(-\mathrm{margin}(x), -\kappa) + \|x - x_0\|_2^2
          + \beta \|x - x_0\|_1, \qquad x \in [l, u]^d

by accelerated proximal gradient steps (FISTA), whose proximal map leaves coordinates
within :math:`\beta` of the clean image unchanged and moves all others :math:`\beta`
towards it; c by binary search.

Reference: Chen et al. 2018, arXiv 1709.04114, algorithm 1 and equations 7 and 8.
Deviation: a bisection (``refine``) at the end.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest
from advjax.balls import Ball, inside, l1
from advjax.rows import choose, total, wide
from advjax.types import Array, Key, LogitsFn, check_images, dataclass

Rule = Literal['l1', 'elastic']


@dataclass
class Ead:
    """The elastic-net attack; build it with ``ead``."""

    ball: Any
    beta: Array
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    rule: Rule = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 1 + self.searches * (2 * self.steps) + self.refine

    def _shrink(self, z: Array, x0: Array) -> Array:
        """The proximal map of beta |x - x0|_1 on the range."""
        delta = z - x0
        x = x0 + jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - self.beta, 0)
        return inside(self.ball, x, x0)

    def _cost(self, delta: Array) -> Array:
        size = total(jnp.abs(delta))
        return size if self.rule == 'l1' else self.beta * size + total(delta**2)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal, best = minimum.begin(x, logits_fn, losses.margin, y, target)

        def keep(best, point, logits):
            won = minimum.succeeds(goal, logits, self.kappa)
            cost = self._cost(point - x)
            closer = won & (cost < best.norm)
            return Nearest(
                choose(closer, point, best.x), jnp.where(closer, cost, best.norm)
            )

        def solve(c):
            def shortfall(logits):
                return -jnp.minimum(goal.loss_of(logits), self.kappa)

            def body(inner, i):
                point, before, best = inner
                _, _, gradient = with_logits(goal.logits_fn, shortfall, point)
                gradient = wide(c, x) * jnp.nan_to_num(gradient) + 2 * (point - x)
                # The published schedule: the square root of what is left.
                rate = self.rate * jnp.sqrt(1 - i / self.steps)
                new = self._shrink(point - rate * gradient, x)
                best = keep(best, new, goal.logits_fn(new))
                point = new + i / (i + 3) * (new - before)
                if self.ball.bounds is not None:
                    point = jnp.clip(point, *self.ball.bounds)
                return (point, new, best), None

            inner = x, x, minimum.none(x)
            (_, _, new), _ = jax.lax.scan(body, inner, jnp.arange(self.steps))
            return new

        best = minimum.search_constant(solve, best, self.c, self.searches)
        norm = jnp.where(best.found, self.ball.norm(best.x - x), jnp.inf)
        best = Nearest(best.x, norm.astype(best.norm.dtype))
        return minimum.finish(self, best, goal, x)


def ead(
    ball: Ball | None = None,
    steps: int = 1000,
    searches: int = 9,
    beta: float = 1e-3,
    kappa: float = 0.0,
    c: float = 1e-3,
    rate: float = 1e-2,
    rule: Rule = 'l1',
    refine: int = 10,
) -> Ead:
    """The elastic-net attack.

    Args:
      ball: an L1 ball: the range, and the radius beyond which nothing is returned;
        ``l1(inf)`` by default.
      steps: proximal steps per value of c.
      searches: values of c.
      beta: weight of the L1 norm, and the threshold in pixels.
      kappa: the margin asked for, in logits.
      c: the first constant; times 10 until a success, then bisected.
      rate: first step size.
      rule: what the closest example is chosen by: 'l1', or 'elastic' for
        ``beta * L1 + L2^2``.
      refine: bisection steps at the end; 0 is the paper's algorithm.

    Raises:
      ValueError: for another ball or rule, or a count below 1.

    Reference: Chen et al. 2018, arXiv 1709.04114.
    """
    if rule not in ('l1', 'elastic'):
        raise ValueError(f"rule must be 'l1' or 'elastic', got {rule!r}")
    if not (kappa >= 0 and beta >= 0):
        raise ValueError(f'kappa and beta must be >= 0, got {kappa} and {beta}')
    ball = l1(float('inf')) if ball is None else ball
    return Ead(
        ball=check_ball(ball, 'ead', ('l1',)),
        beta=jnp.float32(beta),
        kappa=jnp.float32(kappa),
        c=jnp.float32(check_positive('c', c)),
        steps=check_count('steps', steps),
        searches=check_count('searches', searches),
        rate=check_positive('rate', rate),
        rule=rule,
        refine=check_count('refine', refine, 0),
    )
