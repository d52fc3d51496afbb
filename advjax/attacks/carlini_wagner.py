r"""Carlini and Wagner's attacks in L2, Linf and L0.

All three minimise by Adam, over a variable w without constraint,

.. math::
    D(x' - x) + c\, \max(-\mathrm{margin}(x'), -\kappa), \qquad
    x' = \tfrac{u + l}{2} + \tfrac{u - l}{2} \tanh w

and search for the constant c, and for what else D holds, example by example:

    L2     D = |x' - x|^2; c by binary search
    Linf   D = sum of (|x' - x| - tau)_+; tau shrinks by a tenth after every success
    L0     D = |x' - x|^2 on a shrinking set of pixels

One program serves the whole search: the state of every example says what it tries
next, and those that are done are not touched any more.

Reference: Carlini and Wagner 2017, arXiv 1608.04644, sections V and VI, with the
constants of the authors' code. Deviations: the range is the ball's, and without one
there is no change of variables; the start lies 1e-4 inside the range, not 1e-6; the
Linf search bisects between the last tau that failed and the last that succeeded, and
ends at 1/4096 of the range instead of 1/256; L2 and Linf end in a bisection
(``refine``) towards the clean image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax import balls, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest
from advjax.balls import Ball, Bounds, l2
from advjax.rows import choose, flat, total, wide
from advjax.types import Array, Key, LogitsFn, check_images, dataclass

# arctanh is infinite at the ends of the range, and its inverse flat near them: from
# the authors' 0.999999 a pixel at a bound takes hundreds of steps to move at all.
_INSIDE = 0.9999


def to_free(x: Array, bounds: Bounds) -> Array:
    """The w of an image."""
    if bounds is None:
        return x
    low, high = bounds
    return jnp.arctanh((2 * (x - low) / (high - low) - 1) * _INSIDE)


def to_range(w: Array, bounds: Bounds) -> Array:
    """The image of a w."""
    if bounds is None:
        return w
    low, high = bounds
    return (high + low) / 2 + (high - low) / 2 * jnp.tanh(w)


class Solution(NamedTuple):
    """What one minimisation found.

    Attributes:
      nearest: the closest success among all iterates.
      done: the run ended at a success that was close enough.
      w: where it ended.
    """

    nearest: Nearest
    done: Array
    w: Array


class Problem(NamedTuple):
    """One minimisation: all but ``goal`` and ``ball`` are per example.

    Attributes:
      goal: the model and what counts as success.
      ball: norm and range.
      x0: (B, ...) clean images.
      distance: (delta, extra) -> (B,), what is kept small.
      kappa: the margin asked for.
      slack: end an example's run at a success whose distance is at most this many
        times c; negative for never.
    """

    goal: Goal
    ball: Any
    x0: Array
    distance: Callable[[Array, Any], Array]
    kappa: Array
    slack: float


def solve(
    problem: Problem,
    w: Array,
    c: Array,
    extra: Any,
    allowed: Array | None,
    steps: int,
    rate: float,
    active: Array,
) -> Solution:
    """Minimises from ``w`` by at most ``steps`` steps of Adam.

    An example stops when its objective has not fallen by 0.01 % over a tenth of the
    steps, at a success within ``slack``, or at once where it is not ``active``.
    """
    goal, x0, bounds = problem.goal, problem.x0, problem.ball.bounds
    adam = optax.scale_by_adam()
    patience = max(steps // 10, 1)

    def image(w):
        x = to_range(w, bounds)
        return x if allowed is None else jnp.where(allowed, x, x0)

    def body(carry):
        i, w, moments, found, last, done, running = carry
        x = image(w)

        def shortfall(logits):
            return -jnp.minimum(losses.margin(logits, goal.y, reach), problem.kappa)

        value, logits, gradient = with_logits(goal.logits_fn, shortfall, x)
        gradient = jnp.nan_to_num(gradient)
        won = minimum.succeeds(goal, logits, problem.kappa) & running
        found = minimum.update(found, problem.ball, x, x0, won)

        # The chain rule by hand: the model's gradient is taken once, at the image.
        def away(w):
            return problem.distance(image(w) - x0, extra)

        apart, towards = jax.vjp(away, w)
        step = towards(jnp.ones_like(apart))[0]
        _, back = jax.vjp(image, w)
        step = step + back(wide(c, x0) * gradient)[0]
        moved: tuple[Any, Any] = adam.update(step, moments)
        update, moments = moved
        w = jnp.where(wide(running, w), w - rate * update, w)

        cost = jnp.nan_to_num(apart + c * value, nan=jnp.inf)
        check = (i + 1) % patience == 0
        stalled = check & (cost > 0.9999 * last)
        last = jnp.where(check, cost, last)
        done = done | (won & (apart <= problem.slack * c))
        running = running & ~stalled & ~done
        return i + 1, w, moments, found, last, done, running

    def unfinished(carry):
        return (carry[0] < steps) & jnp.any(carry[-1])

    reach = None if goal.target is None else goal.towards
    high = jnp.full_like(c, jnp.inf)
    carry = (
        jnp.zeros((), jnp.int32),
        w,
        adam.init(w),
        minimum.none(x0),
        high,
        jnp.zeros_like(active),
        active,
    )
    _, w, _, found, _, done, _ = jax.lax.while_loop(unfinished, body, carry)
    return Solution(found, done, w)


def _closer(best: Nearest, new: Nearest) -> Nearest:
    closer = new.norm < best.norm
    return Nearest(
        choose(closer, new.x, best.x), jnp.where(closer, new.norm, best.norm)
    )


def _finish(attack: Any, best: Nearest, goal: Goal, x0: Array) -> Array:
    refined = minimum.refine(best, goal, attack.ball, x0, attack.refine)
    # A confident example must not be moved back to the boundary.
    confident = attack.kappa > 0
    x = jnp.where(confident, best.x, refined.x)
    norm = jnp.where(confident, best.norm, refined.norm)
    return minimum.result(Nearest(x, norm), attack.ball, x0)


@dataclass
class CarliniWagnerL2:
    """The L2 attack; build it with ``carlini_wagner``."""

    ball: Any
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The most model calls per example; a run may stop early."""
        return 1 + self.searches * self.steps + self.refine

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        problem = Problem(
            goal, self.ball, x, lambda d, _: total(d**2), self.kappa, -1.0
        )
        best = minimum.start(goal, x)
        allowed = self.ball.allowed(x) if hasattr(self.ball, 'allowed') else None
        start = to_free(x, self.ball.bounds)
        active = jnp.ones_like(best.norm, bool)

        def search(carry, _):
            best, low, high, c = carry
            new = solve(
                problem, start, c, (), allowed, self.steps, self.rate, active
            ).nearest
            high = jnp.where(new.found, jnp.minimum(high, c), high)
            low = jnp.where(new.found, low, jnp.maximum(low, c))
            c = jnp.where(jnp.isfinite(high), (low + high) / 2, c * 10)
            return (_closer(best, new), low, high, c), None

        zero = jnp.zeros_like(best.norm)
        carry = best, zero, zero + jnp.inf, zero + self.c
        best = jax.lax.scan(search, carry, length=self.searches)[0][0]
        return _finish(self, best, goal, x)


