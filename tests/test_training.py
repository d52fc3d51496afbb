"""Methods and the pure step: each does what its equation says."""

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
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE, 3, (8,))
STEP = jax.jit(training.step)

METHODS = {
    'standard': training.standard(),
    'fgsm_at': training.fgsm_at(0.1),
    'pgd_at': training.pgd_at(0.1, 3),
    'fast': training.fast(0.1),
    'trades': training.trades(0.1, 2.0, 3),
}


def start(optimizer=None, model=MODEL):
    # One optimizer object: it is static structure.
    return training.create(model, optimizer or SGD, key=KEY)


SGD = optax.sgd(0.1)


def gradient_of(new, old):
    return jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, old.params)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-5, **tolerance}),
        a,
        b,
    )


def inner_keys(state, key=KEY):
    now = jax.random.fold_in(key, state.step)
    return keys.of_index(jax.random.split(now)[0], jnp.arange(6))


@pytest.mark.parametrize('name', METHODS)
def test_loss_and_gradient_are_those_of_the_equation(name):
    """Plain JAX, written from the paper, on the same adversarial images."""
    state, method = start(), METHODS[name]
    f = models.logits_fn(MODEL, state.params)
    x_adv = jax.jit(lambda: method.inner(f, inner_keys(state), X, Y))()

    def ce(params, x):
        z = MODEL.apply(params, {}, x)[0]
        return -jnp.mean(z[jnp.arange(6), Y] - jax.nn.logsumexp(z, axis=1))

    def kl(params):
        p = jax.nn.softmax(MODEL.apply(params, {}, X)[0])
        q = jax.nn.softmax(MODEL.apply(params, {}, x_adv)[0])
        return jnp.mean(jnp.sum(p * jnp.log(p / q), axis=1))

    equation = {
        'standard': lambda p: ce(p, X),
        'fgsm_at': lambda p: 0.5 * ce(p, X) + 0.5 * ce(p, x_adv),
        'pgd_at': lambda p: ce(p, x_adv),
        'fast': lambda p: ce(p, x_adv),
        'trades': lambda p: ce(p, X) + 2.0 * kl(p),
    }[name]
    loss, gradient = jax.value_and_grad(equation)(state.params)
    new, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    close(gradient_of(new, state), gradient)
    if name != 'standard':
        assert np.abs(np.asarray(x_adv - X)).max() > 0.05


def test_methods_reduce_to_standard_training():
    state = start()
    expected, _ = STEP(METHODS['standard'], state, BATCH, KEY)
    for method in (
        training.pgd_at(0.0, 3),
        training.fgsm_at(0.1, clean_weight=1.0),
        training.fgsm_at(0.0),
        training.trades(0.1, beta=0.0, steps=3),
        training.trades(0.0, beta=6.0, steps=3),
        training.fast(0.0),
    ):
        close(STEP(method, state, BATCH, KEY)[0].params, expected.params, atol=1e-6)


def test_fast_starts_outside_the_pixel_range_and_ends_inside():
    """As in the authors' MNIST code, x + delta is not clipped before the gradient."""
    method = training.fast(linf(0.3))
    x = jnp.zeros_like(X)
    start = method.inner.start(method.inner.ball, keys.per_example(KEY, 6), x)
    assert float(start.min()) < -0.2
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    adv = method.inner(f, KEY, x, Y)
    assert float(adv.min()) >= 0
    assert float(adv.max()) <= 0.3 + 1e-6


def test_trades_attacks_the_prediction_not_the_label():
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    inner = METHODS['trades'].inner
    np.testing.assert_array_equal(inner(f, KEY, X, Y), inner(f, KEY, X, (Y + 1) % 3))
    adv = inner(f, KEY, X, Y)
    by_noise = X + 0.1 * jax.random.rademacher(KEY, X.shape, X.dtype)
    assert losses.kl(f(adv), f(X)).mean() > 2 * losses.kl(f(by_noise), f(X)).mean()


def test_trades_gradient_at_the_clean_image_is_zero():
    """Which is why its search starts with noise."""
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    gradient = jax.grad(lambda x: losses.kl(f(x), f(X)).sum())(X)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_training_is_against_the_present_parameters_without_a_gradient_through_them():
    """The adversarial image is held constant in the outer gradient."""
    state = start()

    def seen(logits_fn, key, x, y):
        return x + jnp.tanh(logits_fn(x).sum())

    method = training.method(seen, training.on_adversarial)
    f = models.logits_fn(MODEL, state.params)
    x_adv = seen(f, KEY, X, Y)
    new, _ = STEP(method, state, BATCH, KEY)
    held, _ = STEP(METHODS['standard'], state, {**BATCH, 'image': x_adv}, KEY)
    close(new.params, held.params)


