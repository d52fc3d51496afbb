"""GradAlign: its loss, what it leaves out, and the methods it can be added to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, geometry, keys, l2, linf, models, training
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

SLOW = optax.sgd(0.01)
FGSM = training.method(attacks.fgm(0.1), training.on_adversarial)


def cross(params, x, y):
    return -jax.nn.log_softmax(MODEL.apply(params, {}, x[None])[0][0])[y]


@pytest.mark.parametrize('through_both', [True, False])
def test_loss_and_gradient_are_those_of_the_equation(through_both):
    """One example at a time, in plain JAX, with either end of the cosine free."""

    def one(params, x, x_adv, point, y):
        held = params if through_both else jax.lax.stop_gradient(params)
        here = jax.grad(cross, argnums=1)(held, x, y).ravel()
        there = jax.grad(cross, argnums=1)(params, point, y).ravel()
        cosine = here @ there / jnp.sqrt((here @ here) * (there @ there))
        return cross(params, x_adv, y) + 0.7 * (1 - cosine)

    def equation(params, images):
        x_adv, point = images
        return jnp.mean(jax.vmap(one, (None, 0, 0, 0, 0))(params, X, x_adv, point, Y))

    method = training.grad_align(0.3, 0.7, through_both=through_both)
    x_adv, point = agrees(method, equation)
    # FGSM from the clean image, and a point anywhere in the cube, clipped nowhere.
    f = models.logits_fn(MODEL, start().params)
    close(x_adv, attacks.fgm(0.3)(f, KEY, X, Y))
    eta = point - X
    assert float(jnp.abs(eta).max()) <= 0.3 + 1e-6
    assert float(point.min()) < 0
    assert 0.12 < float(jnp.abs(eta).mean()) < 0.18


def test_the_term_is_that_of_the_diagnosis():
    """In eval mode and one draw: 1 - geometry.cosine at the point that was drawn."""
    method, state = training.grad_align(0.3, 1.0), start()
    x_adv, point = found(method, state)

    def loss(params, images):
        z = MODEL.apply(params, {}, images)[0]
        return -jax.nn.log_softmax(z)[jnp.arange(6), Y].sum()

    here, there = (jax.grad(loss, 1)(state.params, x) for x in (X, point))
    expected = loss(state.params, x_adv) / 6
    expected += jnp.mean(1 - geometry.cosine(here, there))
    _, metrics = STEP(method, state, BATCH, KEY)
    np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)


@pytest.mark.parametrize(
    'base',
    [FGSM, training.fast(0.1), training.pgd_at(0.1, 2), training.trades(0.1, 2.0, 2)],
    ids=['fgsm', 'fast', 'pgd', 'trades'],
)
def test_weight_zero_is_the_base_method_bit_for_bit(base):
    given = 0.1 if base is FGSM else base
    expected, metrics = STEP(base, start(NORMALISED), BATCH, KEY)
    new, other = STEP(training.grad_align(given, 0.0), start(NORMALISED), BATCH, KEY)
    close(new.params, expected.params, atol=0, rtol=0)
    close(new.model_state, expected.model_state, atol=0, rtol=0)
    assert float(metrics['loss']) == float(other['loss'])


def test_a_wrapped_method_keeps_its_attack_and_its_loss():
    base = training.pgd_at(0.1, 2)
    method = training.grad_align(base, 0.7)
    images, point = found(method, start())
    close(images, found(base, start()), atol=0)
    assert not np.allclose(point, images)
    assert method.outer.outer == base.outer
    assert method.adversarial


def test_the_random_point_is_not_where_the_attack_starts():
    method = training.grad_align(training.fast(0.1), 0.7)
    each = keys.per_example(KEY, 6)
    fast, f = method.inner.attack, models.logits_fn(MODEL, start().params)
    begun = fast.init(attacks.goal(f, Y), each, X).x
    point = method.inner(f, each, X, Y)[1]
    both = jnp.stack([(begun - X).ravel(), (point - X).ravel()])
    assert abs(float(jnp.corrcoef(both)[0, 1])) < 0.35


def test_no_radius_has_nothing_to_align():
    expected, metrics = STEP(training.standard(), start(), BATCH, KEY)
    new, other = STEP(training.grad_align(0.0, 0.7), start(), BATCH, KEY)
    close(new.params, expected.params)
    np.testing.assert_allclose(other['loss'], metrics['loss'], rtol=1e-6)


def test_examples_without_a_gradient_are_skipped():
    """Their term is 0, and no NaN reaches the weights."""

    def apply(params, x):
        # Blank images are answered by a constant.
        seen = x.sum((1, 2, 3), keepdims=True) > 1
        z = jnp.tanh(jnp.where(seen, x, 0).reshape(len(x), -1) @ params)
        return z + jnp.arange(3.0)[None]

    def forward(state, x, draw=0):
        return apply(weights, x), state

    weights = jax.random.normal(KEY, (16, 3))
    x = X.at[2].set(0.0)
    outer = training.grad_align(0.1, 0.7).outer
    base = dataclasses.replace(outer, coefficient=jnp.float32(0))

    def loss(params, method):
        nonlocal weights
        weights = params
        return method(forward, {}, x, (x, jnp.where(x > 0, x + 0.05, x)), Y)[0]

    given = weights
    extra = loss(given, outer) - loss(given, base)
    assert float(extra[2]) == 0
    assert (np.delete(np.asarray(extra), 2) > 0).all()
    gradient = jax.grad(lambda p: loss(p, outer).sum())(given)
    assert np.isfinite(gradient).all()


def test_the_random_point_belongs_to_the_example_and_follows_the_radius():
    method = training.grad_align(0.1, 0.7)
    f = models.logits_fn(MODEL, start().params)
    each = keys.per_example(KEY, 6)
    order = jnp.array([3, 1, 5])
    whole = method.inner(f, each, X, Y)[1]
    part = method.inner(f, each[order], X[order], Y[order])[1]
    np.testing.assert_array_equal(whole[order], part)
    grown = training.scheduled(method, eps=lambda step: 2.0).at(jnp.int32(0))
    twice = grown.inner(f, each, X, Y)[1]
    np.testing.assert_allclose(twice - X, 2 * (whole - X), atol=1e-6)


def test_it_aligns_gradients():
    """On average over runs; a single one is chaotic."""

    def alignment(state):
        f = models.logits_fn(MODEL, state.params)
        return geometry.gradient_alignment(f, X, Y, 0.3, key=KEY).mean()

    def trained(key, coefficient):
        method = training.grad_align(0.3, coefficient)
        state = training.create(MODEL, SLOW, key=key)
        # Larger weights bend the loss more.
        first = jax.tree.map(lambda a: 3 * a, state.params)
        state = state.replace(params=first)
        state, _ = jax.lax.scan(
            lambda s, _: (training.step(method, s, BATCH, key)[0], None),
            state,
            length=200,
        )
        return alignment(state)

    runs = jax.vmap(jax.vmap(trained, (0, None)), (None, 0))
    both = jax.jit(runs)(jax.random.split(KEY, 16), jnp.array([0.0, 5.0]))
    plain, aligned = np.nanmean(both, axis=1)
    assert aligned > plain + 0.08


def test_the_published_weights():
    """0.02 at eps 0, ten times as much every 8/255."""
    table = {1: 0.027, 4: 0.063, 8: 0.2, 12: 0.632, 16: 2.0}
    for eps, expected in table.items():
        value = training.grad_align(eps / 255).outer.coefficient
        assert float(value) == pytest.approx(expected, abs=6e-4)
    swept = jax.vmap(lambda e: training.grad_align(linf(e)).outer.coefficient)(
        jnp.array([1.0, 8.0]) / 255
    )
    np.testing.assert_allclose(swept, [0.0267, 0.2], rtol=1e-2)


def test_what_is_refused():
    for base in (0.3, l2(0.01), training.pgd_at(l2(0.5))):
        with pytest.raises(ValueError, match='coefficient must be given outside'):
            training.grad_align(base)
        training.grad_align(base, 0.1)
    with pytest.raises(ValueError, match='base must be a ball, or a method'):
        training.grad_align(training.standard(), 0.1)
    with pytest.raises(ValueError, match='base must not be free'):
        training.grad_align(training.free(0.1), 0.1)