class LinfState(NamedTuple):
    """What every example tries next.

    ``low`` is the largest tau that failed, ``high`` the smallest that succeeded, and
    ``works`` the c that it succeeded with.
    """

    best: Nearest
    tau: Array
    low: Array
    high: Array
    works: Array
    c: Array
    w: Array
    active: Array
    runs: Array


@dataclass
class CarliniWagnerLinf:
    """The Linf attack; build it with ``carlini_wagner``."""

    ball: Any
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The most model calls per example; most runs stop at their success."""
        return 1 + self.searches * self.steps + self.refine

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        span = (
            1.0
            if self.ball.bounds is None
            else (self.ball.bounds[1] - self.ball.bounds[0])
        )

        def beyond(delta, tau):
            return total(jnp.maximum(jnp.abs(delta) - wide(tau, delta), 0))

        problem = Problem(goal, self.ball, x, beyond, self.kappa, 1e-4)
        allowed = self.ball.allowed(x) if hasattr(self.ball, 'allowed') else None
        clean = to_free(x, self.ball.bounds)
        best = minimum.start(goal, x)

        def unfinished(state):
            return (state.runs < self.searches) & jnp.any(state.active)

        def run(state):
            solution = solve(
                problem,
                state.w,
                state.c,
                state.tau,
                allowed,
                self.steps,
                self.rate,
                state.active,
            )
            best = _closer(state.best, solution.nearest)
            won = solution.done & state.active
            lost = ~won & state.active & (2 * state.c > 20)
            high = jnp.where(won, jnp.minimum(state.tau, best.norm), state.high)
            low = jnp.where(lost, state.tau, state.low)
            # Downwards by tenths until a tau fails, from there by bisection.
            tau = jnp.where(low > 0, (low + high) / 2, 0.9 * high)
            tau = jnp.where(won | lost, tau, state.tau)
            works = jnp.where(won, state.c, state.works)
            c = jnp.where(won, state.c, jnp.where(lost, works, 2 * state.c))
            # From the end of a run that came within tau, else from the clean image.
            w = choose(won, solution.w, clean)
            going = jnp.isinf(high) | (high - low > 0.005 * high)
            active = state.active & going & (high > span / 4096)
            active &= ~(lost & jnp.isinf(high))
            return LinfState(best, tau, low, high, works, c, w, active, state.runs + 1)

        zero = jnp.zeros_like(best.norm)
        start = zero + self.c
        state = LinfState(
            best,
            zero + span,
            zero,
            zero + jnp.inf,
            start,
            start,
            clean,
            ~best.found,
            jnp.zeros((), int),
        )
        best = jax.lax.while_loop(unfinished, run, state).best
        return _finish(self, best, goal, x)


class L0State(NamedTuple):
    """The pixels left, c and the start of every example's next run."""

    best: Nearest
    allowed: Array
    c: Array
    w: Array
    active: Array
    runs: Array


