"""Tests of advjax.convolutions: right values, and nothing slow left in a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.test_util import check_grads

from advjax import convolutions
from advjax.convolutions import canonical, conv_general_dilated, max_pool

NHWC = ('NHWC', 'HWIO', 'NHWC')

pytestmark = pytest.mark.skipif(
    jax.default_backend() != 'cpu', reason='the rewriting is for CPU only'
)


def normal(seed, *shape, scale=1.0):
    # Drawn and stored without a compilation, of which there are enough below.
    values = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return jnp.asarray(values.astype(np.float32))


def assert_close(actual, expected, tolerance=1e-5):
    """Equal up to a fraction of the largest element, leaf by leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        assert jnp.result_type(a) == jnp.result_type(b)
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        scale = np.abs(b).max(initial=0) + 1e-30
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


def equations(jaxpr, inside=()):
    """Yields (equation, names of the equations around it) at every depth."""
    jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
    for eqn in jaxpr.eqns:
        yield eqn, inside
        for value in eqn.params.values():
            for sub in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(sub, 'eqns') or hasattr(sub, 'jaxpr'):
                    yield from equations(sub, (*inside, eqn.primitive.name))


def slow(fun, *args):
    """The slow equations that `fun` contains, by name, with what is around them."""
    found = []
    for eqn, inside in equations(jax.make_jaxpr(fun)(*args)):
        name = eqn.primitive.name
        spec = eqn.params.get('dimension_numbers')
        if name == 'select_and_scatter_add' or (
            name == 'conv_general_dilated'
            and spec != convolutions._fast_spec(len(spec.lhs_spec) - 2)
        ):
            found.append((name, inside))
    return found


# conv_general_dilated


@pytest.mark.parametrize(
    ('kernel', 'strides', 'padding', 'dilation'),
    [
        ((3, 3), (1, 1), 'SAME', (1, 1)),
        ((3, 3), (2, 2), 'SAME', (1, 1)),
        ((5, 4), (2, 3), 'VALID', (1, 1)),
        ((4, 2), (3, 2), ((1, 2), (0, 3)), (1, 1)),
        ((4, 4), (2, 2), ((1, 1), (1, 1)), (1, 1)),
        ((3, 3), (2, 2), ((-1, 0), (2, -2)), (1, 1)),
        ((1, 1), (1, 1), 'VALID', (1, 1)),
        ((1, 1), (2, 3), 'SAME', (1, 1)),
        ((2, 2), (4, 3), 'VALID', (1, 1)),
        ((3, 2), (2, 1), 'SAME', (2, 3)),
        ((3, 3), (3, 2), ((0, 3), (2, 1)), (2, 1)),
        ((9, 8), (1, 1), 'VALID', (1, 1)),
    ],
)
def test_gradients_are_those_of_lax(kernel, strides, padding, dilation):
    x, w = normal(0, 2, 9, 8, 3), normal(1, *kernel, 3, 4)

    def grads(conv):
        def loss(x, w):
            kw = {'rhs_dilation': dilation, 'dimension_numbers': NHWC}
            return jnp.sin(conv(x, w, strides, padding, **kw)).sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, w)

    assert_close(grads(conv_general_dilated), grads(lax.conv_general_dilated), 1e-4)


def test_gradients_without_output_are_zero():
    x, w = normal(0, 2, 3, 3, 1), normal(1, 4, 4, 1, 2)

    def conv(x, w):
        kw = {'dimension_numbers': NHWC}
        return conv_general_dilated(x, w, (1, 1), 'VALID', **kw)

    assert conv(x, w).size == 0
    grads = jax.grad(lambda x, w: conv(x, w).sum(), (0, 1))(x, w)
    assert_close(grads, (jnp.zeros_like(x), jnp.zeros_like(w)))


def test_second_derivatives_are_those_of_lax():
    x, w = normal(0, 2, 7, 7, 2), normal(1, 3, 3, 2, 3)

    def penalty(conv):
        def loss(x, w):
            return (conv(x, w, (2, 2), 'SAME', dimension_numbers=NHWC) ** 3).sum()

        def norm(x, w):
            gx, gw = jax.grad(loss, (0, 1))(x, w)
            return (gx**2).sum() + (gw**2).sum()

        return jax.grad(norm, (0, 1))

    expected = jax.jit(penalty(lax.conv_general_dilated))(x, w)
    assert_close(jax.jit(penalty(conv_general_dilated))(x, w), expected, 1e-4)


