r"""The closest point of a hyperplane inside the valid range, in any norm.

Minimum-norm attacks approximate the decision boundary by a hyperplane. The nearest
point of it within the valid range,

.. math:: \arg\min_z \|z - x\|_p \quad \text{s.t.}\quad
          \langle w, z \rangle = c, \; z \in [l, u]^d,

moves every coordinate in the direction of the sign of :math:`w_i` (for c above
:math:`\langle w, x \rangle`) by a size that depends on one number t:

    Linf   min(t, room)        L2   min(t |w|, room)
    L1     all the room of the coordinates with |w| > t, none of those below

Reference: Croce and Hein 2020, arXiv 1907.02044, section 2.2, who sort the
coordinates; here the piecewise linear equation for t is solved by Newton's method
(Linf, L2: exact after finitely many rounds) or by bisection (L1).
"""

import jax
import jax.numpy as jnp

from advjax import rows
from advjax.projections import clip, divide, room_towards
from advjax.types import Array, Bounds


def nearest(kind: str, x: Array, w: Array, offset: Array, bounds: Bounds) -> Array:
    """Moves ``x`` to the nearest point with <w, z> = offset within the bounds.

    Where the hyperplane does not meet the bounds the result is as close to it as
    the bounds allow; where w is zero it is ``x``.

    Args:
      kind: 'linf', 'l2' or 'l1'.
      x: (B, ...) points within the bounds.
      w: (B, ...) normals.
      offset: (B,) values of <w, z>.
      bounds: valid range, or None.

    Raises:
      ValueError: if ``kind`` is unknown.
    """
    if kind not in _SIZES:
        raise ValueError(f'kind must be one of {sorted(_SIZES)}, got {kind!r}')
    # Scaled by its largest entry, so that tiny gradients do not underflow squared.
    scale = rows.wide_largest(jnp.abs(w))
    w = divide(w, scale, 0.0)
    offset = divide(offset.reshape(scale.shape), scale, 0.0)
    gap = offset - rows.wide_total(w * x)
    towards = jnp.sign(w) * jnp.sign(gap)
    weight = jnp.abs(w)
    # Coordinates without weight cannot help, nor can their infinite room.
    room = jnp.where(weight > 0, room_towards(towards, x, bounds), 0)
    return clip(x + towards * _SIZES[kind](weight, room, jnp.abs(gap)), bounds)


def _newton(weight: Array, speed: Array, room: Array, need: Array) -> Array:
    """Sizes min(t * speed, room) with sum(weight * size) = need, t from below.

    The sum is concave in t, so Newton's steps never pass the root, and each round
    but the last fixes one more coordinate at its bound.
    """

    def round_(t):
        blocked = t * speed >= room
        spent = rows.wide_total(
            jnp.where(blocked, weight * jnp.where(blocked, room, 0), 0)
        )
        rate = rows.wide_total(jnp.where(blocked, 0, weight * speed))
        return jnp.where(rate > 0, divide(need - spent, rate, 0.0), t)

    def grow(carry):
        t, _ = carry
        new = jnp.maximum(round_(t), t)
        return new, new > t

    t = jnp.zeros_like(need)
    t, _ = jax.lax.while_loop(lambda c: jnp.any(c[1]), grow, (t, need > 0))
    # If no t is large enough, every coordinate moves to its bound.
    reached = rows.wide_total(weight * jnp.where(jnp.isfinite(room), room, 0)) > need
    unbounded = rows.wide_total((~jnp.isfinite(room)).astype(t.dtype)) > 0
    full = jnp.where(jnp.isfinite(room), room, 0)
    return jnp.where(reached | unbounded, jnp.minimum(t * speed, room), full)


def _l1(weight: Array, room: Array, need: Array) -> Array:
    # No coordinate needs more room than what it would take alone.
    alone = divide(jnp.broadcast_to(need, weight.shape), weight, 0.0)
    room = jnp.minimum(room, alone)
    gain = weight * room

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        enough = rows.wide_total(jnp.where(weight > middle, gain, 0)) >= need
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, high = jnp.zeros_like(need), rows.wide_largest(weight)
    low, high = jax.lax.fori_loop(0, 30, halve, (low, high))
    full = weight > high
    partial = (weight > low) & ~full
    left = need - rows.wide_total(jnp.where(full, gain, 0))
    there = rows.wide_total(jnp.where(partial, gain, 0))
    share = jnp.minimum(divide(left, there, 0.0), 1)
    return jnp.where(full, room, jnp.where(partial, share * room, 0))


_SIZES = {
    'linf': lambda w, room, need: _newton(w, (w > 0).astype(w.dtype), room, need),
    'l2': lambda w, room, need: _newton(w, w, room, need),
    'l1': _l1,
}
