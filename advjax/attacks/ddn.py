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

import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, check_loss, check_positive, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Following
from advjax.attacks.search import call
from advjax.balls import clip
from advjax.rows import wide
from advjax.types import Array, Ball, Found, Key, Loss, dataclass


@dataclass
class Ddn:
    """DDN; build it with ``ddn``."""

    ball: Ball
    gamma: Array
    first: Array
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 2 + self.steps + self.refine

    def init(self, goal: Goal, key: Key, x0: Array) -> Following:
        """Starts at the clean image."""
        del key
        eps = jnp.broadcast_to(self.first, x0.shape[:1]).astype(x0.dtype)
        return minimum.following(goal, eps, x0)

    def step(self, goal: Goal, x0: Array, state: Following) -> Following:
        """Turns the perturbation by the gradient, then sets its norm."""
        point = x0 + state.delta
        _, logits, gradient = with_logits(goal.logits_fn, goal.value_of, point)
        seen = state.nearest.judge(goal, logits)
        nearest = state.nearest.update(self.ball, point, x0, seen)
        eps = state.eps * jnp.where(seen.crossed, 1 - self.gamma, 1 + self.gamma)
        rate = 0.01 + 0.99 * minimum.cosine(state.time, self.steps)
        gradient = self.ball.confine(jnp.nan_to_num(gradient))
        delta = state.delta + rate * self.ball.steepest(gradient)
        delta = wide(eps, x0) * self.ball.steepest(delta)
        if self.ball.bounds is not None:  # x0 + delta - x0 would round.
            delta = clip(self.ball, x0 + delta) - x0
        return Following(delta, eps, nearest, state.time + 1)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        return minimum.follow(self, goal.with_loss(self.loss), key, x)

    __call__ = call


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
    return Ddn(
        ball=norm_ball(ball, 'ddn', ('l2',)),
        gamma=jnp.float32(gamma),
        first=jnp.float32(check_positive('first', first)),
        steps=check_count('steps', steps),
        loss=check_loss(loss),
        refine=check_count('refine', refine, 0),
    )
