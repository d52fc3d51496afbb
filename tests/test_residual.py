"""Residual networks: sizes, views, precision, normalisation, fast gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from advjax import models, zoo

KEY = jax.random.key(0)
SHAPE = (8, 8, 3)
X = jax.random.uniform(KEY, (6, *SHAPE))
IMAGENET = {'shape': (224, 224, 3), 'num_classes': 1000, 'stem': 'imagenet'}

TINY = {
    'preact': functools.partial(zoo.preact_resnet18, SHAPE, 5, widths=(4, 8)),
    'resnet18': functools.partial(zoo.resnet18, SHAPE, 5, widths=(4, 8)),
    'resnet50': functools.partial(zoo.resnet50, SHAPE, 5, widths=(4,)),
    'wide': functools.partial(zoo.wide_resnet, 10, 2, SHAPE, 5, channels=4),
}


@functools.cache
def made(name, **options):
    model = TINY[name](**options)
    return model, *model.init(jax.random.key(1))


@functools.cache
def trained(model, branch=0):
    return jax.jit(functools.partial(model.apply, train=True, branch=branch))


def size(model):
    params, _ = jax.eval_shape(model.init, KEY)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ('model', 'count', 'last'),
    [
        (zoo.preact_resnet18(), 11_172_170, 512),
        (zoo.preact_resnet18(layout='kuangliu'), 11_171_146, 512),
        (zoo.preact_resnet18(layout='wong2020'), 11_171_146, 512),
        (zoo.preact_resnet18(layout='gowal2021'), 12_548_426, 512),
        (zoo.resnet18(), 11_173_962, 512),
        (zoo.resnet50(), 23_520_842, 2048),
        (zoo.resnet18(**IMAGENET), 11_689_512, 512),
        (zoo.resnet50(**IMAGENET), 25_557_032, 2048),
        (zoo.wide_resnet_28_10(), 36_479_194, 640),
        (zoo.wide_resnet_28_10(num_classes=100), 36_536_884, 640),
        (zoo.wide_resnet_34_10(), 46_160_474, 640),
        (zoo.wide_resnet_70_16(layout='gowal2020'), 266_796_506, 1024),
    ],
)
def test_published_sizes(model, count, last):
    params, state = jax.eval_shape(model.init, KEY)
    assert size(model) == count
    classes = params['out']['bias'].shape[0]
    shape = (224, 224, 3) if classes == 1000 else (32, 32, 3)
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    logits, _ = jax.eval_shape(model.apply, params, state, x)
    assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)
    assert jax.eval_shape(model.features, params, state, x).shape == (2, last)


def test_other_images_and_branches():
    grey = zoo.wide_resnet_28_10((28, 28, 1))
    assert size(grey) == 36_479_194 - 2 * 9 * 16
    # Scale and bias of each normalisation, and nothing else, once more.
    norms = 2 * (64 + 3 * 64 + 64 + 3 * 128 + 128 + 3 * 256 + 256 + 3 * 512 + 512)
    assert size(zoo.preact_resnet18(branches=2)) == 11_172_170 + norms


def test_named_wide_networks_are_the_general_one():
    assert zoo.wide_resnet_34_10(layout='gowal2020') is zoo.wide_resnet(
        34, 10, (32, 32, 3), 10, layout='gowal2020'
    )
    for factory in TINY.values():
        assert factory(branches=2) is factory(branches=2)


def branches_that_moved(before, after):
    flat = jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    )
    seen = {}
    for path, changed in flat:
        names = [entry.key for entry in path]
        seen.setdefault(names[names.index('branches') + 1], []).append(changed)
    assert all(len(set(changed)) == 1 for changed in seen.values())
    return {branch for branch, changed in seen.items() if changed[0]}


@pytest.mark.parametrize('name', TINY)
def test_training_moves_all_statistics_of_its_branch_and_no_other(name):
    model, params, state = made(name, branches=2)
    for branch in (0, 1):
        _, after = trained(model, branch)(params, state, X)
        assert branches_that_moved(state, after) == {branch}
    # After that, the branches differ in what they answer.
    main, other = (models.logits_fn(model, params, after, branch=b)(X) for b in (0, 1))
    assert float(jnp.abs(main - other).max()) > 1e-3


@pytest.mark.parametrize('name', TINY)
def test_evaluation_is_deterministic_and_features_feed_the_head(name):
    model, params, state = made(name)
    _, state = trained(model)(params, state, X)
    apply = jax.jit(model.apply)
    logits, same = apply(params, state, X)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    np.testing.assert_allclose(apply(params, state, X[:3])[0], logits[:3], atol=1e-5)
    found = jax.jit(model.features)(params, state, X)
    out = params['out']
    np.testing.assert_allclose(
        found @ out['kernel'] + out['bias'][None], logits, atol=1e-5
    )


@pytest.mark.parametrize('name', TINY)
def test_gradients_are_finite_and_in_the_fast_form(name):
    """Of params and of pixels; no convolution is in a form that is slow in loops."""
    model, params, state = made(name)

    def loss(params, x):
        logits, _ = model.apply(params, state, x, train=True)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0])

    gradient = jax.grad(loss, (0, 1))
    fast = lax.conv_dimension_numbers(
        (1, 8, 8, 1), (1, 1, 1, 1), ('NHWC', 'HWIO', 'NHWC')
    )
    convolutions = [
        eqn
        for eqn in equations(jax.make_jaxpr(gradient)(params, X).jaxpr)
        if eqn.primitive.name == 'conv_general_dilated'
    ]
    assert len(convolutions) > 10
    assert all(eqn.params['dimension_numbers'] == fast for eqn in convolutions)
    for leaf in jax.tree.leaves(jax.jit(gradient)(params, X)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                yield from equations(inner)


def test_bfloat16_computes_and_float32_is_kept():
    model, params, state = made('preact')
    half, _, _ = made('preact', dtype=jnp.bfloat16)
    kept = jax.eval_shape(half.init, KEY)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(kept))
    # With large means a bfloat16 statistic would be wrong in its third digit.
    x = X + 20
    exact, (logits, after) = (trained(m)(params, state, x) for m in (model, half))
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after))
    scale = float(jnp.abs(exact[0]).max())
    difference = float(jnp.abs(logits - exact[0]).max())
    assert 1e-5 < difference < 0.1 * scale
    last = [s['stages'][0][0]['norm1']['branches'][0] for s in (exact[1], after)]
    np.testing.assert_allclose(last[1]['mean'], last[0]['mean'], rtol=1e-2, atol=1e-3)
    gradient = jax.grad(lambda x: half.apply(params, after, x)[0].sum())(X)
    assert gradient.dtype == jnp.float32
    assert np.isfinite(gradient).all()


def test_convolutions_compute_in_bfloat16():
    half, params, state = made('wide', dtype=jnp.bfloat16)
    jaxpr = jax.make_jaxpr(half.apply)(params, state, X).jaxpr
    types = {
        eqn.outvars[0].aval.dtype
        for eqn in equations(jaxpr)
        if eqn.primitive.name == 'conv_general_dilated'
    }
    assert types == {jnp.dtype(jnp.bfloat16)}


def test_a_bfloat16_norm_keeps_exact_statistics():
    layer = zoo.SplitBatchNorm(1, 1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.eval()
    # As a bfloat16 this mean would be 256.
    layer.branches[0].mean[...] = jnp.array([256.5])
    y = layer(jnp.full((2, 1), 258, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1.5, rtol=1e-2)


def test_pixels_are_normalised_inside():
    plain, params, state = made('resnet18')
    inside, _, _ = made('resnet18', mean=zoo.CIFAR10_MEAN, std=zoo.CIFAR10_STD)
    mean, std = (np.array([v], np.float32) for v in (zoo.CIFAR10_MEAN, zoo.CIFAR10_STD))
    outside = (X - mean[None, None]) / std[None, None]
    np.testing.assert_allclose(
        inside.apply(params, state, X)[0],
        plain.apply(params, state, outside)[0],
        atol=1e-5,
    )
    assert zoo.CIFAR10_MEAN == (0.4914, 0.4822, 0.4465)
    assert zoo.CIFAR10_STD == (0.2471, 0.2435, 0.2616)


def test_the_activation_is_used_everywhere():
    """With the identity, a network in eval mode is affine."""
    for name in TINY:
        model, params, state = made(name, activation=_identity)
        f = jax.jit(lambda x, m=model, p=params, s=state: m.apply(p, s, x)[0])
        np.testing.assert_allclose(
            f((X + X[::-1]) / 2), (f(X) + f(X[::-1])) / 2, atol=1e-4
        )


def _identity(x):
    return x


def test_statistics_move_by_a_tenth():
    model, params, state = made('resnet18')
    _, after = trained(model)(params, state, X)
    y = lax.conv_general_dilated(
        X,
        params['stem']['kernel'],
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    found = after['stem_norm']['branches'][0]
    np.testing.assert_allclose(found['mean'], 0.1 * y.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found['var'], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-5)


def test_kernels_start_as_in_pytorch():
    model = zoo.preact_resnet18(SHAPE, 10, widths=(64, 64))
    params, _ = model.init(KEY)
    bound = (9 * 64) ** -0.5
    kernel = params['stages'][0][0]['conv1']['kernel']
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.02)
    for leaf in params['out'].values():
        assert 0.5 / 8 < float(jnp.abs(leaf).max()) <= 1 / 8
    wide, *_ = zoo.wide_resnet(10, 1, SHAPE).init(KEY)
    kernel = wide['stages'][2][0]['conv1']['kernel']
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.03)


def test_a_net_with_an_imagenet_stem_quarters_the_image():
    """Seen in how far apart two pixels of the first stage look: 4 in each direction."""
    model = zoo.resnet18((32, 32, 3), 5, stem='imagenet', widths=(4,))
    params, state = model.init(KEY)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(model.apply)(params, state, x).jaxpr
    shapes = [
        eqn.outvars[0].aval.shape
        for eqn in equations(jaxpr)
        if eqn.primitive.name == 'conv_general_dilated'
    ]
    assert shapes == [(1, 16, 16, 4)] + 4 * [(1, 8, 8, 4)]


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: zoo.preact_resnet18(layout='x'), "layout must be one of .*got 'x'"),
        (lambda: zoo.wide_resnet(28, 10, layout='x'), "layout must be one of .*'x'"),
        (lambda: zoo.wide_resnet(27, 10), 'depth must be 10, 16, 22.*got 27'),
        (lambda: zoo.wide_resnet(28, 0), 'width must be an integer >= 1, got 0'),
        (lambda: zoo.wide_resnet(28, 1, channels=0), 'channels must be .* got 0'),
        (lambda: zoo.resnet18(stem='x'), "stem must be one of .*got 'x'"),
        (lambda: zoo.resnet50(widths=()), 'widths must hold 1 to 4 .*got'),
        (lambda: zoo.resnet50(widths=(1, 2, 3, 4, 5)), 'widths must hold 1 to 4'),
        (lambda: zoo.resnet50((32, 32)), r'shape must be \(height, width, channels\)'),
        (lambda: zoo.resnet18(num_classes=0), 'num_classes must be an integer >= 1'),
        (lambda: zoo.resnet18(branches=0), 'branches must be an integer >= 1, got 0'),
        (lambda: zoo.resnet18(dtype=int), 'dtype must be a floating-point type'),
        (lambda: zoo.resnet18(mean=(0.5,) * 3), 'mean and std must be given together'),
        (
            lambda: zoo.resnet18(mean=(0.5,), std=(0.5,)),
            'mean must hold a number for each of 3 channels',
        ),
        (
            lambda: zoo.resnet18(mean=(0.5,) * 3, std=(0.5, 0.0, 0.5)),
            'std must be positive',
        ),
        (
            lambda: jax.eval_shape(
                functools.partial(zoo.resnet18().apply, branch=1),
                *jax.eval_shape(zoo.resnet18().init, KEY),
                jnp.zeros((1, 32, 32, 3)),
            ),
            'branch must be in 0..0, got 1',
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
