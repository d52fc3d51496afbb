"""Attacks on any part of a pytree: embeddings, weights, several inputs at once.

An ascent searches one array. Here chosen leaves of a pytree are laid out as one array,
searched, and put back: the ball is that of all their numbers together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from advjax.types import Array, Key


def perturb(
    attack: Any,
    objective: Callable[[Any], Array],
    tree: Any,
    where: Callable[[str, Array], bool] | None = None,
    batched: bool = False,
    *,
    key: Key,
) -> Any:
    """The worst tree in a ball around ``tree``.

    Args:
      attack: an ascent or any attack with ``maximize``; its ball usually has
        ``bounds=None``.
      objective: tree -> a scalar, or with ``batched`` (B,) values; maximised.
      key: one key, or one per example.
      tree: any pytree of float arrays: parameters, a batch of embeddings.
      where: (path, leaf) -> whether the leaf may change; all by default. Paths read
        like ``['encoder']['kernel']``.
      batched: the leaves' first axis holds independent examples, each with its own
        ball; otherwise the whole tree is one example.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: if no leaf is chosen, or batched leaves disagree in their first axis.
    """
    keyed, structure = jax.tree_util.tree_flatten_with_path(tree)
    chosen = [
        i
        for i, (path, leaf) in enumerate(keyed)
        if where is None or where(jax.tree_util.keystr(path), leaf)
    ]
    if not chosen:
        raise ValueError('where must choose at least one leaf, it chose none')
    leaves = [leaf for _, leaf in keyed]
    count = leaves[chosen[0]].shape[0] if batched else 1
    if batched and any(leaves[i].shape[0] != count for i in chosen):
        raise ValueError(
            'batched leaves must agree in their first axis, got '
            f'{[leaves[i].shape for i in chosen]}'
        )
    sizes = [leaves[i].size // count for i in chosen]

    def restore(rows):
        new, at = list(leaves), 0
        for i, size in zip(chosen, sizes, strict=True):
            part = rows[:, at : at + size].reshape(leaves[i].shape)
            new[i], at = part.astype(leaves[i].dtype), at + size
        return jax.tree_util.tree_unflatten(structure, new)

    def value(rows):
        result = objective(restore(rows))
        return result if batched else jnp.reshape(result, (1,))

    rows = [leaves[i].reshape(count, -1).astype(jnp.float32) for i in chosen]
    return restore(attack.maximize(value, key, jnp.concatenate(rows, axis=1)))
