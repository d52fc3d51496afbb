r"""Projected steepest ascent: FGSM, BIM, PGD, MI-FGSM, NI-FGSM, Adam-PGD.

One search covers the first-order attacks:

.. math::
    x_{t+1} = \Pi\big(x_t + \epsilon\,\rho\,s(t)\,
              \mathrm{steepest}(T(\nabla_x L(x_t)))\big)

with projection :math:`\Pi` and steepest-ascent direction of the ball, step size
:math:`\rho` in radii, a schedule s, and T any optax gradient transformation
(momentum, Adam). The factories at the end are the named rows of that table.

The loop is a ``lax.scan``: one compiled program, differentiable from end to end,
and memory that does not grow with the steps unless it is differentiated.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from advjax import keys, losses
from advjax.attacks import goal as goals
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.gradients import Exact, VarianceTuned
from advjax.balls import Ball, as_ball, kind
from advjax.types import Array, Key, LogitsFn, Loss, Objective, check_images, dataclass

Start = Callable[[Ball, Key, Array], Array]
Schedule = Callable[[Array], Array]
Direction = Callable[[Ball, Array], Array]


def clean(ball: Ball, key: Key, x0: Array) -> Array:
    """Starts at the clean image."""
    del ball, key
    return x0


def uniform(ball: Ball, key: Key, x0: Array) -> Array:
    """Starts at a uniform draw from the ball, inside the valid range."""
    return ball.sample(key, x0)


def unclipped(ball: Ball, key: Key, x0: Array) -> Array:
    """Starts at a uniform draw from the ball that may leave the valid range.

    So does the MNIST code of Wong et al. 2020: only the result is clipped.
    """
    unbounded: Any = dataclasses.replace(ball, bounds=None)  # type: ignore[type-var]
    return unbounded.sample(key, x0)


def gaussian(ball: Ball, key: Key, x0: Array) -> Array:
    """Starts at x + 0.001 N(0, 1), as TRADES does: its gradient at x is zero."""
    noise = keys.draw(lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype), key)
    return ball.project(x0 + 0.001 * noise, x0)


def steepest(ball: Ball, gradient: Array) -> Array:
    """The steepest direction of the ball."""
    return ball.steepest(gradient)


@functools.cache
def sparse(quantile: float = 0.99) -> Direction:
    """Equal steps on the largest coordinates of the gradient: sign(g) / count.

    Reference: Tramer and Boneh 2019, arXiv 1904.13000, section 4.
    """

    def direction(ball: Ball, gradient: Array) -> Array:
        gradient = _allowed(ball, gradient)
        size = jnp.abs(gradient)
        axes = tuple(range(1, gradient.ndim))
        flat = size.reshape(size.shape[0], -1)
        kept = max(1, round((1 - quantile) * flat.shape[1]))
        least = jax.lax.top_k(flat, kept)[0][:, -1]
        largest = size >= least.reshape((-1,) + (1,) * (gradient.ndim - 1))
        signs = jnp.where(largest, jnp.sign(gradient), 0)
        count = jnp.sum(jnp.abs(signs), axis=axes, keepdims=True)
        return signs / jnp.maximum(count, 1)

    return direction


def normalised(ball: Ball, gradient: Array) -> Array:
    """The gradient itself, scaled so that its largest coordinate is 1 / eps.

    So that a step ``eps * rate * direction`` moves no coordinate by more than rate:
    the step for sparse balls, whose projection then chooses the coordinates.
    """
    gradient = _allowed(ball, gradient)
    axes = tuple(range(1, gradient.ndim))
    largest = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True, initial=0.0)
    eps = jnp.asarray(ball.eps, gradient.dtype)
    eps = eps.reshape((-1,) + (1,) * (gradient.ndim - 1)) if eps.ndim else eps
    scale = largest * jnp.where(eps > 0, eps, 1)
    return jnp.where(scale > 0, gradient / jnp.where(scale > 0, scale, 1), 0)


def _allowed(ball: Ball, gradient: Array) -> Array:
    """The gradient without the coordinates that a mask forbids."""
    return (
        jnp.where(ball.allowed(gradient), gradient, 0)
        if hasattr(ball, 'allowed')
        else gradient
    )


def constant(t: Array) -> Array:
    """The step-size schedule that does not change."""
    return jnp.ones_like(t)


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


def _ascent(
    ball: Ball | float,
    steps: int,
    rate: float | Array | None,
    reach: float = 1.0,
    **options,
) -> Ascent:
    """Validates; without a rate all steps together are ``reach`` radii long."""
    check_count('steps', steps)
    if rate is None:
        rate = reach / steps
    if not isinstance(rate, jax.core.Tracer):
        value = np.asarray(rate)
        if not (np.issubdtype(value.dtype, np.number) and np.all(value >= 0)):
            raise ValueError(f'rate must be a step size >= 0 in radii, got {rate!r}')
    for name in ('loss', 'start', 'schedule'):
        if name in options and not callable(options[name]):
            raise ValueError(f'{name} must be a function, got {options[name]!r}')
    return Ascent(
        ball=as_ball(ball), rate=jnp.asarray(rate, jnp.float32), steps=steps, **options
    )


def fgm(ball: Ball | float, loss: Loss = losses.cross_entropy) -> Ascent:
    r"""Fast gradient method: one full step, :math:`x + \epsilon\,\mathrm{steepest}`.

    The maximum of the linearised loss over the ball of any norm.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      loss: what to maximise.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 4; Miyato et al.
    2016 for L2.
    """
    return _ascent(ball, 1, 1.0, loss=loss)


def fgsm(ball: Ball | float, loss: Loss = losses.cross_entropy) -> Ascent:
    r"""Fast gradient sign method: :math:`x + \epsilon\,\mathrm{sign}(\nabla_x L)`.

    The paper does not clip to the pixel range; here the ball decides:
    ``fgsm(linf(0.25, bounds=None))`` is the paper's.

    Raises:
      ValueError: if the ball is not an Linf ball (use ``fgm``).

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 4.
    """
    ball = as_ball(ball)
    if kind(ball) != 'linf':
        raise ValueError(f'fgsm is defined on linf balls, got {ball}: use fgm')
    return fgm(ball, loss)


def bim(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Basic iterative method: PGD from the clean image, last iterate.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default, so that the steps just
        reach the boundary. The paper's alpha = 1/255 is ``1 / 255 / eps``.
      loss: what to maximise.

    Reference: Kurakin et al. 2017, arXiv 1607.02533, section 2.2.
    """
    return _ascent(ball, steps, rate, loss=loss)


