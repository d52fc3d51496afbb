r"""DDN: decoupled direction and norm, a minimum-norm attack in L2.

The direction follows the normalised gradient of the loss, the norm is a number of
its own that shrinks after every success and grows after every failure:

.. math::
    \delta_k = \delta_{k-1} + \alpha_k \frac{g}{\|g\|_2}, \qquad
    \epsilon_k = (1 \mp \gamma)\, \epsilon_{k-1}, \qquad
    x_k = \Pi_{[l, u]}\Big(x_0 + \epsilon_k \frac{\delta_k}{\|\delta_k\|_2}\Big)

with :math:`\alpha` falling from 1 to 0.01 along a cosine.

Reference: Rony et al. 2019, arXiv 1811.09600, algorithm 1. Deviations: no rounding to
8 bits inside the loop (see ``quantised``); a bisection (``refine``) at the end.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count, check_loss, check_positive
from advjax.attacks.gradients import with_logits
from advjax.balls import Ball, clip, confine, l2
from advjax.rows import wide
from advjax.types import Array, Key, LogitsFn, Loss, check_images, dataclass


@dataclass
class Ddn:
    """DDN; build it with ``ddn``."""

    ball: Any
    gamma: Array
    first: Array
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 2 + self.steps + self.refine

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, self.loss, y, target)
        steepest = balls.L2.steepest

        def body(carry, i):
            delta, eps, best = carry
            point = x + delta
            _, logits, gradient = with_logits(goal.logits_fn, goal.loss_of, point)
            won = minimum.succeeds(goal, logits)
            best = minimum.update(best, self.ball, point, x, won)
            eps = eps * jnp.where(won, 1 - self.gamma, 1 + self.gamma)
            rate = 0.01 + 0.99 * (1 + jnp.cos(jnp.pi * i / self.steps)) / 2
            gradient = jnp.nan_to_num(gradient)
            gradient = confine(self.ball, gradient)
            delta = delta + rate * steepest(self.ball, gradient)
            delta = wide(eps, x) * steepest(self.ball, delta)
            if self.ball.bounds is not None:  # x + delta - x would round.
                delta = clip(self.ball, x + delta) - x
            return (delta, eps, best), None

        eps = jnp.broadcast_to(self.first, x.shape[:1]).astype(x.dtype)
        carry = jnp.zeros_like(x), eps, minimum.none(x)
        carry, _ = jax.lax.scan(body, carry, jnp.arange(self.steps))
        delta, _, best = carry
        won = minimum.succeeds(goal, goal.logits_fn(x + delta))
        best = minimum.update(best, self.ball, x + delta, x, won)
        best = minimum.refine(best, goal, self.ball, x, self.refine)
        return minimum.result(best, self.ball, x)


def ddn(
    ball: Ball | None = None,
    steps: int = 100,
    gamma: float = 0.05,
    first: float = 1.0,
    loss: Loss = losses.cross_entropy,
    refine: int = 10,
) -> Ddn:
    """Decoupled direction and norm.

    Args:
      ball: an L2 ball: the range, and the radius beyond which nothing is returned;
        ``l2(inf)`` by default.
      steps: number of gradients.
      gamma: change of the norm per step.
      first: norm of the first perturbation.
      loss: what gives the direction.
      refine: bisection steps at the end; 0 is the paper's algorithm.

    Raises:
      ValueError: for another ball, steps < 1, or gamma outside (0, 1).

    Reference: Rony et al. 2019, arXiv 1811.09600.
    """
    if not 0 < gamma < 1:
        raise ValueError(f'gamma must lie in (0, 1), got {gamma}')
    ball = l2(float('inf')) if ball is None else ball
    return Ddn(
        ball=check_ball(ball, 'ddn', ('l2',)),
        gamma=jnp.float32(gamma),
        first=jnp.float32(check_positive('first', first)),
        steps=check_count('steps', steps),
        loss=check_loss(loss),
        refine=check_count('refine', refine, 0),
    )
