"""What MART, logit pairing, LLR, GradAlign and VAT promise alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, keys, models, training, zoo
from advjax.training.forward import Forward
from advjax.training.named import Mixed, OnAdversarial
from tests.test_models import NnxNet

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE, 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)


class BatchNormNet(NnxNet):
    """Without dropout, under which no two passes are the same."""

    def __init__(self, rngs):
        super().__init__(rngs, rate=0.0)


NORMALISED = models.from_nnx(BatchNormNet)
TWO_CLASSES = zoo.mlp(SHAPE, 2, (8,))

# Method, the weights of its terms, and what it is without them.
METHODS = {
    'alp': training.adversarial_logit_pairing(0.1, 0.5, 2),
    'clp': training.clean_logit_pairing(0.2, 0.5),
    'grad_align': training.grad_align(0.5, 0.5),
    'llr': training.llr(0.1),
    'lsq': training.logit_squeezing(0.2, 0.5),
    'mart': training.mart(0.1, 5.0, 2),
    'vat': training.virtual_adversarial(0.5),
}
WEIGHTS = {
    'alp': ('coefficient',),
    'clp': ('coefficient',),
    'grad_align': ('coefficient',),
    'llr': ('error_weight', 'slope_weight'),
    'lsq': ('coefficient',),
    'mart': ('beta',),
    'vat': ('weight',),
}


def start(model=MODEL):
    return training.create(model, SGD, key=KEY)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-6, **tolerance}),
        a,
        b,
    )


def found(method, state, x=X, y=Y):
    """What the inner attack of the first step finds."""
    f = models.logits_fn(state.model, state.params, state.model_state)
    now = jax.random.fold_in(KEY, state.step)
    each = keys.of_index(jax.random.split(now)[0], jnp.arange(len(x)))
    return jax.jit(lambda: method.inner(f, each, x, y))()


def agrees(method, equation, state=None, batch=None):
    """A step has the loss and the gradient of ``equation(params, found)``."""
    state, batch = state or start(), batch or BATCH
    images = found(method, state, batch['image'], batch['label'])
    loss, gradient = jax.jit(jax.value_and_grad(equation))(state.params, images)
    new, metrics = STEP(method, state, batch, KEY)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=2e-5)
    seen = jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params)
    close(seen, gradient, atol=1e-5, rtol=1e-4)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradient))
    assert largest > 1e-3
    return images


def weighted(method, names, value):
    """The method with other weights in its outer loss."""
    changes = dict.fromkeys(names, jnp.float32(value))
    return dataclasses.replace(
        method, outer=dataclasses.replace(method.outer, **changes)
    )


def without(name):
    """What a method is without its own terms."""
    method = METHODS[name]
    if name in ('llr', 'vat'):
        return training.standard()
    if name == 'grad_align':
        return training.method(attacks.fgm(0.5), training.on_adversarial)
    if name == 'alp':
        return training.method(method.inner, Mixed(jnp.float32(0.5)))
    if name == 'mart':
        boosted = OnAdversarial(training.boosted_cross_entropy)
        return training.method(method.inner, boosted)
    return training.gaussian_augmentation(0.2)


@pytest.mark.parametrize('name', METHODS)
def test_batch_norm_and_soft_labels(name):
    """Statistics move, nothing is NaN, and one-hot labels are labels."""
    state = start(NORMALISED)
    hard, metrics = STEP(METHODS[name], state, BATCH, KEY)
    assert bool(metrics['finite'])
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), hard.model_state, state.model_state
    )
    assert max(jax.tree.leaves(moved)) > 1e-3
    one_hot = {**BATCH, 'label': jax.nn.one_hot(Y, 3)}
    soft, other = STEP(METHODS[name], state, one_hot, KEY)
    np.testing.assert_allclose(metrics['loss'], other['loss'], rtol=1e-5)
    close(hard.params, soft.params, atol=1e-5)
    close(hard.model_state, soft.model_state, atol=1e-5)
    assert int(hard.totals['correct']) == int(soft.totals['correct'])
    # Labels that are not certain are another loss, and no error.
    mixed = {**BATCH, 'label': 0.9 * jax.nn.one_hot(Y, 3) + 0.1 / 3}
    _, smooth = STEP(METHODS[name], state, mixed, KEY)
    assert bool(smooth['finite'])
    assert abs(float(smooth['loss'] - metrics['loss'])) > 1e-4


@pytest.mark.parametrize('name', METHODS)
def test_without_its_terms_and_mapped_over_its_weights(name):
    """Weights are leaves; with none left the method is the one below it."""
    batch = {'image': X, 'label': Y % 2}

    def trained(value):
        method = weighted(METHODS[name], WEIGHTS[name], value)
        new, metrics = training.step(method, start(TWO_CLASSES), batch, KEY)
        return new.params, metrics['loss']

    params, loss = jax.jit(jax.vmap(trained))(jnp.array([0.0, 0.7]))
    base, metrics = STEP(without(name), start(TWO_CLASSES), batch, KEY)
    close(jax.tree.map(lambda a: a[0], params), base.params)
    np.testing.assert_allclose(loss[0], metrics['loss'], rtol=1e-5)
    assert float(jnp.abs(loss[1] - loss[0])) > 1e-4
    one, alone = STEP(
        weighted(METHODS[name], WEIGHTS[name], 0.7), start(TWO_CLASSES), batch, KEY
    )
    close(jax.tree.map(lambda a: a[1], params), one.params)
    np.testing.assert_allclose(loss[1], alone['loss'], rtol=1e-5)


@pytest.mark.parametrize('name', METHODS)
def test_answers_are_those_to_the_images_trained_on(name):
    """Accuracy counts the clean images where no others carry a label."""
    params, moved = start().params, 1 - X
    images = (moved, X) if name == 'grad_align' else moved

    mask = jnp.ones(len(X), bool)
    forward = Forward(mask, MODEL, params, {}, X, KEY)

    logits = METHODS[name].outer(forward, {}, X, images, Y)[1]
    answered = X if name in ('llr', 'vat') else moved
    close(logits, MODEL.apply(params, {}, answered)[0])


def test_one_program_for_all_radii_and_weights():
    before = STEP._cache_size()
    for value in (0.02, 0.05, 0.06):
        STEP(training.llr(value, 10 * value, value, 3), start(), BATCH, KEY)
    assert STEP._cache_size() == before + 1


@pytest.mark.parametrize(
    ('make', 'argument'),
    [
        (lambda v: training.mart(0.1, v), 'beta'),
        (lambda v: training.adversarial_logit_pairing(0.1, v), 'coefficient'),
        (lambda v: training.clean_logit_pairing(0.1, v), 'coefficient'),
        (lambda v: training.clean_logit_pairing(v), 'sigma'),
        (lambda v: training.logit_squeezing(0.1, v), 'coefficient'),
        (lambda v: training.logit_squeezing(v), 'sigma'),
        (lambda v: training.llr(0.1, v), 'error_weight'),
        (lambda v: training.llr(0.1, slope_weight=v), 'slope_weight'),
        (lambda v: training.grad_align(0.1, v), 'coefficient'),
        (lambda v: training.virtual_adversarial(0.1, v), 'weight'),
    ],
)
def test_weights_are_finite_and_not_negative(make, argument):
    for value in (-1.0, float('inf'), float('nan'), 'much'):
        with pytest.raises(ValueError, match=f'{argument} must be a finite number'):
            make(value)


def test_weights_may_be_traced_through_the_factories():
    def loss(value):
        method = training.llr(0.1, value, value)
        return training.step(method, start(), BATCH, KEY)[1]['loss']

    low, high = jax.jit(jax.vmap(loss))(jnp.array([0.5, 2.0]))
    assert float(high) > float(low)