def pgd(
    ball: Ball | float,
    steps: int = 40,
    rate: float | Array | None = None,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
    schedule: Schedule = constant,
    unroll: int = 1,
) -> Ascent:
    r"""Projected gradient descent (on the negative loss), from a random start.

    .. math:: x_{t+1} = \Pi_{x+S}(x_t + \alpha\,\mathrm{sign}(\nabla_x L(x_t, y)))

    and in other balls the steepest direction instead of the sign.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii, alpha / eps; 2.5 / steps by default. Madry's MNIST
        attack is ``steps=40, rate=0.01 / 0.3``.
      loss: what to maximise.
      start: where to begin; ``clean`` makes it BIM.
      keep_best: return the best iterate by margin instead of the last, so that a
        success at any iterate counts. The paper's code returns the last.
      schedule: factor of the step size over t in [0, 1).
      unroll: loop iterations unrolled in the compiled program.

    Reference: Madry et al. 2018, arXiv 1706.06083, section 2.1.
    """
    return _ascent(
        ball,
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=start,
        keep_best=keep_best,
        schedule=schedule,
        unroll=unroll,
    )


def _mean_one() -> optax.GradientTransformation:
    """Divides every example's gradient by its mean absolute coordinate."""

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        del params, extra
        gradient = updates
        axes = tuple(range(1, gradient.ndim))
        # Relative to the largest entry, so that tiny gradients do not underflow.
        scale = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True, initial=0.0)
        scaled = gradient / jnp.where(scale > 0, scale, 1)
        mean = jnp.mean(jnp.abs(scaled), axis=axes, keepdims=True)
        return scaled / jnp.where(mean > 0, mean, 1), state

    return optax.GradientTransformation(init, update)


@functools.cache
def momentum(decay: float = 1.0) -> optax.GradientTransformation:
    r"""Momentum, :math:`g \leftarrow \mu g + \nabla L / \|\nabla L\|_1`.

    The norm is the mean, not the sum, of absolute coordinates, as in the authors'
    codes: the same direction, and a scale at which a look-ahead means something.

    Cached, because a transformation is static structure: two equal attacks must
    hold the same one to share a compiled program.
    """
    return optax.chain(_mean_one(), optax.trace(decay))


