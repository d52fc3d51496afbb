"""The interface between advjax and neural networks.

Attacks see a logits function, training sees a ``Model``: two pure functions over plain
pytrees. ``from_nnx``, ``from_linen`` and ``from_function`` make one from a network. The
split into graph and arrays is done once, at construction, so that a training step has
no overhead over a bare ``jax.jit``.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax.types import Array, HostArray, Key, LogitsFn, Params, State


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: ``key -> (params, state)``; ``state`` holds what training changes
        without a gradient (BatchNorm statistics), or {}.
      apply: ``(params, state, x, train=False, key=None, **view) -> (logits, state)``.
        With ``train`` False the state is returned unchanged and the result is
        deterministic. ``key`` is for dropout. A view selects a variant of the network,
        such as ``branch=1`` (see ``zoo.split_norm_cnn``), by keyword arguments of the
        network.
      features: ``(params, state, x) -> (B, F)``, the representation before the last
        layer, in eval mode; None where it is not known.
      published: ``{name: array} -> (params, state)``, from the names and layouts of
        published weights, which ``zoo.load_published`` reads from files; None where
        there are none.
    """

    init: Callable[[Key], tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]
    features: Callable[[Params, State, Array], Array] | None = None
    published: Callable[[Mapping[str, HostArray]], tuple[Params, State]] | None = None


@functools.cache
def _in_eval_mode(apply: Callable, view: tuple[tuple[str, Any], ...]) -> Callable:
    def logits(params, state, x, **other):
        return apply(params, state, x, train=False, **{**dict(view), **other})[0]

    return logits


def logits_fn(
    model: Model, params: Params, state: State | None = None, **view: Any
) -> LogitsFn:
    """The deterministic function x -> logits that attacks and evaluations take.

    Args:
      model: the network.
      params: its parameters.
      state: its statistics; {} by default.
      **view: hashable arguments of the network, such as ``branch=1``. Those given when
        the result is called take precedence.

    Returns:
      A ``jax.tree_util.Partial``: a pytree whose leaves are the parameters. Passed
      as an argument of a jitted function it does not recompile when they change,
      and stacked parameters can be mapped over by ``vmap``.
    """
    return jax.tree_util.Partial(
        _in_eval_mode(model.apply, tuple(sorted(view.items()))),
        params,
        {} if state is None else state,
    )


def features_fn(model: Model, params: Params, state: State | None = None) -> LogitsFn:
    """The deterministic function x -> representation (B, F) of a network.

    Like ``logits_fn`` it is a pytree of the parameters.

    Raises:
      ValueError: if the representation of the network is not known.
    """
    if model.features is None:
        raise ValueError(
            'model must have features: an nnx module with a method features(x), or '
            f'Model._replace(features=...), got {model}'
        )
    return jax.tree_util.Partial(model.features, params, {} if state is None else state)


@functools.cache
def rematerialised(model: Model) -> Model:
    """The model with ``jax.checkpoint`` around every forward pass.

    A gradient through a search (differentiating through an attack, unrolled updates)
    then keeps one array of images per step instead of all activations, for one more
    forward pass each.
    """

    def apply(params, state, x, train=False, key=None, **view):
        def run(params, state, x, key):
            return model.apply(params, state, x, train=train, key=key, **view)

        return jax.checkpoint(run)(params, state, x, key)

    return model._replace(apply=apply)


def from_function(init: Callable[[Key], Params], apply: Callable[..., Array]) -> Model:
    """Wraps a stateless network: ``key -> params``, and ``(params, x) -> logits``.

    Views are passed on to ``apply``.
    """

    def with_state(params, state, x, train=False, key=None, **view):
        del train, key
        return apply(params, x, **view), state

    return Model(init=lambda key: (init(key), {}), apply=with_state)


