"""Free adversarial training: one backward pass, noise that is carried on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import balls, data, keys, l2, linf, losses, models, training, zoo

KEY = jax.random.key(0)
SHAPE = (6, 4, 5, 1)
X = jax.random.uniform(KEY, SHAPE)
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE[1:], 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)


def start(method):
    return training.create(MODEL, SGD, key=KEY, method=method, shape=SHAPE)


def test_the_first_step_is_that_of_standard_training_bit_for_bit():
    method = training.free(0.1, replays=1)
    free, _ = STEP(method, start(method), BATCH, KEY)
    plain, _ = STEP(training.standard(), start(None), BATCH, KEY)
    jax.tree.map(np.testing.assert_array_equal, free.params, plain.params)
    assert float(jnp.abs(free.carried).max()) == pytest.approx(0.1)


def test_radius_zero_is_standard_training_bit_for_bit():
    method = training.free(0.0, replays=3)
    free, plain = start(method), start(None)
    for _ in range(3):
        free, _ = STEP(method, free, BATCH, KEY)
        plain, _ = STEP(training.standard(), plain, BATCH, KEY)
    jax.tree.map(np.testing.assert_array_equal, free.params, plain.params)


@pytest.mark.parametrize('ball', [linf(0.1), l2(0.5), linf(0.1, bounds=None)])
def test_noise_is_carried_moves_uphill_and_stays_in_the_ball(ball):
    method = training.free(ball, rate=0.7)
    state = start(method)
    for _ in range(4):
        before = state
        seen = balls.clip(ball, X + before.carried)
        f = models.logits_fn(MODEL, before.params)
        gradient = jax.grad(
            lambda images, f=f: jnp.sum(losses.cross_entropy(f(images), Y))
        )(seen)
        state, metrics = STEP(method, before, BATCH, KEY)
        np.testing.assert_allclose(
            metrics['loss'], jnp.mean(losses.cross_entropy(f(seen), Y)), rtol=1e-5
        )
        moved = state.carried - before.carried
        assert jnp.all(jnp.sum(moved * gradient, axis=(1, 2, 3)) >= -1e-6)
        assert jnp.all(ball.norm(state.carried) <= balls.limit(ball, state.carried))
    assert not np.array_equal(before.carried, state.carried)


def test_examples_that_only_fill_the_batch_up_leave_the_noise_alone():
    method = training.free(0.1)
    mask = jnp.arange(6) < 4
    state, _ = STEP(method, start(method), {**BATCH, 'mask': mask}, KEY)
    np.testing.assert_array_equal(state.carried[4:], 0)
    assert jnp.all(jnp.abs(state.carried[:4]).max(axis=(1, 2, 3)) > 0)


def test_one_gradient_per_update():
    passes = []

    def apply(params, state, x, train=False, key=None):
        passes.append(train)
        return MODEL.apply(params, state, x, train=train, key=key)

    method = training.free(0.1)
    counted = MODEL._replace(apply=apply)
    state = training.create(counted, SGD, key=KEY, method=method, shape=SHAPE)
    jax.eval_shape(training.step, method, state, BATCH, KEY)
    assert passes == [True]


def test_the_loop_replays_every_batch_and_carries_on():
    train, held_out = data.split_held_out(data.load('digits', 'train'), 100, 0)
    fit = training.fit(
        training.free(0.1, replays=3), zoo.mlp((8, 8, 1), 10, (32,)),
        optax.adam(2e-3), train, held_out,
        key=KEY, epochs=2, batch_size=128,
    )  # fmt: skip
    batches = -(-len(train.labels) // 128)
    assert int(fit.last.step) == 2 * 3 * batches
    assert fit.last.carried.shape == (128, 8, 8, 1)
    assert float(jnp.abs(fit.last.carried).max()) == pytest.approx(0.1)
    assert fit.history[-1]['held_out_robust'] is not None


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match='replays must be an integer >= 1, got 0'):
        training.free(0.1, replays=0)
    with pytest.raises(ValueError, match='rate must be positive'):
        training.free(0.1, rate=0)
    with pytest.raises(ValueError, match='one radius for all examples'):
        training.free(linf(np.full(6, 0.1)))
    method = training.free(0.1)
    with pytest.raises(ValueError, match='shape of a batch must be given'):
        training.create(MODEL, SGD, key=KEY, method=method)
    with pytest.raises(ValueError, match='must carry the noise'):
        STEP(method, start(None), BATCH, KEY)
    with pytest.raises(TypeError, match='no attack of its own'):
        method.inner(models.logits_fn(MODEL, {}), keys.typed(KEY), X, Y)
