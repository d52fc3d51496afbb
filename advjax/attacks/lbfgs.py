r"""L-BFGS: the first attack of all, box-constrained quasi-Newton with a search over c.

.. math:: \min_r\; \|r\|_2^2 + c\, \mathrm{loss}(x + r, t)
          \quad\text{s.t.}\quad x + r \in [l, u]^d

The constant c is raised tenfold until the minimiser succeeds and bisected from there:
the smallest c that still succeeds gives the smallest r. Untargeted, the loss is that of
the label with its sign turned.

The box is kept by projection (Bertsekas 1982): coordinates at a bound that the gradient
pushes against are fixed, the two-loop recursion gives the direction of the others, and
a backtracking search follows the projected path. All examples run side by side, each
with its own history, step and stop.

Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.1, which writes c on the
norm; the form with c on the loss is that of later libraries. Deviations: SciPy's
L-BFGS-B finds its path with breakpoints, here it is the projected line; a bisection at
the end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, check_loss, check_positive, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest, Verdict
from advjax.attacks.search import call
from advjax.balls import inside
from advjax.rows import choose, total, wide
from advjax.types import Array, Ball, Found, Key, Loss, dataclass


class LbfgsState(NamedTuple):
    """Where every example's minimisation stands; histories are (memory, B, ...)."""

    x: Array
    value: Array
    gradient: Array
    moves: Array
    turns: Array
    nearest: Nearest
    active: Array
    i: Array


def _direction(state: LbfgsState, free: Array) -> Array:
    """The two-loop recursion on the free coordinates: minus H times the gradient."""
    moves, turns = state.moves * free[None], state.turns * free[None]
    dots = jax.vmap(lambda s, y: total(s * y))(moves, turns)
    known = dots > 1e-10
    weight = jnp.where(known, 1 / jnp.where(known, dots, 1), 0)
    q = state.gradient * free

    def first(q, entry):
        s, y, rho = entry
        alpha = rho * total(s * q)
        return q - wide(alpha, q) * y, alpha

    # The newest pair is stored last.
    q, alphas = jax.lax.scan(first, q, (moves, turns, weight), reverse=True)
    curve = total(turns[-1] ** 2)
    scale = jnp.where(
        known[-1] & (curve > 0), dots[-1] / jnp.where(curve > 0, curve, 1), 1
    )

    def second(r, entry):
        s, y, rho, alpha = entry
        beta = rho * total(y * r)
        return r + wide(alpha - beta, r) * s, None

    entries = moves, turns, weight, alphas
    return -jax.lax.scan(second, wide(scale, q) * q, entries)[0] * free


