"""Convolutions and pools in the form that XLA:CPU runs fast, also inside loops.

XLA:CPU has one fast layout of convolutions: batch and features at the ends of the
operand (`b01f`), input then output features at the end of the kernel (`01io`). It
brings others into that layout at the top level of a program only, never in the body of
a `scan` or `while` (jax issue 12868). The gradients of a convolution have other
layouts, so an attack or a training loop that is scanned is 10 to 100 times slower than
its body. The gradient of max-pooling, `select_and_scatter_add`, is slow everywhere.
There are two remedies:

- `conv_general_dilated` and `max_pool` are for networks written with them. Their
  gradients are *written* in the fast layout.
- `canonical` is for all other networks. It rewrites the jaxpr of a function, usually of
  `jax.value_and_grad(objective)`, equation by equation, after differentiation, so it
  requires nothing of the model.

The rewriting replaces single equations by calls with the same inputs and outputs, and
keeps everything else. So it needs no interpreter: literals, effects, contexts and
custom derivatives are not touched.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jec
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ['canonical', 'conv_general_dilated', 'max_pool']

# A convolution with few output positions is a few large matrix products. The bound
# keeps the program small; the weight gradient of an 11 x 11 kernel stays below it.
_MAX_POSITIONS = 128

# A matrix product with fewer rows is limited by reading the other matrix.
_MIN_ROWS = 16

# Pools with larger windows stay as they are: the program grows with the window.
_MAX_WINDOW = 25

# The primitives that only run their jaxprs. All others stay untouched, and so do the
# rules of custom derivatives, which are functions.
_CALLS = {
    *('jit', 'pjit', 'closed_call', 'remat2', 'checkpoint', 'scan', 'while', 'cond'),
    *('custom_jvp_call', 'custom_vjp_call'),
}


def _fast_spec(spatial: int) -> lax.ConvDimensionNumbers:
    """The fast layout of XLA:CPU: `b01f_01io->b01f` in two dimensions."""
    image = (0, spatial + 1, *range(1, spatial + 1))
    return lax.ConvDimensionNumbers(
        image, (spatial + 1, spatial, *range(spatial)), image
    )


class _Window(NamedTuple):
    """The geometry of a convolution: hashable, so it can be static."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    precision: Any


