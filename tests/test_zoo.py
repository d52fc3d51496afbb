"""The zoo: shapes, published weights, and what each network promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, evaluation, linf, losses, models, training, zoo
from experiments.studies.szegedy2014.autoencoder import sparse_autoencoder

KEY = jax.random.key(0)
ALL = [
    zoo.softmax_regression,
    zoo.mlp,
    zoo.maxout,
    zoo.madry_mnist,
    zoo.fast_mnist,
    sparse_autoencoder,
]


@pytest.mark.parametrize('build', ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize('shape', [(28, 28, 1), (8, 8, 1), (9, 11, 3)])
def test_shapes(build, shape):
    model = build(shape, 7)
    assert build(shape, 7) is model  # One set of functions, one compiled program.
    params, state = model.init(KEY)
    logits, _ = model.apply(params, state, jnp.zeros((3, *shape)))
    assert logits.shape == (3, 7)
    trained, _ = model.apply(params, state, jnp.zeros((3, *shape)), train=True, key=KEY)
    assert np.isfinite(trained).all()


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_sizes_of_the_published_networks():
    assert count(zoo.fast_mnist().init(KEY)[0]) == 166_406
    assert count(zoo.madry_mnist().init(KEY)[0]) == 3_274_634
    dense = 784 * 1200 + 1200 + 240 * 1200 + 1200 + 2410
    assert count(zoo.maxout().init(KEY)[0]) == dense


def test_logistic_is_the_binary_softplus_model():
    model = zoo.logistic((4, 4, 1))
    params, _ = model.init(KEY)
    x = jax.random.uniform(KEY, (5, 4, 4, 1))
    y = jnp.array([-1, 1, 1, -1, 1])
    logits = model.apply(params, {}, x)[0]
    expected = losses.softplus(x.reshape(5, 16) @ params['w'] + params['b'], y)
    np.testing.assert_allclose(losses.softplus(logits, y), expected, rtol=1e-6)
    np.testing.assert_allclose(
        losses.cross_entropy(logits, (y + 1) // 2), expected, rtol=1e-5
    )


def test_goodfellow_closed_form_with_the_sign_put_right():
    """FGSM on logistic regression is exact: s - y eps ||w||_1, for either label."""
    model = zoo.logistic((4, 4, 1))
    params, _ = model.init(KEY)
    x = jax.random.uniform(KEY, (6, 4, 4, 1))
    y = jnp.array([0, 1, 1, 0, 1, 0])
    f = models.logits_fn(model, params)
    adv = attacks.fgsm(linf(0.25, bounds=None))(f, KEY, x, y)
    sign = 2 * y - 1
    score = f(x)[:, 1] - sign * 0.25 * jnp.abs(params['w']).sum()
    np.testing.assert_allclose(f(adv)[:, 1], score, rtol=1e-5, atol=1e-6)


def test_maxout_input_dropout_does_not_rescale():
    """Kept pixels stay as they are (0.8 x / 0.8), unlike flax's own dropout."""
    model = zoo.maxout((1, 1, 1), 2, layers=1, units=1, pieces=1)
    params, state = model.init(KEY)
    params['hidden'][0] = {'kernel': jnp.ones((1, 1)), 'bias': jnp.zeros(1)}
    params['out'] = {'kernel': jnp.ones((1, 2)), 'bias': jnp.zeros(2)}
    seen = {
        round(float(model.apply(params, state, jnp.ones((1, 1, 1, 1)), train=True,
                                key=jax.random.key(s))[0][0, 0]), 5)
        for s in range(40)
    }  # fmt: skip
    assert seen == {0.0, 2.0}  # Hidden units are doubled, inputs are not.


def test_madry_initialisation():
    params, _ = zoo.madry_mnist().init(KEY)
    np.testing.assert_allclose(params['conv1']['bias'], 0.1)
    assert 0.08 < float(jnp.std(params['full']['kernel'])) < 0.11


def test_fast_initialisation_is_torch_uniform():
    params, _ = zoo.fast_mnist().init(KEY)
    bound = 1568**-0.5
    kernel = params['full']['kernel']
    assert float(jnp.abs(kernel).max()) <= bound
    assert float(jnp.abs(kernel).mean()) == pytest.approx(bound / 2, rel=0.02)
    assert float(jnp.abs(params['full']['bias']).max()) <= bound


def test_networks_too_small_are_refused():
    with pytest.raises(ValueError, match=r'shape .* \(3, 3, 1\)'):
        zoo.fast_mnist((3, 3, 1))


def test_damaged_weights_are_refused_by_name(tmp_path):
    path = tmp_path / 'weights.npz'
    np.savez(path, **{'0.weight': np.zeros((16, 1, 4, 4))})
    with pytest.raises(ValueError, match=r'0\.bias must be \(16,\), got None'):
        zoo.load_fast_mnist(path)


def test_golden_weights_clean_accuracy(golden, mnist_test):
    x, y = mnist_test
    right = np.asarray(jnp.argmax(golden(x), axis=1)) == y
    assert right.mean() == pytest.approx(0.9850, abs=0.0002)


@pytest.mark.slow
def test_golden_weights_pgd_50(golden, mnist_test):
    """90.95 +- 0.3 % after one restart, success at any iterate, all 10,000 images.

    The mean of three starts: one alone scatters by 0.17 points.
    """
    x, y = mnist_test
    attack = attacks.pgd(0.3, 50, rate=0.01 / 0.3)
    accuracies = [
        evaluation.evaluate(
            golden, x, y, attack, key=jax.random.key(seed), batch_size=1000
        ).robust_accuracy
        for seed in range(3)
    ]
    assert np.mean(accuracies) == pytest.approx(0.9095, abs=0.003)


def test_standard_step_is_the_same_for_every_network():
    """Each network of the zoo trains."""
    import optax

    x = jax.random.uniform(KEY, (8, 8, 8, 1))
    batch = {'image': x, 'label': jnp.arange(8)}
    for build in ALL:
        state = training.create(build((8, 8, 1), 8), optax.adam(1e-2), key=KEY)
        go = jax.jit(training.step)
        first = None
        for _ in range(15):
            state, metrics = go(training.standard(), state, batch, KEY)
            first = metrics['loss'] if first is None else first
        assert metrics['loss'] < first, build.__name__