@dataclass
class CarliniWagnerL0:
    """The L0 attack; build it with ``carlini_wagner``."""

    ball: Any
    kappa: Array
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """The most model calls per example; most runs stop at their success."""
        return 1 + self.searches * (self.steps + 1)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the sparsest adversarial example found, else ``x``."""
        del key
        check_images(x)
        goal = minimum.goal_at(x, logits_fn, losses.margin, y, target)
        problem = Problem(
            goal, self.ball, x, lambda d, _: total(d**2), self.kappa, jnp.inf
        )
        clean = to_free(x, self.ball.bounds)
        best = minimum.start(goal, x)
        every = jnp.ones_like(x, bool)
        if hasattr(self.ball, 'allowed'):
            every = self.ball.allowed(x)

        def unfinished(state):
            return (state.runs < self.searches) & jnp.any(state.active)

        def run(state):
            solution = solve(
                problem,
                state.w,
                state.c,
                (),
                state.allowed,
                self.steps,
                self.rate,
                state.active,
            )
            won = solution.nearest.found & state.active
            found = solution.nearest.x
            _, _, pull = with_logits(logits_fn, goal.loss_of, found)
            use = (found - x) * jnp.nan_to_num(pull)
            allowed = jnp.where(
                wide(won, x), state.allowed & _keep(use, found != x), state.allowed
            )
            c = jnp.where(won | ~state.active, state.c, 2 * state.c)
            left = flat(allowed).any(axis=1)
            active = state.active & (c < 2e6) & left
            best = _closer(state.best, solution.nearest)
            w = choose(won, to_free(found, self.ball.bounds), state.w)
            return L0State(best, allowed, c, w, active, state.runs + 1)

        c = jnp.zeros_like(best.norm) + self.c
        state = L0State(best, every, c, clean, ~best.found, jnp.zeros((), int))
        best = jax.lax.while_loop(unfinished, run, state).best
        return minimum.result(best, self.ball, x)


def _keep(use: Array, changed: Array) -> Array:
    """Drops the pixels that were not changed, and the least useful of the others.

    As the authors' code: 0.3 times the root of their number at once, at least one.
    """
    count = total(changed.astype(use.dtype))
    drop = jnp.maximum(jnp.floor(0.3 * jnp.sqrt(count)), 1)
    use = jnp.where(changed, use, jnp.inf)
    rows = flat(use)
    place = jnp.argsort(jnp.argsort(rows, axis=1), axis=1)
    return changed & (place >= drop[:, None]).reshape(use.shape)


def carlini_wagner(
    ball: Ball | None = None,
    steps: int = 1000,
    searches: int | None = None,
    kappa: float = 0.0,
    c: float | None = None,
    rate: float | None = None,
    refine: int = 10,
) -> CarliniWagnerL2 | CarliniWagnerLinf | CarliniWagnerL0:
    """The attack of Carlini and Wagner in the norm of the ball.

    Args:
      ball: an L2 (default), Linf or L0 ball: the norm, the range, and the radius
        beyond which nothing is returned. L0 counts numbers of the input.
      steps: most steps of Adam per minimisation; 10,000 in the paper, 1,000 in
        most libraries.
      searches: minimisations; 9 values of c in L2, at most 100 in Linf, 200 in L0.
      kappa: the margin asked for, in logits: confidence, for transfer.
      c: the first constant; 1e-3 in L2 and L0, 1e-5 in Linf.
      rate: Adam's; 1e-2 in L2 and L0, 5e-3 in Linf.
      refine: bisection steps at the end; 0 is the paper's algorithm. None in L0.

    Raises:
      ValueError: for another ball, a count below 1, or kappa < 0.

    Reference: Carlini and Wagner 2017, arXiv 1608.04644.
    """
    ball = l2(float('inf')) if ball is None else ball
    ball = check_ball(ball, 'carlini_wagner', ('l2', 'linf', 'l0'))
    kind = balls.kind(ball)
    if not kappa >= 0:
        raise ValueError(f'kappa must be >= 0, got {kappa}')
    searches = {'l2': 9, 'linf': 100, 'l0': 200}[kind] if searches is None else searches
    c = {'l2': 1e-3, 'linf': 1e-5, 'l0': 1e-3}[kind] if c is None else c
    rate = {'l2': 1e-2, 'linf': 5e-3, 'l0': 1e-2}[kind] if rate is None else rate
    common: dict[str, Any] = {
        'ball': ball,
        'kappa': jnp.float32(kappa),
        'c': jnp.float32(check_positive('c', c)),
        'steps': check_count('steps', steps),
        'searches': check_count('searches', searches),
        'rate': check_positive('rate', rate),
    }
    if kind == 'l0':
        return CarliniWagnerL0(**common)
    common['refine'] = check_count('refine', refine, 0)
    return CarliniWagnerL2(**common) if kind == 'l2' else CarliniWagnerLinf(**common)