def test_input_gradients_stay_fast_at_second_order():
    x, w = normal(0, 2, 7, 7, 2), normal(1, 3, 3, 2, 3)

    def loss(x):
        return (
            conv_general_dilated(x, w, (2, 2), 'SAME', dimension_numbers=NHWC) ** 3
        ).sum()

    penalty = jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())
    assert not slow(penalty, x)


def test_vmap_over_weights():
    x, w = normal(0, 2, 6, 6, 2), normal(1, 3, 3, 3, 2, 4)
    grad = jax.grad(
        lambda w, x: jnp.sin(
            conv_general_dilated(x, w, (2, 2), 'SAME', dimension_numbers=NHWC)
        ).sum(),
        (0, 1),
    )
    expected = [jax.jit(grad)(v, x) for v in w]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *expected)
    assert_close(jax.jit(jax.vmap(grad, (0, None)))(w, x), stacked, 1e-4)


@pytest.mark.parametrize('kind', ['nnx', 'linen'])
def test_serves_flax_layers(kind):
    x = normal(0, 2, 7, 7, 3)

    def grads(conv):
        kw = {'strides': 2, 'padding': 1, 'conv_general_dilated': conv}
        if kind == 'nnx':
            layer = nnx.Conv(3, 5, (3, 3), rngs=nnx.Rngs(0), **kw)
            graph, params = nnx.split(layer)

            def apply(params, x):
                return nnx.merge(graph, params)(x)
        else:
            layer = linen.Conv(5, (3, 3), **kw)
            params, apply = layer.init(jax.random.key(0), x), layer.apply
        grad = jax.grad(lambda params, x: jnp.sin(apply(params, x)).sum(), (0, 1))
        return jax.tree.leaves(jax.jit(grad)(params, x)), slow(grad, params, x)

    ours, ours_slow = grads(conv_general_dilated)
    expected, lax_slow = grads(lax.conv_general_dilated)
    assert_close(ours, expected, 1e-4)
    assert len(lax_slow) == 2
    assert not ours_slow


@pytest.mark.parametrize(
    ('shapes', 'kw'),
    [
        (((2, 6, 6, 4), (3, 3, 2, 4)), {'feature_group_count': 2}),
        (((2, 6, 6, 2), (3, 3, 2, 4)), {'lhs_dilation': (2, 2)}),
        (((2, 6, 6, 2), (3, 3, 2, 4)), {'preferred_element_type': jnp.float32}),
    ],
)
def test_passes_other_convolutions_through(shapes, kw):
    x, w = normal(0, *shapes[0]), normal(1, *shapes[1])
    kw |= {'dimension_numbers': NHWC}

    def run(conv):
        return lambda x: conv(x, w, (1, 1), ((1, 1), (1, 1)), **kw)

    assert_close(run(conv_general_dilated)(x), run(lax.conv_general_dilated)(x), 0)
    # Forward mode tells `lax` from the custom_vjp.
    jax.jvp(run(conv_general_dilated), (x,), (x,))


def test_passes_other_ranks_and_layouts_through():
    x, w = normal(0, 2, 3, 8), normal(1, 4, 3, 3)
    actual = conv_general_dilated(x, w, (1,), 'SAME')
    assert_close(actual, lax.conv_general_dilated(x, w, (1,), 'SAME'), 0)
    x, w = normal(0, 2, 3, 8, 8), normal(1, 4, 3, 3, 3)
    actual = conv_general_dilated(x, w, (1, 1), 'SAME')
    assert_close(actual, lax.conv_general_dilated(x, w, (1, 1), 'SAME'), 0)


# max_pool

POOLS = [
    ((2, 2), (2, 2), 'VALID'),
    ((2, 2), (2, 2), 'SAME'),
    ((3, 3), (2, 2), 'SAME'),
    ((3, 2), None, 'VALID'),
    ((3, 3), (1, 1), ((1, 1), (2, 0))),
    ((2, 2), (3, 3), 'VALID'),
]


