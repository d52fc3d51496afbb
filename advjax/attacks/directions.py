"""Which way an ascent steps for a gradient: functions of (ball, gradient)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from advjax.rows import wide
from advjax.types import Array, Ball

Direction = Callable[[Ball, Array], Array]


def steepest(ball: Ball, gradient: Array) -> Array:
    """The steepest direction of the ball."""
    return ball.steepest(gradient)


@functools.cache
def sparse(quantile: float = 0.99) -> Direction:
    """Equal steps on the largest coordinates of the gradient: sign(g) / count.

    Reference: Tramer and Boneh 2019, arXiv 1904.13000, section 4.
    """

    def direction(ball: Ball, gradient: Array) -> Array:
        gradient = ball.confine(gradient)
        size = jnp.abs(gradient)
        axes = tuple(range(1, gradient.ndim))
        flat = size.reshape(size.shape[0], -1)
        kept = max(1, round((1 - quantile) * flat.shape[1]))
        least = jax.lax.top_k(flat, kept)[0][:, -1]
        largest = size >= wide(least, gradient)
        signs = jnp.where(largest, jnp.sign(gradient), 0)
        count = jnp.sum(jnp.abs(signs), axis=axes, keepdims=True)
        return signs / jnp.maximum(count, 1)

    return direction


def normalised(ball: Ball, gradient: Array) -> Array:
    """The gradient itself, scaled so that its largest coordinate is 1 / eps.

    A step ``eps * rate * direction`` then moves no coordinate by more than rate. It is
    for sparse balls, whose projection chooses the coordinates.
    """
    gradient = ball.confine(gradient)
    axes = tuple(range(1, gradient.ndim))
    largest = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True, initial=0.0)
    eps = wide(jnp.asarray(ball.eps, gradient.dtype), gradient)
    scale = largest * jnp.where(eps > 0, eps, 1)
    return jnp.where(scale > 0, gradient / jnp.where(scale > 0, scale, 1), 0)
