"""Gaussian augmentation: the noise that a smoothed classifier is certified for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import data, keys, models, training, zoo
from tests.test_models import NnxNet

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
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


def noised(x, key, sigma):
    return training.gaussian_augmentation(sigma).inner(None, key, x, None)


def test_the_noise_is_normal_and_leaves_the_pixel_range():
    x = jnp.full((400, *SHAPE), 0.1)
    noise = np.asarray(noised(x, KEY, 0.5) - x)
    count = noise.size
    assert abs(noise.mean()) < 5 * 0.5 / count**0.5
    assert noise.std() == pytest.approx(0.5, abs=5 * 0.5 / (2 * count) ** 0.5)
    # A normal law, not another of the same moments: its quantiles.
    for quantile, share in ((-1.0, 0.1587), (0.0, 0.5), (1.0, 0.8413), (2.0, 0.9772)):
        assert (noise < 0.5 * quantile).mean() == pytest.approx(share, abs=0.02)
    # No direction is preferred and no two images share their noise.
    flat = noise.reshape(400, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(16)).max() < 5 / 400**0.5
    assert float(noised(x, KEY, 0.5).min()) < -0.5
    assert float(noised(x, KEY, 0.5).max()) > 1


def test_noise_belongs_to_the_example():
    each = keys.per_example(KEY, 6)
    whole = noised(X, each, 0.3)
    order = jnp.array([3, 1, 5])
    np.testing.assert_array_equal(noised(X[order], each[order], 0.3), whole[order])
    np.testing.assert_array_equal(noised(X, KEY, 0.3), whole)
    np.testing.assert_allclose(2 * (whole - X), noised(X, KEY, 0.6) - X, atol=1e-6)


def test_loss_and_gradient_are_those_of_the_noisy_images():
    state, method = start(), training.gaussian_augmentation(0.4)
    each = keys.of_index(jax.random.split(jax.random.fold_in(KEY, 0))[0], jnp.arange(6))
    images = X + 0.4 * jax.vmap(lambda k: jax.random.normal(k, SHAPE))(each)

    def expected(params):
        z = MODEL.apply(params, {}, images)[0]
        return -jax.nn.log_softmax(z)[jnp.arange(6), Y].mean()

    value, gradient = jax.value_and_grad(expected)(state.params)
    new, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    close(jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params), gradient)
    later, _ = STEP(method, state.replace(step=new.step), BATCH, KEY)
    # At the next step the noise is another.
    assert any(
        bool((a != b).any())
        for a, b in zip(
            jax.tree.leaves(later.params), jax.tree.leaves(new.params), strict=True
        )
    )


def test_without_noise_it_is_standard_training():
    plain, m1 = STEP(training.standard(), start(), BATCH, KEY)
    still, m2 = STEP(training.gaussian_augmentation(0.0), start(), BATCH, KEY)
    close(still.params, plain.params, atol=0)
    assert m1['loss'] == m2['loss']


def test_sigma_is_a_leaf():
    before = STEP._cache_size()
    for sigma in (0.12, 0.25, 1.0):
        STEP(training.gaussian_augmentation(sigma), start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1

    def one(sigma):
        method = training.gaussian_augmentation(0.0)
        method = method.replace(inner=method.inner.replace(sigma=sigma))
        return training.step(method, start(), BATCH, KEY)[0].params

    many = jax.jit(jax.vmap(one))(jnp.array([0.0, 0.5]))
    for i, sigma in enumerate((0.0, 0.5)):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(jnp.float32(sigma)))


def test_soft_labels_and_batch_normalisation():
    """The statistics are those of noisy images."""
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    method, state = training.gaussian_augmentation(0.5), start(model)
    hard, _ = STEP(method, state, BATCH, KEY)
    soft, _ = STEP(method, state, {**BATCH, 'label': jax.nn.one_hot(Y, 3)}, KEY)
    close(hard.params, soft.params, atol=1e-6)
    clean, _ = STEP(training.standard(), state, BATCH, KEY)
    wider = (
        hard.model_state['norm']['var'].sum() > clean.model_state['norm']['var'].sum()
    )
    assert wider


def test_it_is_no_adversary_and_the_loop_knows():
    method = training.gaussian_augmentation(0.5)
    assert not method.adversarial
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 300, seed=0)
    model = zoo.mlp((8, 8, 1), 10, (32,))
    fit = training.fit(method, model, optax.adam(1e-2), rest, held, key=KEY, epochs=1)
    assert fit.history[0]['held_out_robust'] is None


def test_it_answers_better_under_noise():
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 300, seed=0)
    model, optimizer = zoo.mlp((8, 8, 1), 10, (64,)), optax.adam(1e-2)
    on_device = {'image': data.to_float(rest.images), 'label': jnp.asarray(rest.labels)}

    @jax.jit
    def trained(sigma):
        method = training.gaussian_augmentation(sigma)

        def update(state, number):
            drawn = jax.random.fold_in(KEY, number)
            pick = jax.random.choice(drawn, len(rest.labels), (128,))
            batch = jax.tree.map(lambda a: a[pick], on_device)
            return training.step(method, state, batch, KEY)[0], None

        state = training.create(model, optimizer, key=KEY)
        return jax.lax.scan(update, state, jnp.arange(200))[0].params

    x = data.to_float(held.images)
    x = x + 0.5 * jax.random.normal(KEY, x.shape)

    def accuracy(sigma):
        answers = jnp.argmax(models.logits_fn(model, trained(sigma))(x), axis=1)
        return float((answers == jnp.asarray(held.labels)).mean())

    assert accuracy(0.5) > accuracy(0.0) + 0.08


@pytest.mark.parametrize('sigma', [-0.1, float('inf'), float('nan')])
def test_bad_arguments_are_named(sigma):
    with pytest.raises(
        ValueError, match=f'sigma must be a finite number .* got {sigma}'
    ):
        training.gaussian_augmentation(sigma)
