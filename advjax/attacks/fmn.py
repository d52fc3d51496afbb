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

import jax.numpy as jnp
from flax import struct

from advjax import balls, losses, projections
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, check_positive, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.linearised import DUAL, length
from advjax.attacks.minimum import Following
from advjax.attacks.search import call
from advjax.types import Array, Ball, Found, Key, dataclass


@dataclass
class Fmn:
    """FMN; build it with ``fmn``."""

    ball: Ball
    rate: Array
    gamma: Array
    steps: int = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 2 + self.steps + self.refine

    def init(self, goal: Goal, key: Key, x0: Array) -> Following:
        """Starts at the clean image."""
        del key
        eps = jnp.zeros_like(x0, shape=x0.shape[:1])
        return minimum.following(goal, eps, x0)

    def step(self, goal: Goal, x0: Array, state: Following) -> Following:
        """Sets the radius by what is seen, then climbs inside of it."""
        point = x0 + state.delta
        value, logits, gradient = with_logits(goal.logits_fn, goal.value_of, point)
        gradient = self.ball.confine(jnp.nan_to_num(gradient))
        seen = state.nearest.judge(goal, logits)
        nearest = state.nearest.update(self.ball, point, x0, seen)
        fall = minimum.cosine(state.time, self.steps)
        steep = length(DUAL.get(self.ball.norm_name, 'linf'), gradient)
        away = jnp.where(steep > 0, jnp.abs(value) / jnp.where(steep > 0, steep, 1), 0)
        eps = self._radius(
            state, seen.crossed, nearest.norm, fall, jnp.nan_to_num(away)
        )
        if self.ball.bounds is not None:
            everything = self.ball.with_eps(jnp.float32(jnp.inf))
            eps = jnp.minimum(eps, balls.radius(everything, x0))
        move = self.rate * (0.01 + 0.99 * fall) * projections.unit(gradient)
        delta = self.ball.with_eps(eps).project(x0 + state.delta + move, x0) - x0
        return Following(delta, eps, nearest, state.time + 1)

    def _radius(
        self, state: Following, crossed: Array, nearest: Array, fall: Array, away: Array
    ) -> Array:
        """The next radius of every example."""
        eps, norm = state.eps, self.ball.norm(state.delta)
        gamma = 1e-4 + (self.gamma - 1e-4) * fall
        if self.ball.norm_name == 'l0':
            less = jnp.minimum(eps - 1, jnp.floor(eps * (1 - gamma)))
            more = jnp.maximum(eps + 1, jnp.floor(eps * (1 + gamma)))
            inside = jnp.maximum(jnp.minimum(less, nearest), 1)
            away = jnp.maximum(jnp.ceil(away), 1)
        else:
            inside, more = jnp.minimum(eps * (1 - gamma), nearest), eps * (1 + gamma)
        # A step to the linearised boundary ends on it, and never beyond.
        beyond = norm + jnp.maximum(away, 1e-3 * norm)
        return jnp.where(crossed, inside, jnp.where(state.nearest.found, more, beyond))

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        return minimum.follow(self, goal.with_loss(losses.margin), key, x)

    __call__ = call


def fmn(
    ball: Ball | None = None,
    steps: int = 100,
    rate: float = 1.0,
    gamma: float = 0.05,
    refine: int = 10,
) -> Fmn:
    """The fast minimum-norm attack.

    Args:
      ball: an L2 (default), Linf, L1 or L0 ball: the norm, the range, and the radius
        beyond which nothing is returned.
      steps: number of gradients.
      rate: the paper's alpha: the first step size, a Euclidean length in pixels.
      gamma: first relative change of the radius.
      refine: bisection steps at the end; 0 is the paper's algorithm.

    Raises:
      ValueError: for another ball, steps < 1, or gamma outside (0, 1).

    Reference: Pintor et al. 2021, arXiv 2102.12827.
    """
    if not 0 < gamma < 1:
        raise ValueError(f'gamma must lie in (0, 1), got {gamma}')
    ball = norm_ball(ball, 'fmn', ('l2', 'linf', 'l1', 'l0'))
    sparse = ball.norm_name == 'l0'  # A point between is no sparser.
    return Fmn(
        ball=ball,
        rate=jnp.float32(check_positive('rate', rate)),
        gamma=jnp.float32(gamma),
        steps=check_count('steps', steps),
        refine=0 if sparse else check_count('refine', refine, 0),
    )
