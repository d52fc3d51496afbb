r"""Frank-Wolfe: ascent that moves towards a corner of the ball and never projects.

.. math::
    m_t = \beta m_{t-1} + (1 - \beta) \nabla L(x_t), \quad
    v_t = \arg\max_{v \in B} \langle v, m_t \rangle, \quad
    x_{t+1} = x_t + \gamma_t (v_t - x_t)

Iterates are convex combinations of feasible points, hence feasible.

Reference: Chen et al. 2020, arXiv 1811.10828, algorithm 1. Deviation: the paper
maximises over the ball alone and clips; here v maximises over ball and range.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys, losses
from advjax.attacks import goal as goals
from advjax.attacks.checks import check_ball, check_count, check_loss
from advjax.attacks.gradients import exact
from advjax.balls import Ball
from advjax.rows import choose, largest, wide
from advjax.types import Array, Key, LogitsFn, Loss, Objective, check_images, dataclass


@dataclass
class FrankWolfe:
    """Frank-Wolfe in Linf, L2 or L1; build it with ``frank_wolfe``."""

    ball: Any
    beta: Array
    rate: Array
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    decay: bool = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return self.steps + 1

    def vertex(self, gradient: Array, x0: Array) -> Array:
        """The maximiser of <v, gradient> over ball and range.

        It is the limit of projections of ever farther points along the gradient;
        4,096 radii are far enough for float32 and not too far for its rounding.
        """
        top = wide(largest(jnp.abs(gradient)), gradient)
        unit = jnp.where(top > 0, gradient / jnp.where(top > 0, top, 1), 0)
        far = 4096 * wide(balls.radius(self.ball, x0), x0)
        return self.ball.project(x0 + far * unit, x0)

    def maximize(self, objective: Objective, key: Key, x0: Array) -> Array:
        """Searches the ball around ``x0`` for the maximum of any objective.

        Args:
          objective: (B, ...) -> (B,), each value depending on its own example only.
          key: one key, or one per example; only randomised models draw from it.
          x0: (B, ...) float32 centre of the ball.
        """
        check_images(x0)
        each = keys.per_example(key, x0.shape[0])

        def values(x, key):
            return goals.evaluate(objective, x, key, ranked=True)

        def keep(best, rank, x, new):
            return choose(new > rank, x, best), jnp.maximum(new, rank)

        def body(carry, t):
            x, mean, best, rank = carry
            gradient, new = exact(values, x, keys.fold(each, t))
            best, rank = keep(best, rank, x, jnp.nan_to_num(new, nan=-jnp.inf))
            mean = self.beta * mean + (1 - self.beta) * jnp.nan_to_num(gradient)
            rate = self.rate / (t + 1) ** 0.5 if self.decay else self.rate
            move = self.vertex(mean, x0) - x
            moving = largest(jnp.abs(mean)) > 0
            move = choose(moving, move, jnp.zeros_like(move))
            return (self.ball.project(x + rate * move, x0), mean, best, rank), None

        nothing = jnp.full_like(x0, -jnp.inf, shape=x0.shape[:1])
        carry = x0, jnp.zeros_like(x0), x0, nothing
        carry, _ = jax.lax.scan(body, carry, jnp.arange(self.steps))
        x, _, best, rank = carry
        last = values(x, keys.fold(each, self.steps))[1]
        return keep(best, rank, x, last)[0]

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Key,
        x: Array,
        y: Array,
        target: Any = None,
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``: see ``advjax.types.Attack``."""
        return self.maximize(goals.Goal(logits_fn, self.loss, y, target), key, x)


def frank_wolfe(
    ball: Ball | float,
    steps: int = 20,
    rate: float = 0.3,
    beta: float = 0.9,
    decay: bool = False,
    loss: Loss = losses.cross_entropy,
) -> FrankWolfe:
    r"""The Frank-Wolfe attack.

    Args:
      ball: an Linf, L2 or L1 ball, or a number as the radius of ``linf``.
      steps: number of gradients.
      rate: gamma, the share of the way to the corner in each step.
      beta: decay of the averaged gradient.
      decay: let gamma fall as :math:`1 / \sqrt{t + 1}`.
      loss: what to maximise.

    Raises:
      ValueError: for another ball, steps < 1, or rate or beta outside [0, 1].

    Reference: Chen et al. 2020, arXiv 1811.10828, algorithm 1.
    """
    for name, value in (('rate', rate), ('beta', beta)):
        if not 0 <= value <= 1:
            raise ValueError(f'{name} must lie in [0, 1], got {value}')
    return FrankWolfe(
        ball=check_ball(ball, 'frank_wolfe', ('linf', 'l2', 'l1')),
        beta=jnp.float32(beta),
        rate=jnp.float32(rate),
        steps=check_count('steps', steps),
        loss=check_loss(loss),
        decay=decay,
    )
