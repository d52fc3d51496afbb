r"""The perturbations that the Square Attack tries, one window per query.

Linf: stripes, and windows recoloured to the surface of the cube.

L2 and L1: the image is tiled with small patterns, two hills of opposite sign,
:math:`\eta`. A query takes the mass of a second window away, puts a fresh
pattern plus what was there into the first, and gives it the mass of both, channel by
channel, and what the radius had left over. In L2 the whole is scaled to the radius and
clipped to the range, in L1 it is projected on both. The hills of L1 are steep and of
unit L1 norm, those of L2 of unit Euclidean norm.

Reference: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 2 and 3; for L1
Croce and Hein 2021, arXiv 2103.01208, section 5.
"""

from typing import Any

import jax
import jax.numpy as jnp

from advjax import balls, keys
from advjax.balls import Ball, inside
from advjax.types import Array, Key


def _wide(values: Array) -> Array:
    return values[:, None, None, None]


def _box(delta: Array, x0: Array, ball: Ball) -> Array:
    return inside(ball, x0 + delta, x0)


def stripes(ball: Ball, key: Key, x0: Array) -> Array:
    """Vertical stripes of +-eps, one sign per column and channel."""
    _, _, width, channels = x0.shape
    sign = keys.draw(
        lambda k: jax.random.rademacher(k, (1, width, channels), x0.dtype), key
    )
    return ball.project(_box(_wide(balls.radius(ball, x0)) * sign, x0, ball), x0)


def _corner(key: Key, height: int, width: int, side: Array) -> tuple[Array, Array]:
    """A random corner of a window that lies inside the image."""
    down, right = jax.random.split(key)
    top = jax.random.randint(down, (), 0, height - side + 1)
    return top, jax.random.randint(right, (), 0, width - side + 1)


def _window(height: int, width: int, top: Array, left: Array, side: Any) -> Array:
    """The mask (height, width) of a window."""
    rows, columns = jnp.arange(height)[:, None] - top, jnp.arange(width)[None] - left
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def recolour(ball: Ball, key: Key, x: Array, x0: Array, side: Array) -> Array:
    """Sets a random window to +-eps, one sign per channel."""
    _, height, width, channels = x0.shape

    def draw(k):
        where, colour = jax.random.split(k)
        corner = _corner(where, height, width, side)
        window = _window(height, width, *corner, side)[..., None]
        return window, jax.random.rademacher(colour, (1, 1, channels), x0.dtype)

    window, sign = keys.draw(draw, key)
    delta = jnp.where(window, _wide(balls.radius(ball, x0)) * sign, x - x0)
    return ball.project(_box(delta, x0, ball), x0)


def hills(
    kind: str, height: int, width: int, top: Array, left: Array, side: Array
) -> Array:
    r"""Two hills of opposite sign, one above the other, in a square window.

    The upper hill fills the first ``side // 2`` rows. A hill falls with the ring r =
    0, 1, ... around its centre as :math:`\sum_{k \ge r} 1 / (k + 1)^a`, with a = 2 in
    L2 and 4 in L1.

    Args:
      kind: 'l2' or 'l1'.
      height: rows of the image.
      width: columns of the image.
      top: first row of the window.
      left: first column of the window.
      side: its side.

    Returns:
      (height, width), zero outside the window, of norm 1.
    """
    rows, columns = jnp.arange(height) - top, jnp.arange(width) - left
    inside = _window(height, width, top, left, side)
    half = side // 2
    size = max(height, width) + 1
    rings = jnp.arange(1, size + 1, dtype=jnp.float32)
    levels = 1 / rings ** (2 if kind == 'l2' else 4)

    def hill(first, rows_of_it):
        middle_row, middle = rows_of_it // 2, side // 2
        last = jnp.maximum(middle_row, middle)
        ring = jnp.maximum(
            jnp.abs(rows - first - middle_row)[:, None],
            jnp.abs(columns - middle)[None, :],
        )
        k = jnp.arange(size)
        tail = jnp.cumsum(jnp.where(k <= last, levels, 0)[::-1])[::-1]
        return tail[jnp.clip(ring, 0, size - 1)]

    upper = hill(0, half)
    lower = hill(half, side - half)
    in_upper = (rows < half)[:, None] & inside
    in_lower = (rows >= half)[:, None] & inside

    def unit(a):
        return _unit(a, kind, (0, 1))

    both = unit(jnp.where(in_upper, upper, 0)) - unit(jnp.where(in_lower, lower, 0))
    return unit(both)


