"""The numbers of a method by their paths: 'inner.ball.eps', 'outer.beta'."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls
from advjax.types import Array

Where = str | Callable[[str], bool]


def paths(tree: Any) -> dict[str, Array]:
    """All numbers of a pytree, such as a method, by their paths.

    >>> from advjax import training
    >>> list(paths(training.fgsm_at(0.1)))
    ['inner.ball.eps', 'inner.rate', 'outer.clean_weight']
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_path(path): leaf for path, leaf in flat}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='.')


def find(tree: Any, where: Where) -> tuple[str, ...]:
    """The paths that ``where`` selects.

    Args:
      tree: a method.
      where: a path; its end, if only one number's path ends so; or a predicate on
        paths. An end may match the radii of several balls if the balls are equal,
        because they are one threat model.

    Raises:
      ValueError: if no number is selected, or the end of a path is ambiguous.
    """
    known = paths(tree)
    if callable(where):
        found = tuple(path for path in known if where(path))
        if not found:
            raise ValueError(f'where must select numbers, of {list(known)}')
        return found
    if where in known:
        return (where,)
    found = tuple(path for path in known if path.endswith(f'.{where}'))
    if not found:
        raise ValueError(
            f'{where!r} must be a number of the method, which has {list(known)}'
        )
    if len(found) > 1 and not _one_radius(tree, found):
        raise ValueError(
            f'{where!r} must be one number of the method, but may be any of '
            f'{list(found)}: give the path, or a function of paths to select several'
        )
    return found


def _one_radius(tree: Any, found: tuple[str, ...]) -> bool:
    """Whether all are the radii of equal balls."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=balls.stands_for_ball)
    owners = []
    for path, node in nodes:
        inside = [f'{_path(path)}.{end}' for end in paths(node) if end]
        if set(inside) & set(found):
            owners.append(node)
    return len(owners) == len(found) and all(_equal(owners[0], b) for b in owners)


def _equal(a: Any, b: Any) -> bool:
    (left, one), (right, other) = map(jax.tree.flatten, (a, b))
    return one == other and all(map(_same, left, right))


def _same(a: Any, b: Any) -> bool:
    # What is traced has no value yet: it is the same only as the same object.
    traced = isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer)
    return a is b or (not traced and np.array_equal(a, b))


def scaled(method: Any, where: Where, factor: float | Array) -> Any:
    """The method with some of its numbers multiplied.

    >>> from advjax import training
    >>> half = scaled(training.trades(0.2), 'inner.attack.ball.eps', 0.5)
    >>> float(half.inner.attack.ball.eps)
    0.10000000149011612

    Args:
      method: any method, or another pytree.
      where: which numbers: a path ('outer.beta'); its end ('beta', 'eps') where that
        is not ambiguous, radii of equal balls being one number; or a function of
        paths, such as ``lambda path: path.endswith('.eps')``.
      factor: what they are multiplied by.

    Raises:
      ValueError: if there is no such number, or more than one.
    """
    meant = find(method, where)

    def one(path, leaf):
        if _path(path) not in meant:
            return leaf
        return leaf * jnp.asarray(factor, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, method)