def from_linen(
    module: Any,
    example: Array,
    train_argument: str | None = None,
    views: Sequence[Mapping[str, Any]] = (),
) -> Model:
    """Wraps a ``flax.linen`` module.

    Args:
      module: an unbound module.
      example: a batch to initialise with, such as ``jnp.zeros((1, 28, 28, 1))``.
      train_argument: name of the boolean argument of ``module.__call__`` that means
        training, if there is one (often ``train``). A module without one is run the
        same way in both modes.
      views: all views but the default one, such as ``[{'branch': 1}]``: linen creates
        the parameters of an auxiliary branch only when that view is called.

    Raises:
      ValueError: if the module has no argument of that name.
    """
    import inspect

    known = list(inspect.signature(type(module).__call__).parameters)[1:]
    for argument, name in [
        ('train_argument', train_argument),
        *(('views', name) for view in views for name in view),
    ]:
        if name is not None and name not in known:
            raise ValueError(
                f'{argument} must be one of {known}, the arguments of '
                f'{type(module).__name__}, got {name!r}'
            )

    def mode(train: bool) -> dict[str, bool]:
        return {} if train_argument is None else {train_argument: train}

    def init(key):
        variables: dict[str, Any] = {}
        for view in ({}, *views):
            seen = module.init(key, example, **mode(False), **view)
            variables = _united(variables, seen)
        return variables.pop('params', {}), variables

    def apply(params, state, x, train=False, key=None, **view):
        variables = {'params': params, **state}
        rngs = {} if key is None else {'dropout': key}
        given = {**mode(train), **view}
        if not (train and state):
            return module.apply(variables, x, rngs=rngs, **given), state
        logits, state = module.apply(
            variables, x, rngs=rngs, mutable=list(state), **given
        )
        return logits, dict(state)

    return Model(init=init, apply=apply)


def _united(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """All of ``tree``, and of ``other`` what it lacks."""
    both = {
        name: _united(tree[name], other[name])
        for name in tree.keys() & other.keys()
        if isinstance(tree[name], Mapping)
    }
    return {**other, **tree, **both}


def from_nnx(constructor: Callable[..., Any]) -> Model:
    """Wraps a ``flax.nnx`` module.

    In eval mode BatchNorm uses its running statistics and Dropout is off; the
    module itself is never mutated.

    A method ``features(x)`` of the module becomes ``Model.features``.

    Args:
      constructor: ``constructor(rngs=nnx.Rngs)`` builds the module, such as the
        class itself or a ``functools.partial`` of it. Constant arrays of the module
        must be in an ``nnx.Variable``, which is kept as state.

    Raises:
      ValueError: if ``constructor`` is a module already.
    """
    from flax import nnx

    if isinstance(constructor, nnx.Module):
        raise ValueError(
            'constructor must be a function of rngs that builds the module, got an '
            f'instance of {type(constructor).__name__}: pass its class'
        )

    def split(module):
        # Whatever is neither trained nor random is state: statistics, constants.
        return nnx.split(module, nnx.Param, nnx.RngState, ...)

    abstract = nnx.eval_shape(lambda: constructor(rngs=nnx.Rngs(0)))
    graphs = {
        train: split(
            nnx.view(
                abstract,
                raise_if_not_found=False,
                deterministic=not train,
                use_running_average=not train,
            )
        )[0]
        for train in (True, False)
    }
    _, params_like, rest_like, state_like = split(abstract)

    def fill(like: Any, tree: Any) -> Any:
        filled = jax.tree.map(lambda leaf: leaf, like)
        nnx.replace_by_pure_dict(filled, tree)
        return filled

    def rest(key: Key) -> Any:
        """The random streams of the module, derived from the key."""

        def renew(path, leaf):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                name = zlib.crc32(jax.tree_util.keystr(path).encode())
                return jax.random.fold_in(key, name & 0x7FFFFFFF)
            return jnp.zeros(leaf.shape, leaf.dtype)

        return jax.tree_util.tree_map_with_path(renew, rest_like)

    def init(key):
        _, params, _, state = split(constructor(rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def merged(params, state, train, key) -> Any:
        streams = rest(jax.random.key(0) if key is None else key)
        return nnx.merge(
            graphs[train], fill(params_like, params), streams, fill(state_like, state)
        )

    def apply(params, state, x, train=False, key=None, **view):
        module = merged(params, state, train, key)
        logits = module(x, **view)
        if not train:
            return logits, state
        after: Any = split(module)[3]
        return logits, nnx.to_pure_dict(after)

    def features(params, state, x):
        return merged(params, state, False, None).features(x)

    # Some modules have a number of that name; only a method counts.
    known = callable(getattr(type(abstract), 'features', None))
    return Model(init=init, apply=apply, features=features if known else None)
