"""What an evaluation refuses to start on, each refusal by name.

The commonest wrong robustness figure comes from inputs on another scale than the
attack's: normalised images, integer images, swapped axes. Nothing here is repaired
silently.
"""

import jax
import numpy as np

from advjax import balls
from advjax.balls import Ball
from advjax.types import HostArray, LogitsFn


def check(
    logits_fn: LogitsFn, images: HostArray, labels: HostArray, all_balls: list[Ball]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Validates what is to be evaluated.

    Returns:
      x as float32 (N, ...), y as int32 (N,), and the number of classes.

    Raises:
      ValueError: naming the argument, what was found and what is allowed.
    """
    x, y = np.asarray(images), np.asarray(labels)
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f'x must hold float images, got {x.dtype}: use advjax.data.to_float, which '
            'maps 0..255 to [0, 1]'
        )
    if x.dtype.itemsize < 4:
        raise ValueError(
            f'x must be float32, got {x.dtype}: it cannot hold small steps'
        )
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f'x must be (N, ...) with N >= 1, got shape {x.shape}')
    if y.shape != x.shape[:1]:
        raise ValueError(
            f'y must have shape ({len(x)},), one label per image, got {y.shape}'
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f'y must hold integer labels, got {y.dtype}')
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        where = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
        raise ValueError(
            f'x must be finite, got NaN or infinity in {len(where)} images, the first '
            f'at index {where[0]}'
        )
    for ball in all_balls:
        _check_ball(ball, x)
    classes = _classes(logits_fn, x)
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f'y must lie in 0..{classes - 1}, the classes of the model, got '
            f'{y.min()}..{y.max()}'
        )
    return x, y.astype(np.int32), classes


def _check_ball(ball: Ball, x: np.ndarray) -> None:
    eps = np.asarray(ball.eps)
    if eps.shape not in ((), x.shape[:1]):
        raise ValueError(
            f'eps must have shape () or ({len(x)},), one radius per image, got '
            f'{eps.shape}'
        )
    if not (eps >= 0).all():
        raise ValueError(f'eps must be >= 0, got {eps.min()}')
    if ball.bounds is not None:
        low, high = ball.bounds
        if x.min() < low or x.max() > high:
            raise ValueError(
                f'x must lie in the bounds [{low:g}, {high:g}] of the ball, got values '
                f'in [{x.min():g}, {x.max():g}]. For normalised images move the '
                'normalisation into the model, so that eps keeps its meaning in pixels'
            )


def _classes(logits_fn: LogitsFn, x: np.ndarray) -> int:
    shape = jax.eval_shape(logits_fn, jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype))
    known = isinstance(shape, jax.ShapeDtypeStruct)
    if not known or len(shape.shape) != 2 or shape.shape[0] != 2 or shape.shape[1] < 2:
        raise ValueError(
            'logits_fn must map (B, ...) to (B, K) logits with K >= 2, got '
            f'{shape.shape if known else shape} for a batch of 2'
        )
    return shape.shape[1]


def threat_model(attacks: dict, ball: Ball | None) -> Ball:
    """The ball that adversarial examples are verified against.

    Raises:
      ValueError: if none is given and the attacks do not agree on one.
    """
    if ball is not None:
        return ball
    found = balls.of(attacks)
    same = all(
        type(b) is type(found[0])
        and b.bounds == found[0].bounds
        and np.array_equal(b.eps, found[0].eps)
        for b in found
    )
    if not found or not same:
        listed = ', '.join(str(b) for b in found) or 'none'
        raise ValueError(
            'ball must be given, because the attacks do not name exactly one threat '
            f'model: {listed}'
        )
    return found[0]
