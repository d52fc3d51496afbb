r"""Two-dimensional slices of a model around an image.

.. math:: (s, t) \mapsto f(x + s\,u + t\,v)

The logits over such a plane give the two customary pictures: the loss surface, and the
regions in which each class is predicted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys, losses
from advjax.attacks.checks import check_loss
from advjax.balls import Ball, as_ball
from advjax.convolutions import canonical
from advjax.rows import total, wide, wide_largest
from advjax.types import Array, Key, LogitsFn, Loss, check_images


class Slice(NamedTuple):
    """Logits over a plane through each of B images.

    Attributes:
      first: (W,) positions s along the first direction.
      second: (H,) positions t along the second.
      logits: (B, H, W, K).
    """

    first: Array
    second: Array
    logits: Array

    @property
    def answers(self) -> Array:
        """The class predicted at every point, (B, H, W)."""
        return jnp.argmax(self.logits, axis=-1)

    def loss(self, y: Array, loss: Loss = losses.cross_entropy) -> Array:
        """Any loss at every point, (B, H, W), for labels y (B,)."""
        b, h, w, k = self.logits.shape
        values = loss(self.logits.reshape(b * h * w, k), jnp.repeat(y, h * w))
        return values.reshape(b, h, w)


def gradient_plane(
    logits_fn: LogitsFn,
    x: Array,
    y: Array,
    ball: Ball | float,
    *,
    key: Key,
    loss: Loss = losses.cross_entropy,
) -> tuple[Array, Array]:
    """The customary plane: the direction of the gradient, and a random one.

    Both are steepest directions of the ball, so a position of eps lies on its surface:
    for ``linf`` the signs of the gradient and random signs, for ``l2`` the gradient
    and a random direction orthogonal to it.

    Args:
      logits_fn: the model.
      x: (B, ...) images.
      y: (B,) labels.
      ball: its ``steepest`` turns gradients into directions.
      key: one key, or one per example.
      loss: the loss whose gradient is taken.

    Returns:
      Two arrays like x.
    """
    check_images(x)
    check_loss(loss)
    ball = as_ball(ball)

    def summed(x):
        return jnp.sum(loss(logits_fn(x), y))

    gradient = canonical(jax.grad(summed))(x)
    drawn = keys.draw(
        lambda k: jax.random.normal(k, x.shape[1:], x.dtype),
        keys.per_example(key, x.shape[0]),
    )
    # Without its component along the gradient, on the gradient's own scale.
    largest = wide_largest(jnp.abs(gradient))
    scaled = gradient / jnp.where(largest > 0, largest, 1)
    square = total(jnp.square(scaled))
    share = total(drawn * scaled) / jnp.where(square > 0, square, 1)
    return ball.steepest(gradient), ball.steepest(drawn - wide(share, x) * scaled)


def cut(
    logits_fn: LogitsFn,
    x: Array,
    first: Array,
    second: Array,
    at_first: Sequence[float] | Array,
    at_second: Sequence[float] | Array,
    *,
    bounds: tuple[float, float] | None = None,
) -> Slice:
    """Evaluates the model on a plane through each image.

    Args:
      logits_fn: the model.
      x: (B, ...) images.
      first: (B, ...) first direction u.
      second: (B, ...) second direction v.
      at_first: (W,) positions s.
      at_second: (H,) positions t.
      bounds: clip the inputs to this range; None leaves them outside it, so that the
        slice stays flat.

    Returns:
      A ``Slice``; W * B inputs pass the model at a time.

    Raises:
      ValueError: if shapes do not fit.
    """
    check_images(x)
    for name, value in (('first', first), ('second', second)):
        if np.shape(value) != x.shape:
            raise ValueError(
                f'{name} must have the shape of x, {x.shape}, got {np.shape(value)}'
            )
    s, t = (jnp.atleast_1d(jnp.asarray(a, x.dtype)) for a in (at_first, at_second))
    if s.ndim != 1 or t.ndim != 1 or not s.size or not t.size:
        raise ValueError(
            f'at_first and at_second must be non-empty lists of positions, got shapes '
            f'{s.shape} and {t.shape}'
        )
    along = s.reshape((-1,) + (1,) * x.ndim) * first[None]

    def row(t):
        points = along + (x + t * second)[None]
        if bounds is not None:
            points = jnp.clip(points, *bounds)
        logits = logits_fn(points.reshape(-1, *x.shape[1:]))
        return logits.reshape(s.size, x.shape[0], -1)

    # (H, W, B, K): one row of the slice at a time.
    logits = jax.lax.map(row, t)
    return Slice(s, t, logits.transpose(2, 0, 1, 3))
