"""Virtual adversarial training: the power method, and labels that are missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import keys, l2, linf, losses, models, training
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


def log_p(params, x):
    return jax.nn.log_softmax(MODEL.apply(params, {}, x)[0])


def test_loss_and_gradient_are_those_of_the_equation():
    """The clean prediction in the divergence is that of constant weights."""

    def equation(params, moved):
        held = jax.lax.stop_gradient(log_p(params, X))
        divergence = (jnp.exp(held) * (held - log_p(params, moved))).sum(1)
        return jnp.mean(-log_p(params, X)[jnp.arange(6), Y] + 0.7 * divergence)

    moved = agrees(training.virtual_adversarial(0.5, 0.7), equation)
    # On the sphere, outside of the range where need be.
    np.testing.assert_allclose(l2(1.0).norm(moved - X), 0.5, rtol=1e-5)


@pytest.mark.parametrize('iterations', [1, 3])
def test_the_direction_is_that_of_the_pseudocode(iterations):
    """Algorithm 1 of one example, the curvature by an exact Hessian."""
    state, method = (
        start(),
        training.virtual_adversarial(0.5, power_iterations=iterations),
    )
    moved = found(method, state)
    now = jax.random.fold_in(KEY, 0)
    each = keys.of_index(jax.random.split(now)[0], jnp.arange(6))

    def curvature(x):
        def divergence(r):
            p, q = (
                log_p(state.params, z[None])[0] for z in (x, x + r.reshape(x.shape))
            )
            return (jnp.exp(p) * (p - q)).sum()

        return jax.hessian(divergence)(jnp.zeros(x.size))

    for i, hessian in enumerate(jax.jit(jax.vmap(curvature))(X)):
        d = np.asarray(jax.random.normal(each[i], X.shape[1:])).ravel()
        for _ in range(iterations):
            d = hessian @ (d / np.linalg.norm(d))
        expected = 0.5 * d / np.linalg.norm(d)
        np.testing.assert_allclose((moved - X)[i].ravel(), expected, atol=5e-3)


def test_the_power_method_finds_what_changes_the_prediction_most():
    state = start()
    f = models.logits_fn(MODEL, state.params)

    def change(moved):
        return float(losses.kl(f(moved), f(X)).mean())

    random = change(X + 0.5 * l2(1.0).steepest(jax.random.normal(KEY, X.shape)))
    one, many = (
        change(found(training.virtual_adversarial(0.5, power_iterations=k), state))
        for k in (1, 10)
    )
    assert one > 2 * random
    assert many > one


def test_labels_are_not_looked_at_by_the_adversary():
    method, state = training.virtual_adversarial(0.5), start()
    close(found(method, state), found(method, state, y=(Y + 1) % 3), atol=0)


def test_examples_without_a_label_count_in_the_second_term_alone():
    method, state = training.virtual_adversarial(0.5, 0.7), start()
    moved = found(method, state)
    held = log_p(state.params, X)
    smooth = 0.7 * (jnp.exp(held) * (held - log_p(state.params, moved))).sum(1)
    entropy = jnp.where(jnp.arange(6) < 2, -held[jnp.arange(6), Y], 0)
    some = jnp.where(jnp.arange(6) < 2, Y, -1)
    new, metrics = STEP(method, state, {**BATCH, 'label': some}, KEY)
    np.testing.assert_allclose(metrics['loss'], (smooth + entropy).mean(), rtol=1e-5)
    # One-hot labels lack a label where they are zero, and jax.nn.one_hot(-1) is.
    rows = {**BATCH, 'label': jax.nn.one_hot(some, 3)}
    soft, _ = STEP(method, state, rows, KEY)
    close(new.params, soft.params)
    # Nothing at all to learn from: no labels, and no divergence.
    nothing = {**BATCH, 'label': jnp.full_like(Y, -1)}
    still, metrics = STEP(training.virtual_adversarial(0.0), state, nothing, KEY)
    close(still.params, state.params)
    np.testing.assert_allclose(metrics['loss'], 0, atol=1e-7)


def test_no_radius_is_standard_training():
    expected, _ = STEP(training.standard(), start(), BATCH, KEY)
    new, _ = STEP(training.virtual_adversarial(0.0, 0.7), start(), BATCH, KEY)
    close(new.params, expected.params)


def test_statistics_are_those_of_the_clean_images():
    state = start(NORMALISED)
    expected, _ = STEP(training.standard(), state, BATCH, KEY)
    new, _ = STEP(training.virtual_adversarial(3.0), state, BATCH, KEY)
    close(new.model_state, expected.model_state)


def test_other_balls():
    """With a range the images stay inside; in linf the step is a sign step."""
    state = start()
    inside = found(training.virtual_adversarial(l2(2.0)), state)
    assert l2(2.0).contains(inside, X).all()
    assert float(inside.min()) >= 0
    ball = linf(0.1, bounds=None)
    corner = found(training.virtual_adversarial(ball), state)
    np.testing.assert_allclose(jnp.abs(corner - X), 0.1, atol=1e-6)


def test_a_prediction_without_slope_stays_where_it_is():
    state = start()
    state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    np.testing.assert_array_equal(found(training.virtual_adversarial(0.5), state), X)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'probe': 0}, 'probe must be a number > 0, got 0'),
        ({'power_iterations': 0}, 'power_iterations must be an integer >= 1, got 0'),
        ({'ball': -1.0}, 'eps must be a radius >= 0, got -1.0'),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        training.virtual_adversarial(**{'ball': 0.5, **options})
