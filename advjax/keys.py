"""Randomness that belongs to examples, not to batches.

A draw made for example i comes from a key of example i alone. So the result on
an example does not depend on which other examples share its batch, on their
order, on padding, or on the number of devices. A single key stands for the
batch 0..B-1 (``fold_in(key, i)``); an evaluation passes the (B,) keys of the
data-set indices instead.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from advjax.types import Array, Key


def typed(key: Key) -> Key:
    """Accepts old-style uint32 keys (``jax.random.PRNGKey``) as well as new ones."""
    key = jnp.asarray(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if key.dtype == jnp.uint32 and key.ndim >= 1:
        return jax.random.wrap_key_data(key)
    raise ValueError(
        f'key must be a jax.random.key or an array of them, got {key.dtype} '
        f'of shape {key.shape}'
    )


def per_example(key: Key, batch_size: int) -> Key:
    """Returns (B,) keys: those given, or ``fold_in(key, i)`` for a single one.

    Args:
      key: one key, or (B,) keys.
      batch_size: B.

    Raises:
      ValueError: if ``key`` holds another number of keys.
    """
    key = typed(key)
    if key.ndim == 0:
        return of_index(key, jnp.arange(batch_size))
    if key.shape == (batch_size,):
        return key
    raise ValueError(
        f'key must be one key or {batch_size} (one per example), got shape {key.shape}'
    )


def of_index(key: Key, index: Array) -> Key:
    """Returns the keys ``fold_in(key, index[i])`` of examples of a data set."""
    return jax.vmap(jax.random.fold_in, (None, 0))(typed(key), index)


def fold(keys: Key, data: int | Array) -> Key:
    """Folds one number (a step, a restart) into every example's key."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def draw(sampler: Callable[[Key], Any], keys: Key) -> Any:
    """Draws ``sampler(key)`` for every example: (B,) keys -> (B, ...)."""
    return jax.vmap(sampler)(keys)
