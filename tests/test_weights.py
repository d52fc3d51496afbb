"""Column norms and L1 decay: on their own, in a chain, and under the compiled step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import training, zoo

KEY = jax.random.key(0)
PARAMS = {
    'kernel': 2 * jax.random.normal(KEY, (5, 4)),
    'bias': 10 * jnp.ones(4),
    'row': 10 * jnp.ones((1, 4)),
    'conv': jax.random.normal(jax.random.key(1), (3, 3, 2, 6)),
}
UPDATES = jax.tree.map(lambda a: 0.3 * jnp.cos(7 * a), PARAMS)


def moved(transformation, updates=UPDATES):
    state = transformation.init(PARAMS)
    new, _ = transformation.update(updates, state, PARAMS)
    return new, optax.apply_updates(PARAMS, new)


def norms(kernel):
    return np.linalg.norm(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]),
                          axis=0)  # fmt: skip


def test_columns_are_pulled_onto_the_ball_and_keep_their_direction():
    _, new = moved(training.max_column_norm(2.0))
    for name in ('kernel', 'conv'):
        free = np.asarray(PARAMS[name] + UPDATES[name], np.float64)
        expected = np.minimum(norms(free), 2.0)
        assert (norms(free) > 2.0).any()
        np.testing.assert_allclose(norms(new[name]), expected, rtol=1e-6)
        ratio = np.asarray(new[name]).reshape(-1, free.shape[-1])
        ratio = ratio / free.reshape(-1, free.shape[-1])
        np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio), 0), rtol=1e-4)


def test_columns_inside_and_biases_pass_bit_for_bit():
    new, _ = moved(training.max_column_norm(100.0))
    jax.tree.map(np.testing.assert_array_equal, new, UPDATES)
    new, _ = moved(training.max_column_norm(0.1))
    for name in ('bias', 'row'):
        np.testing.assert_array_equal(new[name], UPDATES[name])


def test_l1_decay_is_the_gradient_of_the_penalty():
    def penalty(params):
        return 0.05 * sum(jnp.abs(params[k]).sum() for k in ('kernel', 'conv'))

    new, _ = moved(training.l1_decay(0.05))
    expected = jax.tree.map(jnp.add, UPDATES, jax.grad(penalty)(PARAMS))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new, expected
    )


def test_zero_weights_stay_zero_under_l1_decay():
    decay = training.l1_decay(0.1)
    params = {'kernel': jnp.zeros((3, 2))}
    new, _ = decay.update(params, decay.init(params), params)
    np.testing.assert_array_equal(new['kernel'], 0)


def test_for_some_layers_only():
    mask = {'kernel': True, 'bias': False, 'row': False, 'conv': False}
    for build in (training.l1_decay, training.max_column_norm):
        whole, _ = moved(build(0.1))
        new, _ = moved(optax.masked(build(0.1), mask))
        np.testing.assert_array_equal(new['kernel'], whole['kernel'])
        np.testing.assert_array_equal(new['conv'], UPDATES['conv'])


@pytest.mark.parametrize('inner', [optax.sgd(0.5, momentum=0.7), optax.adam(0.5)])
def test_any_optimizer_stays_inside_through_training(inner):
    optimizer = optax.chain(
        training.l1_decay(1e-3), inner, training.max_column_norm(0.5)
    )
    model = zoo.mlp((4, 5, 1), 3, (6, 6))
    state = training.create(model, optimizer, key=KEY)
    batch = {'image': jax.random.uniform(KEY, (9, 4, 5, 1)), 'label': jnp.arange(9) % 3}
    step = jax.jit(training.step)
    for _ in range(5):
        state, _ = step(training.standard(), state, batch, KEY)
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == 2]
    assert len(kernels) == 3
    for kernel in kernels:
        assert norms(kernel).max() <= 0.5 * (1 + 1e-5)
    assert max(norms(k).max() for k in kernels) > 0.49


def test_cached_and_checked():
    assert training.max_column_norm(1.5) is training.max_column_norm(1.5)
    assert training.l1_decay(0.1) is training.l1_decay(0.1)
    for limit in (0, -1.0, float('nan')):
        with pytest.raises(ValueError, match='limit must be a number > 0'):
            training.max_column_norm(limit)
    for coefficient in (-1e-3, float('nan')):
        with pytest.raises(ValueError, match='coefficient must be a number >= 0'):
            training.l1_decay(coefficient)
    decay = training.l1_decay(0.1)
    with pytest.raises(ValueError, match='l1_decay needs params'):
        decay.update(UPDATES, decay.init(PARAMS))
