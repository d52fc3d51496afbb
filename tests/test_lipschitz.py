"""Operator norms against matrices written out in NumPy, and the product bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, certify, l2, models, zoo

KEY = jax.random.key(0)


def pads_by_hand(padding, kernel, size, stride):
    """(low, high) of one axis, from the definition of each kind of padding."""
    if padding == 'VALID':
        return 0, 0
    if padding == 'SAME':
        need = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return need // 2, need - need // 2
    return padding


def matrix_by_hand(kernel, shape, stride, padding):
    """The matrix of a convolution, entry by entry: no library convolution involved."""
    kh, kw, cin, cout = kernel.shape
    height, width = shape
    circular = padding == 'CIRCULAR'
    if circular:
        low, out = (0, 0), (height // stride, width // stride)
    else:
        p = [
            pads_by_hand(padding if isinstance(padding, str) else padding[a],
                         kernel.shape[a], shape[a], stride)
            for a in range(2)
        ]  # fmt: skip
        low = [p[0][0], p[1][0]]
        out = [(shape[a] + sum(p[a]) - kernel.shape[a]) // stride + 1 for a in range(2)]
    matrix = np.zeros((*out, cout, height, width, cin))
    for i, j, a, b in np.ndindex(*out, kh, kw):
        r, c = i * stride + a - low[0], j * stride + b - low[1]
        if circular:
            r, c = r % height, c % width
        elif not (0 <= r < height and 0 <= c < width):
            continue
        matrix[i, j, :, r, c, :] += kernel[a, b].T
    return matrix.reshape(np.prod(out) * cout, -1)


def kernel_of(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def top(matrix):
    return np.linalg.svd(matrix, compute_uv=False)[0]


CASES = [
    # kernel height, width, C_in, C_out, image, stride, padding
    (3, 3, 2, 3, (6, 5), 1, 'SAME'),
    (3, 3, 2, 3, (6, 6), 2, 'SAME'),
    (4, 4, 1, 3, (6, 6), 2, ((1, 1), (1, 1))),
    (5, 3, 2, 2, (7, 6), 3, 'VALID'),
    (2, 2, 1, 2, (5, 5), 3, 'VALID'),
    (5, 5, 1, 2, (2, 3), 1, 'SAME'),
    (1, 1, 3, 2, (3, 3), 1, ((2, 2), (1, 0))),
    (3, 2, 1, 1, (4, 4), 1, ((3, 0), (0, 3))),
]
CIRCULAR = [
    (3, 3, 2, 3, (6, 5), 1),
    (4, 4, 2, 3, (6, 6), 2),
    (3, 2, 2, 5, (6, 9), 3),
    (5, 5, 2, 2, (4, 4), 2),  # The kernel meets itself on the circle.
]


@pytest.mark.parametrize('case', CIRCULAR, ids=str)
def test_circular_norm_is_exact(case):
    *dims, shape, stride = case
    kernel = kernel_of(*dims)
    found = certify.conv_norm(jnp.asarray(kernel), shape, stride, 'CIRCULAR')
    expected = top(matrix_by_hand(kernel, shape, stride, 'CIRCULAR'))
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_zero_padding_is_bounded_and_not_wildly(case):
    *dims, shape, stride, padding = case
    for seed in range(3):
        kernel = kernel_of(*dims, seed=seed)
        bound = certify.conv_norm(jnp.asarray(kernel), shape, stride, padding)
        exact = top(matrix_by_hand(kernel, shape, stride, padding))
        assert exact <= bound * (1 + 1e-5)
        # The crudest bound there is: all of the kernel as one vector per stride.
        assert bound <= np.sqrt(np.prod(dims[:2])) * np.linalg.norm(kernel) * (1 + 1e-5)


def test_zero_padding_bound_closes_on_large_images():
    kernel = kernel_of(3, 3, 1, 2)
    gaps = []
    for size in (4, 8, 16):
        bound = certify.conv_norm(jnp.asarray(kernel), (size, size))
        gaps.append(bound / top(matrix_by_hand(kernel, (size, size), 1, 'SAME')) - 1)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.03


def test_stride_needs_the_aliased_blocks():
    """Frequencies that a stride folds together add up: 2, where each alone has 1."""
    kernel = jnp.ones((1, 1, 4, 1)) / 2  # Sums four channels: norm 1 at any stride.
    np.testing.assert_allclose(certify.conv_norm(kernel, (4, 4), 2), 1, rtol=1e-6)
    # A 2 x 2 box of ones, stride 2: disjoint windows, each a vector of length 2.
    box = jnp.ones((2, 2, 1, 1))
    np.testing.assert_allclose(
        certify.conv_norm(box, (8, 8), 2, 'VALID'), 2, rtol=1e-6
    )  # fmt: skip
    # Overlapping, the constant image is multiplied by 4.
    np.testing.assert_allclose(
        certify.conv_norm(box, (8, 8), 1, 'CIRCULAR'), 4, rtol=1e-6
    )


@pytest.mark.parametrize('case', CASES[:4], ids=str)
def test_conv_layer_is_that_matrix(case):
    *dims, shape, stride, padding = case
    kernel = kernel_of(*dims)
    layer = certify.conv(jnp.asarray(kernel), None, stride, padding)
    found = certify.matrix_of(layer.linear, (*shape, dims[2]))
    np.testing.assert_allclose(
        found, matrix_by_hand(kernel, shape, stride, padding), atol=1e-6
    )


def test_circular_layer_is_that_matrix_up_to_a_shift():
    kernel = kernel_of(3, 2, 2, 2)
    layer = certify.conv(jnp.asarray(kernel), strides=2, padding='CIRCULAR')
    found = np.asarray(certify.matrix_of(layer.linear, (4, 6, 2)))
    by_hand = matrix_by_hand(kernel, (4, 6), 2, 'CIRCULAR').reshape(-1, 4, 6, 2)
    by_hand = np.roll(by_hand, (-1, 0), (1, 2)).reshape(found.shape)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)


def test_power_iteration_is_the_norm_of_the_padded_map():
    kernel = kernel_of(3, 3, 2, 3)
    layer = certify.conv(jnp.asarray(kernel))
    exact = top(matrix_by_hand(kernel, (6, 5), 1, 'SAME'))
    power = jax.jit(
        functools.partial(certify.power_norm, layer.linear, (6, 5, 2), steps=100)
    )
    found = [float(power(jax.random.key(s))) for s in range(3)]
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    assert max(found) <= exact * (1 + 1e-5)


def test_power_iteration_rises_to_the_norm():
    matrix = jnp.diag(jnp.array([1.0, 0.99, 0.5]))
    one, many = (
        float(certify.power_norm(lambda v: v @ matrix, (3,), KEY, steps, vectors=1))
        for steps in (1, 300)
    )
    assert one < many <= 1 + 1e-6
    assert many == pytest.approx(1, abs=1e-4)
    # Two columns hold both of the values that almost agree.
    both = certify.power_norm(lambda v: v @ matrix, (3,), KEY, 10, vectors=2)
    assert both == pytest.approx(1, abs=1e-6)
    assert certify.power_norm(lambda v: 0 * v, (3,), KEY, 5) == 0


def test_spectral_norm_is_that_of_numpy():
    matrix = kernel_of(7, 4)
    for m in (matrix, matrix.T):
        found = certify.spectral_norm(jnp.asarray(m))
        np.testing.assert_allclose(found, np.linalg.norm(matrix, 2), rtol=1e-6)


NETS = {
    'fast_mnist': (zoo.fast_mnist((8, 8, 1), 5), certify.of_fast_mnist),
    'madry_mnist': (zoo.madry_mnist((8, 8, 1), 5, 0.125), certify.of_madry_mnist),
    'mlp': (zoo.mlp((8, 8, 1), 5, (9, 7)), certify.of_mlp),
    'sigmoid mlp': (
        zoo.mlp((8, 8, 1), 5, (9, 7), 'sigmoid'),
        functools.partial(certify.of_mlp, name='sigmoid'),
    ),
    'softmax': (zoo.softmax_regression((8, 8, 1), 5), certify.of_softmax_regression),
}


@pytest.fixture(scope='module')
def nets():
    """Layers, logits function and input of each network."""
    x = jax.random.uniform(KEY, (6, 8, 8, 1))
    made = {}
    for name, (model, layers_of) in NETS.items():
        params, state = model.init(jax.random.key(1))
        if name == 'softmax':
            params['w'] = jax.random.normal(KEY, params['w'].shape)
        made[name] = layers_of(params), models.logits_fn(model, params, state), x
    return made


@pytest.mark.parametrize('name', NETS)
def test_layers_are_the_network(nets, name):
    layers, logits_fn, x = nets[name]
    np.testing.assert_allclose(certify.run(layers, x), logits_fn(x), atol=1e-5)


@pytest.mark.parametrize('name', NETS)
def test_product_bound_holds_and_every_layer_keeps_its_own(nets, name):
    layers, _, x = nets[name]
    bounds = certify.lipschitz_bounds(layers, (8, 8, 1))
    total = certify.lipschitz_bound(layers, (8, 8, 1))
    assert bounds.shape == (len(layers),)
    np.testing.assert_allclose(total, np.prod(np.asarray(bounds)), rtol=1e-5)

    def distance(a, b):
        return np.linalg.norm(np.asarray(a - b).reshape(len(a), -1), axis=1)

    for size in (1e-2, 1.0, 30.0):
        h, g = x, x + size * jax.random.normal(jax.random.key(7), x.shape)
        start = distance(h, g)
        for layer, bound in zip(layers, bounds, strict=True):
            before, (h, g) = distance(h, g), (layer(h), layer(g))
            assert (distance(h, g) <= before * float(bound) * 1.0001 + 1e-4).all()
        assert (distance(h, g) <= start * float(total) * 1.0001 + 1e-4).all()


def test_bound_of_a_linear_net_is_reached():
    """Two layers that share their worst direction leave nothing between."""
    layers = [certify.dense(jnp.diag(jnp.array([3.0, 1.0]))),
              certify.dense(jnp.diag(jnp.array([5.0, 1.0])))]  # fmt: skip
    assert certify.lipschitz_bound(layers, (2,)) == pytest.approx(15)
    moved = certify.run(layers, jnp.eye(2)) - certify.run(layers, jnp.zeros((2, 2)))
    assert jnp.linalg.norm(moved[0]) == pytest.approx(15)


@pytest.mark.parametrize('name', certify.ACTIVATIONS)
def test_slopes_are_the_steepest(name):
    function, slope = certify.ACTIVATIONS[name]
    steepest = jax.vmap(jax.grad(function))(jnp.linspace(-9.0, 9.0, 1001)).max()
    assert steepest == pytest.approx(slope, rel=1e-3)
    assert certify.activation(name).lipschitz((3,)) == pytest.approx(slope)


def test_overlapping_pools_count_a_pixel_more_than_once():
    pool = certify.max_pool(2, 1)
    assert pool.lipschitz((3, 3, 1)) == 2
    spike = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1)
    assert jnp.linalg.norm(pool(spike).ravel()) == 2  # All four windows see it.
    assert certify.max_pool(2).lipschitz((4, 4, 1)) == 1
    assert certify.max_pool(3, 2).lipschitz((4, 4, 1)) == 2


def test_margin_radius_is_where_a_linear_model_can_first_flip():
    """Logits (s, -s) / sqrt(2), |w| = 1: the gap is sqrt(2) s, the distance s."""
    w = jnp.array([[0.6, -0.6], [0.8, -0.8]]) / jnp.sqrt(2)
    x, y = jnp.array([[1.0, 1.0], [0.5, 0.0], [-1.0, 0.0]]), jnp.zeros(3, int)
    bound = certify.lipschitz_bound([certify.dense(w)], (2,))
    assert bound == pytest.approx(1, rel=1e-6)
    radius = certify.margin_radius(x @ w, y, bound)
    np.testing.assert_allclose(radius, [1.4, 0.3, 0.0], rtol=1e-5)


def test_no_attack_succeeds_within_the_radius(nets):
    layers, logits_fn, x = nets['fast_mnist']
    y = jnp.argmax(logits_fn(x), axis=1)
    bound = certify.lipschitz_bound(layers, (8, 8, 1))
    radius = certify.margin_radius(logits_fn(x), y, bound)
    assert (radius > 0).all()
    attack = attacks.ddn(l2(float('inf')), steps=50)
    adv = jax.jit(lambda f, x: attack(f, KEY, x, y))(logits_fn, x)
    moved = jnp.linalg.norm((adv - x).reshape(6, -1), axis=1)
    fooled = jnp.argmax(logits_fn(adv), axis=1) != y
    assert fooled.any()
    assert (moved[fooled] > radius[fooled]).all()


def test_it_differentiates_and_compiles():
    """As a penalty: the gradient at a simple top singular value is u v^T."""
    kernel = jnp.asarray(kernel_of(4, 3))
    u, _, v = np.linalg.svd(np.asarray(kernel))
    gradient = jax.jit(jax.grad(certify.spectral_norm))(kernel)
    np.testing.assert_allclose(gradient, np.outer(u[:, 0], v[0]), atol=1e-5)
    conv = jnp.asarray(kernel_of(3, 3, 2, 2))
    norm = jax.jit(lambda k: certify.conv_norm(k, (5, 5)))
    slope = jnp.vdot(jax.jit(jax.grad(norm))(conv), conv)
    assert slope == pytest.approx(float(norm(conv)), rel=1e-4)  # Homogeneous.


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: certify.spectral_norm(jnp.zeros(3)), r'matrix .* \(3,\)'),
        (lambda: certify.spectral_norm(jnp.zeros((0, 3))), r'matrix .* \(0, 3\)'),
        (lambda: certify.conv_norm(jnp.zeros((3, 3)), (4, 4)), r'kernel .* \(3, 3\)'),
        (lambda: certify.conv_norm(jnp.ones((3, 3, 1, 1)), (0, 4)), r'shape .*0, 4'),
        (lambda: certify.conv_norm(jnp.ones((3, 3, 1, 1)), (4, 4), 0), 'strides .*0'),
        (lambda: certify.conv_norm(jnp.ones((3, 3, 1, 1)), (4, 4), 1, 'FULL'), 'FULL'),
        (
            lambda: certify.conv_norm(jnp.ones((3, 3, 1, 1)), (5, 4), 2, 'CIRCULAR'),
            'strides must divide shape',
        ),
        (
            lambda: certify.conv_norm(jnp.ones((5, 5, 1, 1)), (4, 4), 1, 'VALID'),
            'shape must leave room',
        ),
        (lambda: certify.conv(jnp.ones((3, 3, 1, 1)), padding=((1, -1),) * 2), '-1'),
        (lambda: certify.conv(jnp.ones((3, 3, 1, 2)), jnp.zeros(3)), r'bias .*\(3,\)'),
        (lambda: certify.conv(jnp.ones((3, 3))), r'kernel .* \(3, 3\)'),
        (lambda: certify.dense(jnp.ones(3)), r'kernel .* \(3,\)'),
        (lambda: certify.activation('step'), "name must be one of .* got 'step'"),
        (lambda: certify.max_pool(0), 'window .*0'),
        (lambda: certify.max_pool(2, 1.5), 'strides'),
        (lambda: certify.power_norm(abs, (2,), KEY, 0), 'steps .*0'),
        (lambda: certify.power_norm(abs, (2,), KEY, 1, 0), 'vectors .*0'),
        (lambda: certify.lipschitz_bounds([], (2,)), 'layers'),
        (
            lambda: certify.margin_radius(jnp.zeros((1, 2)), jnp.zeros(1, int), -1.0),
            'bound .*-1',
        ),
    ],
)
def test_refusals_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_radii_need_two_classes_and_a_label_each():
    logits, y = jnp.ones((3, 2)), jnp.zeros(3, int)
    for some, labels in ((logits[:, :1], y), (logits, y[:2]), (logits[0], y)):
        with pytest.raises(ValueError, match=r'must have shapes \(B, K\), K >= 2'):
            certify.margin_radius(some, labels, 1.0)
