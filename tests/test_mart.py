"""MART against its formula, and where it ends up in the limits."""

import jax
import jax.numpy as jnp
import numpy as np

from advjax import losses, training
from tests.test_regularisers import BATCH, KEY, MODEL, STEP, X, Y, agrees, close, start


def transcribed(clean, adversarial, y, beta):
    """The loss of one batch in float64 NumPy."""

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(np.float64(clean)), softmax(np.float64(adversarial))
    total = 0.0
    for i, label in enumerate(np.asarray(y)):
        wrong = max(q[i, k] for k in range(q.shape[1]) if k != label)
        boosted = -np.log(q[i, label]) - np.log(1.0001 - wrong + 1e-12)
        kl = (p[i] * (np.log(p[i]) - np.log(q[i]))).sum()
        total += boosted + beta * kl * (1 - p[i, label])
    return total / len(y)


def test_loss_and_gradient_are_those_of_the_equation():
    method = training.mart(0.1, 5.0, 3)

    def equation(params, x_adv):
        p = jax.nn.softmax(MODEL.apply(params, {}, X)[0])
        q = jax.nn.softmax(MODEL.apply(params, {}, x_adv)[0])
        label = jax.nn.one_hot(Y, 3)
        own = (q * label).sum(1)
        wrong = (q * (1 - label)).max(1)
        boosted = -jnp.log(own) - jnp.log(1.0001 - wrong + 1e-12)
        kl = (p * jnp.log(p / q)).sum(1)
        return jnp.mean(boosted + 5.0 * kl * (1 - (p * label).sum(1)))

    x_adv = agrees(method, equation)
    assert float(jnp.abs(x_adv - X).max()) > 0.09
    params = start().params
    z, z_adv = (MODEL.apply(params, {}, x)[0] for x in (X, x_adv))
    expected = transcribed(z, z_adv, Y, 5.0)
    _, metrics = STEP(method, start(), BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)


def test_the_search_is_that_of_cross_entropy_from_gaussian_noise():
    from advjax import attacks

    inner = training.mart(0.1, steps=3).inner
    assert inner.loss is losses.cross_entropy
    assert inner.start is attacks.starts.gaussian
    assert not inner.keep_best


def test_nothing_to_gain_is_boosted_cross_entropy_of_clean_images():
    boosted = training.standard(training.boosted_cross_entropy)
    expected, metrics = STEP(boosted, start(), BATCH, KEY)
    new, other = STEP(training.mart(0.0, 5.0, 2), start(), BATCH, KEY)
    close(new.params, expected.params)
    np.testing.assert_allclose(metrics['loss'], other['loss'], rtol=1e-6)


def test_boosted_cross_entropy_by_hand():
    # Probabilities 1/2, 1/4, 1/4: ties for the likeliest wrong class.
    z = jnp.log(jnp.array([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    value = training.boosted_cross_entropy(z, jnp.array([0, 1]))
    expected = [-np.log(0.5) - np.log(0.7501), -np.log(0.25) - np.log(0.5001)]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # A certain error stays finite, and so does its gradient.
    worst = jnp.array([[200.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(
        lambda z: training.boosted_cross_entropy(z, jnp.array([1])).sum()
    )(worst)
    np.testing.assert_allclose(value, 200 - np.log(1e-4), rtol=1e-4)
    assert np.isfinite(gradient).all()
    # Two classes: twice the cross entropy, but for the constant.
    two = jnp.array([[0.3, -0.2]])
    value = training.boosted_cross_entropy(two, jnp.array([0]))
    np.testing.assert_allclose(
        value, 2 * losses.cross_entropy(two, jnp.array([0])), rtol=1e-3
    )


def test_what_is_known_anyway_counts_less():
    """The second term is weighed by the doubt of the clean prediction."""
    outer = training.mart(0.1, 1.0).outer
    z = {'sure': jnp.array([[4.0, 0.0]]), 'unsure': jnp.array([[0.0, 0.0]])}
    adversarial = jnp.array([[0.0, 1.0]])

    def forward(state, x, draw=0):
        return (adversarial if x is Y else x), state

    y = jnp.array([0])
    for clean in z.values():
        value = outer(forward, {}, clean, Y, y)[0]
        p = jax.nn.softmax(clean)[0]
        expected = training.boosted_cross_entropy(adversarial, y)
        expected += losses.kl(adversarial, clean) * (1 - p[0])
        np.testing.assert_allclose(value, expected, rtol=1e-6)
