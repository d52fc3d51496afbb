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

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys
from advjax.attacks import goal as goals
from advjax.attacks.gradients import value_and_gradient
from advjax.balls import confine
from advjax.rows import choose, flat, total, wide
from advjax.types import Array, Key, LogitsFn, Loss, Objective, check_images, dataclass


class ApgdL1State(NamedTuple):
    """Where the search stands at one radius; all but images are (B,)."""

    x: Array
    gradient: Array
    size: Array
    density: Array
    support: Array
    best: Array
    best_value: Array
    best_gradient: Array


def _support(delta: Array) -> Array:
    return total((delta != 0).astype(delta.dtype))


def _sparse_sign(gradient: Array, count: Array) -> Array:
    """Signs of the coordinates not smaller than the count-th largest, over their sum.

    ``count`` is (B,); 0 keeps the largest alone, with its equals.
    """
    size = flat(jnp.abs(gradient))
    # A whole number that came out of a division may lie a hair above itself.
    wanted = jnp.maximum(jnp.ceil(count - 1e-3), 1)

    # Bisection for the threshold: sorting is slow on CPU. Its lower end keeps enough.
    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        kept = jnp.sum(size > wide(middle, size), axis=1)
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

    ball: Any
    steps: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    stages: tuple[tuple[float, float], ...] = struct.field(
        pytree_node=False, default=((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
    )

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return sum(self._lengths()) + len(self.stages)

    def _lengths(self) -> list[int]:
        lengths = [max(int(share * self.steps), 1) for _, share in self.stages]
        # What rounding leaves over belongs to the radius that counts.
        return [*lengths[:-1], max(self.steps - sum(lengths[:-1]), 1)]

    def init(
        self, objective: Objective, key: Key, x: Array, x0: Array, fresh: bool
    ) -> tuple[ApgdL1State, Array]:
        """Evaluates a start, random (``fresh``) or from a larger radius."""
        dimensions = float(jnp.size(x0[0]))
        gradient, (value, rank) = value_and_gradient(objective, x, key)
        support = _support(x - x0)
        if fresh:
            support = jnp.full_like(support, dimensions)
            density = jnp.full_like(support, 0.2)
        else:
            density = support / dimensions / 1.5
        size = balls.radius(self.ball, x0)
        state = ApgdL1State(x, gradient, size, density, support, x, value, gradient)
        return state, rank

    def step(
        self, objective: Objective, x0: Array, key: Key, state: ApgdL1State
    ) -> tuple[ApgdL1State, Array]:
        """One sparse step; returns the state and the rank of its point."""
        count = state.density * jnp.size(x0[0])
        gradient = jnp.nan_to_num(state.gradient)
        gradient = confine(self.ball, gradient)
        move = wide(state.size, x0) * _sparse_sign(gradient, count)
        x = self.ball.project(state.x + move, x0)
        gradient, (value, rank) = value_and_gradient(objective, x, key)
        better = value > state.best_value
        state = state._replace(
            x=x,
            gradient=gradient,
            best=choose(better, x, state.best),
            best_value=jnp.where(better, value, state.best_value),
            best_gradient=choose(better, gradient, state.best_gradient),
        )
        return state, rank

    def check(self, x0: Array, state: ApgdL1State, here: Array) -> ApgdL1State:
        """Adapts sparsity and step size where ``here``."""
        longest = balls.radius(self.ball, x0)
        support = _support(state.best - x0)
        sparser = (support < 0.95 * state.support) & here
        smaller = jnp.clip(state.size / 1.5, longest / 10, longest)
        size = jnp.where(sparser, longest, jnp.where(here, smaller, state.size))
        return state._replace(
            x=choose(sparser, state.best, state.x),
            gradient=choose(sparser, state.best_gradient, state.gradient),
            size=size,
            density=jnp.where(here, support / jnp.size(x0[0]) / 1.5, state.density),
            support=jnp.where(here, support, state.support),
        )

    def maximize(self, objective: Objective, key: Key, x0: Array) -> Array:
        """Searches the ball around ``x0`` for the maximum of any objective.

        Args:
          objective: (B, ...) -> (B,), each value depending on its own example only.
          key: one key, or one per example.
          x0: (B, ...) float32 centre of the ball.
        """
        check_images(x0)
        each = keys.per_example(key, x0.shape[0])
        start = keys.draw(
            lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype), keys.fold(each, 0)
        )
        x, draws = x0 + start, 1
        worst, rank = x0, jnp.full_like(x0, -jnp.inf, shape=x0.shape[:1])
        for stage, (factor, length) in enumerate(
            zip((f for f, _ in self.stages), self._lengths(), strict=True)
        ):
            ball = balls.with_eps(self.ball, self.ball.eps * factor)
            attack = dataclasses.replace(self, ball=ball)
            x, best = attack._run(
                objective, each, ball.project(x, x0), x0, stage == 0, length, draws
            )
            draws += length + 1
            if factor == 1:  # Only points of the ball itself are results.
                better = best[1] > rank
                worst = choose(better, best[0], worst)
                rank = jnp.where(better, best[1], rank)
        return worst

    def _run(
        self,
        objective: Objective,
        key: Key,
        x: Array,
        x0: Array,
        fresh: bool,
        steps: int,
        draws: int,
    ) -> tuple[Array, tuple[Array, Array]]:
        """One radius: the point of best value, and that of best rank."""
        every = max(int(0.04 * steps), 1)

        def body(carry, i):
            state, worst, rank = carry
            state, new = self.step(objective, x0, keys.fold(key, draws + i), state)
            better = new > rank
            worst = choose(better, state.x, worst)
            state = self.check(x0, state, i % every == 0)
            return (state, worst, jnp.where(better, new, rank)), None

        first = keys.fold(key, draws)
        state, rank = self.init(objective, first, x, x0, fresh)
        carry = state, x, rank
        (state, worst, rank), _ = jax.lax.scan(body, carry, jnp.arange(1, steps + 1))
        return state.best, (worst, rank)

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
