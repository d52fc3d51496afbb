"""Evaluation never believes an attack: every claim is checked from outside.

The prediction is computed again by a separate compiled forward pass in float32,
the norm and the range in float64 on the host, from their definitions and not by the
code that attacks project with.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, sharding
from advjax.balls import Ball, limit
from advjax.types import Array, HostArray, LogitsFn


class Verified(NamedTuple):
    """What was found at B points; all arrays are (B,) NumPy.

    Attributes:
      wrong: the model's answer is not the label. Logits with NaN, and infinite ones
        that tie, are no answer.
      margin: the largest logit of another class minus the label's; > 0 is wrong.
      norm: distance from the clean image in the ball's norm.
      inside: the norm is at most eps, up to rounding (``balls.limit``).
      in_range: every pixel lies within the bounds, exactly.
      finite: all logits are finite.
    """

    wrong: np.ndarray
    margin: np.ndarray
    norm: np.ndarray
    inside: np.ndarray
    in_range: np.ndarray
    finite: np.ndarray

    @property
    def adversarial(self) -> np.ndarray:
        """Wrong, inside and in range: the only thing that counts."""
        return self.wrong & self.inside & self.in_range


@jax.jit
def _logits(logits_fn: LogitsFn, x: Array) -> Array:
    return logits_fn(x).astype(jnp.float32)


def logits_of(logits_fn: LogitsFn, x: HostArray) -> np.ndarray:
    """Compiled float32 logits on the host.

    Accelerators may round float32 products to TF32 or bfloat16; here they may not.
    ``logits_fn`` must be a pytree (see ``types.as_pytree``).
    """
    with jax.default_matmul_precision('float32'):
        return np.asarray(_logits(logits_fn, sharding.shard_like(logits_fn, x)))


def margin_of(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest logit of another class minus the label's, (B,); NaN is no answer.

    So are float16 logits that overflow: infinity minus infinity.
    """
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    with np.errstate(invalid='ignore'):
        margin = others.max(axis=1) - logits[rows, y]
    return np.where(np.isnan(logits).any(axis=1), np.nan, margin)


def norm_of(ball: Ball, delta: np.ndarray) -> np.ndarray:
    """The ball's norm in float64 from its definition, (B,)."""
    flat = np.abs(np.asarray(delta, np.float64).reshape(len(delta), -1))
    definitions: dict[Any, Any] = {
        balls.Linf: lambda: flat.max(axis=1, initial=0),
        balls.L2: lambda: np.sqrt((flat**2).sum(axis=1)),
        balls.L1: lambda: flat.sum(axis=1),
        balls.L0: lambda: (flat > 0).sum(axis=1).astype(np.float64),
    }
    definition = definitions.get(type(ball))
    # A ball of the user's own is the only authority on its norm.
    return definition() if definition else np.asarray(ball.norm(jnp.asarray(delta)))


def verify(
    logits_fn: LogitsFn, ball: Ball, x: np.ndarray, y: np.ndarray, x_adv: np.ndarray
) -> Verified:
    """Checks whether ``x_adv`` are adversarial examples of ``x`` within ``ball``.

    Args:
      logits_fn: the model, a pytree (see ``types.as_pytree``).
      ball: the threat model, with a radius of shape () or (B,).
      x: (B, ...) clean images.
      y: (B,) labels.
      x_adv: (B, ...) claimed adversarial images.
    """
    x, x_adv = np.asarray(x), np.asarray(x_adv)
    logits = logits_of(logits_fn, x_adv).astype(np.float64)
    margin = margin_of(logits, y)
    finite = np.isfinite(logits).all(axis=1)
    wrong = (logits.argmax(axis=1) != y) | np.isnan(margin)

    norm = norm_of(ball, x_adv.astype(np.float64) - x.astype(np.float64))
    flat = x_adv.reshape(len(y), -1)
    if ball.bounds is None:
        in_range = np.isfinite(flat).all(axis=1)
    else:
        low, high = np.asarray(ball.bounds, x_adv.dtype)
        in_range = ((flat >= low) & (flat <= high)).all(axis=1)
    return Verified(
        wrong=wrong,
        margin=margin,
        norm=norm,
        inside=norm <= limit(ball, x),
        in_range=in_range,
        finite=finite,
    )
