r"""Linear features, whose worst case over a ball is known in closed form.

The minimum of :math:`y\,w^\top x'` over a ball moves every coordinate against
:math:`y\,w_i` by a size that the norm decides, and no further than the pixel range
leaves room:

    Linf   min(eps, room)
    L2     min(t |w|, room), with the t that spends eps
    L1     all the room, from the largest |w| on, until eps is spent

Without a range these are the dual norms :math:`-\epsilon\|w\|_1`,
:math:`-\epsilon\|w\|_2` and :math:`-\epsilon\|w\|_\infty`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from advjax.projections import room_towards
from advjax.types import Array, Ball, HostArray, dataclass

_HALVINGS = 40


@dataclass
class Linear:
    """Features :math:`f_j(x) = w_j^T x + b_j`; build them with ``linear``.

    Attributes:
      weights: (F, ...), one array of the shape of an input per feature.
      offset: (F,).
    """

    weights: Array
    offset: Array

    def __call__(self, x: HostArray) -> Array:
        """Values (B, F)."""
        rows = jnp.asarray(x).reshape(x.shape[0], -1)
        return rows @ self._rows().T + self.offset[None]

    def _rows(self) -> Array:
        return self.weights.reshape(self.weights.shape[0], -1)

    def worst(self, ball: Ball, x: HostArray, y: HostArray) -> Array:
        r"""The exact :math:`\min_{x' \in B(x)} y f_j(x')`, (B, F).

        Args:
          ball: ``linf``, ``l2`` or ``l1``, with bounds or without.
          x: (B, ...) inputs inside the bounds.
          y: (B,) labels in {-1, +1}, or (B, F), one for each feature.

        Raises:
          ValueError: for another ball, or labels of another shape.
        """
        if ball.norm_name not in _SIZES:
            raise ValueError(f'ball must be one of {sorted(_SIZES)}, got {ball}')
        x = jnp.asarray(x)
        size_of = _SIZES[ball.norm_name]
        signs = per_feature(y, x.shape[0], self.offset.shape[0])
        x_rows = x.reshape(x.shape[0], -1)
        eps = jnp.broadcast_to(jnp.asarray(ball.eps, x.dtype), x.shape[:1])

        def one(feature):
            w, sign = feature
            down = -sign[:, None] * w[None]
            weight = jnp.abs(w)[None]
            # Coordinates without weight cannot help, nor can their infinite room.
            room = jnp.where(weight > 0, room_towards(down, x_rows, ball.bounds), 0)
            return jnp.sum(weight * size_of(weight, room, eps[:, None]), axis=1)

        fall = jax.lax.map(one, (self._rows(), signs.T))
        return signs * self(x) - fall.T


def _l1(weight: Array, room: Array, eps: Array) -> Array:
    order = jnp.argsort(-weight[0])
    first = jnp.take(room, order, axis=1)
    spent = jnp.cumsum(first, axis=1)
    before = jnp.concatenate([jnp.zeros_like(spent[:, :1]), spent[:, :-1]], axis=1)
    taken = jnp.clip(eps - before, 0, first)
    return jnp.take(taken, jnp.argsort(order), axis=1)


def _l2(weight: Array, room: Array, eps: Array) -> Array:
    """Bisection finds which coordinates reach their bound; t is solved for the rest."""
    # No more can be spent than there is room.
    eps = jnp.minimum(eps, jnp.linalg.norm(room, axis=1, keepdims=True))
    norm = jnp.linalg.norm(weight, axis=1, keepdims=True)
    safe = jnp.where(norm > 0, norm, 1)
    ratio = jnp.where(
        jnp.isfinite(room) & (weight > 0), room / jnp.where(weight > 0, weight, 1), 0
    )
    low = eps / safe
    high = jnp.maximum(low, jnp.max(ratio, axis=1, keepdims=True))

    def halve(_, ends):
        low, high = ends
        # On a log scale: the room of a tiny weight is used up at a huge t.
        middle = jnp.sqrt(low) * jnp.sqrt(high)
        size = jnp.minimum(middle * weight, room)
        short = jnp.sum(jnp.square(size), axis=1, keepdims=True) < jnp.square(eps)
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    t = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))[1]
    blocked = t * weight >= room
    spent = jnp.sum(jnp.where(blocked, jnp.square(room), 0), axis=1, keepdims=True)
    free = jnp.sum(jnp.where(blocked, 0, jnp.square(weight)), axis=1, keepdims=True)
    left = jnp.maximum(jnp.square(eps) - spent, 0)
    t = jnp.where(free > 0, jnp.sqrt(left / jnp.where(free > 0, free, 1)), t)
    return jnp.where(blocked, room, t * weight)


_SIZES: dict[str, Callable[[Array, Array, Array], Array]] = {
    'linf': lambda weight, room, eps: jnp.minimum(room, eps),
    'l2': _l2,
    'l1': _l1,
}


def per_feature(y: HostArray, size: int, count: int) -> Array:
    """Labels in {-1, +1} as (B, F) floats.

    Raises:
      ValueError: for another shape, or for labels other than -1 and +1.
    """
    if not isinstance(y, jax.core.Tracer):
        values = np.unique(np.asarray(y))
        if not np.isin(values, (-1, 1)).all():
            raise ValueError(
                f'y must hold -1 and +1 (see features.signs), got {values[:5]}'
            )
    y = jnp.asarray(y, jnp.float32)
    if y.shape not in ((size,), (size, count)):
        raise ValueError(
            f'y must have shape ({size},) or ({size}, {count}), got {y.shape}'
        )
    return jnp.broadcast_to(y[:, None] if y.ndim == 1 else y, (size, count))


def linear(weights: HostArray, offset: float | HostArray = 0.0) -> Linear:
    """Linear features; pixels, principal components, the rows of a matrix.

    Args:
      weights: (F, ...), one array of the shape of an input per feature.
      offset: (F,), or one number for all.

    Raises:
      ValueError: if there is no feature, or if a weight or offset is not finite.
    """
    weights = jnp.asarray(weights, jnp.float32)
    if weights.ndim < 2 or not weights.size:
        raise ValueError(f'weights must be (F, ...), F >= 1, got shape {weights.shape}')
    if not isinstance(weights, jax.core.Tracer) and not np.isfinite(weights).all():
        raise ValueError('weights must be finite, got NaN or infinity')
    offset = jnp.asarray(offset, jnp.float32)
    if offset.shape not in ((), weights.shape[:1]):
        raise ValueError(
            f'offset must have shape () or {weights.shape[:1]}, got {offset.shape}'
        )
    if not isinstance(offset, jax.core.Tracer) and not np.isfinite(offset).all():
        raise ValueError('offset must be finite, got NaN or infinity')
    return Linear(weights, jnp.broadcast_to(offset, weights.shape[:1]))
