"""Where the decision boundary of a network is, along a path.

A network's boundary has no closed form, but along a line it is a number: the distance
at which the prediction first changes. The line is evaluated on a grid, and the interval
of the first change is bisected. A change and back between two grid points goes unseen,
so a coarse grid can only overestimate.

Minimum-norm attacks (``attacks.fmn``, ``attacks.deepfool``, ...) look for the nearest
point of the boundary in any direction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from advjax import losses
from advjax.attacks.checks import check_count
from advjax.balls import l2
from advjax.convolutions import canonical
from advjax.rows import wide
from advjax.types import Array, LogitsFn, check_images


def wrong(logits: Array, y: Array) -> Array:
    """Whether the prediction is not the label, (B,); NaN logits are wrong."""
    return (jnp.argmax(logits, axis=1) != y) | jnp.isnan(logits).any(axis=1)


def first_crossing(
    logits_fn: LogitsFn,
    y: Array,
    path: Callable[[Array], Array],
    *,
    grid: int = 64,
    halvings: int = 20,
) -> Array:
    """The first point of a path at which the model errs.

    Args:
      logits_fn: the model.
      y: (B,) labels, or predictions whose change is looked for.
      path: from (B,) positions in [0, 1] to (B, ...) inputs.
      grid: points evaluated, besides 0.
      halvings: bisections of the interval of the first change.

    Returns:
      (B,) positions at which the model errs: 0 where it errs at the start, infinite
      where it errs at no point of the grid.

    Raises:
      ValueError: if ``grid`` is below 1 or ``halvings`` below 0.
    """
    check_count('grid', grid)
    check_count('halvings', halvings, least=0)

    def errs(t):
        return wrong(logits_fn(path(t)), y)

    start = jnp.zeros(y.shape, jnp.float32)

    def look(first, i):
        found = errs(jnp.full_like(start, i / grid))
        return jnp.where(found & jnp.isinf(first), i / grid, first), None

    never = jnp.where(errs(start), 0.0, jnp.inf).astype(start.dtype)
    places = jnp.arange(1, grid + 1, dtype=start.dtype)
    first, _ = jax.lax.scan(look, never, places)
    crosses = jnp.isfinite(first) & (first > 0)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        found = errs(middle)
        return jnp.where(found, low, middle), jnp.where(found, middle, high)

    high = jnp.where(crosses, first, 0)
    low = jnp.where(crosses, first - 1 / grid, 0)
    _, high = jax.lax.fori_loop(0, halvings, halve, (low, high))
    return jnp.where(crosses, high, first)


def distance_along(
    logits_fn: LogitsFn,
    x: Array,
    y: Array,
    direction: Array,
    reach: float | Array,
    *,
    geometric: bool = False,
    grid: int = 64,
    halvings: int = 20,
) -> Array:
    """The L2 distance to the first error along a direction of each example.

    Args:
      logits_fn: the model.
      x: (B, ...) images.
      y: (B,) labels, or predictions whose change is looked for.
      direction: (B, ...), or (...) for all; its length does not matter.
      reach: the largest distance, () or (B,), > 0.
      geometric: space the grid geometrically, from a millionth of the reach, for
        boundaries at unknown scales.
      grid: points evaluated.
      halvings: bisections between two of them.

    Returns:
      (B,): 0 where the model errs at x; infinite where it errs at no point of the
      grid, or where the direction is zero. Pixels are not held to any range.

    Raises:
      ValueError: if x is no float array of images, a direction or y has another shape,
        or a reach is not positive.
    """
    check_images(x)
    direction = jnp.asarray(direction, x.dtype)
    if direction.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f'direction must have shape {x.shape} or {x.shape[1:]}, got '
            f'{direction.shape}'
        )
    if jnp.shape(y) != x.shape[:1]:
        raise ValueError(f'y must have shape {x.shape[:1]}, got {jnp.shape(y)}')
    if not isinstance(reach, jax.core.Tracer) and not np.all(np.asarray(reach) > 0):
        raise ValueError(f'reach must be > 0, got {reach}')
    towards = l2(1.0).steepest(jnp.broadcast_to(direction, x.shape))
    reach = jnp.broadcast_to(jnp.asarray(reach, x.dtype), x.shape[:1])

    def length(t):
        if geometric:
            return jnp.where(t > 0, reach * 10.0 ** (6 * (t - 1)), 0)
        return reach * t

    def path(t):
        return x + wide(length(t), x) * towards

    t = first_crossing(logits_fn, y, path, grid=grid, halvings=halvings)
    return jnp.where(jnp.isfinite(t), length(jnp.where(jnp.isfinite(t), t, 0)), jnp.inf)


def normal(logits_fn: LogitsFn, x: Array, y: Array) -> Array:
    """The direction of steepest ascent of the margin, (B, ...) of unit L2 length.

    At a point of the boundary it is the boundary's normal, pointing away from class y.
    Zero where the gradient is zero.
    """
    check_images(x)

    def summed(x):
        return jnp.sum(losses.margin(logits_fn(x), y))

    return l2(1.0).steepest(canonical(jax.grad(summed))(x))
