"""Adversarial images that stay adversarial in 8 bits.

An image file holds whole levels. Rounding the result of an attack moves every pixel by
up to half a level, and the closest adversarial example back over the boundary. Here the
result is put on the grid in several ways, all inside the ball, and repaired by steps of
whole levels along the gradient; the worst of them is returned.

Reference: Carlini and Wagner 2017, arXiv 1608.04644, section VI-D, who search the grid
pixel by pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import balls, losses
from advjax.attacks.checks import check_count
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import with_logits
from advjax.attacks.search import call, calls_of, nothing, run
from advjax.types import Array, Attack, Found, Key, as_pytree, dataclass


@dataclass
class Quantised:
    """An attack whose results lie on a grid; build it with ``quantised``."""

    attack: Attack
    levels: int = struct.field(pytree_node=False)
    repairs: int = struct.field(pytree_node=False)

    ranked = True

    @property
    def calls(self) -> int | None:
        """Model calls per example: the attack, three roundings, and the repairs."""
        calls = calls_of(self.attack)
        return None if calls is None else calls + 4 + 2 * self.repairs

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The worst point found that holds whole levels of the range.

        ``x`` should hold whole levels itself, as decoded images do: only then is there
        a grid point in every ball.
        """
        ball = next(iter(balls.of(self.attack)), None)
        if ball is None or ball.bounds is None:
            raise ValueError('attack must have a ball with bounds, whose levels count')
        goal = goal.with_loss(losses.margin)
        low, high = ball.bounds
        level = (high - low) / (self.levels - 1)
        # The very numbers that decoding a file gives: see ``data.to_float``.
        table = jnp.asarray(np.linspace(low, high, self.levels), x.dtype)

        def grid(z, rounding):
            place = rounding((z - low) / level)
            place = jnp.clip(place, 0, self.levels - 1).astype(jnp.int32)
            value = jnp.take(table, place)
            # A pixel that does not move keeps its value, on the grid or not.
            return jnp.where(jnp.abs(value - x) < level / 4, x, value)

        def towards_clean(z):
            steps = (z - x) / level
            # Truncation, tolerant of rounding just below a whole number.
            whole = jnp.sign(steps) * jnp.floor(jnp.abs(steps) + 1e-3)
            return grid(x + whole * level, jnp.round)

        def consider(worst, point):
            rank = goal.rank_of(goal.logits_fn(point))
            rank = jnp.where(ball.contains(point, x), rank, -jnp.inf)
            return worst.update(point, rank)

        def slope(point):
            return with_logits(goal.logits_fn, goal.value_of, point)[2]

        found = run(self.attack, goal, key, x)
        point = found.x
        up = slope(point) > 0
        worst = consider(nothing(x), towards_clean(point))
        worst = consider(worst, grid(point, jnp.round))
        guided = jnp.where(up, grid(point, jnp.ceil), grid(point, jnp.floor))
        worst = consider(worst, guided)

        def repair(worst, _):
            stepped = worst.x + level * jnp.sign(jnp.nan_to_num(slope(worst.x)))
            return consider(worst, towards_clean(ball.project(stepped, x))), None

        worst = jax.lax.scan(repair, worst, length=self.repairs)[0]
        more = 4 + 2 * self.repairs
        queries = jnp.where(found.queries < 0, -1, found.queries + more)
        return worst.found(queries)

    __call__ = call


def quantised(attack: Attack, levels: int = 256, repairs: int = 3) -> Quantised:
    """Puts the results of an attack on the grid of image files, inside its ball.

    Args:
      attack: an attack with a ball that has bounds.
      levels: number of levels in the range; 256 for 8 bits.
      repairs: steps of whole levels along the gradient afterwards, two calls each.

    Raises:
      ValueError: if there are fewer than 2 levels or (when called) no bounds.
    """
    return Quantised(
        attack=as_pytree(attack),
        levels=check_count('levels', levels, 2),
        repairs=check_count('repairs', repairs, 0),
    )
