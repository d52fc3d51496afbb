"""Training on noise, on other losses, and what models see in noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, keys, linf, losses, models, training, zoo

KEY = jax.random.key(0)
SHAPE = (4, 5, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BALL = linf(0.25, bounds=None)
MODEL = zoo.mlp(SHAPE, 3, (8,))
F = models.logits_fn(MODEL, MODEL.init(KEY)[0])


def test_corners_are_random_signs_of_each_example():
    each = keys.per_example(KEY, 6)
    x = attacks.starts.corner(BALL, each, X)
    np.testing.assert_allclose(np.abs(x - X), 0.25, atol=1e-6)
    share = np.mean(
        [attacks.starts.corner(BALL, jax.random.key(s), X) > X for s in range(40)]
    )
    assert share == pytest.approx(0.5, abs=0.03)
    # An example's noise is its own, whatever the batch.
    np.testing.assert_array_equal(
        attacks.starts.corner(BALL, each[2:4], X[2:4]), x[2:4]
    )
    inside = attacks.starts.corner(linf(0.25), each, X)
    np.testing.assert_array_equal(inside, jnp.clip(x, 0, 1))
    per_example = attacks.starts.corner(linf(jnp.arange(6) / 10, bounds=None), each, X)
    np.testing.assert_allclose(
        np.abs(per_example - X).max(axis=(1, 2, 3)), np.arange(6) / 10, atol=1e-6
    )


@pytest.mark.parametrize('start', [attacks.starts.corner, attacks.starts.uniform])
def test_noise_ignores_the_model_and_the_labels(start):
    method = training.noise(BALL, start)
    assert not method.adversarial
    x = method.inner(F, KEY, X, Y)
    np.testing.assert_array_equal(x, method.inner(F, KEY, X, (Y + 1) % 3))
    away = np.abs(np.asarray(x - X))
    assert away.max() <= 0.25 + 1e-6
    assert away.mean() == pytest.approx(
        0.25 if start is attacks.starts.corner else 0.125, rel=0.2
    )
    # Other noise at every step.
    assert (np.asarray(x) != np.asarray(method.inner(F, jax.random.key(1), X, Y))).any()


def test_training_on_noise_is_training_on_those_images():
    sgd = optax.sgd(0.1)
    state = training.create(MODEL, sgd, key=KEY)
    step = jax.jit(training.step)
    method = training.noise(BALL, attacks.starts.corner)
    batch = {'image': X, 'label': Y}
    new, _ = step(method, state, batch, KEY)
    now = jax.random.split(jax.random.fold_in(KEY, 0))[0]
    seen = method.inner(F, keys.of_index(now, jnp.arange(6)), X, Y)
    same, _ = step(training.standard(), state, {**batch, 'image': seen}, KEY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        new.params,
        same.params,
    )


def test_no_noise_without_a_start():
    with pytest.raises(ValueError, match=r'start must be a function, got 0\.25'):
        training.noise(BALL, 0.25)


def test_standard_training_takes_any_loss():
    state = training.create(MODEL, optax.sgd(0.1), key=KEY)
    method = training.standard(losses.one_vs_rest)
    _, metrics = jax.jit(training.step)(method, state, {'image': X, 'label': Y}, KEY)
    np.testing.assert_allclose(
        metrics['loss'], losses.one_vs_rest(F(X), Y).mean(), rtol=1e-5
    )
    assert training.standard(losses.cross_entropy).outer.func is training.on_adversarial


def test_one_vs_rest_is_k_binary_losses():
    z = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) * 3
    p = 1 / (1 + np.exp(-z.astype(float)))
    own = np.eye(3, dtype=bool)[np.asarray(Y)]
    expected = -np.log(np.where(own, p, 1 - p)).sum(axis=1)
    got = losses.one_vs_rest(jnp.asarray(z), Y)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    target = (Y + 1) % 3
    np.testing.assert_allclose(
        losses.one_vs_rest(jnp.asarray(z), Y, target),
        -losses.one_vs_rest(jnp.asarray(z), target),
        rtol=1e-6,
    )
    # Far beyond where a probability can be formed.
    far = losses.one_vs_rest(jnp.array([[-300.0, 300.0, 0.0]]), jnp.array([0]))
    np.testing.assert_allclose(far, 600 + np.log(2), rtol=1e-6)
    assert (
        losses.one_vs_rest(jnp.zeros((1, 3), jnp.bfloat16), Y[:1]).dtype == jnp.float32
    )
