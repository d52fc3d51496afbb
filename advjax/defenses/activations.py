"""Changes the activations inside any network with ReLUs, without its code.

The function is traced, its equations are run one by one, and the outputs of ReLUs are
changed. ReLUs inside ``scan``, ``while`` and ``cond`` stay as they are.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jec
import jax.numpy as jnp
import numpy as np

from advjax.types import Array, Key, LogitsFn


def _inner(eqn: jec.JaxprEqn) -> Any:
    """The jaxpr that a call stands for, or None."""
    found = eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
    return found if isinstance(found, jec.ClosedJaxpr) else None


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, jec.Literal) and bool((atom.val == 0).all())


def _is_relu(eqn: jec.JaxprEqn) -> bool:
    """The maximum with zero, or a call of nothing but that (``jax.nn.relu``)."""
    if eqn.primitive.name == 'max':
        return any(_is_zero(atom) for atom in eqn.invars)
    inner = _inner(eqn)
    return inner is not None and [_is_relu(e) for e in inner.eqns] == [True]


def _run(closed: Any, inputs: Sequence[Any], change: Callable) -> list[Any]:
    jaxpr = closed.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jec.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        relu = _is_relu(eqn)
        if eqn.primitive.name in ('jit', 'pjit') and not relu:
            given = [read(atom) for atom in eqn.invars]
            results = _run(eqn.params['jaxpr'], given, change)
        else:
            # A program of this equation alone, so that no primitive is interpreted
            # here.
            needed = list(
                {a: None for a in eqn.invars if not isinstance(a, jec.Literal)}
            )
            alone = jaxpr.replace(
                constvars=needed, invars=[], outvars=eqn.outvars, eqns=[eqn]
            )
            results = jax.core.eval_jaxpr(alone, [known[a] for a in needed])
            results = [change(*results)] if relu else results
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def with_activations(
    logits_fn: LogitsFn, change: Callable[[int, Array], Array]
) -> LogitsFn:
    """The network with ``change(i, activations)`` after its i-th ReLU.

    Args:
      logits_fn: any function of one array with ReLUs in it.
      change: (number of the ReLU in the order of execution, activations) -> an array
        like them.

    Raises:
      ValueError: (when called) if there is no ReLU.
    """

    def changed(x: Array) -> Array:
        seen = []

        def at(activations: Array) -> Array:
            seen.append(1)
            return change(len(seen) - 1, activations)

        (logits,) = _run(jax.make_jaxpr(logits_fn)(x), [x], at)
        if not seen:
            raise ValueError('logits_fn must have a ReLU outside of loops, found none')
        return logits

    return changed


def with_noise(
    logits_fn: LogitsFn, change: Callable[[Array, Array], Array]
) -> Callable[[Key, Array], Array]:
    """A function of (key, x): the network with random activations.

    As ``with_activations``, with ``change(activations, noise)`` for noise of their
    shape, uniform in [0, 1).
    """

    def changed(key: Key, x: Array) -> Array:
        shapes = []

        def note(_: int, h: Array) -> Array:
            shapes.append(h.shape)
            return h

        jax.eval_shape(with_activations(logits_fn, note), x)
        # One draw for all layers: each costs a second to compile.
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        noise = jnp.split(jax.random.uniform(key, (int(ends[-1]),), x.dtype), ends[:-1])

        def at(layer: int, h: Array) -> Array:
            return change(h, noise[layer].reshape(h.shape))

        return with_activations(logits_fn, at)(x)

    return changed
