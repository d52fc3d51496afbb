"""The sparse autoencoder, its own loss, the sigmoid perceptron and layer decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import models, training, zoo
from experiments.studies.szegedy2014.autoencoder import sparse_autoencoder

KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def auto():
    """A small autoencoder, its parameters, and images."""
    model = sparse_autoencoder((3, 3, 1), 4, units=5, sparsity=0.2, weight=1.5)
    params, state = model.init(KEY)
    return model, params, state, jax.random.uniform(KEY, (6, 3, 3, 1))


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def test_loss_and_logits_by_hand(auto):
    model, params, state, x = auto
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    flat = np.asarray(x, np.float64).reshape(6, 9)
    code = sigmoid(flat @ p['encoder']['kernel'] + p['encoder']['bias'])
    again = sigmoid(code @ p['decoder']['kernel'] + p['decoder']['bias'])
    mean = code.mean(0)
    divergence = sum(
        0.2 * np.log(0.2 / a) + 0.8 * np.log(0.8 / (1 - a)) for a in mean
    )  # fmt: skip
    expected = ((flat - again) ** 2).sum() / 12 + 1.5 * divergence
    logits, after = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(after['loss'], expected, rtol=1e-5)
    by_hand = code @ p['out']['kernel'] + p['out']['bias']
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(models.features_fn(model, params)(x), code, rtol=1e-5)
    same, untouched = model.apply(params, state, x)
    np.testing.assert_allclose(same, logits, atol=1e-6)
    assert untouched is state


def test_labels_do_not_reach_the_code(auto):
    model, params, state, x = auto

    def loss(params, own):
        logits, after = model.apply(params, state, x, train=True)
        return jnp.sum(logits[:, 0]) + own * after['loss']

    labels = jax.grad(loss)(params, 0.0)
    assert all(not leaf.any() for leaf in jax.tree.leaves(labels['encoder']))
    assert labels['out']['kernel'].any()
    images = jax.grad(lambda p: model.apply(p, state, x, train=True)[1]['loss'])(params)
    assert images['encoder']['kernel'].any()
    assert images['decoder']['kernel'].any()
    assert not images['out']['kernel'].any()
    # An attack, which asks in eval mode, does see through the code.
    logits_fn = models.logits_fn(model, params, state)
    assert jax.grad(lambda x: logits_fn(x)[:, 0].sum())(x).any()


def test_training_with_the_own_loss_learns_both_parts(auto):
    model, _, _, x = auto
    method = training.with_own_loss(training.standard())
    assert not method.adversarial
    batch = {'image': x, 'label': jnp.arange(6) % 4}
    go = jax.jit(training.step)
    state = training.create(model, optax.adam(3e-2), key=KEY)
    start, metrics = go(method, state, batch, KEY)
    own = model.apply(state.params, state.model_state, x, train=True)[1]['loss']
    plain = go(training.standard(), state, batch, KEY)[1]['loss']
    np.testing.assert_allclose(metrics['loss'], plain + own, rtol=1e-5)
    np.testing.assert_allclose(start.model_state['loss'], own, rtol=1e-5)
    for _ in range(60):
        state, metrics = go(method, state, batch, KEY)
    after = model.apply(state.params, state.model_state, x, train=True)[1]['loss']
    assert after < own
    assert metrics['loss'] - after < plain


def test_sparsity_pulls_the_mean_activation():
    x = jax.random.uniform(KEY, (16, 3, 3, 1))
    batch = {'image': x, 'label': jnp.zeros(16, int)}
    method = training.with_own_loss(training.standard())
    go = jax.jit(training.step)
    means = []
    for sparsity in (0.05, 0.3):
        model = sparse_autoencoder((3, 3, 1), 2, 6, sparsity, weight=30.0)
        state = training.create(model, optax.adam(5e-2), key=KEY)
        for _ in range(150):
            state, _ = go(method, state, batch, KEY)
        layer = state.params['encoder']
        code = jax.nn.sigmoid(x.reshape(16, 9) @ layer['kernel'] + layer['bias'])
        means.append(float(code.mean()))
    np.testing.assert_allclose(means, (0.05, 0.3), rtol=0.1)


@pytest.mark.parametrize(
    'wrong', [{'units': 0}, {'sparsity': 1.0}, {'sparsity': 0.0}, {'weight': -1.0},
              {'weight': float('nan')}]
)  # fmt: skip
def test_autoencoder_refuses(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        sparse_autoencoder((3, 3, 1), 2, **wrong)


@pytest.mark.parametrize(
    ('name', 'function'),
    [('relu', lambda v: np.maximum(v, 0)), ('sigmoid', sigmoid), ('tanh', np.tanh)],
)
def test_perceptron_by_hand(name, function):
    model = zoo.mlp((3, 3, 1), 4, (6, 5), name)
    params, state = model.init(KEY)
    x = jax.random.normal(KEY, (7, 3, 3, 1))
    h = np.asarray(x).reshape(7, 9)
    for i in range(2):
        layer = params['hidden'][i]
        h = function(h @ np.asarray(layer['kernel']) + np.asarray(layer['bias']))
    expected = h @ np.asarray(params['out']['kernel']) + np.asarray(
        params['out']['bias']
    )
    np.testing.assert_allclose(model.apply(params, state, x)[0], expected, atol=1e-5)


def test_initialisations_are_those_of_their_papers():
    def first(name):
        params, _ = zoo.mlp((20, 20, 1), 4, (100, 6), name).init(KEY)
        return np.asarray(params['hidden'][0]['kernel'])

    bound = np.sqrt(6 / 500)
    assert np.abs(first('tanh')).max() == pytest.approx(bound, rel=0.01)
    assert np.abs(first('sigmoid')).max() == pytest.approx(4 * bound, rel=0.01)
    assert first('relu').std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)


def test_perceptron_refuses_an_activation_it_does_not_know():
    with pytest.raises(ValueError, match=r"activation must be one of .*'step'"):
        zoo.mlp((3, 3, 1), 4, (6,), 'step')


def test_layer_decay_is_the_gradient_of_the_penalty():
    """Lambda sum w^2 / k, per layer, not of biases; differentiated by JAX here."""
    params, _ = zoo.mlp((3, 3, 1), 4, (6, 5)).init(KEY)

    def penalty(params):
        kernels = [
            (0.3, params['hidden'][0]['kernel']),
            (0.3, params['hidden'][1]['kernel']),
            (0.02, params['out']['kernel']),
        ]
        return sum(rate * jnp.sum(w**2) / w.shape[1] for rate, w in kernels)

    decay = training.layer_decay(0.02, hidden=0.3)
    gradient = jax.tree.map(jnp.ones_like, params)
    found, _ = decay.update(gradient, decay.init(params), params)
    expected = jax.tree.map(lambda g: 1 + g, jax.grad(penalty)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
                 found, expected)  # fmt: skip
    assert training.layer_decay(0.02, hidden=0.3) is decay
    everywhere = training.layer_decay(0.02)
    found, _ = everywhere.update(gradient, everywhere.init(params), params)
    w = params['hidden'][0]['kernel']
    np.testing.assert_allclose(
        found['hidden'][0]['kernel'], 1 + 0.04 * w / 6, rtol=1e-5
    )


def test_layer_decay_leaves_the_row_of_biases_alone():
    params = {'w': jnp.ones((3, 2)), 'b': jnp.ones((1, 2))}
    decay = training.layer_decay(1.0)
    zero = jax.tree.map(jnp.zeros_like, params)
    found, _ = decay.update(zero, decay.init(params), params)
    np.testing.assert_allclose(found['w'], 1.0)  # 2 * 1 / 2 units.
    np.testing.assert_allclose(found['b'], 0.0)


def test_layer_decay_refuses():
    for wrong in (-1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='rate must be'):
            training.layer_decay(wrong)
        with pytest.raises(ValueError, match='out must be'):
            training.layer_decay(0.1, out=wrong)
    with pytest.raises(ValueError, match=r"got \['missing'\]"):
        training.layer_decay(0.1, missing=0.1).init({'w': jnp.ones((2, 2))})