@dataclass
class Lbfgs:
    """The L-BFGS attack; build it with ``lbfgs``."""

    ball: Ball
    c: Array
    steps: int = struct.field(pytree_node=False)
    searches: int = struct.field(pytree_node=False)
    memory: int = struct.field(pytree_node=False)
    trials: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """The most model calls per example; most steps need one or two."""
        return 1 + self.searches * (1 + self.steps * self.trials) + self.refine

    def _minimise(self, goal: Goal, x0: Array, clean: Nearest, c: Array) -> Nearest:
        def evaluate(x):
            value, logits, gradient = with_logits(goal.logits_fn, goal.value_of, x)
            value = total((x - x0) ** 2) - c * value
            gradient = 2 * (x - x0) - wide(c, x) * gradient
            seen = clean.judge(goal, logits)
            return jnp.nan_to_num(value, nan=jnp.inf), jnp.nan_to_num(gradient), seen

        def step(state):
            x, gradient = state.x, state.gradient
            descent = inside(self.ball, x - gradient, x0)
            free = (descent != x).astype(x.dtype)
            direction = _direction(state, free)
            slope = total(direction * gradient)
            uphill = slope >= 0
            direction = choose(uphill, -gradient * free, direction)
            slope = jnp.where(uphill, -total(gradient**2 * free), slope)
            first = 1 / jnp.maximum(jnp.sqrt(-slope), 1e-12)
            rate = jnp.where((state.i == 0) | uphill, jnp.minimum(first, 1), 1)

            def searching(carry):
                trial, _, _, done, _ = carry
                return (trial < self.trials) & ~jnp.all(done)

            def attempt(carry):
                trial, rate, kept, done, nearest = carry
                new = inside(self.ball, x + wide(rate, x) * direction, x0)
                value, slope_there, seen = evaluate(new)
                seen = Verdict(seen.won & ~done, seen.rank)
                nearest = nearest.update(self.ball, new, x0, seen)
                gain = total(gradient * (new - x))
                enough = value <= state.value + 1e-4 * gain
                enough &= (gain < 0) & ~done
                kept = (
                    choose(enough, new, kept[0]),
                    jnp.where(enough, value, kept[1]),
                    choose(enough, slope_there, kept[2]),
                )
                done |= enough
                return trial + 1, jnp.where(done, rate, rate / 2), kept, done, nearest

            kept = x, state.value, gradient
            carry = 0, rate, kept, ~state.active, state.nearest
            _, _, kept, done, nearest = jax.lax.while_loop(searching, attempt, carry)
            moved = done & state.active
            s, turn = kept[0] - x, kept[2] - gradient
            moves = jnp.concatenate([state.moves[1:], s[None]])
            turns = jnp.concatenate([state.turns[1:], turn[None]])
            gain = state.value - kept[1]
            active = moved & (gain > 1e-7 * jnp.maximum(jnp.abs(kept[1]), 1e-6))
            pick = wide(moved, x)[None]
            return LbfgsState(
                *kept,
                jnp.where(pick, moves, state.moves),
                jnp.where(pick, turns, state.turns),
                nearest,
                active,
                state.i + 1,
            )

        def unfinished(state):
            return (state.i < self.steps) & jnp.any(state.active)

        value, gradient, seen = evaluate(x0)
        nearest = clean.none().update(self.ball, x0, x0, seen)
        history = jnp.zeros_like(x0, shape=(self.memory, *x0.shape))
        state = LbfgsState(
            x0,
            value,
            gradient,
            history,
            history,
            nearest,
            jnp.isfinite(value),
            jnp.zeros((), jnp.int32),
        )
        return jax.lax.while_loop(unfinished, step, state).nearest

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        del key
        goal = goal.with_loss(self.loss)
        clean = minimum.begin(goal, x)
        best = minimum.search_constant(
            lambda c: self._minimise(goal, x, clean, c), clean, self.c, self.searches
        )
        return minimum.refined(self, best, goal, x)

    __call__ = call


def lbfgs(
    ball: Ball | None = None,
    steps: int = 50,
    searches: int = 10,
    c: float = 1e-2,
    memory: int = 10,
    trials: int = 10,
    loss: Loss = losses.cross_entropy,
    refine: int = 10,
) -> Lbfgs:
    """The box-constrained L-BFGS attack.

    Args:
      ball: an L2 ball: the range, and the radius beyond which nothing is returned;
        ``l2(inf)`` by default.
      steps: most quasi-Newton steps per value of c.
      searches: values of c.
      c: the first constant.
      memory: pairs that the quasi-Newton matrix is made of.
      trials: most backtracking trials per step.
      loss: what to maximise besides the distance.
      refine: bisection steps at the end.

    Raises:
      ValueError: for another ball, or a count below 1.

    Reference: Szegedy et al. 2014, arXiv 1312.6199.
    """
    return Lbfgs(
        ball=norm_ball(ball, 'lbfgs', ('l2',)),
        c=jnp.float32(check_positive('c', c)),
        steps=check_count('steps', steps),
        searches=check_count('searches', searches),
        memory=check_count('memory', memory),
        trials=check_count('trials', trials),
        loss=check_loss(loss),
        refine=check_count('refine', refine, 0),
    )
