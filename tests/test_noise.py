"""Training on noise, on other losses, and what models see in noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, keys, linf, losses, models, training, zoo
from advjax.evaluation import rubbish

KEY = jax.random.key(0)
SHAPE = (4, 5, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BALL = linf(0.25, bounds=None)
MODEL = zoo.mlp(SHAPE, 3, (8,))
F = models.logits_fn(MODEL, MODEL.init(KEY)[0])


def test_corners_are_random_signs_of_each_example():
    each = keys.per_example(KEY, 6)
    x = attacks.starts.corner(BALL, each, X)
    np.testing.assert_allclose(np.abs(x - X), 0.25, atol=1e-6)
    share = np.mean(
        [attacks.starts.corner(BALL, jax.random.key(s), X) > X for s in range(40)]
    )
    assert share == pytest.approx(0.5, abs=0.03)
    # An example's noise is its own, whatever the batch.
    np.testing.assert_array_equal(
        attacks.starts.corner(BALL, each[2:4], X[2:4]), x[2:4]
    )
    inside = attacks.starts.corner(linf(0.25), each, X)
    np.testing.assert_array_equal(inside, jnp.clip(x, 0, 1))
    per_example = attacks.starts.corner(linf(jnp.arange(6) / 10, bounds=None), each, X)
    np.testing.assert_allclose(
        np.abs(per_example - X).max(axis=(1, 2, 3)), np.arange(6) / 10, atol=1e-6
    )


@pytest.mark.parametrize('start', [attacks.starts.corner, attacks.starts.uniform])
def test_noise_ignores_the_model_and_the_labels(start):
    method = training.noise(BALL, start)
    assert not method.adversarial
    x = method.inner(F, KEY, X, Y)
    np.testing.assert_array_equal(x, method.inner(F, KEY, X, (Y + 1) % 3))
    away = np.abs(np.asarray(x - X))
    assert away.max() <= 0.25 + 1e-6
    assert away.mean() == pytest.approx(
        0.25 if start is attacks.starts.corner else 0.125, rel=0.2
    )
    # Other noise at every step.
    assert (np.asarray(x) != np.asarray(method.inner(F, jax.random.key(1), X, Y))).any()


def test_training_on_noise_is_training_on_those_images():
    sgd = optax.sgd(0.1)
    state = training.create(MODEL, sgd, KEY)
    step = jax.jit(training.step)
    method = training.noise(BALL, attacks.starts.corner)
    batch = {'image': X, 'label': Y}
    new, _ = step(method, state, batch, KEY)
    now = jax.random.split(jax.random.fold_in(KEY, 0))[0]
    seen = method.inner(F, keys.of_index(now, jnp.arange(6)), X, Y)
    same, _ = step(training.standard(), state, {**batch, 'image': seen}, KEY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        new.params,
        same.params,
    )


def test_no_noise_without_a_start():
    with pytest.raises(ValueError, match=r'start must be a function, got 0\.25'):
        training.noise(BALL, 0.25)


def test_standard_training_takes_any_loss():
    state = training.create(MODEL, optax.sgd(0.1), KEY)
    method = training.standard(losses.one_vs_rest)
    _, metrics = jax.jit(training.step)(method, state, {'image': X, 'label': Y}, KEY)
    np.testing.assert_allclose(
        metrics['loss'], losses.one_vs_rest(F(X), Y).mean(), rtol=1e-5
    )
    assert training.standard(losses.cross_entropy).outer.func is training.on_adversarial


def test_one_vs_rest_is_k_binary_losses():
    z = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) * 3
    p = 1 / (1 + np.exp(-z.astype(float)))
    own = np.eye(3, dtype=bool)[np.asarray(Y)]
    expected = -np.log(np.where(own, p, 1 - p)).sum(axis=1)
    got = losses.one_vs_rest(jnp.asarray(z), Y)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    target = (Y + 1) % 3
    np.testing.assert_allclose(
        losses.one_vs_rest(jnp.asarray(z), Y, target),
        -losses.one_vs_rest(jnp.asarray(z), target),
        rtol=1e-6,
    )
    # Far beyond where a probability can be formed.
    far = losses.one_vs_rest(jnp.array([[-300.0, 300.0, 0.0]]), jnp.array([0]))
    np.testing.assert_allclose(far, 600 + np.log(2), rtol=1e-6)
    assert (
        losses.one_vs_rest(jnp.zeros((1, 3), jnp.bfloat16), Y[:1]).dtype == jnp.float32
    )


def _fixed(logits, x):
    return jnp.broadcast_to(logits, (x.shape[0], logits.shape[1]))


def always(*logits):
    return jax.tree_util.Partial(_fixed, jnp.array([logits]))


def test_rubbish_counts_what_is_taken_for_a_class():
    sure = rubbish(always(0.0, 3.0, 0.0), KEY, SHAPE, samples=7, batch_size=3)
    p = np.exp(3) / (np.exp(3) + 2)
    assert sure.error == 1.0
    assert sure.confidence == pytest.approx(p, rel=1e-5)
    np.testing.assert_array_equal(sure.classes, [0, 7, 0])
    unsure = rubbish(always(0.0, 0.1, 0.0), KEY, SHAPE, samples=7)
    assert unsure.error == 0.0
    assert np.isnan(unsure.confidence)
    # Independent classes may all be seen, or none.
    each = rubbish(
        always(1.0, 3.0, 2.0), KEY, SHAPE, samples=7, probabilities='sigmoid'
    )
    assert each.confidence == pytest.approx(1 / (1 + np.exp(-3)), rel=1e-5)
    none = rubbish(always(-1.0, -3.0), KEY, SHAPE, samples=7, probabilities='sigmoid')
    assert none.error == 0.0


def test_rubbish_is_standard_normal_and_does_not_depend_on_batches():
    model = zoo.softmax_regression(SHAPE, 2)
    # The first class is seen where the first pixel exceeds one.
    params = {'w': jnp.zeros((20, 2)).at[0, 0].set(1.0), 'b': jnp.array([[-1.0, 0.0]])}
    f = models.logits_fn(model, params)
    seen = rubbish(f, KEY, SHAPE, samples=4000, batch_size=1000)
    assert seen.classes[0] / 4000 == pytest.approx(0.1587, abs=0.02)
    other = rubbish(f, KEY, SHAPE, samples=4000, batch_size=800)
    np.testing.assert_array_equal(seen.classes, other.classes)


def test_rubbish_refuses():
    for bad, text in (
        ({'samples': 0}, 'samples must be an integer >= 1'),
        ({'batch_size': 0.5}, 'batch_size must be an integer >= 1'),
        ({'threshold': 1.0}, r'threshold must lie in \[0, 1\)'),
        ({'probabilities': 'tanh'}, "probabilities must be one of .* got 'tanh'"),
    ):
        with pytest.raises(ValueError, match=text):
            rubbish(F, KEY, SHAPE, **bad)


def test_fooling_images_are_one_gradient_step_from_noise():
    """Redone by hand from the noise that the keys give."""
    attack = attacks.fgsm(BALL)
    target = jnp.array([0, 1, 2, 0])
    found = attacks.fooling_images(F, KEY, target, SHAPE, attack, tries=1)
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
    once = attacks.fooling_images(F, KEY, target, SHAPE, attack, tries=1)
    many = attacks.fooling_images(F, KEY, target, SHAPE, attack, tries=50)
    assert many.success.all()
    assert not once.success.all()
    np.testing.assert_array_equal(many.x[once.success], once.x[once.success])
    np.testing.assert_array_equal(many.tries == 1, once.success)
    never = attacks.fooling_images(
        always(0.0, 0.0, 0.0), KEY, target, SHAPE, attack, tries=3
    )
    assert not never.success.any()
    np.testing.assert_array_equal(never.tries, 3)


def test_fooling_refuses():
    attack = attacks.fgsm(BALL)
    for bad, text in (
        ({'tries': 0}, 'tries must be an integer >= 1'),
        ({'confidence': 1.5}, r'confidence must lie in \[0, 1\]'),
        ({'target': 3}, r'target must have shape \(B,\), got \(\)'),
        ({'attack': attacks.fgsm(0.1)}, 'a ball without bounds'),
    ):
        with pytest.raises(ValueError, match=text):
            attacks.fooling_images(
                F, KEY, **{'target': Y, 'shape': SHAPE, 'attack': attack, **bad}
            )
