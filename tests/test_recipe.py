"""What goes around a method: averages, schedules, accumulation, decay, augmentation."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, data, l2, losses, models, training, zoo
from advjax.training import assess, epoch

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (6, 4, 5, 1))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp((4, 5, 1), 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)
TRAIN, HELD_OUT = data.split_held_out(data.load('digits', 'train'), 100, 0)
DIGITS = zoo.mlp((8, 8, 1), 10, (32,))


def fit(method=None, train=TRAIN, model=DIGITS, **options):
    options = {'epochs': 2, 'batch_size': 128, **options}
    return training.fit(
        method or training.standard(), model, optax.adam(2e-3), train, HELD_OUT,
        key=KEY,
        **options,
    )  # fmt: skip


def trajectory(averaging, count=12):
    state = training.create(MODEL, SGD, key=KEY, averaging=averaging)
    params, means = [], []
    for _ in range(count):
        state, _ = STEP(training.standard(), state, BATCH, KEY)
        params.append(jax.tree.leaves(state.params)[0])
        means.append(jax.tree.leaves(state.result[0])[0])
    return np.array(params, np.float64), np.array(means, np.float64)


def test_ema_is_its_recursion():
    params, means = trajectory(training.ema(0.5))
    first = jax.tree.leaves(training.create(MODEL, SGD, key=KEY).params)[0]
    mean = np.array(first, np.float64)
    for t, new in enumerate(params):
        decay = min(0.5, (1 + t) / (10 + t))
        mean = decay * mean + (1 - decay) * new
        np.testing.assert_allclose(means[t], mean, atol=1e-6)


def test_swa_is_the_mean_from_the_first_on():
    params, means = trajectory(training.swa(first=4, every=3))
    for t in range(3):
        np.testing.assert_array_equal(means[t], params[t])
    np.testing.assert_allclose(means[3], params[3], atol=1e-7)
    np.testing.assert_allclose(means[5], params[3], atol=1e-7)
    np.testing.assert_allclose(means[6], params[[3, 6]].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(means[11], params[[3, 6, 9]].mean(axis=0), atol=1e-6)


def test_the_loop_keeps_the_averaged_network():
    averaged, plain = fit(averaging=training.ema(0.9)), fit()
    jax.tree.map(np.testing.assert_array_equal, averaged.last.params, plain.last.params)
    mean, _ = averaged.last.result
    jax.tree.map(np.testing.assert_array_equal, averaged.params, mean)
    assert not np.array_equal(
        jax.tree.leaves(averaged.params)[0], jax.tree.leaves(plain.params)[0]
    )
    assert averaged.history[-1]['held_out_clean'] != plain.history[-1]['held_out_clean']


def test_averages_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r'decay must lie in \[0, 1\), got 1'):
        training.ema(1.0)
    with pytest.raises(ValueError, match='every must be an integer >= 1, got 0'):
        training.swa(3, 0)


def test_a_schedule_scales_the_radius_of_training_alone():
    half = training.scheduled(training.fgsm_at(0.2, 0.0), eps=lambda step: 0.5 + step)
    start = training.create(MODEL, SGD, key=KEY)
    one, first = STEP(half, start, BATCH, KEY)
    assert (
        first['loss'] == STEP(training.fgsm_at(0.1, 0.0), start, BATCH, KEY)[1]['loss']
    )
    _, second = STEP(half, one, BATCH, KEY)
    assert second['loss'] == pytest.approx(
        float(STEP(training.fgsm_at(0.3, 0.0), one, BATCH, KEY)[1]['loss'])
    )
    assert half.inner.ball.eps == np.float32(0.2)


def test_factor_zero_is_standard_training_bit_for_bit():
    start = training.create(MODEL, SGD, key=KEY)
    still = training.scheduled(training.pgd_at(0.2, 2), eps=lambda step: 0.0 * step)
    one, _ = STEP(still, start, BATCH, KEY)
    two, _ = STEP(training.standard(), start, BATCH, KEY)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_schedules_name_what_is_wrong():
    with pytest.raises(ValueError, match="'gamma' must be a number of the method"):
        training.scheduled(training.trades(0.1), gamma=lambda step: 1.0)
    with pytest.raises(ValueError, match='beta must be a schedule'):
        training.scheduled(training.trades(0.1), beta=1.0)


def test_piecewise_drops_where_it_says():
    rate = training.piecewise(0.1, 200)
    values = [float(rate(step)) for step in (0, 99, 101, 149, 151, 199)]
    np.testing.assert_allclose(values, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_accumulated_gradients_are_those_of_the_large_batch():
    """optax.MultiSteps around any optimizer is all it takes."""
    several = optax.MultiSteps(SGD, 2).gradient_transformation()
    state = training.create(MODEL, several, key=KEY)
    for some in (slice(0, 3), slice(3, 6)):
        state, _ = STEP(
            training.standard(), state, {'image': X[some], 'label': Y[some]}, KEY
        )
    whole, _ = STEP(
        training.standard(), training.create(MODEL, SGD, key=KEY), BATCH, KEY
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        state.params, whole.params,
    )  # fmt: skip


def test_weight_decay_spares_biases():
    optimizer = optax.chain(training.weight_decay(0.1), SGD)
    state = training.create(MODEL, optimizer, key=KEY)
    params = jax.tree.map(lambda w: w + 1, state.params)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, state.opt_state, params)

    def check(path, update, w):
        expected = -0.01 * w if w.ndim == 2 else jnp.zeros_like(w)
        np.testing.assert_allclose(update, expected, rtol=1e-6)

    jax.tree_util.tree_map_with_path(check, updates, params)
    with pytest.raises(ValueError, match='coefficient must be a number >= 0'):
        training.weight_decay(-1.0)


def test_many_runs_at_once_by_vmap():
    """Pairs of (eps, seed) in one program equal the runs one by one."""
    radii, seeds = jnp.array([0.0, 0.1, 0.2]), jnp.arange(3)

    def run(eps, seed):
        key = jax.random.key(seed)
        state = training.create(MODEL, SGD, key=key)
        for _ in range(2):
            state, metrics = training.step(training.pgd_at(eps, 2), state, BATCH, key)
        return state.params, metrics['loss']

    def method_of(eps):
        return training.scaled(training.pgd_at(1.0, 2), 'eps', eps)

    def one(eps, seed):
        key = jax.random.key(seed)
        state = training.create(MODEL, SGD, key=key)
        for _ in range(2):
            state, metrics = training.step(method_of(eps), state, BATCH, key)
        return state.params, metrics['loss']

    many, loss = jax.jit(jax.vmap(one))(radii, seeds)
    for i in range(3):
        params, value = jax.jit(one)(radii[i], seeds[i])
        np.testing.assert_allclose(loss[i], value, rtol=1e-5)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
            many,
            params,
        )


def test_recomputation_saves_memory_and_changes_nothing():
    model = zoo.mlp((4, 5, 1), 3, (256, 256), activation='tanh')
    params, _ = model.init(KEY)
    x, y = jnp.tile(X, (20, 1, 1, 1)), jnp.tile(Y, 20)
    # Not the sign of a gradient, which has no derivative.
    attack = attacks.pgd(l2(1.0), 20, keep_best=False)

    def through(model):
        def final(params):
            f = models.logits_fn(model, params)
            return jnp.mean(losses.cross_entropy(f(attack(f, KEY, x, y)), y))

        return jax.jit(jax.grad(final)).lower(params).compile()

    plain, again = through(model), through(models.rematerialised(model))
    one, two = plain(params), again(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)
    memory = [p.memory_analysis().temp_size_in_bytes for p in (plain, again)]
    assert memory[1] < 0.7 * memory[0]


def test_augmentation_reaches_the_network_and_is_keyed_by_the_example():
    seen = []

    def blank(key, x, y):
        seen.append((key.shape, x.shape, y.shape))
        return jnp.zeros_like(x), y

    dark = fit(augment=blank)
    assert seen[-1] == ((128,), (128, 8, 8, 1), (128,))
    assert dark.history[-1]['train_accuracy'] < 0.2

    def soft(key, x, y):
        return x, jax.nn.one_hot(y, 10)

    hard, softly = fit(), fit(augment=soft)
    assert softly.history[-1]['train_accuracy'] == hard.history[-1]['train_accuracy']
    np.testing.assert_allclose(
        softly.history[-1]['train_loss'], hard.history[-1]['train_loss'], rtol=1e-5
    )


def test_extra_data_at_a_ratio():
    some = TRAIN._replace(images=TRAIN.images[:500], labels=TRAIN.labels[:500])
    rest = TRAIN._replace(images=TRAIN.images[500:], labels=TRAIN.labels[500:])
    result = fit(train=data.mixture(some, rest, 0.5), epochs=3)
    assert int(result.last.step) == 3 * -(-500 // 64)
    assert result.history[-1]['held_out_clean'] > 0.3


def test_a_stream_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    def stream():
        return data.stream(TRAIN, batch_size=128, seed=1)

    whole = fit(train=stream())
    made, compiled = [], epoch.compiled_step

    def step(*args):
        made.append(1)
        if len(made) == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return compiled(*args)

    monkeypatch.setattr(epoch, 'compiled_step', step)
    with pytest.raises(training.Preempted):
        fit(train=stream(), checkpoints=tmp_path)
    rest = fit(train=stream(), checkpoints=tmp_path)
    assert len(made) == int(whole.last.step)
    jax.tree.map(np.testing.assert_array_equal, rest.params, whole.params)
    with pytest.raises(ValueError, match='training images differ'):
        fit(train=data.stream(TRAIN, batch_size=128, seed=2), checkpoints=tmp_path)
    with pytest.raises(ValueError, match='batch_size must be that of the stream, 128'):
        fit(train=stream(), batch_size=64)


def test_motion_is_watched_on_held_out_images():
    method = training.spatial_at(15.0, 0.5, 2)
    seen = fit(method, attack=attacks.spatial(15.0, 0.5, 'random'), epochs=1)
    assert 0 <= seen.history[0]['held_out_robust'] <= 1


def test_another_augmentation_is_another_run(tmp_path):
    def darker(key, x, y):
        return 0.5 * x, y

    fit(checkpoints=tmp_path, epochs=1)
    with pytest.raises(ValueError, match='its augmentation differ'):
        fit(checkpoints=tmp_path, epochs=1, augment=darker)
    with pytest.raises(ValueError, match='belongs to another run'):
        fit(checkpoints=tmp_path, epochs=1, averaging=training.ema())


def _apply(scale):
    return lambda params, x: scale * (x.reshape(x.shape[0], -1) @ params)


def _outer(weight):
    def loss(forward, state, x, x_adv, y):
        logits, state = forward(state, x)
        return weight * losses.cross_entropy(logits, y), logits, state

    return loss


def test_what_differs_in_a_closure_is_another_run(tmp_path):
    """Of one name and one structure: nothing but its code and what it holds."""

    def run(scale=1.0, weight=1.0):
        model = models.from_function(lambda key: jnp.zeros((64, 10)), _apply(scale))
        method = training.method(training.unperturbed, _outer(weight))
        fit(method, model=model, checkpoints=tmp_path, epochs=1)

    run()
    run()
    with pytest.raises(training.OtherTrainingError, match='its model differ'):
        run(scale=2.0)
    with pytest.raises(training.OtherTrainingError, match='its method differ'):
        run(weight=2.0)


def test_labels_without_a_class_are_refused():
    wrong = TRAIN._replace(labels=TRAIN.labels + 1)
    with pytest.raises(
        ValueError, match=r'training images must lie in 0\.\.9.*1\.\.10'
    ):
        fit(train=wrong)


def test_a_failure_can_be_watched_to_the_end(monkeypatch):
    monkeypatch.setattr(assess, 'diagnose', lambda rows, adversarial: 'lost it')
    result = fit(recovery='continue', epochs=3)
    assert len(result.history) == 3
    assert result.events == ('lost it; went on',)


def test_sigterm_in_the_same_process(tmp_path, monkeypatch):
    made, compiled = [], epoch.compiled_step

    def step(*args):
        made.append(1)
        if len(made) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return compiled(*args)

    monkeypatch.setattr(epoch, 'compiled_step', step)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(training.Preempted) as stopped:
        fit(checkpoints=training.Checkpointing(tmp_path, 1e6))
    assert (stopped.value.code, stopped.value.step) == (0, 5)
    assert signal.getsignal(signal.SIGTERM) is before
    rest = fit(checkpoints=training.Checkpointing(tmp_path, 1e6))
    assert len(made) == 2 * -(-len(TRAIN.labels) // 128)
    jax.tree.map(np.testing.assert_array_equal, rest.params, fit().params)


def test_soft_labels_are_an_expectation():
    z = jax.random.normal(KEY, (6, 3))
    soft = jax.nn.softmax(jax.random.normal(jax.random.key(1), (6, 3)))
    each = [losses.cross_entropy(z, jnp.full(6, k, jnp.int32)) for k in range(3)]
    np.testing.assert_allclose(
        losses.cross_entropy(z, soft),
        sum(soft[:, k] * each[k] for k in range(3)), rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(
        losses.probability(z, jax.nn.one_hot(Y, 3)), losses.probability(z, Y), rtol=1e-6
    )
    np.testing.assert_array_equal(losses.hard(jax.nn.one_hot(Y, 3)), Y)
    far = jnp.array([[0.0, -jnp.inf, 0.0]])
    assert jnp.isfinite(losses.cross_entropy(far, jnp.array([[0.5, 0.0, 0.5]])))[0]


def test_examples_without_a_label_are_for_methods_that_need_none():
    some = np.where(np.arange(len(TRAIN.labels)) % 4 == 0, TRAIN.labels, -1)
    unlabelled = TRAIN._replace(labels=some.astype(np.int32))
    with pytest.raises(ValueError, match=r'must lie in 0\.\.9'):
        fit(train=unlabelled)
    method = training.smooth_labels(training.virtual_adversarial(0.5), 0.1)
    assert fit(method, train=unlabelled, epochs=4).history[-1]['held_out_clean'] > 0.5
