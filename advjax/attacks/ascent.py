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
from advjax.attacks import goal as goals
from advjax.attacks.gradients import Exact
from advjax.attacks.starts import (
    Direction,
    Schedule,
    Start,
    clean,
    constant,
    steepest,
    unclipped,
)
from advjax.balls import Ball
from advjax.types import Array, Key, LogitsFn, Loss, Objective, check_images, dataclass


class AscentState(NamedTuple):
    """Where an ascent stands.

    ``best`` and ``rank`` are those of the best iterate so far, or empty when the
    last iterate is what is asked for.
    """

    x: Array
    key: Key
    time: Array
    transform: Any
    source: Any
    best: Any
    rank: Any


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
    gradient: Any = Exact()
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

    def init(self, key: Key, x0: Array) -> AscentState:
        """Returns the state before the first step."""
        if self.keep_best and (self.start is unclipped or self.lookahead is not None):
            raise ValueError(
                'keep_best needs every gradient at a feasible iterate: not with '
                "start 'unclipped' or with lookahead"
            )
        each = keys.per_example(key, x0.shape[0])
        x = self.start(self.ball, keys.fold(each, 0), x0)
        if self.keep_best:
            # A start of its own choosing may lie anywhere, but be the best it may not.
            x = self.ball.project(x, x0)
        transform = () if self.transform is None else self.transform.init(x)
        nothing = (x0, jnp.full_like(x0, -jnp.inf, shape=x0.shape[:1]))
        best, rank = nothing if self.keep_best else ((), ())
        source = self.gradient.init(x)
        time = jnp.zeros((), jnp.int32)
        return AscentState(x, each, time, transform, source, best, rank)

    def step(self, objective: Objective, x0: Array, state: AscentState) -> AscentState:
        """Takes one gradient and one projected step."""
        time = state.time.astype(x0.dtype) / max(self.steps, 1)
        size = jnp.asarray(self.ball.eps * self.rate * self.schedule(time), x0.dtype)
        if size.ndim:
            size = size.reshape((-1,) + (1,) * (x0.ndim - 1))
        draw = keys.fold(state.key, state.time + 1)

        def values(x, key):
            return goals.evaluate(objective, x, key, ranked=self.keep_best)

        point = state.x
        if self.lookahead is not None:
            trace = optax.tree_utils.tree_get(state.transform, 'trace')
            point += size * jnp.asarray(self.lookahead, x0.dtype) * trace
        gradient, rank, source = self.gradient(
            values, self.ball, point, draw, state.source
        )
        # One example's NaN must not stop it where it stands, let alone the others.
        direction: Any = jnp.nan_to_num(gradient)
        transform = state.transform
        if self.transform is not None:
            direction, transform = self.transform.update(direction, transform, state.x)
        direction = self.direction(self.ball, direction)
        # An infinite radius times a zero direction is no step, not NaN.
        x = state.x + jnp.where(direction == 0, 0, size * direction)
        x = self.ball.project(x, x0)
        return self._keep(state, rank)._replace(
            x=x, time=state.time + 1, transform=transform, source=source
        )

    @staticmethod
    def _keep(state: AscentState, rank: Array | None) -> AscentState:
        """Records the iterate that ``rank`` was measured at if it is the best."""
        if rank is None:
            return state
        better = rank > state.rank
        wide = better.reshape((-1,) + (1,) * (state.x.ndim - 1))
        return state._replace(
            best=jnp.where(wide, state.x, state.best),
            rank=jnp.where(better, rank, state.rank),
        )

    def maximize(self, objective: Objective, key: Key, x0: Array) -> Array:
        """Searches the ball around ``x0`` for the maximum of any objective.

        Args:
          objective: (B, ...) -> (B,), one value per example, each depending on
            its own example only.
          key: one key, or one per example.
          x0: (B, ...) float32 centre of the ball.

        Returns:
          An array like ``x0`` inside the ball.
        """
        check_images(x0)

        def body(state, _):
            return self.step(objective, x0, state), None

        state = self.init(key, x0)
        state, _ = jax.lax.scan(
            body, state, length=self.steps, unroll=max(1, min(self.unroll, self.steps))
        )
        # A start of its own choosing may lie anywhere, and steps may be zero.
        last = state._replace(x=self.ball.project(state.x, x0))
        if not self.keep_best:
            return last.x
        draw = keys.fold(state.key, self.steps + 1)
        rank = goals.evaluate(objective, last.x, draw, ranked=True)[1]
        return self._keep(last, rank).best

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Key,
        x: Array,
        y: Array,
        target: Array | None = None,
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``: see ``advjax.types.Attack``."""
        return self.maximize(goals.Goal(logits_fn, self.loss, y, target), key, x)
