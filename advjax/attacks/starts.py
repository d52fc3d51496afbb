"""The choices of an ascent: where it starts, which way it steps, how the steps fall."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from advjax import keys, rows
from advjax.balls import Ball, confine, with_eps
from advjax.types import Array, Key

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
        return start(with_eps(ball, share * ball.eps), key, x0)

    return inner


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
        gradient = confine(ball, gradient)
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
    gradient = confine(ball, gradient)
    axes = tuple(range(1, gradient.ndim))
    largest = jnp.max(jnp.abs(gradient), axis=axes, keepdims=True, initial=0.0)
    eps = jnp.asarray(ball.eps, gradient.dtype)
    eps = eps.reshape((-1,) + (1,) * (gradient.ndim - 1)) if eps.ndim else eps
    scale = largest * jnp.where(eps > 0, eps, 1)
    return jnp.where(scale > 0, gradient / jnp.where(scale > 0, scale, 1), 0)


def constant(t: Array) -> Array:
    """The step-size schedule that does not change."""
    return jnp.ones_like(t)
