r"""FMN: fast minimum-norm attack in L0, L1, L2 and Linf.

A radius of its own for every example is moved to the boundary while the perturbation
follows the gradient of the margin L inside it:

.. math::
    \epsilon_k &= \begin{cases}
      \|\delta_{k-1}\|_p + |L(x_{k-1})| / \|\nabla L\|_q & \text{nothing found yet} \\
      \min\big((1 - \gamma_k)\, \epsilon_{k-1}, \|\delta^*\|_p\big) & \text{success} \\
      (1 + \gamma_k)\, \epsilon_{k-1} & \text{failure}
    \end{cases} \\
    \delta_k &= \Pi_{\epsilon_k, [l, u]}\big(\delta_{k-1}
                + \alpha_k \nabla L / \|\nabla L\|_2\big)

with :math:`\alpha` (from 1 to 0.01) and :math:`\gamma` (from 0.05 to 0.0001) falling
along a cosine. In L0 the radius is a whole number and moves by at least one.

Reference: Pintor et al. 2021, arXiv 2102.12827, algorithm 1. Deviations: projections
are the exact ones on ball and range; before the first success the radius grows by at
least a thousandth, since the estimate alone ends on the boundary of a linear model and
never crosses it; a bisection (``refine``) at the end, except L0.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.fab import DUAL, length
from advjax.attacks.gradients import with_logits
from advjax.balls import Ball, confine, l2
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


@dataclass
class Fmn:
    """FMN; build it with ``fmn``."""

    ball: Any
    alpha: Array
    gamma: Array
    steps: int = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 2 + self.steps + self.refine

    def _radius(
        self, found: Array, won: Array, state: tuple, gamma: Array, away: Array
    ) -> Array:
        """The next radius of every example."""
        eps, norm, nearest = state
        if balls.kind(self.ball) == 'l0':
            less = jnp.minimum(eps - 1, jnp.floor(eps * (1 - gamma)))
            more = jnp.maximum(eps + 1, jnp.floor(eps * (1 + gamma)))
            inside = jnp.maximum(jnp.minimum(less, nearest), 1)
            away = jnp.maximum(jnp.ceil(away), 1)
        else:
            inside, more = jnp.minimum(eps * (1 - gamma), nearest), eps * (1 + gamma)
        # A step to the linearised boundary ends on it, and never beyond.
        beyond = norm + jnp.maximum(away, 1e-3 * norm)
        return jnp.where(won, inside, jnp.where(found, more, beyond))

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        dual = DUAL.get(balls.kind(self.ball), 'linf')
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        most = balls.radius(balls.with_eps(self.ball, jnp.float32(jnp.inf)), x)

        def body(carry, i):
            delta, eps, best = carry
            value, logits, gradient = with_logits(
                goal.logits_fn, goal.loss_of, x + delta
            )
            gradient = jnp.nan_to_num(gradient)
            gradient = confine(self.ball, gradient)
            won = minimum.succeeds(goal, logits)
            before = best.found
            best = minimum.update(best, self.ball, x + delta, x, won)
            fall = (1 + jnp.cos(jnp.pi * i / self.steps)) / 2
            gamma = 1e-4 + (self.gamma - 1e-4) * fall
            steep = length(dual, gradient)
            away = jnp.where(
                steep > 0, jnp.abs(value) / jnp.where(steep > 0, steep, 1), 0
            )
            away = jnp.nan_to_num(away)
            norm = self.ball.norm(delta)
            eps = self._radius(before, won, (eps, norm, best.norm), gamma, away)
            if self.ball.bounds is not None:
                eps = jnp.minimum(eps, most)
            rate = self.alpha * (0.01 + 0.99 * fall)
            unit = balls.L2.steepest(self.ball, gradient)
            around = balls.with_eps(self.ball, eps)
            delta = around.project(x + delta + rate * unit, x) - x
            return (delta, eps, best), None

        eps = jnp.zeros_like(x, shape=x.shape[:1])
        carry = jnp.zeros_like(x), eps, minimum.none(x)
        carry, _ = jax.lax.scan(body, carry, jnp.arange(self.steps))
        delta, _, best = carry
        won = minimum.succeeds(goal, goal.logits_fn(x + delta))
        best = minimum.update(best, self.ball, x + delta, x, won)
        best = minimum.refine(best, goal, self.ball, x, self.refine)
        return minimum.result(best, self.ball, x)


def fmn(
    ball: Ball | None = None,
    steps: int = 100,
    alpha: float = 1.0,
    gamma: float = 0.05,
    refine: int = 10,
) -> Fmn:
    """The fast minimum-norm attack.

    Args:
      ball: an L2 (default), Linf, L1 or L0 ball: the norm, the range, and the radius
        beyond which nothing is returned.
      steps: number of gradients.
      alpha: first step size, the Euclidean length of a step in pixels.
      gamma: first relative change of the radius.
      refine: bisection steps at the end; 0 is the paper's algorithm.

    Raises:
      ValueError: for another ball, steps < 1, or gamma outside (0, 1).

    Reference: Pintor et al. 2021, arXiv 2102.12827.
    """
    if not 0 < gamma < 1:
        raise ValueError(f'gamma must lie in (0, 1), got {gamma}')
    ball = l2(float('inf')) if ball is None else ball
    ball = check_ball(ball, 'fmn', ('l2', 'linf', 'l1', 'l0'))
    sparse = balls.kind(ball) == 'l0'  # A point between is no sparser.
    return Fmn(
        ball=ball,
        alpha=jnp.float32(check_positive('alpha', alpha)),
        gamma=jnp.float32(gamma),
        steps=check_count('steps', steps),
        refine=0 if sparse else check_count('refine', refine, 0),
    )
