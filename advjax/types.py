"""The vocabulary: what a logits function, a ball, an attack and a search are.

Everything in advjax is built from four callables. None of them is a class to
inherit from: a plain function with the right signature is one. Whatever has more than
one member is a protocol below, and no code of the library uses a member that no
protocol names.

    logits_fn(x) -> logits                     (B, ...) -> (B, K)
    objective(x) -> value                      (B, ...) -> (B,), maximised
    loss(logits, y, target=None) -> value      (B, K), (B,) -> (B,), maximised
    attack(logits_fn, key, x, y) -> x_adv      the search for the worst case

``x`` holds floats on the scale of the ball's ``bounds`` (pixels in [0, 1]
unless said otherwise), ``y`` integer labels, and ``key`` one JAX key or one per
example (see ``advjax.keys``).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import (
    Any,
    NamedTuple,
    Protocol,
    TypeVar,
    dataclass_transform,
    runtime_checkable,
)

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
HostArray = jax.Array | np.ndarray
Key = jax.Array
Params = Any
State = Any

Bounds = tuple[float, float] | None
LogitsFn = Callable[[Array], Array]
Objective = Callable[[Array], Array]


# (logits, y, target=None) -> (B,), larger is worse for the model. One without
# ``target`` cannot be used for targeted attacks.
Loss = Callable[..., Array]


class Attack(Protocol):
    """A search for the worst input near ``x``, as its user calls it.

    A plain function is one. A targeted attack also takes ``target``, the (B,) classes
    to be reached.
    """

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Returns an array like ``x``."""
        ...


class Found(NamedTuple):
    """What a search found.

    Attributes:
      x: (B, ...) the best point.
      rank: (B,) how adversarial the point is: positive where the goal is reached,
        -inf where no point was admissible. None where the search did not measure it.
      queries: (B,) model calls spent on every example, -1 where unknown.
    """

    x: Array
    rank: Array | None
    queries: Array


class AnyGoal(Protocol):
    """What a search wants, of any kind: ``Goal``, or an objective to be maximised."""

    def value(self, x: Array, key: Key) -> Array:
        """The value to climb, (B,); ``key`` holds (B,) keys, for random models."""
        ...

    def value_and_rank(self, x: Array, key: Key) -> tuple[Array, Array]:
        """The value to climb and the rank to keep by, (B,) each, in one model call."""
        ...

    def with_loss(self, loss: Loss) -> Any:
        """The same goal, climbed along another loss, if it has one."""
        ...


@runtime_checkable
class Search(Protocol):
    """An attack, as its author writes it: see ``advjax.attacks.search``.

    Attributes:
      calls: the largest number of forward passes per example; one with its gradient
        counts once. None if it is not known beforehand.
      ranked: whether ``Found.rank`` is given. Where it is not, a combinator ranks the
        result by a model call of its own.
    """

    @property
    def calls(self) -> int | None: ...  # noqa: D102
    @property
    def ranked(self) -> bool: ...  # noqa: D102
    def search(self, goal: Any, key: Key, x: Array) -> Found:
        """Searches around ``x`` with (B,) keys."""
        ...


@runtime_checkable
class Maximizes(Protocol):
    """An attack that climbs any objective, and not only the loss of a classifier."""

    def maximize(self, objective: Objective, key: Key, x0: Array) -> Array:
        """Searches the ball around ``x0``."""
        ...


@runtime_checkable
class Composite(Protocol):
    """An attack made of attacks, whose worst result counts."""

    def parts(self) -> Mapping[str, Any]:
        """The attacks by name, in order, with the draws they have inside of it.

        A cascade runs each on the examples that survived those before it.
        """
        ...


@runtime_checkable
class Sampled(Protocol):
    """A model with random answers. Attacks take expectations over its draws."""

    def sample(self, key: Key, x: Array) -> Array:
        """Logits (S, B, K) of S draws; ``key`` is one key or one per example."""
        ...

    def __call__(self, x: Array) -> Array:
        """Logits (B, K), the same in every call."""
        ...


@runtime_checkable
class Ball(Protocol):
    """Where an adversary may go: all that the library asks of a set of perturbations.

    Yours is any class with these members that is a pytree, such as one decorated with
    ``advjax.types.dataclass``. Norms are per example, over every axis but the first.

    Attributes:
      eps: the radius, () or (B,).
      bounds: the valid range (low, high), or None.
      norm_name: 'linf', 'l2', 'l1', 'l0', or a name of your own.
    """

    @property
    def eps(self) -> Array: ...  # noqa: D102
    @property
    def bounds(self) -> Bounds: ...  # noqa: D102
    @property
    def norm_name(self) -> str: ...  # noqa: D102

    def project(self, x: Array, x0: Array) -> Array:
        """The closest point of the ball around x0, intersected with the bounds."""
        ...

    def sample(self, key: Key, x0: Array) -> Array:
        """A uniform draw from the ball, moved inside the bounds."""
        ...

    def steepest(self, grad: Array) -> Array:
        """Argmax <grad, d> over the unit ball."""
        ...

    def norm(self, delta: Array) -> Array:
        """The norm of every example, (B,)."""
        ...

    def contains(self, x: Array, x0: Array) -> Array:
        """Membership (B,), with the tolerance of the library."""
        ...

    def confine(self, x: Array, otherwise: Array | float = 0.0) -> Array:
        """``x`` where a coordinate may change, elsewhere ``otherwise``."""
        ...

    def with_eps(self, eps: Array) -> 'Ball':
        """The same ball with another radius."""
        ...

    def unbounded(self) -> 'Ball':
        """The same ball without bounds."""
        ...

    def take(self, index: HostArray, size: int) -> 'Ball':
        """The same ball for some of ``size`` examples."""
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

    def values(node: Any, names: list[str]) -> list:
        return [getattr(node, name) for name in names]  # The fields declared above.

    def flatten_with_keys(node: Any) -> tuple[list, tuple]:
        keys = [jax.tree_util.GetAttrKey(name) for name in children]
        keyed = list(zip(keys, values(node, children), strict=True))
        return keyed, tuple(values(node, static))

    def flatten(node: Any) -> tuple[list, tuple]:
        return values(node, children), tuple(values(node, static))

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
    if is_leaf and isinstance(fn, Search):
        raise ValueError(
            'a search must be a pytree, or its numbers and its rank are lost: decorate '
            f'{type(fn).__name__} with advjax.types.dataclass'
        )
    return jax.tree_util.Partial(fn) if is_leaf else fn


def check_images(x: HostArray, name: str = 'x') -> None:
    """Refuses inputs that an attack cannot perturb: integers, low precision, scalars.

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
