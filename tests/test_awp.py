"""Adversarial weight perturbation: v is the worst of its size, and leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import models, training, zoo
from advjax.training.weights import is_kernel

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (6, 4, 5, 1))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp((4, 5, 1), 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)
BASES = {
    'standard': training.standard(),
    'pgd_at': training.pgd_at(0.1, 2),
    'trades': training.trades(0.1, 2.0, 2),
}


def start():
    return training.create(MODEL, SGD, key=KEY)


@pytest.mark.parametrize('name', BASES)
def test_gamma_zero_is_the_method_bit_for_bit(name):
    base = BASES[name]
    one, _ = STEP(base, start(), BATCH, KEY)
    two, _ = STEP(training.awp(base, 0.0), start(), BATCH, KEY)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def ce(params):
    z = MODEL.apply(params, {}, X)[0]
    return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(6), Y])


def test_v_is_gamma_w_long_uphill_and_spares_biases():
    params = start().params
    perturbed = training.awp(BASES['standard'], 0.05).on_weights(ce, params)

    def check(path, w, moved, gradient):
        v = moved - w
        if not is_kernel(path, w):
            np.testing.assert_array_equal(v, 0)
            return
        np.testing.assert_allclose(
            jnp.linalg.norm(v), 0.05 * jnp.linalg.norm(w), rtol=1e-4
        )
        cosine = jnp.vdot(v, gradient) / jnp.linalg.norm(v) / jnp.linalg.norm(gradient)
        assert cosine > 0.9999

    jax.tree_util.tree_map_with_path(check, params, perturbed, jax.grad(ce)(params))
    assert ce(perturbed) > ce(params)


def test_the_update_is_that_of_the_perturbed_gradient_on_the_weights_as_they_were():
    method, state = training.awp(BASES['standard'], 0.05), start()
    moved = method.on_weights(ce, state.params)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, jax.grad(ce)(moved))
    new, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], ce(moved), rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected
    )


def test_a_layer_that_the_loss_ignores_stays_finite():
    def loss(params):
        return jnp.sum(params['used'] ** 2)

    params = {'used': jnp.ones((3, 3)), 'unused': jnp.ones((3, 3))}
    moved = training.awp(training.standard(), 0.1).on_weights(loss, params)
    np.testing.assert_array_equal(moved['unused'], 1)
    assert jnp.all(moved['used'] > 1)


def test_biases_of_attention_are_no_kernels():
    shaped = jax.ShapeDtypeStruct
    tree = {
        'query': {'kernel': shaped((8, 2, 4), 'f'), 'bias': shaped((2, 4), 'f')},
        'positions': shaped((1, 5, 8), 'f'),
        'row': shaped((1, 5), 'f'),
    }
    found = jax.tree_util.tree_map_with_path(is_kernel, tree)
    assert found == {
        'query': {'kernel': True, 'bias': False},
        'positions': False,
        'row': False,
    }


def test_it_works_with_batch_statistics_and_sweeps_by_vmap():
    model = zoo.split_norm_cnn((4, 5, 1), 3, (4,), 6, branches=1)
    state = training.create(model, SGD, key=KEY)
    new, metrics = STEP(training.awp(BASES['pgd_at'], 0.01), state, BATCH, KEY)
    assert metrics['finite']
    moved = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), new.model_state, state.model_state
    )
    assert all(jax.tree.leaves(moved))

    def loss(gamma):
        method = training.awp(BASES['standard'], 0.0)
        method = method.replace(on_weights=method.on_weights.replace(gamma=gamma))
        return training.step(method, start(), BATCH, KEY)[1]['loss']

    values = jax.vmap(loss)(jnp.array([0.0, 0.05, 0.1]))
    assert np.all(np.diff(values) > 0)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match='gamma must be finite and >= 0, got -1'):
        training.awp(training.standard(), -1)
    with pytest.raises(ValueError, match='already'):
        training.awp(training.awp(training.standard()))


def test_a_warm_up_is_a_schedule():
    warm = optax.piecewise_constant_schedule(0.0, {0: 1.0})
    late = optax.join_schedules([lambda _: 0.0, lambda _: 1.0], [1])
    assert warm(0) == 0
    method = training.scheduled(training.awp(BASES['standard'], 0.05), gamma=late)
    plain, state = start(), start()
    plain, first = STEP(BASES['standard'], plain, BATCH, KEY)
    state, same = STEP(method, state, BATCH, KEY)
    assert first['loss'] == same['loss']
    assert STEP(method, state, BATCH, KEY)[1]['loss'] > ce(plain.params)
    assert models.logits_fn(MODEL, state.params)(X).shape == (6, 3)
