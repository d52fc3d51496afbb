"""Adversarial and clean logit pairing, and squeezing, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import training
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


def logits(params, x):
    return MODEL.apply(params, {}, x)[0]


def entropy(z):
    return -jax.nn.log_softmax(z)[jnp.arange(len(z)), Y[: len(z)]]


def test_adversarial_pairs():
    """The mean squared error of the logits, over examples and classes."""

    def equation(params, x_adv):
        z, z_adv = logits(params, X), logits(params, x_adv)
        cross = jnp.mean(jnp.concatenate([entropy(z), entropy(z_adv)]))
        return cross + 0.7 * jnp.mean((z - z_adv) ** 2)

    x_adv = agrees(training.adversarial_logit_pairing(0.2, 0.7, 3), equation)
    assert float(jnp.abs(x_adv - X).max()) == pytest.approx(0.2, abs=1e-6)


def test_adversarial_pairs_pass_as_one_batch():
    """Batch normalisation sees the mixture, as in the authors' code."""
    method, state = training.adversarial_logit_pairing(0.3, 0.5, 2), start(NORMALISED)
    both = jnp.concatenate([X, found(method, state)])
    _, expected = NORMALISED.apply(
        state.params, state.model_state, both, train=True, key=KEY
    )
    new, _ = STEP(method, state, BATCH, KEY)
    close(new.model_state, expected, atol=1e-5)


def test_no_radius_is_standard_training():
    expected, _ = STEP(training.standard(), start(), BATCH, KEY)
    method = training.adversarial_logit_pairing(0.0, 0.5, 2)
    close(STEP(method, start(), BATCH, KEY)[0].params, expected.params)


@pytest.mark.parametrize('size', [6, 5])
def test_clean_pairs(size):
    """Two halves of a batch; in an odd one everyone has a partner, too."""
    partner = {6: [3, 4, 5, 0, 1, 2], 5: [3, 4, 0, 1, 2]}[size]

    def equation(params, noisy):
        z = logits(params, noisy)
        if size == 6:
            pairs = jnp.mean((z[:3] - z[3:]) ** 2)
        else:
            pairs = jnp.mean((z - z[jnp.array(partner)]) ** 2)
        return jnp.mean(entropy(z)) + 0.7 * pairs

    batch = {'image': X[:size], 'label': Y[:size]}
    noisy = agrees(training.clean_logit_pairing(0.3, 0.7), equation, batch=batch)
    assert 0.2 < float(jnp.std(noisy - X[:size])) < 0.4


def test_squeezing():
    def equation(params, noisy):
        z = logits(params, noisy)
        return jnp.mean(entropy(z)) + 0.7 * jnp.mean(jnp.sqrt((z**2).sum(1)))

    agrees(training.logit_squeezing(0.3, 0.7), equation)


def test_squeezing_a_network_whose_logits_are_zero():
    """The norm has no gradient there; training still begins."""
    state = start()
    state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    method = training.logit_squeezing(0.0, 0.7)
    new, metrics = STEP(method, state, BATCH, KEY)
    assert bool(metrics['finite'])
    np.testing.assert_allclose(metrics['loss'], np.log(3), rtol=1e-6)
    expected, _ = STEP(training.standard(), state, BATCH, KEY)
    close(new.params, expected.params)


def test_there_is_no_adversary_in_noise():
    assert training.adversarial_logit_pairing(0.1).adversarial
    assert not training.clean_logit_pairing().adversarial
    assert not training.logit_squeezing().adversarial
