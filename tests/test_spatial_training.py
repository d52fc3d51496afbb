"""Worst-of-k spatial training: the draws, the worst of them, and what they repair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, data, keys, models, training, zoo
from advjax.attacks.spatial import move
from tests.test_models import NnxNet

KEY = jax.random.key(0)
SHAPE = (6, 5, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE, 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)


def start(model=MODEL):
    return training.create(model, SGD, key=KEY)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-5, **tolerance}),
        a,
        b,
    )


def inner_keys():
    return keys.of_index(jax.random.split(jax.random.fold_in(KEY, 0))[0], jnp.arange(6))


def test_loss_and_gradient_are_those_of_the_worst_of_k():
    """Plain NumPy: k poses per image, each uniform in its range, the worst kept."""
    state, method = start(), training.spatial_at(25.0, 1.5, k=4)
    f = models.logits_fn(MODEL, state.params)
    moved = []
    for i in range(4):
        each = keys.fold(inner_keys(), i)
        unit = keys.draw(lambda k: jax.random.uniform(k, (3,), minval=-1), each)
        pose = unit * jnp.array([[25.0, 1.5, 1.5]])
        assert float(jnp.abs(pose).max(0)[0]) > 2
        moved.append(move(X, pose))
    z = np.stack([np.asarray(f(x)) for x in moved])
    own = z[:, np.arange(6), Y]
    others = np.where(np.eye(3, dtype=bool)[Y][None], -np.inf, z).max(2)
    worst = np.argmax(others - own, axis=0)
    assert len(set(worst)) > 1
    x_adv = np.stack(moved)[worst, np.arange(6)]

    def expected(params):
        z = MODEL.apply(params, {}, jnp.asarray(x_adv))[0]
        return -jax.nn.log_softmax(z)[jnp.arange(6), Y].mean()

    value, gradient = jax.value_and_grad(expected)(state.params)
    new, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    close(jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params), gradient)


def test_one_move_by_nothing_is_standard_training():
    state = start()
    plain, m1 = STEP(training.standard(), state, BATCH, KEY)
    still, m2 = STEP(training.spatial_at(0.0, 0.0, k=1), state, BATCH, KEY)
    close(still.params, plain.params, atol=0)
    assert m1['loss'] == m2['loss']


def test_more_draws_are_never_weaker():
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    margins = []
    for k in (1, 3, 9):
        x = training.spatial_at(40.0, 2.0, k).inner(f, inner_keys(), X, Y)
        margins.append(attacks.goal(f, Y, loss=None).rank_of(f(x)))
    assert (margins[0] <= margins[1]).all()
    assert (margins[1] <= margins[2]).all()
    assert (margins[0] < margins[2]).any()


def test_ranges_are_leaves():
    before = STEP._cache_size()
    for degrees in (10.0, 20.0, 30.0):
        STEP(training.spatial_at(degrees, degrees / 10, 3), start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1

    def one(most):
        method = training.spatial_at(k=2)
        method = method.replace(inner=method.inner.replace(most=most))
        return training.step(method, start(), BATCH, KEY)[0].params

    ranges = jnp.array([[0.0, 0.0, 0.0], [30.0, 2.0, 2.0]])
    many = jax.jit(jax.vmap(one))(ranges)
    for i in range(2):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(ranges[i]))


def test_soft_labels_and_batch_normalisation():
    """Of soft labels the likeliest class is what the draws are ranked by."""
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    batch = {'image': X[:, :4, :4], 'label': Y}
    method, state = training.spatial_at(30.0, 1.0, 3), start(model)
    hard, m1 = STEP(method, state, batch, KEY)
    soft, m2 = STEP(method, state, {**batch, 'label': jax.nn.one_hot(Y, 3)}, KEY)
    close(hard.params, soft.params, atol=1e-6)
    np.testing.assert_allclose(m1['loss'], m2['loss'], rtol=1e-6)
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    softer = 0.8 * jax.nn.one_hot(Y, 3) + 0.2 / 3
    np.testing.assert_array_equal(
        method.inner(f, KEY, X, softer), method.inner(f, KEY, X, Y)
    )


def test_it_repairs_what_standard_training_leaves_open():
    """Judged on a grid, which the random draws of training never saw."""
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 300, seed=0)
    model, optimizer = zoo.mlp((8, 8, 1), 10, (64,)), optax.adam(1e-2)
    on_device = {'image': data.to_float(rest.images), 'label': jnp.asarray(rest.labels)}
    x, y = data.to_float(held.images), jnp.asarray(held.labels)
    grid = attacks.spatial(15.0, 0.5, 'grid', (5, 3, 3))

    @jax.jit
    def accuracy(most):
        method = training.spatial_at(k=5)
        method = method.replace(inner=method.inner.replace(most=most))

        def update(state, number):
            drawn = jax.random.fold_in(KEY, number)
            pick = jax.random.choice(drawn, len(rest.labels), (128,))
            batch = jax.tree.map(lambda a: a[pick], on_device)
            return training.step(method, state, batch, KEY)[0], None

        state = training.create(model, optimizer, key=KEY)
        state = jax.lax.scan(update, state, jnp.arange(200))[0]
        f = models.logits_fn(model, state.params)
        return (jnp.argmax(f(grid(f, KEY, x, y)), axis=1) == y).mean()

    assert accuracy(grid.most) > accuracy(0 * grid.most) + 0.3


def test_the_loop_must_be_told_what_to_watch():
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 300, seed=0)
    model = zoo.mlp((8, 8, 1), 10, (8,))
    with pytest.raises(ValueError, match='attack must be given'):
        training.fit(training.spatial_at(), model, SGD, rest, held, key=KEY, epochs=1)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'k': 0}, 'k must be an integer >= 1, got 0'),
        ({'k': 2.5}, 'k must be an integer >= 1, got 2.5'),
        ({'degrees': -1.0}, 'degrees and pixels must be >= 0'),
        ({'pixels': -1.0}, 'degrees and pixels must be >= 0'),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        training.spatial_at(**options)


def test_images_need_two_dimensions():
    with pytest.raises(ValueError, match=r'x must be .* to be turned'):
        training.spatial_at().inner(lambda x: x, KEY, jnp.zeros((2, 9)), Y[:2])
