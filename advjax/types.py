"""The vocabulary: what a logits function, an objective and an attack are.

Everything in advjax is built from four callables. None of them is a class to
inherit from: a plain function with the right signature is one.

    logits_fn(x) -> logits                     (B, ...) -> (B, K)
    objective(x) -> value                      (B, ...) -> (B,), maximised
    loss(logits, y, target=None) -> value      (B, K), (B,) -> (B,), maximised
    attack(logits_fn, key, x, y) -> x_adv      the search for the worst case

``x`` holds floats on the scale of the ball's ``bounds`` (pixels in [0, 1]
unless said otherwise), ``y`` integer labels, and ``key`` one JAX key or one per
example (see ``advjax.keys``).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
HostArray = jax.Array | np.ndarray
Key = jax.Array
Params = Any
State = Any

LogitsFn = Callable[[Array], Array]
Objective = Callable[[Array], Array]


# (logits, y, target=None) -> (B,), larger is worse for the model. A user's own may
# leave ``target`` out, and then cannot be aimed.
Loss = Callable[..., Array]


class Attack(Protocol):
    """A search for the worst input near ``x``.

    Our own attacks also take ``target``, a (B,) array of classes to be reached,
    and carry ``calls``, the number of times one example passes the model.
    """

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Returns an array like ``x``."""
        ...


T = TypeVar('T')


@dataclass_transform(frozen_default=True)
def dataclass(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree, one kind of node of its own.

    Fields are children, except those of ``flax.struct.field(pytree_node=False)``,
    which are static structure. Instances have ``replace(**changes)``.

    It stands in for ``flax.struct.dataclass``, whose nodes JAX (0.10 to 0.12)
    compares by their field values alone: an ``l2`` ball then has the same structure
    as an ``linf`` ball, and ``jit`` runs the program of the one on the other when
    their hashes happen to collide in its cache.
    """
    made: Any = dataclasses.dataclass(frozen=True)(cls)
    child = {
        f.name: f.metadata.get('pytree_node', True) for f in dataclasses.fields(made)
    }
    children = [name for name in child if child[name]]
    static = [name for name in child if not child[name]]

    def flatten_with_keys(node: Any) -> tuple[list, tuple]:
        keyed = [(jax.tree_util.GetAttrKey(n), getattr(node, n)) for n in children]
        return keyed, tuple(getattr(node, n) for n in static)

    def flatten(node: Any) -> tuple[list, tuple]:
        return [getattr(node, n) for n in children], tuple(
            getattr(node, n) for n in static
        )

    def unflatten(aux: tuple, values: Any) -> Any:
        node = object.__new__(made)
        for names, parts in ((static, aux), (children, values)):
            for name, value in zip(names, parts, strict=True):
                object.__setattr__(node, name, value)
        return node

    def replace(self: Any, **changes: Any) -> Any:
        """Returns the same value with some fields changed."""
        return dataclasses.replace(self, **changes)

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    made.replace = replace
    return made


def as_pytree(fn: Callable[..., Any]) -> Any:
    """Makes a callable a pytree, so that it may live inside one.

    A plain function is no valid leaf of a ``jit`` argument; wrapped in
    ``jax.tree_util.Partial`` it is static structure. Values that are pytrees
    already (our attacks, a ``Partial`` of parameters) pass through.
    """
    if not callable(fn):
        raise ValueError(f'expected a callable, got {fn!r}')
    is_leaf = jax.tree_util.all_leaves([fn])
    return jax.tree_util.Partial(fn) if is_leaf else fn


def check_images(x: HostArray, name: str = 'x') -> None:
    """Refuses inputs an attack cannot move: integers, low precision, scalars.

    Raises:
      ValueError: if ``x`` is not a float32 or float64 array with a batch axis.
        Attacks add steps as small as 1/2550 to pixels; bfloat16 and float16
        round them away, so it is the model that casts, never the pixels.
    """
    if x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            f'{name} must be float32 (images in [0, 1]: see advjax.data.to_float), '
            f'got {x.dtype}'
        )
    if x.ndim < 1:
        raise ValueError(f'{name} needs a leading batch axis, got shape {x.shape}')