def _by_position(
    lhs: jax.Array,
    rhs: jax.Array,
    window: _Window,
    spec: lax.ConvDimensionNumbers,
    batch_groups: int = 1,
    preferred_element_type: Any = None,
) -> jax.Array:
    """A convolution as a matrix product per output position.

    It is fast where the kernel is large and the output small, as in a weight gradient,
    whose kernel is the cotangent and whose output is the weight.
    """
    strides, padding, lhs_dilation, rhs_dilation, precision = window
    # Now (group, batch, features, *spatial) and (group, out, in, *spatial).
    lhs, rhs = lhs.transpose(spec.lhs_spec), rhs.transpose(spec.rhs_spec)
    lhs = lhs.reshape(batch_groups, -1, *lhs.shape[1:])
    rhs = rhs.reshape(batch_groups, -1, *rhs.shape[1:])
    config, reach, out = [(0, 0, 0)] * 3, [], []
    for k, (low, high) in enumerate(padding):
        config.append((low, high, lhs_dilation[k] - 1))
        size = (lhs.shape[3 + k] - 1) * lhs_dilation[k] + 1 + low + high
        reach.append((rhs.shape[3 + k] - 1) * rhs_dilation[k] + 1)
        out.append((size - reach[k]) // strides[k] + 1)
    lhs = lax.pad(lhs, jnp.zeros((), lhs.dtype), config)
    slices = []
    for position in np.ndindex(*out):
        start = [p * s for p, s in zip(position, strides, strict=True)]
        limit = [p + r for p, r in zip(start, reach, strict=True)]
        start, limit = (0, 0, 0, *start), (*lhs.shape[:3], *limit)
        slices.append(lax.slice(lhs, start, limit, (1, 1, 1, *rhs_dilation)))
    batch, contracted = lhs.shape[1], tuple(range(2, lhs.ndim))
    chunk = -(-_MIN_ROWS // batch)
    products = [
        lax.dot_general(
            lax.concatenate(slices[k : k + chunk], 1),
            rhs,
            ((contracted, contracted), ((0,), (0,))),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
        for k in range(0, len(slices), chunk)
    ]
    # (group, position * batch, out) becomes (batch, group * out, *position).
    result = lax.concatenate(products, 1)
    result = result.reshape(batch_groups, len(slices), batch, -1)
    result = result.transpose(2, 0, 3, 1).reshape(batch, -1, *out)
    return result.transpose(np.argsort(spec.out_spec))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(lhs: jax.Array, rhs: jax.Array, window: _Window) -> jax.Array:
    spec, precision = _fast_spec(2), window.precision
    return lax.conv_general_dilated(lhs, rhs, *window[:4], spec, precision=precision)


def _conv_forward(lhs, rhs, window):
    return _conv(lhs, rhs, window), (lhs, rhs)


def _conv_backward(window, residuals, cotangent):
    lhs, rhs = residuals
    if not cotangent.size:
        return jnp.zeros_like(lhs), jnp.zeros_like(rhs)
    strides, padding, lhs_dilation, rhs_dilation, precision = window
    to_lhs, to_rhs = [], []
    for k in range(2):
        reach = (rhs.shape[k] - 1) * rhs_dilation[k] + 1
        size = (lhs.shape[1 + k] - 1) * lhs_dilation[k] + 1
        out = (cotangent.shape[1 + k] - 1) * strides[k] + 1
        low = padding[k][0]
        # Not the mirrored padding of the forward pass: a stride that does not divide
        # leaves input pixels after the last window, whose gradients are zeros.
        to_lhs.append((reach - 1 - low, size + low - out))
        to_rhs.append((low, out + reach - 1 - size - low))
    lhs_bar = _conv(
        cotangent,
        rhs[::-1, ::-1].swapaxes(2, 3),
        _Window(lhs_dilation, tuple(to_lhs), strides, rhs_dilation, precision),
    )
    rhs_bar = _by_position(
        lhs,
        cotangent,
        _Window(rhs_dilation, tuple(to_rhs), lhs_dilation, strides, precision),
        lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1)),
    )
    return lhs_bar, rhs_bar


_conv.defvjp(_conv_forward, _conv_backward)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kw: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` with gradients that are fast in loops on CPU.

    Arguments and result are those of `lax.conv_general_dilated`. Plain 2-D
    convolutions, NHWC by HWIO without groups, get gradients in the fast layout; all
    others, and all on other devices, are passed on to `lax`. It is made for flax:
    `nnx.Conv(..., conv_general_dilated=conv_general_dilated)`, or linen's. Reverse mode
    works to any order; forward mode (`jax.jvp`, `jax.linearize`, `jax.hessian`) does
    not, since the gradient is a `custom_vjp`.
    """
    spec = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        jax.default_backend() == 'cpu'
        and spec == _fast_spec(2)
        and feature_group_count == batch_group_count == 1
        and all(d == 1 for d in lhs_dilation or ())
        and all(value is None for value in (preferred_element_type, *kw.values()))
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and lhs.dtype == rhs.dtype
        and 0 not in lhs.shape + rhs.shape
    )
    if not plain:
        groups = feature_group_count, batch_group_count
        dilations = lhs_dilation, rhs_dilation
        types = precision, preferred_element_type
        args = window_strides, padding, *dilations, dimension_numbers, *groups, *types
        return lax.conv_general_dilated(lhs, rhs, *args, **kw)
    strides, dilation = tuple(window_strides), tuple(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        sizes = zip(rhs.shape[:2], dilation, strict=True)
        reach = [(n - 1) * d + 1 for n, d in sizes]
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, strides, padding)
    padding = tuple((low, high) for low, high in padding)
    return _conv(lhs, rhs, _Window(strides, padding, (1, 1), dilation, precision))


class _Pool(NamedTuple):
    """The geometry of a pooling, for all axes of the images."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


def _taps(x: jax.Array, pool: _Pool, fill: float) -> Iterator[jax.Array]:
    """For every offset within a window, its elements of all windows."""
    window, strides, padding = pool
    config = [(low, high, 0) for low, high in padding]
    x = lax.pad(x, jnp.array(fill, x.dtype), config)
    last = [(n - w) // s * s for n, w, s in zip(x.shape, window, strides, strict=True)]
    for offset in np.ndindex(*window):
        limit = [o + n + 1 for o, n in zip(offset, last, strict=True)]
        yield lax.slice(x, offset, limit, strides)


def _winners(
    x: jax.Array,
    pool: _Pool,
    beats: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The element of every window that no later one `beats`, and its offset."""
    # Padding is -inf and wins a window that has nothing larger: as in `lax`.
    best, *others = _taps(x, pool, -jnp.inf)
    index = jnp.zeros(best.shape, jnp.int8)
    for k, tap in enumerate(others, 1):
        take = beats(tap, best)
        best = jnp.where(take, tap, best)
        index = jnp.where(take, jnp.int8(k), index)
    # Without the barrier XLA recomputes the chain for every tap of the gradient.
    return best, lax.optimization_barrier(index)


def _collect(x: jax.Array, index: jax.Array, pool: _Pool) -> jax.Array:
    """The elements at the given offsets; its transpose is the gradient of a pool."""
    zero = jnp.zeros((), x.dtype)
    taps = enumerate(_taps(x, pool, 0.0))
    return functools.reduce(jnp.add, (jnp.where(index == k, t, zero) for k, t in taps))


def _greater(new: jax.Array, best: jax.Array) -> jax.Array:
    return (new > best) | (new != new)


def _not_less(new: jax.Array, best: jax.Array) -> jax.Array:
    # What `select_and_scatter_add` does with `ge`, also where there are NaNs.
    return ~(best >= new)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, pool: _Pool) -> jax.Array:
    return _winners(x, pool, _greater)[0]


@_max_pool.defjvp
def _max_pool_jvp(pool, primals, tangents):
    best, index = _winners(primals[0], pool, _greater)
    return best, _collect(tangents[0], index, pool)


def max_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = 'VALID',
) -> jax.Array:
    """`flax.nnx.max_pool` from strided slices, with a fast gradient.

    The arguments are those of flax. The gradient of a window goes to the first of its
    largest elements, as with `lax.reduce_window`. A NaN makes its window NaN; then the
    gradient goes to the last NaN, where `lax` takes the largest element after it.
    """
    batch = x.ndim - len(window_shape) - 1
    strides = (1,) * len(window_shape) if strides is None else tuple(strides)
    window = (1,) * batch + tuple(window_shape) + (1,)
    strides = (1,) * batch + strides + (1,)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape, window, strides, padding)
    else:
        padding = ((0, 0),) * batch + tuple(padding) + ((0, 0),)
    padding = tuple((low, high) for low, high in padding)
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if not floating or math.prod(window) > _MAX_WINDOW:
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
    return _max_pool(x, _Pool(window, strides, padding))


_WINDOW_PARAMS = {key: key for key in _Window._fields} | {'strides': 'window_strides'}


def _avals(eqn: jec.JaxprEqn) -> list[Any]:
    return [v.aval for v in (*eqn.invars, *eqn.outvars)]


def _conv_rule(eqn: jec.JaxprEqn) -> Callable | None:
    params, (lhs, rhs, out) = eqn.params, _avals(eqn)
    spec = params['dimension_numbers']
    spatial = lhs.ndim - 2
    fast = _fast_spec(spatial)
    groups, batch_groups = params['feature_group_count'], params['batch_group_count']
    if spec == fast or spatial == 0 or 0 in lhs.shape + rhs.shape + out.shape:
        return None
    window = _Window(**{key: params[name] for key, name in _WINDOW_PARAMS.items()})
    dtype = params['preferred_element_type']
    positions = math.prod(out.shape[axis] for axis in spec.out_spec[2:])
    kernel = math.prod(rhs.shape[axis] for axis in spec.rhs_spec[2:])
    if groups == 1 and positions <= min(kernel, _MAX_POSITIONS):
        return lambda lhs, rhs: _by_position(
            lhs, rhs, window, spec, batch_groups, dtype
        )
    if batch_groups > 1 or (groups > 1 and rhs.shape[spec.rhs_spec[1]] == 1):
        # Depthwise convolutions are slow in the fast form and fast in others.
        return None

    def transposed(lhs, rhs):
        out = lax.conv_general_dilated(
            lhs.transpose(spec.lhs_spec).transpose(np.argsort(fast.lhs_spec)),
            rhs.transpose(spec.rhs_spec).transpose(np.argsort(fast.rhs_spec)),
            *window[:4],
            fast,
            groups,
            precision=window.precision,
            preferred_element_type=dtype,
        )
        return out.transpose(fast.out_spec).transpose(np.argsort(spec.out_spec))

    return transposed


def _scatter_rule(eqn: jec.JaxprEqn) -> Callable | None:
    params, (source, _, out) = eqn.params, _avals(eqn)
    window = tuple(params['window_dimensions'])
    if (
        params['select_prim'].name != 'ge'
        or not jnp.issubdtype(out.dtype, jnp.floating)
        or math.prod(window) > _MAX_WINDOW
        or 0 in source.shape
    ):
        return None
    pool = _Pool(window, tuple(params['window_strides']), tuple(params['padding']))

    def scatter(source, operand):
        _, index = _winners(operand, pool, _not_less)
        collect = functools.partial(_collect, index=index, pool=pool)
        return jax.linear_transpose(collect, operand)(source)[0]

    return scatter


_RULES = {
    'conv_general_dilated': _conv_rule,
    'select_and_scatter_add': _scatter_rule,
}


def _replace(eqn: jec.JaxprEqn, rule: Callable) -> jec.JaxprEqn:
    """The equation as a call of `rule`, if inputs and output are of the same types."""
    jaxpr = jax.make_jaxpr(jax.jit(rule))(*(v.aval for v in eqn.invars)).jaxpr
    call = jaxpr.eqns[0]
    same = (
        len(jaxpr.eqns) == 1
        and list(call.invars) == list(jaxpr.invars)
        and call.outvars[0].aval == eqn.outvars[0].aval
    )
    if not same:
        return eqn
    return call.replace(
        invars=eqn.invars,
        outvars=eqn.outvars,
        source_info=eqn.source_info,
        ctx=eqn.ctx,
    )


def _rewrite_eqn(eqn: jec.JaxprEqn) -> jec.JaxprEqn:
    name = eqn.primitive.name
    if name in _RULES:
        avals = (v.aval for v in eqn.outvars)
        shardings = (a.sharding for a in avals if isinstance(a, jax.core.ShapedArray))
        if any(axis is not None for s in shardings if s for axis in s.spec):
            # Explicitly sharded arrays have types that every rule would have to handle.
            return eqn
        rule = _RULES[name](eqn)
        return eqn if rule is None else _replace(eqn, rule)
    params = dict(eqn.params) if name in _CALLS else {}
    changed = False
    for key, old in params.items():
        jaxprs = old if isinstance(old, tuple) else (old,)
        if jaxprs and all(isinstance(j, (jec.Jaxpr, jec.ClosedJaxpr)) for j in jaxprs):
            new = tuple(_rewrite(j) for j in jaxprs)
            changed |= any(a is not b for a, b in zip(new, jaxprs, strict=True))
            params[key] = new if isinstance(old, tuple) else new[0]
    return eqn.replace(params=params) if changed else eqn


def _rewrite(jaxpr: Any) -> Any:
    """The jaxpr with its slow equations replaced; the same object if it has none."""
    if not isinstance(jaxpr, jec.Jaxpr):
        # JAX before 0.12 wraps an open jaxpr in a closed one.
        inner = _rewrite(jaxpr.jaxpr)
        return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
    eqns = [_rewrite_eqn(eqn) for eqn in jaxpr.eqns]
    same = all(a is b for a, b in zip(eqns, jaxpr.eqns, strict=True))
    return jaxpr if same else jaxpr.replace(eqns=eqns)


def canonical(fun: Callable) -> Callable:
    """Rewrites what XLA:CPU runs slowly in loops, in any pure function, to be fast.

    Convolutions get the fast layout, weight gradients become matrix products, and
    gradients of max-pools become selections. The values stay those of `fun`, up to
    rounding. It is meant for a function that is about to be scanned:

        gradient = canonical(jax.value_and_grad(objective))
        x, _ = lax.scan(lambda x, _: (x + step * gradient(x)[1], None), x, length=10)

    Differentiate inside, as above: the gradient *of* a canonical function is right,
    but its convolutions are those of `lax` again, so wrap it once more. On other
    devices than CPU, and where there is nothing to rewrite, this is `fun`. `fun` may
    close over tracers, and the result can be transformed as `fun` can.
    """

    @functools.wraps(fun)
    def wrapped(*args, **kwargs):
        if jax.default_backend() != 'cpu':
            return fun(*args, **kwargs)
        result: Any = None

        def traced():
            # Only arrays pass through the jaxpr; other leaves, such as Python numbers,
            # are returned as they are.
            nonlocal result
            leaves, treedef = jax.tree.flatten(fun(*args, **kwargs))
            arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
            rest = [None if isinstance(x, jax.Array) else (x,) for x in leaves]
            result = treedef, rest
            return arrays

        # The arguments are closed over, like everything else that `fun` reads.
        closed = jax.make_jaxpr(traced)()
        jaxpr = _rewrite(closed.jaxpr)
        if jaxpr is closed.jaxpr:
            return fun(*args, **kwargs)
        arrays = iter(jax.core.eval_jaxpr(jaxpr, closed.consts))
        treedef, rest = result
        leaves = [next(arrays) if other is None else other[0] for other in rest]
        return jax.tree.unflatten(treedef, leaves)

    return wrapped
