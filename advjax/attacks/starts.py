"""Where an ascent starts: functions of (ball, keys, x0)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from advjax import keys, rows
from advjax.types import Array, Ball, Key

Start = Callable[[Ball, Key, Array], Array]


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
    return ball.unbounded().sample(key, x0)


def corner(ball: Ball, key: Key, x0: Array) -> Array:
    r"""Starts at a random corner of the box, x + eps b with b uniform in {-1, +1}^n.

    Of an ``linf`` ball; in any other it is the projection of that point.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 6 (a control).
    """

    def draw(k):
        return jax.random.rademacher(k, x0.shape[1:], x0.dtype)

    signs = keys.draw(draw, keys.per_example(key, x0.shape[0]))
    eps = rows.wide(jnp.asarray(ball.eps, x0.dtype), x0)
    return ball.project(x0 + eps * signs, x0)


@functools.cache
def within(start: Start, share: float) -> Start:
    """A start within a smaller ball, of ``share`` of the radius."""

    def inner(ball: Ball, key: Key, x0: Array) -> Array:
        return start(ball.with_eps(share * ball.eps), key, x0)

    return inner


def gaussian(ball: Ball, key: Key, x0: Array) -> Array:
    """Starts at x + 0.001 N(0, 1), as TRADES does: its gradient at x is zero."""
    noise = keys.draw(lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype), key)
    return ball.project(x0 + 0.001 * noise, x0)