@functools.cache
def adam(b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """``optax.scale_by_adam``, cached for the reason given in ``momentum``."""
    return optax.scale_by_adam(b1, b2)


def mi_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Momentum iterative FGSM, made for transfer.

    .. math::
        g_{t+1} = \mu g_t + \frac{\nabla_x L(x_t, y)}{\|\nabla_x L(x_t, y)\|_1},
        \qquad x_{t+1} = \Pi(x_t + \alpha\,\mathrm{steepest}(g_{t+1}))

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default, as in the paper.
      decay: mu.
      loss: what to maximise.

    Reference: Dong et al. 2018, arXiv 1710.06081, algorithm 1; the L1 norm is taken
    as a mean (see ``momentum``), which changes no direction.
    """
    if not decay >= 0:
        raise ValueError(f'decay must be a number >= 0, got {decay!r}')
    return _ascent(
        ball,
        steps,
        rate,
        loss=loss,
        transform=momentum(decay),
    )


def ni_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Nesterov iterative FGSM: MI-FGSM whose gradient looks ahead.

    .. math:: x_t^{nes} = x_t + \alpha \mu g_t

    replaces :math:`x_t` in the gradient of ``mi_fgsm``. The look-ahead point is not
    projected, as in the paper. The paper prints the L1 norm as a sum, at which the
    look-ahead is 1/d of a pixel step and the method is MI-FGSM; its code takes the
    mean, and so does this (see ``momentum``).

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default.
      decay: mu.
      loss: what to maximise.

    Reference: Lin et al. 2020, arXiv 1908.06281, algorithm 1.
    """
    attack = mi_fgsm(ball, steps, rate, decay, loss)
    return dataclasses.replace(attack, lookahead=jnp.float32(decay))


def adam_pgd(
    ball: Ball | float,
    steps: int = 40,
    rate: float | Array | None = None,
    loss: Loss = losses.margin,
    schedule: Schedule = constant,
    keep_best: bool = True,
) -> Ascent:
    r"""PGD along Adam's direction instead of the gradient.

    .. math:: \mathrm{steepest}(\hat m / (\sqrt{\hat v} + 10^{-8}))

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 2.5 / steps by default.
      loss: what to maximise; the margin by default.
      schedule: factor of the step size over t in [0, 1).
      keep_best: return the best iterate by margin instead of the last.

    Reference: Uesato et al. 2018, arXiv 1802.05666, section 4, who take Adam's
    own step; here it enters as a gradient transformation, so that the step is the
    steepest one of the ball.
    """
    return _ascent(
        ball,
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=uniform,
        transform=adam(),
        schedule=schedule,
        keep_best=keep_best,
    )


def vmi_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    beta: float = 1.5,
    samples: int = 20,
    nesterov: bool = False,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Variance-tuned momentum iterative FGSM, made for transfer.

    ``mi_fgsm`` (or with ``nesterov`` ``ni_fgsm``: VNI-FGSM) on the gradient plus its
    variance among ``samples`` neighbours within ``beta`` radii.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default.
      decay: mu.
      beta: radius of the neighbourhood in radii.
      samples: neighbours per step; each costs a gradient.
      nesterov: look ahead.
      loss: what to maximise.

    Raises:
      ValueError: if ``samples`` is not a positive integer.

    Reference: Wang and He 2021, arXiv 2103.15571, algorithm 1.
    """
    check_count('samples', samples)
    check_positive('beta', beta)
    attack = (ni_fgsm if nesterov else mi_fgsm)(ball, steps, rate, decay, loss)
    source = VarianceTuned(beta=jnp.float32(beta), samples=samples)
    return dataclasses.replace(attack, gradient=source)


def pgd_l1(
    ball: Ball,
    steps: int = 100,
    rate: float | Array | None = None,
    quantile: float = 0.99,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
) -> Ascent:
    r"""Sparse L1 descent (SLIDE): PGD in L1 that moves the largest 1 % at once.

    .. math:: x_{t+1} = \Piig(x_t + \epsilon\rho\, e_t / \|e_t\|_1ig), \quad
        e_{t,i} = \mathrm{sign}(g_i)\, [\,|g_i| \ge Q_q(|g|)\,]

    The steepest direction of the L1 ball moves one coordinate a step, which is slow.

    Args:
      ball: an L1 ball.
      steps: number of gradient steps.
      rate: step size in radii; 2.5 / steps by default.
      quantile: q.
      loss: what to maximise.
      start: where to begin.
      keep_best: return the best iterate by margin instead of the last.

    Reference: Tramer and Boneh 2019, arXiv 1904.13000, algorithm 1; the projection
    here is the exact one on the ball and the range.
    """
    if not 0 <= quantile < 1:
        raise ValueError(f'quantile must lie in [0, 1), got {quantile}')
    return _ascent(
        check_ball(ball, 'pgd_l1', ('l1',)),
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=start,
        direction=sparse(quantile),
        keep_best=keep_best,
    )


def pgd_l0(
    ball: Ball,
    steps: int = 100,
    rate: float | Array = 0.3,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
) -> Ascent:
    r"""PGD in L0: a dense gradient step, then the projection keeps eps coordinates.

    .. math:: x_{t+1} = \Pi_{L_0 \cap [l, u]}ig(x_t + \rho\, g / \|g\|_\inftyig)

    Args:
      ball: an L0 ball; eps counts numbers of the input (three to a colour pixel).
      steps: number of gradient steps.
      rate: the largest move of a coordinate per step, in pixels.
      loss: what to maximise.
      start: where to begin.
      keep_best: return the best iterate by margin instead of the last.

    Reference: Croce and Hein 2019, arXiv 1909.05040, section 4, whose step is scaled
    by the L1 norm of the gradient.
    """
    return _ascent(
        check_ball(ball, 'pgd_l0', ('l0',)),
        steps,
        rate,
        loss=loss,
        start=start,
        direction=normalised,
        keep_best=keep_best,
    )
