"""Inputs of no class: how they are counted, and how they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, keys, linf, models, zoo
from experiments.studies.goodfellow2015.fooling import fooling_images
from experiments.studies.goodfellow2015.rubbish import rubbish

KEY = jax.random.key(0)
SHAPE = (4, 5, 1)
BALL = linf(0.25, bounds=None)
MODEL = zoo.mlp(SHAPE, 3, (8,))
F = models.logits_fn(MODEL, MODEL.init(KEY)[0])


def _fixed(logits, x):
    return jnp.broadcast_to(logits, (x.shape[0], logits.shape[1]))


def always(*logits):
    return jax.tree_util.Partial(_fixed, jnp.array([logits]))


def test_rubbish_counts_what_is_taken_for_a_class():
    sure = rubbish(always(0.0, 3.0, 0.0), SHAPE, key=KEY, samples=7, batch_size=3)
    p = np.exp(3) / (np.exp(3) + 2)
    assert sure.error == 1.0
    assert sure.confidence == pytest.approx(p, rel=1e-5)
    np.testing.assert_array_equal(sure.classes, [0, 7, 0])
    unsure = rubbish(always(0.0, 0.1, 0.0), SHAPE, key=KEY, samples=7)
    assert unsure.error == 0.0
    assert np.isnan(unsure.confidence)
    # Independent classes may all be seen, or none.
    each = rubbish(
        always(1.0, 3.0, 2.0), SHAPE, key=KEY, samples=7, probabilities='sigmoid'
    )
    assert each.confidence == pytest.approx(1 / (1 + np.exp(-3)), rel=1e-5)
    none = rubbish(
        always(-1.0, -3.0), SHAPE, key=KEY, samples=7, probabilities='sigmoid'
    )
    assert none.error == 0.0


def test_rubbish_is_standard_normal_and_does_not_depend_on_batches():
    model = zoo.softmax_regression(SHAPE, 2)
    # The first class is seen where the first pixel exceeds one.
    params = {'w': jnp.zeros((20, 2)).at[0, 0].set(1.0), 'b': jnp.array([[-1.0, 0.0]])}
    f = models.logits_fn(model, params)
    seen = rubbish(f, SHAPE, key=KEY, samples=4000, batch_size=1000)
    assert seen.classes[0] / 4000 == pytest.approx(0.1587, abs=0.02)
    other = rubbish(f, SHAPE, key=KEY, samples=4000, batch_size=800)
    np.testing.assert_array_equal(seen.classes, other.classes)


def test_rubbish_refuses_no_samples():
    with pytest.raises(ValueError, match='samples must be an integer >= 1'):
        rubbish(F, SHAPE, key=KEY, samples=0)


def test_fooling_images_are_one_gradient_step_from_noise():
    """Redone by hand from the noise that the keys give."""
    attack = attacks.fgsm(BALL)
    target = jnp.array([0, 1, 2, 0])
    found = fooling_images(F, target, SHAPE, attack, key=KEY, tries=1)
    each = keys.fold(keys.fold(keys.per_example(KEY, 4), 0), 0)
    noise = keys.draw(lambda k: jax.random.normal(k, SHAPE), each)

    def probability(x):
        return jax.nn.softmax(F(x))[jnp.arange(4), target].sum()

    expected = noise + 0.25 * jnp.sign(jax.grad(probability)(noise))
    np.testing.assert_allclose(found.x, expected, atol=1e-6)
    reached = jax.nn.softmax(F(found.x))[jnp.arange(4), target] >= 0.5
    np.testing.assert_array_equal(found.success, reached)
    np.testing.assert_array_equal(found.tries, 1)


def test_fooling_draws_new_noise_until_it_works():
    target = jnp.array([0, 1, 2] * 4)
    attack = attacks.fgsm(BALL)
    once = fooling_images(F, target, SHAPE, attack, key=KEY, tries=1)
    many = fooling_images(F, target, SHAPE, attack, key=KEY, tries=50)
    assert many.success.all()
    assert not once.success.all()
    np.testing.assert_array_equal(many.x[once.success], once.x[once.success])
    np.testing.assert_array_equal(many.tries == 1, once.success)
    never = fooling_images(
        always(0.0, 0.0, 0.0), target, SHAPE, attack, key=KEY, tries=3
    )
    assert not never.success.any()
    np.testing.assert_array_equal(never.tries, 3)
