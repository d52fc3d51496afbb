"""Logistic regression against an adversary: the closed form, and the misprint."""

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, linf, losses, models, zoo
from experiments.studies.goodfellow2015 import logistic
from tests import reference

KEY = jax.random.key(0)
SHAPE = (3, 4, 1)
X = jax.random.uniform(KEY, (8, *SHAPE))
Y = jnp.array([-1, 1, 1, -1, 1, -1, -1, 1])
PARAMS = {
    'w': jax.random.normal(jax.random.key(1), (12, 1)),
    'b': jnp.full((1, 1), 0.3),
}
EPS = 0.25


def flat():
    """w, b, x and y as the reference wants them."""
    return np.asarray(PARAMS['w'])[:, 0], 0.3, np.asarray(X).reshape(8, 12), Y


def test_sigmoid_and_softplus_are_one_loss_in_float64():
    """-log sigma(ys) = zeta(-ys), the identity of the module docstring."""
    s = np.linspace(-30, 30, 2001)
    for y in (-1, 1):
        probability = 1 / (1 + np.exp(-s))
        probability = probability if y == 1 else 1 / (1 + np.exp(s))
        np.testing.assert_allclose(
            -np.log(probability), np.logaddexp(0, -y * s), atol=1e-12
        )


def test_score_is_the_logit_of_the_zoo():
    logits = zoo.logistic(SHAPE).apply(PARAMS, {}, X)[0]
    score = logistic.score(PARAMS, X)
    np.testing.assert_allclose(score, logits[:, 1] - logits[:, 0], rtol=1e-6)
    w, b, x, _ = flat()
    np.testing.assert_allclose(score, x @ w + b, rtol=1e-5, atol=1e-5)


def test_fgsm_is_the_closed_form_for_either_label():
    f = models.logits_fn(zoo.logistic(SHAPE), PARAMS)
    adv = attacks.fgsm(linf(EPS, bounds=None), losses.softplus)(f, KEY, X, Y)
    worst = logistic.worst_case(PARAMS, X, Y, EPS)
    np.testing.assert_allclose(adv, worst, atol=1e-6)
    signs = np.sign(np.asarray(PARAMS['w'])).reshape(1, *SHAPE)
    expected = X - EPS * np.asarray(Y).reshape(-1, 1, 1, 1) * signs
    np.testing.assert_allclose(worst, expected, atol=1e-6)


def test_objective_is_the_loss_at_the_worst_case():
    loss = logistic.adversarial_loss(PARAMS, X, Y, EPS)
    expected = reference.binary_worst_loss(*flat(), EPS)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    at = logistic.worst_case(PARAMS, X, Y, EPS)
    np.testing.assert_allclose(
        loss, losses.softplus(logistic.score(PARAMS, at), Y), rtol=1e-5
    )


def test_nothing_in_the_ball_is_worse():
    loss = logistic.adversarial_loss(PARAMS, X, Y, EPS)
    assert (loss >= losses.softplus(logistic.score(PARAMS, X), Y)).all()
    ball = linf(EPS, bounds=None)
    for seed in range(20):
        x = attacks.starts.corner(ball, jax.random.key(seed), X)
        assert (loss >= losses.softplus(logistic.score(PARAMS, x), Y) - 1e-5).all()


def test_printed_objective_is_right_for_one_label_and_a_best_case_for_the_other():
    printed = np.asarray(logistic.printed_loss(PARAMS, X, Y, EPS))
    expected = reference.goodfellow_printed_loss(*flat(), EPS)
    np.testing.assert_allclose(printed, expected, rtol=1e-5)
    y = np.asarray(Y)
    right = np.asarray(logistic.adversarial_loss(PARAMS, X, Y, EPS))
    clean = np.asarray(losses.softplus(logistic.score(PARAMS, X), Y))
    np.testing.assert_allclose(printed[y > 0], right[y > 0], rtol=1e-6)
    assert (printed[y < 0] < clean[y < 0]).all()


def test_printed_objective_is_the_plain_one_with_another_bias():
    norm = jnp.abs(PARAMS['w']).sum()
    moved = {**PARAMS, 'b': PARAMS['b'] - EPS * norm}
    np.testing.assert_allclose(
        logistic.printed_loss(PARAMS, X, Y, EPS),
        losses.softplus(logistic.score(moved, X), Y),
        rtol=1e-5,
    )


def test_minimising_the_printed_objective_ends_in_a_constant_answer():
    """Gradient descent on a separable problem, by either objective."""
    y = jnp.array([-1] * 4 + [1] * 4)
    x = X.at[4:].add(0.5)
    eps = 0.24

    @jax.jit
    def descend(misprint, params):
        def loss(p):
            right = logistic.adversarial_loss(p, x, y, eps).mean()
            return jnp.where(
                misprint, logistic.printed_loss(p, x, y, eps).mean(), right
            )

        def step(_, p):
            return jax.tree.map(lambda a, g: a - 0.3 * g, p, jax.grad(loss)(p))

        return jax.lax.fori_loop(0, 4000, step, params)

    start = jax.tree.map(lambda leaf: 0.01 * leaf, PARAMS)
    right, printed = (descend(m, start) for m in (False, True))
    worst = logistic.worst_case(right, x, y, eps)
    assert (y * logistic.score(right, worst) > 0).all()
    assert (logistic.score(printed, x) > 0).all()  # A constant answer,
    shift = eps * jnp.abs(printed['w']).sum()  # and what it hides.
    assert (y * (logistic.score(printed, x) - shift) > 0).all()


def test_compiled_and_swept():
    eps = jnp.array([0.0, 0.1, 0.2])
    swept = jax.jit(jax.vmap(lambda e: logistic.adversarial_loss(PARAMS, X, Y, e)))(eps)
    np.testing.assert_allclose(
        swept[0], losses.softplus(logistic.score(PARAMS, X), Y), rtol=1e-6
    )
    assert (np.diff(swept, axis=0) > 0).all()
