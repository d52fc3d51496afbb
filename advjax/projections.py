r"""Exact Euclidean projections on a norm ball intersected with a box.

    l2(x, x0, eps, bounds)    argmin |z - x|_2 over |z - x0|_2 <= eps, low <= z <= high

Pure functions, one for each ball of ``advjax.balls``.
``x`` and ``x0`` are (B, ...), ``eps`` is () or (B,), ``bounds`` is (low, high) or None.
They assume that ``x0`` lies inside the bounds; then the result is feasible, and
feasible points are returned bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from advjax import rows
from advjax.types import Array, Bounds


def linf(x: Array, x0: Array, eps: Array, bounds: Bounds) -> Array:
    """Clips to the cube, then to the bounds."""
    eps = wide(eps, x)
    return clip(jnp.clip(x, x0 - eps, x0 + eps), bounds)


def l2(x: Array, x0: Array, eps: Array, bounds: Bounds) -> Array:
    r"""Scales the difference.

    Without bounds :math:`x_0 + \min(1, \epsilon / \|d\|)\, d`, d = x - x0. With
    them, by the optimality conditions, coordinate i moves by
    :math:`\min(s |d_i|, r_i)`, where r is the room to the bound and one scale
    s in [0, 1] makes the norm eps. From s = 0 on, each round fixes the coordinates
    that hit their bound and solves for s on the rest; s only grows and every iterate
    is feasible, so this ends at the exact s.
    """
    delta = x - x0
    eps = jnp.broadcast_to(wide(eps, x), rows.wide_total(x).shape)
    if bounds is None:
        norm = euclidean(delta)
        scale = divide(jnp.where(norm > eps, eps, 0), norm, 0.0)
        return jnp.where(norm > eps, x0 + scale * delta, x)
    size, room = jnp.abs(delta), room_towards(delta, x0, bounds)
    inside = euclidean(jnp.minimum(size, room)) <= eps
    # Not used inside, where an infinite radius would make NaN gradients.
    eps = jnp.where(inside, 0, eps)
    scale = _l2_scale(*jax.lax.stop_gradient((size, room, eps, ~inside)))
    # One more round outside the loop carries the exact derivative.
    scale = _l2_round(scale, size, room, eps)
    return _moved(x, x0, jnp.minimum(scale * size, room), inside, bounds)


def _l2_scale(size: Array, room: Array, eps: Array, growing: Array) -> Array:
    def grow(carry):
        scale, growing = carry
        new = jnp.maximum(_l2_round(scale, size, room, eps), scale)
        new = jnp.where(growing, new, scale)
        return new, new > scale

    start = jnp.zeros_like(eps), growing
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), grow, start)[0]


def _l2_round(scale: Array, size: Array, room: Array, eps: Array) -> Array:
    """The scale that makes the norm eps if no other coordinate hits its bound."""
    blocked = scale * size >= room
    # In units of eps no square under- or overflows.
    unit = jax.lax.stop_gradient(jnp.where(eps > 0, eps, 1))
    spent = rows.wide_total(jnp.square(jnp.where(blocked, room, 0) / unit))
    left = jnp.square(eps / unit) - spent
    positive = left > 0
    root = unit * jnp.where(positive, jnp.sqrt(jnp.where(positive, left, 1)), 0)
    root = jnp.where(spent > 0, root, eps)
    return jnp.minimum(divide(root, euclidean(jnp.where(blocked, 0, size)), 1.0), 1)


def l1(x: Array, x0: Array, eps: Array, bounds: Bounds) -> Array:
    r"""Shrinks every coordinate of the difference by the same threshold.

    The projection moves coordinate i by :math:`\min((|d_i| - \lambda)_+, r_i)`
    with one threshold :math:`\lambda`. Bisection finds which coordinates are
    zero, free or at their bound; on those sets the threshold is then solved
    for in closed form, which also carries the exact derivative.
    """
    delta = x - x0
    eps = jnp.broadcast_to(wide(eps, x), rows.wide_total(x).shape)
    size, room = jnp.abs(delta), room_towards(delta, x0, bounds)
    inside = rows.wide_total(jnp.minimum(size, room)) <= eps
    # Not used inside, where an infinite radius would make NaN gradients.
    eps = jnp.where(inside, 0, eps)

    rough = _l1_threshold(*jax.lax.stop_gradient((size, room, eps)))
    left = size - rough
    free = (left > 0) & (left < room)
    blocked = (left > 0) & ~free
    spent = rows.wide_total(jnp.where(blocked, jnp.where(blocked, room, 0), 0))
    count = rows.wide_total(free.astype(x.dtype))
    exact = divide(rows.wide_total(jnp.where(free, size, 0)) + spent - eps, count, 0.0)
    threshold = jnp.where(count > 0, exact, rough)
    move = jnp.clip(size - threshold, 0, room)
    move *= jnp.minimum(divide(eps, rows.wide_total(move), 1.0), 1)
    return _moved(x, x0, move, inside, bounds)


def _l1_threshold(size: Array, room: Array, eps: Array) -> Array:
    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        too_far = rows.wide_total(jnp.clip(size - middle, 0, room)) > eps
        return jnp.where(too_far, middle, low), jnp.where(too_far, high, middle)

    top = rows.wide_largest(size)
    # 2^-30 of the largest coordinate is below float32 resolution.
    return jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(top), top))[1]


def l0(x: Array, x0: Array, eps: Array, bounds: Bounds) -> Array:
    """Keeps the floor(eps) coordinates that lower the distance most."""
    clipped = clip(x, bounds)
    # The difference of the squares (x - x0)^2 and (x - clipped)^2, as a product
    # because far outside the squares are equal, or infinite, in float32.
    gain = (clipped - x0) * ((x - x0) + (x - clipped))
    gain = jnp.where(clipped == x0, -jnp.inf, gain)
    return jnp.where(rank(gain) < jnp.floor(wide(eps, x)), clipped, x0)


def wide(values: Array, x: Array) -> Array:
    """Shapes per-example values (B,) to broadcast over x; scalars stay."""
    return rows.wide(jnp.asarray(values, x.dtype), x)


def clip(x: Array, bounds: Bounds) -> Array:
    """Keeps x within the bounds, if there are any."""
    return x if bounds is None else jnp.clip(x, bounds[0], bounds[1])


@jax.custom_jvp
def _ratio(a: Array, b: Array) -> Array:
    """The quotient a / b, whose gradient does not square b, which may underflow."""
    return a / b


@_ratio.defjvp
def _ratio_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    ratio = _ratio(a, b)
    return ratio, (da - ratio * db) / b


def unit(x: Array) -> Array:
    """Every example over its Euclidean norm; zero where it is zero."""
    scale = wide(rows.largest(jnp.abs(x)), x)
    scaled = divide(x, jnp.broadcast_to(scale, x.shape), 0.0)
    return divide(scaled, jnp.broadcast_to(euclidean(scaled), x.shape), 0.0)


def divide(a: Array, b: Array, otherwise: float) -> Array:
    """The quotient where b > 0, else ``otherwise``; no NaN, also in the gradient."""
    safe = b > 0
    return jnp.where(safe, _ratio(a, jnp.where(safe, b, 1)), otherwise)


def euclidean(x: Array) -> Array:
    """L2 norm, broadcastable to x, without underflow or NaN gradient at zero."""
    scale = jax.lax.stop_gradient(rows.wide_largest(jnp.abs(x)))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    square = rows.wide_total(jnp.square(x / scale))
    safe = square > 0
    return jnp.where(safe, scale * jnp.sqrt(jnp.where(safe, square, 1)), 0)


def rank(values: Array) -> Array:
    """Place of every coordinate in descending order, ties to the lower index."""
    flat = values.reshape(values.shape[0], int(np.prod(values.shape[1:])))
    order = jnp.argsort(-flat, axis=1, stable=True)
    return jnp.argsort(order, axis=1).reshape(values.shape).astype(values.dtype)


def room_towards(delta: Array, x0: Array, bounds: Bounds) -> Array:
    """How far each coordinate can move in the direction of ``delta``, >= 0."""
    if bounds is None:
        return jnp.full_like(delta, jnp.inf)
    return jnp.maximum(jnp.where(delta > 0, bounds[1] - x0, x0 - bounds[0]), 0)


def _moved(x: Array, x0: Array, size: Array, inside: Array, bounds: Bounds) -> Array:
    """x0 moved by ``size`` towards x; points inside already are only clipped."""
    z = x0 + jnp.sign(x - x0) * size
    return clip(jnp.where(inside, x, z), bounds)
