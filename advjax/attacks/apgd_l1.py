r"""APGD in L1: sparse steps whose sparsity and length follow the best point.

.. math:: x_{t+1} = \Pi(x_t + \eta\, s_t / \|s_t\|_1), \qquad
          s_{t,i} = \mathrm{sign}(g_i)\,[\,|g_i| \text{ among the } k \text{ largest}\,]

with the exact projection on the L1 ball and the range. Every ``0.04 steps`` steps
the number of coordinates becomes :math:`k = \|x_{best} - x_0\|_0 / 1.5`; if the best
point became sparser by 5 % the step size goes back to :math:`\epsilon` and the search
to the best point, else the step size is divided by 1.5, down to
:math:`\epsilon / 10`.

The run goes through the radii :math:`3\epsilon, 2\epsilon, \epsilon` with 30, 30 and
40 % of the steps, each from the projected best point of the one before.

Reference: Croce and Hein 2021, arXiv 2103.01208, algorithm 1 and section 4, with
the authors' code for the constants.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys
from advjax.attacks.gradients import value_and_gradient
from advjax.attacks.search import Worst, call, iterate, keep, maximize, nothing
from advjax.rows import choose, flat, total, wide
from advjax.types import AnyGoal, Array, Ball, Found, Key, Loss, dataclass


class ApgdL1State(NamedTuple):
    """Where the search stands; numbers are (B,).

    ``best`` is the point of largest value at the present radius, ``worst`` that of
    largest rank at the radius of the ball itself.
    """

    x: Array
    gradient: Array
    size: Array
    density: Array
    support: Array
    best: Array
    best_value: Array
    best_gradient: Array
    worst: Worst
    key: Key
    time: Array


class Plan(NamedTuple):
    """What each step does; every field is (calls,).

    Attributes:
      factor: its radius, over that of the ball.
      begins: whether it only evaluates the first point at its radius.
      checks: whether sparsity and step size are looked at after it.
    """

    factor: Array
    begins: Array
    checks: Array


def _support(delta: Array) -> Array:
    return total((delta != 0).astype(delta.dtype))


def _sparse_sign(gradient: Array, count: Array) -> Array:
    """Signs of the coordinates not smaller than the count-th largest, over their sum.

    ``count`` is (B,); 0 keeps the largest alone, with its equals.
    """
    size = flat(jnp.abs(gradient))
    # Rounding may put a whole number slightly above itself.
    wanted = jnp.maximum(jnp.ceil(count - 1e-3), 1)

    # Bisection for the threshold: sorting is slow on CPU. Its lower end keeps enough.
    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        kept = jnp.sum((size > wide(middle, size)).astype(size.dtype), axis=1)
        return jnp.where(kept >= wanted, middle, low), jnp.where(
            kept >= wanted, high, middle
        )

    top = jnp.max(size, axis=1)
    low, _ = jax.lax.fori_loop(0, 26, halve, (jnp.zeros_like(top), top))
    kept = jnp.abs(gradient) > wide(low, gradient)
    signs = jnp.where(kept, jnp.sign(gradient), 0)
    return signs / (wide(total(jnp.abs(signs)), signs) + 1e-10)


@dataclass
class ApgdL1:
    """APGD in an L1 ball; build it with ``apgd``."""

    ball: Ball
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    stages: tuple[tuple[float, float], ...] = struct.field(
        pytree_node=False, default=((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
    )
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        # One more at the start of every radius.
        return sum(self._lengths()) + len(self.stages)

    def _lengths(self) -> list[int]:
        lengths = [max(int(share * self.steps), 1) for _, share in self.stages]
        # What rounding leaves over belongs to the radius that counts.
        return [*lengths[:-1], max(self.steps - sum(lengths[:-1]), 1)]

    def _plan(self) -> Plan:
        rows = []
        for (factor, _), length in zip(self.stages, self._lengths(), strict=True):
            every = max(int(0.04 * length), 1)
            rows.append((factor, True, False))
            rows += [(factor, False, i % every == 0) for i in range(1, length + 1)]
        factor, begins, checks = zip(*rows, strict=True)
        return Plan(jnp.asarray(factor), jnp.asarray(begins), jnp.asarray(checks))

    def init(self, goal: AnyGoal, key: Key, x0: Array) -> ApgdL1State:
        """Draws the start, which the first step evaluates."""
        del goal
        start = keys.draw(
            lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype), keys.fold(key, 0)
        )
        zero = jnp.zeros_like(x0, shape=x0.shape[:1])
        return ApgdL1State(
            x=x0,
            gradient=jnp.zeros_like(x0),
            size=zero,
            density=zero,
            support=zero,
            best=x0 + start,
            best_value=zero,
            best_gradient=jnp.zeros_like(x0),
            worst=nothing(x0),
            key=key,
            time=jnp.zeros((), jnp.int32),
        )

    def step(self, goal: AnyGoal, x0: Array, state: ApgdL1State) -> ApgdL1State:
        """One sparse step, or the first evaluation at a new radius."""
        row = jax.tree.map(lambda a: a[state.time], self._plan())
        ball = self.ball.with_eps(self.ball.eps * row.factor.astype(x0.dtype))
        longest = balls.radius(ball, x0)
        state = self.move(goal, x0, state, ball, row)
        begun, checked = self.begin(state, x0, longest), self.check(state, x0, longest)
        return _pick(row.begins, begun, _pick(row.checks, checked, state))

    def move(
        self, goal: AnyGoal, x0: Array, state: ApgdL1State, ball: Ball, row: Plan
    ) -> ApgdL1State:
        """The next point, evaluated."""
        begins = row.begins
        count = state.density * jnp.size(x0[0])
        gradient = self.ball.confine(jnp.nan_to_num(state.gradient))
        move = wide(state.size, x0) * _sparse_sign(gradient, count)
        x = ball.project(jnp.where(begins, state.best, state.x + move), x0)
        draw = keys.fold(state.key, state.time + 1)
        gradient, (value, rank) = value_and_gradient(goal, x, draw)
        better = begins | (value > state.best_value)
        # Only points of the ball itself are results.
        rank = jnp.where(row.factor == 1, rank, -jnp.inf)
        return state._replace(
            x=x,
            gradient=gradient,
            best=choose(better, x, state.best),
            best_value=jnp.where(better, value, state.best_value),
            best_gradient=choose(better, gradient, state.best_gradient),
            worst=state.worst.update(x, rank),
            time=state.time + 1,
        )

    def begin(self, state: ApgdL1State, x0: Array, longest: Array) -> ApgdL1State:
        """Step size and sparsity at the start of a radius."""
        support = _support(state.x - x0)
        density = support / jnp.size(x0[0]) / 1.5
        return state._replace(size=longest, density=density, support=support)

    def check(self, state: ApgdL1State, x0: Array, longest: Array) -> ApgdL1State:
        """Adapts sparsity and step size to the best point."""
        support = _support(state.best - x0)
        sparser = support < 0.95 * state.support
        smaller = jnp.clip(state.size / 1.5, longest / 10, longest)
        return state._replace(
            x=choose(sparser, state.best, state.x),
            gradient=choose(sparser, state.best_gradient, state.gradient),
            size=jnp.where(sparser, longest, smaller),
            density=support / jnp.size(x0[0]) / 1.5,
            support=support,
        )

    def search(self, goal: AnyGoal, key: Key, x: Array) -> Found:
        """The worst iterate inside the ball."""
        state = iterate(self, goal.with_loss(self.loss), key, x, self.calls)
        return keep(self, state.worst)

    __call__ = call
    maximize = maximize


def _pick(condition: Array, one: ApgdL1State, other: ApgdL1State) -> ApgdL1State:
    """Chooses one of two states; fields that are the same array pass through."""
    return jax.tree.map(
        lambda a, b: a if a is b else jnp.where(condition, a, b), one, other
    )
