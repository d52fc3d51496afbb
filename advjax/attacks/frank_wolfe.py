r"""Frank-Wolfe: ascent that moves towards a corner of the ball and never projects.

.. math::
    m_t = \beta m_{t-1} + (1 - \beta) \nabla L(x_t), \quad
    v_t = \arg\max_{v \in B} \langle v, m_t \rangle, \quad
    x_{t+1} = x_t + \gamma_t (v_t - x_t)

Iterates are convex combinations of feasible points, hence feasible.

Reference: Chen et al. 2020, arXiv 1811.10828, algorithm 1. Deviation: the paper
maximises over the ball alone and clips; here v maximises over ball and range.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct

from advjax import balls, keys, losses
from advjax.attacks.checks import check_ball, check_count, check_fraction, check_loss
from advjax.attacks.gradients import value_and_gradient
from advjax.attacks.search import Worst, call, iterate, keep, maximize, nothing
from advjax.rows import choose, largest, wide
from advjax.types import AnyGoal, Array, Ball, Found, Key, Loss, dataclass


class FrankWolfeState(NamedTuple):
    """Where the search stands, and the mean of its gradients."""

    x: Array
    mean: Array
    worst: Worst
    key: Key
    time: Array


@dataclass
class FrankWolfe:
    """Frank-Wolfe in Linf, L2 or L1; build it with ``frank_wolfe``."""

    ball: Ball
    momentum: Array
    rate: Array
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    decay: bool = struct.field(pytree_node=False)
    ranked = True

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

    def init(self, goal: AnyGoal, key: Key, x0: Array) -> FrankWolfeState:
        """Starts at the clean image."""
        del goal
        zero = jnp.zeros((), jnp.int32)
        return FrankWolfeState(x0, jnp.zeros_like(x0), nothing(x0), key, zero)

    def step(self, goal: AnyGoal, x0: Array, state: FrankWolfeState) -> FrankWolfeState:
        """Goes a part of the way to a corner."""
        x, time = state.x, state.time
        draw = keys.fold(state.key, time)
        gradient, (_, rank) = value_and_gradient(goal, x, draw)
        mean = self.momentum * state.mean + (1 - self.momentum) * jnp.nan_to_num(
            gradient
        )
        rate = self.rate / (time + 1) ** 0.5 if self.decay else self.rate
        move = self.vertex(mean, x0) - x
        moving = largest(jnp.abs(mean)) > 0
        move = choose(moving, move, jnp.zeros_like(move))
        new = self.ball.project(x + rate * move, x0)
        worst = state.worst.update(x, rank)
        return FrankWolfeState(new, mean, worst, state.key, time + 1)

    def search(self, goal: AnyGoal, key: Key, x: Array) -> Found:
        """The worst iterate."""
        goal = goal.with_loss(self.loss)
        state = iterate(self, goal, key, x)
        rank = goal.value_and_rank(state.x, keys.fold(key, self.steps))[1]
        return keep(self, state.worst.update(state.x, rank))

    __call__ = call
    maximize = maximize


def frank_wolfe(
    ball: Ball | float,
    steps: int = 20,
    rate: float = 0.3,
    momentum: float = 0.9,
    decay: bool = False,
    loss: Loss = losses.cross_entropy,
) -> FrankWolfe:
    r"""The Frank-Wolfe attack.

    Args:
      ball: an Linf, L2 or L1 ball, or a number as the radius of ``linf``.
      steps: number of gradients.
      rate: gamma, the share of the way to the corner in each step.
      momentum: beta, the share of the mean gradient that is kept.
      decay: let gamma fall as :math:`1 / \sqrt{t + 1}`.
      loss: what to maximise.

    Raises:
      ValueError: for another ball, steps < 1, or rate or momentum outside [0, 1].

    Reference: Chen et al. 2020, arXiv 1811.10828, algorithm 1.
    """
    return FrankWolfe(
        ball=check_ball(ball, 'frank_wolfe', ('linf', 'l2', 'l1')),
        momentum=check_fraction('momentum', momentum),
        rate=check_fraction('rate', rate),
        steps=check_count('steps', steps),
        loss=check_loss(loss),
        decay=decay,
    )
