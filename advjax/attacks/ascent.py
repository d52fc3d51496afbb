r"""Projected steepest ascent: the search behind FGSM, BIM, PGD, MI-FGSM, Adam-PGD.

One search covers the first-order attacks:

.. math::
    x_{t+1} = \Pi\big(x_t + \epsilon\,\rho\,s(t)\,
              \mathrm{steepest}(T(\nabla_x L(x_t)))\big)

with projection :math:`\Pi` and steepest-ascent direction of the ball, step size
:math:`\rho` in radii, a schedule s, and T any optax gradient transformation
(momentum, Adam). ``attacks.named`` holds the named rows of that table.

The loop is a ``lax.scan``: one compiled program, differentiable from end to end,
and memory that does not grow with the steps unless it is differentiated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax import keys, losses
from advjax.attacks.directions import Direction, steepest
from advjax.attacks.gradients import Exact, Source
from advjax.attacks.schedules import Schedule, constant
from advjax.attacks.search import call, iterate, keep, maximize, nothing, spent
from advjax.attacks.starts import Start, clean, unclipped
from advjax.rows import wide
from advjax.types import AnyGoal, Array, Ball, Found, Key, Loss, dataclass


class AscentState(NamedTuple):
    """Where an ascent stands.

    ``worst`` is the worst iterate so far, or () without ``keep_best``.
    """

    x: Array
    key: Key
    time: Array
    transform: Any
    source: Any
    worst: Any


@dataclass
class Ascent:
    """Projected steepest ascent on any objective; build it with a factory below.

    Attributes:
      ball: where the adversary may go.
      rate: step size in radii, so that a sweep over eps keeps its meaning.
      steps: number of gradients.
      loss: what ``__call__`` maximises.
      start: where the search begins: ``clean``, ``uniform``, ``unclipped``,
        ``gaussian`` or any function of (ball, keys, x0).
      transform: gradient transformation. One that mixes the whole tensor
        (``optax.clip_by_global_norm``) couples the examples of a batch; wrap it.
      schedule: factor of the step size at t = step / steps in [0, 1).
      lookahead: None, or the decay mu of Nesterov's method: the gradient is taken
        at ``x + eps * rate * s * mu * trace`` of a transform with an
        ``optax.trace``.
      gradient: where the gradient comes from (``attacks.gradients``).
      direction: the step for a gradient; ``steepest`` is the ball's own.
      keep_best: return the best iterate, at the price of one more forward pass,
        instead of the last.
      unroll: steps per loop iteration of the compiled program.
    """

    ball: Ball
    rate: Array
    lookahead: Array | None = None
    gradient: Source = Exact()
    steps: int = struct.field(pytree_node=False, default=1)
    loss: Loss = struct.field(pytree_node=False, default=losses.cross_entropy)
    start: Start = struct.field(pytree_node=False, default=clean)
    transform: optax.GradientTransformation | None = struct.field(
        pytree_node=False, default=None
    )
    schedule: Schedule = struct.field(pytree_node=False, default=constant)
    direction: Direction = struct.field(pytree_node=False, default=steepest)
    keep_best: bool = struct.field(pytree_node=False, default=False)
    unroll: int = struct.field(pytree_node=False, default=1)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return self.steps * self.gradient.calls + self.keep_best

    @property
    def ranked(self) -> bool:
        """Only the best iterate comes with its rank."""
        return self.keep_best

    def init(self, goal: AnyGoal, key: Key, x0: Array) -> AscentState:
        """Returns the state before the first step; ``key`` holds (B,) keys."""
        del goal
        if self.keep_best and (self.start is unclipped or self.lookahead is not None):
            raise ValueError(
                'keep_best needs every gradient at a feasible iterate: not with '
                "start 'unclipped' or with lookahead"
            )
        x = self.start(self.ball, keys.fold(key, 0), x0)
        if self.keep_best:
            # A user's start may lie outside the ball, where no iterate is a result.
            x = self.ball.project(x, x0)
        return AscentState(
            x=x,
            key=key,
            time=jnp.zeros((), jnp.int32),
            transform=() if self.transform is None else self.transform.init(x),
            source=self.gradient.init(x),
            worst=nothing(x0) if self.keep_best else (),
        )

    def step(self, goal: AnyGoal, x0: Array, state: AscentState) -> AscentState:
        """Takes one gradient and one projected step."""
        time = state.time.astype(x0.dtype) / max(self.steps, 1)
        size = jnp.asarray(self.ball.eps * self.rate * self.schedule(time), x0.dtype)
        size = wide(size, x0)
        draw = keys.fold(state.key, state.time + 1)

        point = state.x
        if self.lookahead is not None:
            trace = optax.tree_utils.tree_get(state.transform, 'trace')
            point += size * jnp.asarray(self.lookahead, x0.dtype) * trace

        def value_alone(x, key):
            return goal.value(x, key), None

        values = goal.value_and_rank if self.keep_best else value_alone
        gradient, rank, source = self.gradient(
            values, self.ball, point, draw, state.source
        )
        # A NaN must neither freeze its example nor reach the others.
        direction: Any = jnp.nan_to_num(gradient)
        transform = state.transform
        if self.transform is not None:
            with jax.numpy_dtype_promotion('standard'):  # As Optax is written for.
                direction, transform = self.transform.update(
                    direction, transform, state.x
                )
        direction = self.direction(self.ball, direction)
        # An infinite radius times a zero direction is no step, not NaN.
        x = state.x + jnp.where(direction == 0, 0, size * direction)
        return state._replace(
            x=self.ball.project(x, x0),
            time=state.time + 1,
            transform=transform,
            source=source,
            worst=state.worst.update(state.x, rank) if self.keep_best else (),
        )

    def search(self, goal: AnyGoal, key: Key, x: Array) -> Found:
        """The worst iterate, or the last one without ``keep_best``."""
        goal = goal.with_loss(self.loss)
        state = iterate(self, goal, key, x, unroll=self.unroll)
        # A user's start may lie outside the ball, and there may be no steps.
        last = self.ball.project(state.x, x)
        if not self.keep_best:
            return Found(last, None, spent(self, x))
        rank = goal.value_and_rank(last, keys.fold(key, self.steps + 1))[1]
        return keep(self, state.worst.update(last, rank))

    __call__ = call
    maximize = maximize
