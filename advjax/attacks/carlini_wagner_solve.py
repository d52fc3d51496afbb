"""The minimisation that all attacks of Carlini and Wagner are made of.

Adam on a variable without constraint, example by example; see ``carlini_wagner``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.minimum import Nearest, Verdict
from advjax.rows import total, wide
from advjax.types import Array, Bounds

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


def squared(delta: Array, _: Any) -> Array:
    """The squared Euclidean distance, (B,)."""
    return total(delta**2)


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
    """What is minimised, and by what settings.

    Attributes:
      attack: with ball, kappa, steps and rate of Adam.
      goal: the model and what counts as success; its loss is the margin.
      x0: (B, ...) clean images.
      nearest: what was seen at them.
      distance: (delta, extra) -> (B,), what is kept small.
      slack: end an example's run at a success whose distance is at most this many
        times c; negative for never.
    """

    attack: Any
    goal: Goal
    x0: Array
    nearest: Nearest
    distance: Callable[[Array, Any], Array]
    slack: float

    @property
    def start(self) -> Array:
        """The w of the clean images."""
        return to_free(self.x0, self.attack.ball.bounds)

    @property
    def free(self) -> Array:
        """Where the ball lets a coordinate change, (B, ...) bool."""
        return self.attack.ball.confine(jnp.ones_like(self.x0, bool), False)

    def solve(
        self, w: Array, c: Array, extra: Any, allowed: Array, active: Array
    ) -> Solution:
        """Minimises from ``w`` by at most ``attack.steps`` steps of Adam.

        An example stops when its objective has not fallen by 0.01 % over a tenth of the
        steps, at a success within ``slack``, or at once where it is not ``active``.
        """
        attack, goal, x0 = self.attack, self.goal, self.x0
        bounds = attack.ball.bounds
        adam = optax.scale_by_adam()
        patience = max(attack.steps // 10, 1)

        def image(w):
            x = to_range(w, bounds)
            return jnp.where(allowed, x, x0)

        def body(carry):
            i, w, moments, found, last, done, running = carry
            x = image(w)

            def shortfall(logits):
                return -jnp.minimum(goal.value_of(logits), attack.kappa)

            value, logits, gradient = with_logits(goal.logits_fn, shortfall, x)
            gradient = jnp.nan_to_num(gradient)
            won, rank = found.judge(goal, logits, attack.kappa)
            won = won & running
            found = found.update(attack.ball, x, x0, Verdict(won, rank))

            # The chain rule by hand: the model's gradient is taken once, at the image.
            def away(w):
                return self.distance(image(w) - x0, extra)

            apart, towards = jax.vjp(away, w)
            step = towards(jnp.ones_like(apart))[0]
            _, back = jax.vjp(image, w)
            step = step + back(wide(c, x0) * gradient)[0]
            with jax.numpy_dtype_promotion('standard'):  # As Optax is written for.
                moved: tuple[Any, Any] = adam.update(step, moments)
            update, moments = moved
            w = jnp.where(wide(running, w), w - attack.rate * update, w)

            cost = jnp.nan_to_num(apart + c * value, nan=jnp.inf)
            check = (i + 1) % patience == 0
            stalled = check & (cost > 0.9999 * last)
            last = jnp.where(check, cost, last)
            done = done | (won & (apart <= self.slack * c))
            running = running & ~stalled & ~done
            return i + 1, w, moments, found, last, done, running

        def unfinished(carry):
            return (carry[0] < attack.steps) & jnp.any(carry[-1])

        high = jnp.full_like(c, jnp.inf)
        carry = (
            jnp.zeros((), jnp.int32),
            w,
            adam.init(w),
            self.nearest.none(),
            high,
            jnp.zeros_like(active),
            active,
        )
        _, w, _, found, _, done, _ = jax.lax.while_loop(unfinished, body, carry)
        return Solution(found, done, w)
