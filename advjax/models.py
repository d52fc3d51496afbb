"""The seam between advjax and neural networks.

Attacks see a logits function, training sees a ``Model``: two pure functions over
plain pytrees. ``from_nnx``, ``from_linen`` and ``from_function`` make one from
what people write. The split into graph and arrays is done once, at construction,
so a training step costs no more than the bare ``jax.jit``.
"""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax.types import Array, Key, LogitsFn, Params, State


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: ``key -> (params, state)``; ``state`` holds what training changes
        without a gradient (BatchNorm statistics), or {}.
      apply: ``(params, state, x, train=False, key=None) -> (logits, state)``. With
        ``train`` False the state is returned as it came and the result is
        deterministic. ``key`` feeds dropout.
    """

    init: Callable[[Key], tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]


@functools.cache
def _in_eval_mode(apply: Callable) -> Callable:
    def logits(params, state, x):
        return apply(params, state, x, train=False)[0]

    return logits


def logits_fn(model: Model, params: Params, state: State | None = None) -> LogitsFn:
    """The deterministic function x -> logits that attacks and evaluations take.

    Returns:
      A ``jax.tree_util.Partial``: a pytree whose leaves are the parameters. Passed
      as an argument of a jitted function it does not recompile when they change,
      and stacked parameters can be mapped over by ``vmap``.
    """
    return jax.tree_util.Partial(
        _in_eval_mode(model.apply), params, {} if state is None else state
    )


def from_function(
    init: Callable[[Key], Params], apply: Callable[[Params, Array], Array]
) -> Model:
    """Wraps a stateless network written as two functions.

    Args:
      init: ``key -> params``.
      apply: ``(params, x) -> logits``.
    """

    def with_state(params, state, x, train=False, key=None):
        del train, key
        return apply(params, x), state

    return Model(init=lambda key: (init(key), {}), apply=with_state)


def from_linen(module: Any, example: Array, train_argument: str | None = None) -> Model:
    """Wraps a ``flax.linen`` module.

    Args:
      module: an unbound module.
      example: a batch to initialise with, such as ``jnp.zeros((1, 28, 28, 1))``.
      train_argument: name of the boolean argument of ``module.__call__`` that means
        training, if there is one (often ``train``). A module without one is run the
        same way in both modes.

    Raises:
      ValueError: if the module has no argument of that name.
    """
    import inspect

    if train_argument is not None:
        known = inspect.signature(type(module).__call__).parameters
        if train_argument not in known:
            raise ValueError(
                f'train_argument must be one of {list(known)[1:]}, the arguments of '
                f'{type(module).__name__}, got {train_argument!r}'
            )

    def mode(train: bool) -> dict[str, bool]:
        return {} if train_argument is None else {train_argument: train}

    def init(key):
        variables = dict(module.init(key, example, **mode(False)))
        return variables.pop('params', {}), variables

    def apply(params, state, x, train=False, key=None):
        variables = {'params': params, **state}
        rngs = {} if key is None else {'dropout': key}
        if not (train and state):
            return module.apply(variables, x, rngs=rngs, **mode(train)), state
        logits, state = module.apply(
            variables, x, rngs=rngs, mutable=list(state), **mode(train)
        )
        return logits, dict(state)

    return Model(init=init, apply=apply)


def from_nnx(constructor: Callable[..., Any]) -> Model:
    """Wraps a ``flax.nnx`` module.

    In eval mode BatchNorm uses its running statistics and Dropout is off; the
    module itself is never mutated.

    Args:
      constructor: ``constructor(rngs=nnx.Rngs)`` builds the module, such as the
        class itself or a ``functools.partial`` of it. Constant arrays of the module
        belong into an ``nnx.Variable``, which is kept as state.

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
        # All that is neither trained nor random is state: statistics, constants.
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
        """The module's own random streams, from our key: no hidden state."""

        def renew(path, leaf):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                name = zlib.crc32(jax.tree_util.keystr(path).encode())
                return jax.random.fold_in(key, name & 0x7FFFFFFF)
            return jnp.zeros(leaf.shape, leaf.dtype)

        return jax.tree_util.tree_map_with_path(renew, rest_like)

    def init(key):
        _, params, _, state = split(constructor(rngs=nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(params, state, x, train=False, key=None):
        streams = rest(jax.random.key(0) if key is None else key)
        module = nnx.merge(
            graphs[train], fill(params_like, params), streams, fill(state_like, state)
        )
        logits = module(x)
        if not train:
            return logits, state
        after: Any = split(module)[3]
        return logits, nnx.to_pure_dict(after)

    return Model(init=init, apply=apply)