def test_padding_does_not_count():
    padded = {
        'image': jnp.concatenate([X, jnp.ones_like(X[:2])]),
        'label': jnp.concatenate([Y, jnp.array([2, 2], jnp.int32)]),
        'mask': jnp.arange(8) < 6,
        'index': jnp.arange(8),
    }
    for method in METHODS.values():
        one, m1 = STEP(method, start(), {**BATCH, 'index': jnp.arange(6)}, KEY)
        two, m2 = STEP(method, start(), padded, KEY)
        close(one.params, two.params, atol=1e-6)
        np.testing.assert_allclose(m1['loss'], m2['loss'], rtol=1e-5)
        assert two.totals['count'] == 6


def test_randomness_belongs_to_the_data_set_index():
    order = jnp.array([3, 1, 5, 0, 2, 4])
    one, _ = STEP(METHODS['fast'], start(), {**BATCH, 'index': jnp.arange(6)}, KEY)
    shuffled = {'image': X[order], 'label': Y[order], 'index': order}
    two, _ = STEP(METHODS['fast'], start(), shuffled, KEY)
    close(one.params, two.params, atol=1e-6)


def test_one_program_for_every_radius_and_weight():
    before = STEP._cache_size()
    for eps in (0.11, 0.2, 0.3):
        STEP(training.trades(eps, beta=10 * eps, steps=4), start(), BATCH, KEY)
    assert STEP._cache_size() == before + 1


def test_vmap_over_radii_trains_a_population():
    def one(eps):
        return training.step(training.pgd_at(linf(eps), 2), start(), BATCH, KEY)[
            0
        ].params

    many = jax.jit(jax.vmap(one))(jnp.array([0.0, 0.1, 0.2]))
    for i, eps in enumerate((0.0, 0.1, 0.2)):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(eps))


def test_a_nan_loss_freezes_the_last_good_state():
    state, _ = STEP(METHODS['standard'], start(), BATCH, KEY)
    bad = {**BATCH, 'image': X.at[0, 0, 0, 0].set(jnp.nan)}
    frozen, metrics = STEP(METHODS['standard'], state, bad, KEY)
    assert not metrics['finite']
    assert int(frozen.failed_at) == 1
    after, _ = STEP(METHODS['standard'], frozen, BATCH, KEY)
    for new in (frozen, after):
        close(new.params, state.params, atol=0)
        assert int(new.step) == 1
    assert int(after.failed_at) == 1


def test_train_mode_attacks_see_batch_statistics():
    """Off by default; asked for, the attack's model is the training one."""
    from tests.test_models import NnxNet

    model = models.from_nnx(NnxNet)
    seen = []

    def spy(logits_fn, key, x, y):
        seen.append(logits_fn(x))
        return x

    x = jax.random.uniform(KEY, (6, 4, 4, 1))
    batch = {'image': x, 'label': Y}
    state = training.create(model, SGD, key=KEY)
    for train_mode in (False, True):
        method = training.method(spy, training.on_adversarial, train_mode)
        training.step(method, state, batch, KEY)
    evaluated = models.logits_fn(model, state.params, state.model_state)(x)
    np.testing.assert_allclose(seen[0], evaluated, rtol=1e-5)
    assert (np.abs(seen[1] - evaluated) > 1e-3).any()


def test_a_method_of_the_user_is_two_functions():
    def my_outer(forward, state, x, x_adv, y):
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv)
        pairing = ((clean - logits) ** 2).sum(1)
        return losses.cross_entropy(logits, y) + pairing, logits, state

    method = training.method(attacks.pgd(0.1, 2, keep_best=False), my_outer)
    _, metrics = STEP(method, start(), BATCH, KEY)
    assert np.isfinite(metrics['loss'])
    assert method.adversarial
    assert not training.standard().adversarial


def test_triangular_schedule_is_the_published_interpolation():
    schedule = training.triangular(5e-3, 100)
    for t in range(101):
        expected = np.interp(t, [0, 40, 100], [0, 5e-3, 0])
        assert float(schedule(t)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (
            lambda: training.fgsm_at(0.1, clean_weight=1.5),
            r'clean_weight must lie in \[0, 1\], got 1.5',
        ),
        (lambda: training.trades(0.1, beta=-1), 'beta must be >= 0, got -1'),
        (lambda: training.pgd_at(-0.1), 'eps must be a radius >= 0'),
        (lambda: training.pgd_at(0.1, 0), 'steps must be an integer >= 1, got 0'),
        (lambda: training.trades(0.1, steps=0), 'steps must be an integer >= 1, got 0'),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