@pytest.mark.parametrize(('window', 'strides', 'padding'), POOLS)
@pytest.mark.parametrize('kind', ['normal', 'ties', 'infinite'])
def test_max_pool_is_that_of_flax(window, strides, padding, kind):
    x = normal(0, 2, 7, 9, 3)
    if kind == 'ties':
        x = jnp.round(x)
    if kind == 'infinite':
        # Padding wins against the smallest of all numbers if it comes first.
        x = jnp.where(x < 0.5, -jnp.inf, x)

    @functools.partial(jax.jit, static_argnums=0)
    def run(pool):
        out, vjp = jax.vjp(lambda x: pool(x, window, strides, padding), x)
        return out, vjp(normal(1, *out.shape))[0]

    (out, grad), (flax_out, flax_grad) = run(max_pool), run(nnx.max_pool)
    np.testing.assert_array_equal(out, flax_out)
    # Where windows overlap, the sums differ in their order.
    np.testing.assert_allclose(grad, flax_grad, rtol=0, atol=1e-6)


def test_max_pool_with_a_large_window_is_that_of_lax():
    x = normal(0, 2, 15, 13, 2)
    grad = jax.grad(lambda x, pool: jnp.sin(pool(x, (15, 13))).sum())
    np.testing.assert_array_equal(grad(x, max_pool), grad(x, nnx.max_pool))


def test_max_pool_keeps_nan():
    x = normal(0, 4, 4, 1)
    for place in np.ndindex(2, 2):
        out = max_pool(x.at[place].set(jnp.nan), (2, 2), (2, 2))
        np.testing.assert_array_equal(
            jnp.isnan(out[..., 0]), [[True, False], [False, False]]
        )


def test_max_pool_has_all_derivatives():
    # Spread out, so that finite differences do not change the winner.
    x = jax.random.permutation(jax.random.key(0), jnp.arange(2 * 5 * 5.0))
    x = x.reshape(2, 5, 5, 1) / 25 - 1
    pool = jax.jit(lambda x: max_pool(x, (3, 3), (2, 2), 'SAME') ** 2)
    check_grads(pool, (x,), order=2, eps=1e-2, atol=1e-2, rtol=1e-2)


def test_max_pool_under_vmap():
    x = jnp.round(normal(0, 3, 2, 6, 6, 2))
    grad = jax.grad(lambda x: (max_pool(x, (3, 3), (2, 2), 'SAME') ** 2).sum())
    expected = jnp.stack([jax.jit(grad)(v) for v in x])
    assert_close(jax.jit(jax.vmap(grad))(x), expected, 0)


# canonical


def net(params, x):
    """Strided, padded and dilated convolutions, as anybody would write them."""
    one, two, three, dense = params
    conv = lax.conv_general_dilated
    x = conv(x, one, (1, 1), 'SAME', dimension_numbers=NHWC)
    x = nnx.max_pool(jax.nn.relu(x), (2, 2), (2, 2))
    x = conv(x, two, (2, 2), ((1, 1), (1, 1)), dimension_numbers=NHWC)
    x = nnx.max_pool(jnp.sin(x), (3, 3), (1, 1), 'SAME')
    x = conv(x, three, (1, 1), 'SAME', rhs_dilation=(2, 2), dimension_numbers=NHWC)
    return jnp.tanh(x).reshape(x.shape[0], -1) @ dense


def weights(seed=0, stack=()):
    shapes = (5, 5, 1, 4), (4, 4, 4, 6), (3, 3, 6, 5), (4 * 4 * 5, 3)
    return [
        normal(seed + k, *stack, *shape, scale=np.prod(shape[:-1]) ** -0.5)
        for k, shape in enumerate(shapes)
    ]


X = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)


def loss(params, x):
    return (net(params, x) ** 2).sum()


def test_canonical_net():
    grad = jax.value_and_grad(loss, (0, 1))
    # Three input gradients, three weight gradients, two pools.
    assert len(slow(grad, weights(), X)) == 8
    assert not slow(canonical(grad), weights(), X)
    expected = jax.jit(grad)(weights(), X)
    assert_close(jax.jit(canonical(grad))(weights(), X), expected)


