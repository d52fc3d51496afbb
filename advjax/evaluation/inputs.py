"""What an evaluation refuses to start on, each refusal by name.

The commonest wrong robustness figure comes from inputs on another scale than the
attack's: normalised images, integer images, swapped axes. Nothing here is repaired
silently.
"""

import re
import types
import warnings
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from advjax import balls, identity
from advjax.balls import Ball
from advjax.evaluation.verify import logits_of
from advjax.types import HostArray, LogitsFn, Sampled


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


def warn_of_odd_answers(logits_fn: LogitsFn, x: np.ndarray) -> None:
    """Warns of a model whose answers to images x are not those of a fixed function.

    Two probes: whether an image is answered alike in another order of the batch, as it
    is not under BatchNorm in training mode; and whether two traces of the model hold
    the same constants, as they do not where NumPy draws them.
    """
    there, back = logits_of(logits_fn, x), logits_of(logits_fn, x[::-1])[::-1]
    scale = np.abs(there[np.isfinite(there)]).max(initial=0)
    same = np.allclose(there, back, 1e-2, 1e-2 * scale, equal_nan=True)
    if not same and not isinstance(logits_fn, Sampled):
        warnings.warn(
            'logits_fn answers an image differently among other images or in another '
            'order: an attack may win or lose by the batch alone. Normalise by running '
            'statistics (train=False)',
            stacklevel=3,
        )
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    traces = [jax.make_jaxpr(lambda x: logits_fn(x))(like) for _ in range(2)]
    # Without the addresses of the functions in it.
    texts = [re.sub('0x[0-9a-f]+', '', str(trace.jaxpr)) for trace in traces]
    if texts[0] != texts[1] or len({identity.of(t.consts) for t in traces}) > 1:
        warnings.warn(
            'logits_fn draws from NumPy or Python, whose numbers are frozen into the '
            'compiled program: the attack sees no randomness. Draw by jax.random and '
            'see attacks.eot',
            stacklevel=3,
        )


_functions: dict[types.CodeType, set[int]] = {}


def warn_of_fresh_functions(*functions: Any) -> None:
    """Warns of a function that is made anew for every evaluation.

    JAX knows a function by its address: each is compiled anew, and its program holds
    on to it and to the weights it closes over.
    """
    for function in functions:
        if isinstance(function, Partial):
            if function.args or function.keywords:
                continue  # Its weights are arguments of the program.
            function = function.func
        code = function.__code__ if isinstance(function, types.FunctionType) else None
        if code is None or not function.__closure__:
            continue
        seen = _functions.setdefault(code, set())
        seen.add(id(function))
        if len(seen) == 3:
            warnings.warn(
                f'{function.__qualname__} is made anew for every evaluation, so that '
                'each compiles again and keeps its weights in memory: pass '
                'jax.tree_util.Partial(f, weights) of one function f(weights, x)',
                stacklevel=3,
            )


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
