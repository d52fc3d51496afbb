r"""APGD: projected gradient ascent that chooses its own step size (Linf, L2).

From a start on the surface of the ball, with step size :math:`\eta = 2\epsilon`:

.. math::
    z_{t+1} &= \Pi(x_t + \eta\,\mathrm{steepest}(\nabla L(x_t))) \\
    x_{t+1} &= \Pi(x_t + \alpha (z_{t+1} - x_t) + (1 - \alpha)(x_t - x_{t-1}))

with :math:`\alpha = 0.75` (1 in the first step). At checkpoints, ever closer
together, :math:`\eta` is halved and the search goes on from the best point so far if

1. the loss rose in at most a share :math:`\rho = 0.75` of the steps since the last
   checkpoint, or
2. :math:`\eta` was not halved at the last checkpoint and the best loss has not
   improved since.

Every example has its own step size, so no verdict depends on batch-mates.

Reference: Croce and Hein 2020, arXiv 2003.01690, algorithm 1; details (the second
condition cannot fire at the first checkpoint; after a return to the best point the
momentum still looks at the previous iterate) as in the authors' code. Deviations:
the L2 projection is the exact one on ball and range, where the code scales and then
clips; the point returned is the iterate of largest margin, not the last misclassified.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import balls, keys, losses
from advjax.attacks.apgd_l1 import ApgdL1
from advjax.attacks.checks import check_ball, check_count, check_fraction, check_loss
from advjax.attacks.gradients import value_and_gradient
from advjax.attacks.search import Worst, call, iterate, keep, maximize
from advjax.attacks.starts import Start
from advjax.rows import choose, wide
from advjax.types import AnyGoal, Array, Ball, Found, Key, Loss, dataclass


def checkpoints(steps: int) -> np.ndarray:
    """Steps since the previous checkpoint at each step that is one; elsewhere 0.

    ``checkpoints(100)`` is non-zero at steps 22, 41, 57, 70, 80, 87, 93 and 99.

    Returns:
      (steps,) integers; entry i belongs to step i + 1.
    """
    gap, shortest = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    gaps = np.zeros(steps, np.int32)
    at = gap
    while at <= steps:
        gaps[at - 1] = gap
        gap = max(gap - shrink, shortest)
        at += gap
    return gaps


def surface(ball: Ball, key: Key, x0: Array) -> Array:
    """A random point whose largest move (Linf) or length (L2) is the radius."""

    def draw(k):
        if ball.norm_name == 'linf':
            t = jax.random.uniform(k, x0.shape[1:], x0.dtype, -1, 1)
            return t / jnp.max(jnp.abs(t))
        t = jax.random.normal(k, x0.shape[1:], x0.dtype)
        return t / jnp.sqrt(jnp.sum(t**2))

    radius = wide(balls.radius(ball, x0), x0)
    return ball.project(x0 + radius * keys.draw(draw, key), x0)


class ApgdState(NamedTuple):
    """Where an APGD stands; numbers are (B,).

    ``best`` is the point of largest value, ``worst`` that of largest rank.
    """

    x: Array
    previous: Array
    value: Array
    gradient: Array
    size: Array
    best: Array
    best_value: Array
    best_gradient: Array
    rises: Array
    checked: Array
    halved: Array
    worst: Worst
    key: Key
    time: Array


@dataclass
class Apgd:
    """APGD in Linf or L2; build it with ``apgd``."""

    ball: Ball
    rho: Array
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    start: Start = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return self.steps + 1

    def init(self, goal: AnyGoal, key: Key, x0: Array) -> ApgdState:
        """Evaluates the start."""
        x = self.ball.project(self.start(self.ball, keys.fold(key, 0), x0), x0)
        gradient, (value, rank) = value_and_gradient(goal, x, keys.fold(key, 1))
        none = jnp.zeros_like(value)
        # ``halved``, because the first checkpoint has no earlier one to compare with.
        return ApgdState(
            x=x,
            previous=x,
            value=value,
            gradient=gradient,
            size=2 * balls.radius(self.ball, x0),
            best=x,
            best_value=value,
            best_gradient=gradient,
            rises=none,
            checked=value,
            halved=none == 0,
            worst=Worst(x, rank),
            key=key,
            time=jnp.zeros((), jnp.int32),
        )

    def step(self, goal: AnyGoal, x0: Array, state: ApgdState) -> ApgdState:
        """Moves, and looks at the step size where there is a checkpoint."""
        gap = jnp.asarray(checkpoints(self.steps))[state.time]
        return self.check(self.move(goal, x0, state), gap)

    def move(self, goal: AnyGoal, x0: Array, state: ApgdState) -> ApgdState:
        """One step, without its checkpoint."""
        momentum = jnp.where(state.time > 0, 0.75, 1.0)
        direction = self.ball.steepest(jnp.nan_to_num(state.gradient))
        z = self.ball.project(state.x + wide(state.size, x0) * direction, x0)
        x = state.x + momentum * (z - state.x)
        x = self.ball.project(x + (1 - momentum) * (state.x - state.previous), x0)
        draw = keys.fold(state.key, state.time + 2)
        gradient, (value, rank) = value_and_gradient(goal, x, draw)
        better = value > state.best_value
        return state._replace(
            x=x,
            previous=state.x,
            value=value,
            gradient=gradient,
            best=choose(better, x, state.best),
            best_value=jnp.where(better, value, state.best_value),
            best_gradient=choose(better, gradient, state.best_gradient),
            rises=state.rises + (value > state.value).astype(state.rises.dtype),
            worst=state.worst.update(x, rank),
            time=state.time + 1,
        )

    def check(self, state: ApgdState, gap: Array) -> ApgdState:
        """The checkpoint after ``gap`` steps; none where ``gap`` is 0."""
        stuck = ~state.halved & (state.checked >= state.best_value)
        here = gap > 0
        few = state.rises <= self.rho * gap.astype(jnp.float32)
        halve = (few | stuck) & here
        return state._replace(
            x=choose(halve, state.best, state.x),
            gradient=choose(halve, state.best_gradient, state.gradient),
            size=jnp.where(halve, state.size / 2, state.size),
            rises=jnp.where(here, 0, state.rises),
            checked=jnp.where(here, state.best_value, state.checked),
            halved=jnp.where(here, halve, state.halved),
        )

    def search(self, goal: AnyGoal, key: Key, x: Array) -> Found:
        """The worst iterate."""
        state = iterate(self, goal.with_loss(self.loss), key, x)
        return keep(self, state.worst)

    __call__ = call
    maximize = maximize


def apgd(
    ball: Ball | float,
    steps: int = 100,
    loss: Loss = losses.cross_entropy,
    rho: float = 0.75,
    start: Start | None = None,
) -> Apgd | ApgdL1:
    """Auto-PGD: no step size to choose, only a number of steps.

    ``apgd(ball, loss=losses.dlr)`` is APGD-DLR, ``targeted(apgd(ball,
    loss=losses.dlr), 9)`` is APGD-T, and ``restarts(apgd(ball), 5)`` starts anew.
    In an L1 ball it is the sparse APGD of ``advjax.attacks.apgd_l1``.

    Args:
      ball: an Linf, L2 or L1 ball, or a number as the radius of ``linf``.
      steps: number of steps; the checkpoints scale with it.
      loss: what to maximise.
      rho: the share of rising steps that keeps the step size.
      start: function of (ball, keys, x0); on the surface of the ball by default.

    Raises:
      ValueError: for another ball, steps < 1 or rho outside [0, 1].

    Reference: Croce and Hein 2020, arXiv 2003.01690, algorithm 1.
    """
    ball = check_ball(ball, 'apgd', ('linf', 'l2', 'l1'))
    check_count('steps', steps)
    check_loss(loss)
    share = check_fraction('rho', rho)
    if ball.norm_name == 'l1':
        if start is not None:
            raise ValueError('start must be None in an L1 ball, whose APGD has its own')
        return ApgdL1(ball=ball, steps=steps, loss=loss)
    return Apgd(
        ball=ball,
        rho=share,
        steps=steps,
        loss=loss,
        start=surface if start is None else start,
    )