def test_canonical_without_slow_equations_is_the_function():
    calls = []

    def fun(x):
        calls.append(type(x))
        return x * 2

    x = jnp.ones(3)
    assert_close(canonical(fun)(x), 2 * x)
    assert len(calls) == 2

    def forward(x):
        return net(weights(), x)

    assert str(jax.make_jaxpr(canonical(forward))(X)) == str(jax.make_jaxpr(forward)(X))


def test_canonical_on_other_devices_is_the_function(monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert len(slow(canonical(jax.grad(loss, 1)), weights(), X)) == 5


def ascend(gradient, params, x, steps=4):
    def step(x, _):
        value, grad = gradient(params, x)
        return x + 0.1 * grad / jnp.abs(grad).max(), value

    return lax.scan(step, x, length=steps)


def test_canonical_inside_scan():
    """The case it is for, down to the program that XLA runs."""
    grad = jax.value_and_grad(loss, 1)
    stock = jax.jit(lambda p, x: ascend(grad, p, x)).lower(weights(), X).compile()
    ours = (
        jax.jit(lambda p, x: ascend(canonical(grad), p, x))
        .lower(weights(), X)
        .compile()
    )
    assert_close(ours(weights(), X), stock(weights(), X), 1e-4)

    def layouts(compiled):
        lines = [x for x in compiled.as_text().splitlines() if 'dim_labels=' in x]
        assert lines
        return {x.split('dim_labels=')[1].split(',')[0].split()[0] for x in lines}

    assert 'b01f_01oi->b01f' in layouts(stock)
    assert layouts(ours) == {'b01f_01io->b01f'}


def test_canonical_keeps_static_arguments_and_results():
    def fun(x, scale, mode, *, power):
        assert mode == 'grad'
        assert isinstance(scale, float)
        value = jax.grad(lambda x: loss(weights(), x) * scale**power)(x)
        return {'g': value, 'none': None, 'number': 3, 'same': x, 'w': (scale, mode)}

    x = jnp.asarray(X)
    actual = canonical(fun)(x, 0.5, 'grad', power=2)
    expected = fun(x, 0.5, 'grad', power=2)
    assert actual['number'] == 3
    assert actual['w'] == (0.5, 'grad')
    assert actual['same'] is x
    assert_close(actual['g'], expected['g'])
    assert jax.tree.structure(actual) == jax.tree.structure(expected)


def test_canonical_keeps_aux_and_types():
    def fun(x):
        value = loss(weights(), x.astype(jnp.float32))
        return value, {'logits': net(weights(), x), 'weak': value * 0 + 1, 'int': 3}

    grad = jax.value_and_grad(fun, has_aux=True)
    half = jnp.asarray(X, jnp.bfloat16)
    low = [w.astype(jnp.bfloat16) for w in weights()]
    assert_close(jax.jit(canonical(grad))(X), jax.jit(grad)(X))
    grad = jax.grad(lambda p, x: loss(p, x).astype(jnp.float32), (0, 1))
    assert_close(jax.jit(canonical(grad))(low, half), jax.jit(grad)(low, half), 0.05)
    shapes = jax.eval_shape(grad, low, half), jax.eval_shape(canonical(grad), low, half)
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('inner', [True, False])
def test_canonical_with_stacked_models(inner):
    """Parameters that are mapped, from outside or by the function itself."""
    params = weights(stack=(3,))

    def run(wrap):
        if inner:
            losses = jax.vmap(loss, (0, None))
            return wrap(jax.grad(lambda *args: losses(*args).sum(), (0, 1)))(params, X)
        return jax.vmap(lambda p: wrap(jax.grad(lambda x: loss(p, x)))(jnp.asarray(X)))(
            params
        )

    assert_close(jax.jit(lambda: run(canonical))(), jax.jit(lambda: run(lambda f: f))())
    assert slow(lambda: run(lambda f: f))
    assert not slow(lambda: run(canonical))


def test_canonical_closes_over_tracers_of_every_transformation():
    def outer(wrap, params, x):
        def step(x, eps):
            grad = wrap(jax.grad(lambda x: loss(params, x) * eps))
            return x + eps * grad(x), None

        return lax.scan(step, x, jnp.array([0.1, 0.2]))[0].sum()

    def run(wrap):
        grad = jax.grad(lambda p, x: outer(wrap, p, x), (0, 1))
        return jax.jit(jax.vmap(grad, (None, 0)))(weights(), X[:, None])

    assert_close(run(canonical), run(lambda f: f), 1e-4)


@jax.custom_jvp
def clipped(x):
    return conv(x)


clipped.defjvp(lambda primals, tangents: (conv(*primals), 2 * conv(*tangents)))


@jax.custom_vjp
def scaled(x):
    return conv(x)


scaled.defvjp(lambda x: (conv(x), x), lambda x, g: (3 * jax.vjp(conv, x)[1](g)[0],))


def conv(x):
    # NCHW, so that it is slow before it is differentiated.
    kernel = normal(7, 1, 1, 3, 3)
    x = lax.conv_general_dilated(x.transpose(0, 3, 1, 2), kernel, (1, 1), 'SAME')
    return x.transpose(0, 2, 3, 1)


BODIES = {
    'jit': jax.jit(conv),
    'remat': jax.checkpoint(conv),
    'custom_jvp': clipped,
    'custom_vjp': scaled,
    'scan': lambda x: lax.scan(lambda x, s: (conv(x) * s, s), x, jnp.ones(2))[0],
    'while': lambda x: lax.while_loop(
        lambda c: (conv(c[1]).sum() < 1e9) & (c[0] < 2),
        lambda c: (c[0] + 1, conv(c[1])),
        (0, x),
    )[1],
    'cond': lambda x: lax.cond(x.sum() > 0, conv, lambda x: conv(-x), x),
    'switch': lambda x: lax.switch(1, [conv, jnp.sin, conv], x) + conv(x),
    'nested': lambda x: jax.jit(
        lambda x: lax.scan(lambda x, _: (jax.checkpoint(conv)(x), None), x, length=2)
    )(x)[0],
}


@pytest.mark.parametrize('name', BODIES)
def test_canonical_reaches_into_bodies(name):
    body, x = BODIES[name], jnp.asarray(X)
    assert slow(body, x)
    assert not slow(canonical(body), x)
    assert_close(jax.jit(canonical(body))(x), jax.jit(body)(x))
    if name == 'while':
        return
    # The gradient of the result (custom rules are kept), and that of the gradient.
    grad = jax.grad(lambda x: jnp.sin(body(x)).sum())
    outer = jax.grad(lambda x: jnp.sin(canonical(body)(x)).sum())
    expected = jax.jit(grad)(x)
    assert_close(jax.jit(outer)(x), expected)
    assert slow(grad, x)
    assert not slow(canonical(grad), x)
    assert_close(jax.jit(canonical(grad))(x), expected)


def test_canonical_in_forward_mode_and_twice():
    x, t = jnp.asarray(X), normal(3, *X.shape)
    grad = jax.grad(lambda x: loss(weights(), x))

    def product(wrap):
        return jax.jit(lambda x: jax.jvp(wrap(grad), (x,), (t,)))

    assert_close(product(canonical)(x), product(lambda f: f)(x), 1e-4)
    assert not slow(canonical(product(canonical)), x)
    assert_close(canonical(product(canonical))(x), product(lambda f: f)(x), 1e-4)


def test_canonical_keeps_effects(capfd):
    def fun(x):
        jax.debug.print('once {}', x.shape[0])
        return jax.grad(lambda x: loss(weights(), x))(x)

    jax.block_until_ready(jax.jit(canonical(fun))(X))
    jax.effects_barrier()
    assert capfd.readouterr().out.count('once 3') == 1


@pytest.mark.parametrize('groups', [2, 4])
def test_canonical_grouped(groups):
    x, w = normal(0, 3, 7, 7, 4), normal(1, 3, 3, 4 // groups, 4)

    def fun(x, w):
        kw = {'dimension_numbers': NHWC, 'feature_group_count': groups}
        return jnp.sin(lax.conv_general_dilated(x, w, (2, 1), 'SAME', **kw)).sum()

    grad = jax.grad(fun, (0, 1))
    assert_close(jax.jit(canonical(grad))(x, w), jax.jit(grad)(x, w))
    # Depthwise input gradients are better left alone.
    assert len(slow(grad, x, w)) == 2
    assert len(slow(canonical(grad), x, w)) == (groups == 4)


def test_canonical_leaves_batch_groups_alone():
    x, w = normal(0, 4, 3, 7, 7), normal(1, 6, 3, 2, 2)

    def fun(x, w):
        # The first is left as it is, beside one that is rewritten.
        grouped = lax.conv_general_dilated(x, w, (1, 1), 'SAME', batch_group_count=2)
        return grouped, lax.conv_general_dilated(x, w, (1, 1), 'SAME')

    assert len(slow(canonical(fun), x, w)) == 1
    assert_close(jax.jit(canonical(fun))(x, w), jax.jit(fun)(x, w))


@pytest.mark.parametrize('spatial', [1, 3])
@pytest.mark.parametrize('layout', ['first', 'last'])
def test_canonical_in_other_dimensions(spatial, layout):
    axes = 'DHW'[:spatial]
    x, w = normal(0, 2, *(6, 5, 7)[:spatial], 3), normal(1, *(3,) * spatial, 3, 4)
    names = (f'N{axes}C', f'{axes}IO', f'N{axes}C')
    if layout == 'first':
        x, w = jnp.moveaxis(x, -1, 1), jnp.moveaxis(w, (-1, -2), (0, 1))
        names = (f'NC{axes}', f'OI{axes}', f'NC{axes}')

    def fun(x, w):
        strides = (2, 1, 1)[:spatial]
        out = lax.conv_general_dilated(x, w, strides, 'SAME', dimension_numbers=names)
        return jnp.sin(out).sum()

    grad = jax.value_and_grad(fun, (0, 1))
    assert_close(jax.jit(canonical(grad))(x, w), jax.jit(grad)(x, w))
    assert not slow(canonical(grad), x, w)


@pytest.mark.parametrize(
    ('kernel', 'strides', 'padding'),
    [
        ((1, 1), (1, 1), 'SAME'),
        ((1, 1), (3, 2), 'VALID'),
        ((4, 3), (3, 2), 'SAME'),
        ((4, 3), (1, 2), ((0, 3), (2, -1))),
        ((9, 8), (1, 1), 'VALID'),
        ((9, 8), (1, 1), 'SAME'),
    ],
)
def test_canonical_gradients(kernel, padding, strides):
    x, w = normal(0, 2, 9, 8, 3), normal(1, *kernel, 3, 20)

    def fun(x, w):
        kw = {'dimension_numbers': NHWC}
        return jnp.sin(lax.conv_general_dilated(x, w, strides, padding, **kw)).sum()

    grad = jax.grad(fun, (0, 1))
    assert_close(jax.jit(canonical(grad))(x, w), jax.jit(grad)(x, w))


@pytest.mark.parametrize(('window', 'strides', 'padding'), POOLS)
def test_canonical_pools(window, strides, padding):
    x = jnp.round(2 * normal(0, 2, 7, 9, 3)) / 2
    # Rounded for ties; some windows hold a NaN, some nothing but -inf.
    x = x.at[0, 2, 2].set(jnp.nan).at[1, :4, :4].set(-jnp.inf)
    weight = normal(1, *nnx.max_pool(x, window, strides, padding).shape)

    def fun(x):
        pool = functools.partial(nnx.max_pool, window_shape=window, strides=strides)
        return jax.vjp(lambda x: pool(x, padding=padding), x)[1](weight)[0]

    assert slow(fun, x)
    assert not slow(canonical(fun), x)
    actual, expected = jax.jit(canonical(fun))(x), jax.jit(fun)(x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_canonical_under_shard_map():
    mesh = jax.make_mesh((1,), ('i',), axis_types=(jax.sharding.AxisType.Auto,))
    grad = jax.grad(lambda x: loss(weights(), x))
    spec = jax.sharding.PartitionSpec('i')

    def run(wrap):
        kw = {'mesh': mesh, 'in_specs': spec, 'out_specs': spec}
        return jax.jit(jax.shard_map(wrap(grad), **kw))

    assert slow(run(lambda f: f), X)
    assert not slow(run(canonical), X)
    assert_close(run(canonical)(X), jax.jit(grad)(X))
