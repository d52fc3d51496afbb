"""Label smoothing around any method: the labels, and who gets to see them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import models, training, zoo
from advjax.training.forward import Forward
from advjax.training.smoothing import WithSmoothLabels
from tests.test_models import NnxNet
from tests.test_split_norm import MODEL as SPLIT

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


def shown(amount, y=Y):
    """The labels that an outer loss is given."""
    seen = []

    def outer(forward, state, x, x_adv, y):
        seen.append(y)
        return jnp.zeros(6), *forward(state, x)

    method = training.method(training.unperturbed, outer)
    training.step(
        training.smooth_labels(method, amount), start(), {**BATCH, 'label': y}, KEY
    )
    return np.asarray(seen[0])


def test_the_labels_are_those_of_pytorch():
    expected = np.full((6, 3), 0.3 / 3)
    expected[np.arange(6), np.asarray(Y)] += 0.7
    np.testing.assert_allclose(shown(0.3), expected, atol=1e-7)
    np.testing.assert_allclose(shown(1.0), np.full((6, 3), 1 / 3), atol=1e-7)
    np.testing.assert_array_equal(shown(0.0), np.eye(3)[np.asarray(Y)])
    mixed = jax.random.dirichlet(KEY, jnp.ones(3), (6,))
    np.testing.assert_allclose(shown(0.3, mixed), 0.7 * mixed + 0.1, atol=1e-6)
    unlabelled = shown(0.3, Y.at[2].set(-1))
    np.testing.assert_array_equal(unlabelled[2], 0)
    np.testing.assert_allclose(unlabelled[3], expected[3], atol=1e-7)


def test_the_loss_is_that_of_pytorch():
    torch = pytest.importorskip('torch')
    state = start()
    _, metrics = STEP(
        training.smooth_labels(training.standard(), 0.2), state, BATCH, KEY
    )
    logits = np.array(models.logits_fn(MODEL, state.params)(X))
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(np.array(Y)).long(), label_smoothing=0.2
    )
    np.testing.assert_allclose(metrics['loss'], float(theirs), rtol=1e-5)


def test_loss_and_gradient_are_those_of_the_equation():
    state, method = start(), training.smooth_labels(training.pgd_at(0.1, 2), 0.2)
    x_adv = []

    def spy(forward, s, x, adv, y):
        x_adv.append(adv)
        return training.on_adversarial(forward, s, x, adv, y)

    plain = training.pgd_at(0.1, 2)
    training.step(plain.replace(outer=spy), state, BATCH, KEY)

    def expected(params):
        log_p = jax.nn.log_softmax(MODEL.apply(params, {}, x_adv[0])[0])
        return -(0.8 * log_p[jnp.arange(6), Y] + 0.2 * log_p.mean(1)).mean()

    value, gradient = jax.value_and_grad(expected)(state.params)
    new, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    close(jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params), gradient)


def test_the_attack_sees_the_label_itself():
    seen = []

    def spy(logits_fn, key, x, y):
        seen.append(y)
        return x

    method = training.method(spy, training.on_adversarial)
    training.step(training.smooth_labels(method, 0.5), start(), BATCH, KEY)
    np.testing.assert_array_equal(seen[0], Y)


METHODS = {
    'standard': lambda: training.standard(),
    'pgd_at': lambda: training.pgd_at(0.1, 2),
    'fgsm_at': lambda: training.fgsm_at(0.1),
    'trades': lambda: training.trades(0.1, 2.0, 2),
    'gaussian': lambda: training.gaussian_augmentation(0.2),
    'awp': lambda: training.awp(training.fgsm_at(0.1)),
}


@pytest.mark.parametrize('name', METHODS)
def test_nothing_smoothed_is_the_method_itself(name):
    method = METHODS[name]()
    one, m1 = STEP(method, start(), BATCH, KEY)
    two, m2 = STEP(training.smooth_labels(method, 0.0), start(), BATCH, KEY)
    np.testing.assert_allclose(m1['loss'], m2['loss'], rtol=5e-7)
    close(one.params, two.params, atol=1e-7)
    _, m3 = STEP(training.smooth_labels(method, 0.3), start(), BATCH, KEY)
    assert abs(float(m3['loss'] - m1['loss'])) > 1e-3


@pytest.mark.parametrize('name', ['standard', 'fgsm_at', 'trades'])
def test_nothing_smoothed_is_the_loss_bit_for_bit(name):
    """Without a compiler that orders sums anew."""
    outer = METHODS[name]().outer
    params, _ = MODEL.init(KEY)

    def loss(params, outer):
        mask = jnp.ones(len(X), bool)
        forward = Forward(mask, MODEL, params, {}, X, KEY)

        return outer(forward, {}, X, X[::-1], Y)[0].sum()

    smooth = WithSmoothLabels(outer, jnp.float32(0))
    one, two = (jax.value_and_grad(loss)(params, o) for o in (outer, smooth))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_statistics_are_those_of_the_images_seen_once():
    """Counting the classes leaves no trace in BatchNorm."""
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    one, _ = STEP(training.standard(), start(model), BATCH, KEY)
    two, _ = STEP(
        training.smooth_labels(training.standard(), 0.0), start(model), BATCH, KEY
    )
    close(one.model_state, two.model_state, atol=0)


def test_every_branch_of_advprop_is_smoothed():
    state = start(SPLIT)
    method = training.smooth_labels(training.advprop(0.0, 0.0, steps=1), 0.2)
    _, metrics = STEP(method, state, BATCH, KEY)
    total = 0
    for branch in range(3):
        z, _ = SPLIT.apply(
            state.params, state.model_state, X, train=True, branch=branch
        )
        log_p = jax.nn.log_softmax(z)
        total -= (0.8 * log_p[jnp.arange(6), Y] + 0.2 * log_p.mean(1)).mean()
    np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)


def test_the_amount_is_a_leaf():
    before = STEP._cache_size()
    for amount in (0.05, 0.1, 0.2):
        STEP(training.smooth_labels(training.standard(), amount), start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1

    def one(amount):
        method = training.smooth_labels(training.standard(), 0.0)
        method = method.replace(outer=method.outer.replace(amount=amount))
        return training.step(method, start(), BATCH, KEY)[0].params

    many = jax.jit(jax.vmap(one))(jnp.array([0.0, 0.5]))
    for i, amount in enumerate((0.0, 0.5)):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(jnp.float32(amount)))


@pytest.mark.parametrize('amount', [-0.1, 1.5, float('nan')])
def test_bad_arguments_are_named(amount):
    with pytest.raises(ValueError, match=rf'amount must lie in \[0, 1\], got {amount}'):
        training.smooth_labels(training.standard(), amount)
