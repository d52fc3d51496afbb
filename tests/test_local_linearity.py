"""LLR: its loss, its bound, and the search for the least linear point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import convolutions, geometry, linf, losses, models, training
from tests.test_regularisers import (
    BATCH,
    KEY,
    MODEL,
    NORMALISED,
    STEP,
    X,
    Y,
    agrees,
    close,
    found,
    start,
)


def loss_at(params, x):
    z = MODEL.apply(params, {}, x)[0]
    return -jax.nn.log_softmax(z)[jnp.arange(6), Y]


def test_loss_and_gradient_are_those_of_the_equation():
    """One example at a time, in plain JAX."""

    def one(params, x, x_adv, y):
        def loss(image):
            z = MODEL.apply(params, {}, image[None])[0][0]
            return -jax.nn.log_softmax(z)[y]

        delta = x_adv - x
        slope = jnp.vdot(delta, jax.grad(loss)(x))
        error = jnp.abs(loss(x_adv) - loss(x) - slope)
        return loss(x) + 4.0 * error + 3.0 * jnp.abs(slope)

    def equation(params, x_adv):
        return jnp.mean(jax.vmap(one, (None, 0, 0, 0))(params, X, x_adv, Y))

    x_adv = agrees(training.llr(0.2, 4.0, 3.0), equation)
    assert float(jnp.abs(x_adv - X).max()) == pytest.approx(0.2, abs=1e-6)


def test_the_inequality():
    """|l(x + d) - l(x)| <= |d' grad l(x)| + g(d; x) <= |d' grad l(x)| + gamma."""
    params = start().params
    params = jax.tree.map(lambda a: 3 * a, params)  # Far from linear.
    f, ball = models.logits_fn(MODEL, params), linf(0.3)

    def objective(z):
        return losses.cross_entropy(f(z), Y)

    def measured(key):
        points = ball.sample(key, X)
        gradient = jax.grad(lambda z: objective(z).sum())(X)
        slope = ((points - X) * gradient).sum((1, 2, 3))
        change = objective(points) - objective(X)
        return change, slope, geometry.tangent_error(objective, X)(points)

    each = jax.random.split(KEY, 64)
    change, slope, error = jax.jit(jax.vmap(measured))(each)
    np.testing.assert_allclose(error, np.abs(change - slope), atol=1e-5)
    assert (np.abs(change) <= np.abs(slope) + error + 1e-5).all()
    # Neither term alone is a bound.
    assert (np.abs(change) > error + 1e-3).any()
    assert (np.abs(change) > np.abs(slope) + 1e-3).any()
    # The search gives a lower bound of gamma: draws enough make it a tight one.
    gamma = jax.jit(
        lambda: geometry.linearisation(f, X, Y, ball, key=KEY, samples=1024).worst
    )()
    assert (np.abs(change) <= np.abs(slope) + gamma[None] + 1e-5).all()


def test_the_search_finds_a_point_less_linear_than_chance():
    params = jax.tree.map(lambda a: 3 * a, start().params)
    state = start().replace(params=params)
    ball = linf(0.3)
    x_adv = found(training.llr(ball, steps=10), state)
    assert ball.contains(x_adv, X).all()
    f = models.logits_fn(MODEL, params)
    error = geometry.tangent_error(lambda z: losses.cross_entropy(f(z), Y), X)
    random = np.mean([error(ball.sample(k, X)) for k in jax.random.split(KEY, 8)], 0)
    assert np.mean(error(x_adv)) > 1.5 * np.mean(random)


def test_at_the_image_itself_there_is_nothing_to_climb():
    """Which is why the search starts elsewhere."""
    f = models.logits_fn(MODEL, start().params)
    error = geometry.tangent_error(lambda z: losses.cross_entropy(f(z), Y), X)
    np.testing.assert_array_equal(error(X), 0)
    np.testing.assert_array_equal(jax.grad(lambda z: error(z).sum())(X), 0)


def test_no_radius_is_standard_training():
    expected, metrics = STEP(training.standard(), start(), BATCH, KEY)
    new, other = STEP(training.llr(0.0), start(), BATCH, KEY)
    close(new.params, expected.params)
    np.testing.assert_allclose(other['loss'], metrics['loss'], rtol=1e-6)


def test_statistics_are_those_of_the_clean_images():
    state = start(NORMALISED)
    expected, _ = STEP(training.standard(), state, BATCH, KEY)
    new, _ = STEP(training.llr(0.3), state, BATCH, KEY)
    close(new.model_state, expected.model_state)


def test_convolutions_are_differentiated_twice():
    """The written gradients have the right gradients: those of plain convolutions."""
    keys = jax.random.split(KEY, 5)
    shapes = [(4, 4, 1, 2), (3, 3, 2, 3), (48, 3)]
    params = [
        jax.random.normal(k, shape) / 3
        for k, shape in zip(keys[:3], shapes, strict=True)
    ]
    x = jax.random.uniform(keys[3], (3, 8, 8, 1))
    x_adv, y = linf(0.2).sample(keys[4], x), jnp.array([0, 2, 1])
    outer, dimensions = training.llr(0.2).outer, ('NHWC', 'HWIO', 'NHWC')

    def gradient(conv):
        def forward(state, z, draw=0):
            for kernel, stride in zip(params_[:2], (2, 1), strict=True):
                z = conv(
                    z,
                    kernel,
                    (stride, stride),
                    'SAME',
                    dimension_numbers=dimensions,
                )
                z = jnp.tanh(z)
            return z.reshape(z.shape[0], -1) @ params_[2], state

        def loss(given):
            nonlocal params_
            params_ = given
            return outer(forward, {}, x, x_adv, y)[0].sum()

        params_ = params
        return jax.jit(jax.grad(loss))(params)

    plain = gradient(jax.lax.conv_general_dilated)
    close(gradient(convolutions.conv_general_dilated), plain, atol=1e-4)
    assert all(np.abs(g).max() > 1e-2 for g in plain)
