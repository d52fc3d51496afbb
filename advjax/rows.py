"""Reductions over whole examples, in the form that XLA:CPU runs fast.

XLA:CPU reduces a (B, height, width, channels) array inside a loop 20 to 30 times
slower than the same numbers as (B, n). It would fuse a plain reshape into the
reduction; a barrier prevents that.
"""

import jax
import jax.numpy as jnp
import numpy as np

from advjax.types import Array


def flat(x: Array) -> Array:
    """One row per example, (B, n)."""
    rows = x.reshape(x.shape[0], int(np.prod(x.shape[1:])))
    return jax.lax.optimization_barrier(rows) if x.ndim > 2 else rows


def wide(values: Array, x: Array) -> Array:
    """Shapes per-example values (B,) to broadcast over x; scalars stay."""
    return values if values.ndim == 0 else values.reshape((-1,) + (1,) * (x.ndim - 1))


def total(x: Array) -> Array:
    """The sum of every example, (B,)."""
    return jnp.sum(flat(x), axis=1)


def largest(x: Array) -> Array:
    """The largest coordinate of every example, at least 0, (B,)."""
    return jnp.max(flat(x), axis=1, initial=0.0)


def choose(condition: Array, x: Array, otherwise: Array) -> Array:
    """Whole examples by a (B,) condition."""
    return jnp.where(wide(condition, x), x, otherwise)


def wide_total(x: Array) -> Array:
    """``total``, shaped to broadcast over x."""
    return wide(total(x), x)


def wide_largest(x: Array) -> Array:
    """``largest``, shaped to broadcast over x."""
    return wide(largest(x), x)


def ones(mask: Array) -> Array:
    """1 where a mask holds, else 0, as int32: to be added to counts."""
    return mask.astype(jnp.int32)
