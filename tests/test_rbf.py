"""The shallow RBF network: its equation, its numerics, and no answer far away."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import losses, models, training
from experiments.studies.goodfellow2015.rbf import rbf
from experiments.studies.goodfellow2015.rubbish import rubbish

KEY = jax.random.key(0)
SHAPE = (3, 4, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))


def network(seed=1):
    """Random parameters, not the initial ones, which are nearly equal."""
    params, _ = rbf(SHAPE, 4).init(KEY)
    leaves, tree = jax.tree.flatten(params)
    each = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [
        a + 0.5 * jax.random.normal(k, a.shape)
        for a, k in zip(leaves, each, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def test_probabilities_are_those_of_the_equation():
    """In float64: p = exp((x - mu)' beta (x - mu)), and sigma(z) = p."""
    params = network()
    z = rbf(SHAPE, 4).apply(params, {}, X)[0]
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    x = np.asarray(X, np.float64).reshape(6, 12)
    for k in range(4):
        beta = -np.diag(np.exp(p['log_precision'][k]))
        assert (np.linalg.eigvalsh(beta) < 0).all()
        delta = x - p['mu'][k]
        expected = np.exp(np.einsum('bi,ij,bj->b', delta, beta, delta))
        got = 1 / (1 + np.exp(-np.asarray(z[:, k], np.float64)))
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_far_away_it_is_sure_of_nothing_and_its_gradient_lives():
    f = models.logits_fn(rbf(SHAPE, 4), network())
    far = 100 * jnp.ones((2, *SHAPE))
    assert (f(far) < -100).all()
    gradient = jax.grad(lambda x: losses.one_vs_rest(f(x), jnp.array([0, 1])).sum())(
        far
    )
    assert np.isfinite(gradient).all()
    assert (gradient > 0).all()  # Towards the templates the loss falls.


def test_at_a_template_logits_and_gradients_are_finite():
    params = network()
    f = models.logits_fn(rbf(SHAPE, 4), params)
    x = params['mu'].reshape(4, *SHAPE)
    z = np.asarray(f(x))
    np.testing.assert_allclose(np.diag(z), np.log(1e6), rtol=0.02)
    gradient = jax.grad(lambda x: f(x).sum())(x)
    assert np.isfinite(gradient).all()


def test_it_learns_and_takes_noise_for_nothing():
    model = rbf(SHAPE, 2)
    y = jnp.arange(32) % 2
    x = jnp.where(y.reshape(-1, 1, 1, 1) == 0, 0.2, 0.8) + 0.1 * jax.random.normal(
        KEY, (32, *SHAPE)
    )
    state = training.create(model, optax.adam(0.05), key=KEY)
    step = jax.jit(training.step)
    method = training.standard(losses.one_vs_rest)
    for _ in range(150):
        state, metrics = step(method, state, {'image': x, 'label': y}, KEY)
    assert metrics['accuracy'] == 1.0
    f = models.logits_fn(model, state.params)
    assert np.mean(jax.nn.sigmoid(f(x).max(axis=1))) > 0.5
    seen = rubbish(f, SHAPE, key=KEY, samples=200, probabilities='sigmoid')
    assert seen.error < 0.02


def test_the_model_is_made_once():
    assert rbf(SHAPE, 4) is rbf(SHAPE, 4)