def _norms(x: Array, kind: str, axes: Any) -> Array:
    if kind == 'l2':
        return jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True))
    return jnp.sum(jnp.abs(x), axis=axes, keepdims=True)


def _unit(x: Array, kind: str, axes: Any) -> Array:
    norm = _norms(x, kind, axes)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0)


def _feasible(delta: Array, x0: Array, ball: Ball) -> Array:
    """Scaled to the radius and clipped in L2, the nearest feasible point in L1."""
    if ball.norm_name == 'l2':
        radius = _wide(balls.radius(ball, x0))
        delta = _box(_unit(delta, 'l2', (1, 2, 3)) * radius, x0, ball) - x0
    return ball.project(x0 + delta, x0)


def tiles(ball: Ball, key: Key, x0: Array) -> Array:
    """Five by five tiles of hills with random signs, at the radius."""
    _, height, width, channels = x0.shape
    side = max(height // 5, 1)
    margin = max(height - side * 5, 0) // 2
    tops = [margin + i * side for i in range(height // side)]
    lefts = [margin + i * side for i in range(width // side)]
    corners = jnp.asarray([(top, left) for top in tops for left in lefts])

    def draw(k):
        def add(total, tile):
            number, (top, left) = tile
            turn, colour = jax.random.split(jax.random.fold_in(k, number))
            sign = jax.random.rademacher(colour, (1, 1, channels), x0.dtype)
            place = height, width, top, left, jnp.asarray(side)
            eta = _turned(turn, ball.norm_name, *place)
            return total + eta[..., None] * sign, None

        numbers = jnp.arange(len(corners))
        empty = jnp.zeros((height, width, channels), x0.dtype)
        return jax.lax.scan(add, empty, (numbers, corners))[0]

    return _feasible(keys.draw(draw, key), x0, ball)


def _turned(key, kind, height, width, top, left, side):
    """Hills above each other or, as often, beside each other."""
    across = jax.random.bernoulli(key)
    upright = hills(kind, height, width, top, left, side)
    lying = hills(kind, width, height, left, top, side).T
    return jnp.where(across, lying, upright)


def move_mass(ball: Ball, key: Key, x: Array, x0: Array, side: Array) -> Array:
    """Moves the mass of one random window to a new pattern in another."""
    _, height, width, channels = x0.shape
    kind, radius = ball.norm_name, _wide(balls.radius(ball, x0))
    delta = x - x0

    def draw(k):
        one, other, turn, colour = jax.random.split(k, 4)
        top, left = _corner(one, height, width, side)
        to = _window(height, width, top, left, side)
        away = _window(height, width, *_corner(other, height, width, side), side)
        sign = jax.random.rademacher(colour, (1, 1, channels), x0.dtype)
        eta = _turned(turn, kind, height, width, top, left, side)[..., None] * sign
        return to[..., None], away[..., None], eta

    to, away, eta = keys.draw(draw, key)
    there = _unit(jnp.where(to, delta, 0), kind, (1, 2))
    fresh = _unit(eta + there, kind, (1, 2))
    moved = _norms(jnp.where(to | away, delta, 0), kind, (1, 2))
    norm = _norms(delta, kind, (1, 2, 3))
    # What the windows held and what the radius left over, channel by channel.
    if kind == 'l2':
        spare = jnp.maximum(radius**2 - norm**2, 0)
        amount = jnp.sqrt(spare / channels + moved**2)
    else:  # The projection takes back what is too much.
        amount = jnp.maximum(radius - norm, 0) + channels * moved
    return _feasible(jnp.where(to, fresh * amount, jnp.where(away, 0, delta)), x0, ball)
