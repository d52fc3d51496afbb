"""The training methods against the transcriptions in `tests.reference_methods`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, balls, keys, models, training, zoo
from advjax.training.ensemble import OneOf
from advjax.training.forward import Forward
from advjax.training.gradient_alignment import grad_align, published_coefficient
from advjax.training.local_linearity import llr
from advjax.training.logit_pairing import (
    adversarial_logit_pairing,
    clean_logit_pairing,
)
from advjax.training.misclassification import mart
from advjax.training.virtual import virtual_adversarial
from tests import reference_methods as reference

SHAPE, CLASSES, B = (3, 3, 1), 4, 6
EPS = 0.1
RTOL = 1e-5
KEY = jax.random.key(0)


@functools.cache
def model():
    return zoo.mlp(SHAPE, CLASSES, (12, 8))


@functools.cache
def params(seed=0):
    """Weights with biases, and logits large enough to be wrong about something."""
    tree, _ = model().init(jax.random.key(seed))
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(
            1.5 * a + (a.ndim == 1) * draw.normal(0, 0.3, a.shape), jnp.float32
        ),
        tree,
    )


def as_net(tree):
    """The weights of an mlp, in float64, in the order of its layers."""
    layers = [tree['hidden'][k] for k in sorted(tree['hidden'])] + [tree['out']]
    return [
        (np.asarray(layer['kernel'], np.float64), np.asarray(layer['bias'], np.float64))
        for layer in layers
    ]


def rows(images):
    return np.asarray(images, np.float64).reshape(len(images), -1)


def uniform(seed, low, high, shape=(B, *SHAPE)):
    draw = np.random.default_rng(seed).uniform(low, high, shape)
    return jnp.asarray(draw, jnp.float32)


# Away from 0 and 1, so that no clip is at its edge.
X = uniform(1, 0.2, 0.8)
ADV = X + uniform(2, -EPS, EPS)
Y = jnp.array([0, 3, 1, 2, 2, 1])
SOFT = jnp.asarray(np.random.default_rng(3).dirichlet(np.ones(CLASSES), B), jnp.float32)
POINT = X + uniform(5, -EPS, EPS)
x, adv, y, soft = rows(X), rows(ADV), np.asarray(Y), np.asarray(SOFT, np.float64)
eta = rows(POINT) - x


def teacher():
    return models.logits_fn(model(), params(7), {})


def given(images):
    """An attack that has found what it is told."""

    def attack(logits_fn, key, x, y):
        del logits_fn, key, x, y
        return images

    return attack


def at(start):
    """A start of an attack that is what it is told."""

    def begin(ball, key, x0):
        del ball, key, x0
        return start

    return begin


def with_images(method, images):
    """The method, told what its inner maximum is."""
    return dataclasses.replace(
        method, inner=training.method(given(images), method.outer).inner
    )


def assert_nets(found, expected):
    for layer, (found_pair, pair) in enumerate(zip(found, expected, strict=True)):
        for name, a, b in zip(('kernel', 'bias'), found_pair, pair, strict=True):
            np.testing.assert_allclose(
                a, b, rtol=0, atol=RTOL * np.abs(b).max(), err_msg=f'{name} {layer}'
            )


@jax.jit
def outer_and_gradient(method, tree, images, batch):
    """Mean outer loss and its gradient, from outside the training step."""

    def total(tree):
        mask = jnp.ones(len(batch['label']), bool)
        forward = Forward(mask, model(), tree, {}, batch['image'], KEY)

        x, y = batch['image'], batch['label']
        return jnp.mean(method.outer(forward, {}, x, images, y)[0])

    return jax.value_and_grad(total)(tree)


@jax.jit
def stepped(method, state, batch):
    return training.step(method, state, batch, KEY)


def state_of(tree, rate=1.0, **kwargs):
    state = training.create(model(), optax.sgd(rate), key=KEY, **kwargs)
    return dataclasses.replace(state, params=tree)


def compare(method, images, labels, expected, clean=X, tree=None):
    """Loss and gradient of both roads, each against the transcription's."""
    value, grads = expected
    tree = params() if tree is None else tree
    batch = {'image': clean, 'label': labels}
    loss, found = outer_and_gradient(method, tree, images, batch)
    np.testing.assert_allclose(loss, value, rtol=RTOL)
    assert_nets(as_net(found), grads)
    new, metrics = stepped(with_images(method, images), state_of(tree), batch)
    np.testing.assert_allclose(metrics['loss'], value, rtol=RTOL)
    moved = reference.add(as_net(new.params), as_net(tree), -1)
    assert_nets([(-w, -b) for w, b in moved], grads)


def net():
    return as_net(params())


# --------------------------------------------------------------- the oracles themselves


def numerical(loss, weights, layer, part, index):
    values = []
    for sign in (1, -1):
        moved = [(w.copy(), b.copy()) for w, b in weights]
        moved[layer][part][index] += sign * 1e-6
        values.append(loss(moved))
    return (values[0] - values[1]) / 2e-6


ORACLES = {
    'standard': lambda n: reference.standard(n, x, soft),
    'mixed': lambda n: reference.mixed(n, x, adv, y, 0.3),
    'grad_align': lambda n: reference.grad_align(n, x, adv, y, eta, 0.7, False),
    'trades': lambda n: reference.trades(n, x, adv, y, 6.0),
    'mart': lambda n: reference.mart(n, x, adv, y, 5.0),
    'alp': lambda n: reference.adversarial_logit_pairing(n, x, adv, y, 0.5),
    'clp': lambda n: reference.clean_logit_pairing(n, x, y, 0.5),
    'llr': lambda n: reference.llr(n, x, adv, y, 4.0, 3.0, 2.0),
    'distillation': lambda n: reference.distillation(n, x, soft, 5.0),
    'ard': lambda n: reference.ard(n, as_net(params(7)), x, adv, y, 5.0, 0.7),
}


@pytest.mark.parametrize('name', ORACLES)
def test_the_oracles_differentiate_what_they_say(name):
    _, grads = ORACLES[name](net())
    draw = np.random.default_rng(0)
    for layer, (w, b) in enumerate(net()):
        for part, a in enumerate((w, b)):
            index = tuple(draw.integers(0, n) for n in a.shape)
            expected = numerical(
                lambda n: ORACLES[name](n)[0], net(), layer, part, index
            )
            np.testing.assert_allclose(
                grads[layer][part][index], expected, rtol=1e-5, atol=1e-8
            )


# ------------------------------------------------------------------------ outer losses


OUTER = {
    'standard': lambda: (
        training.standard(),
        X,
        Y,
        reference.standard(net(), x, y),
    ),
    'standard, soft labels': lambda: (
        training.standard(),
        X,
        SOFT,
        reference.standard(net(), x, soft),
    ),
    'fgsm_at': lambda: (
        training.fgsm_at(EPS, clean_weight=0.3),
        ADV,
        Y,
        reference.mixed(net(), x, adv, y, 0.3),
    ),
    'pgd_at': lambda: (
        training.pgd_at(EPS),
        ADV,
        Y,
        reference.standard(net(), adv, y),
    ),
    'trades': lambda: (
        training.trades(EPS, beta=6.0),
        ADV,
        Y,
        reference.trades(net(), x, adv, y, 6.0),
    ),
    'trades, soft labels': lambda: (
        training.trades(EPS, beta=6.0),
        ADV,
        SOFT,
        reference.trades(net(), x, adv, soft, 6.0),
    ),
    'at_temperature': lambda: (
        training.at_temperature(5.0),
        X,
        Y,
        reference.distillation(net(), x, y, 5.0),
    ),
    'distillation': lambda: (
        training.distillation(teacher(), 5.0),
        X,
        Y,
        reference.distillation(
            net(), x, reference.soft_labels(as_net(params(7)), x, 5.0), 5.0
        ),
    ),
    'adversarially_robust_distillation': lambda: (
        training.adversarially_robust_distillation(teacher(), EPS, 5.0, 0.7),
        ADV,
        Y,
        # The authors' mean over classes: see the docstring of either.
        reference.ard(net(), as_net(params(7)), x, adv, y, 5.0, 0.7, False),
    ),
    'rslad': lambda: (
        training.rslad(teacher(), EPS, 0.7),
        ADV,
        Y,
        times(CLASSES, reference.rslad(net(), as_net(params(7)), x, adv, 0.7)),
    ),
    'smooth_labels': lambda: (
        training.smooth_labels(training.pgd_at(EPS), 0.2),
        ADV,
        Y,
        reference.standard(net(), adv, reference.smoothed(y, CLASSES, 0.2)),
    ),
    'smooth_labels of trades': lambda: (
        training.smooth_labels(training.trades(EPS, beta=2.0), 0.2),
        ADV,
        Y,
        reference.trades(net(), x, adv, reference.smoothed(y, CLASSES, 0.2), 2.0),
    ),
    'mart': lambda: (
        mart(EPS, beta=5.0),
        ADV,
        Y,
        reference.mart(net(), x, adv, y, 5.0),
    ),
    'adversarial_logit_pairing': lambda: (
        adversarial_logit_pairing(EPS, 0.7),
        ADV,
        Y,
        reference.adversarial_logit_pairing(net(), x, adv, y, 0.7),
    ),
    'adversarial_logit_pairing, smoothed as in the authors code': lambda: (
        training.smooth_labels(adversarial_logit_pairing(EPS, 0.7), 0.1),
        ADV,
        Y,
        reference.adversarial_logit_pairing(
            net(), x, adv, reference.smoothed(y, CLASSES, 0.1), 0.7
        ),
    ),
    'clean_logit_pairing': lambda: (
        clean_logit_pairing(0.1, 0.7),
        ADV,
        Y,
        reference.clean_logit_pairing(net(), adv, y, 0.7),
    ),
    'llr': lambda: (
        llr(EPS, 4.0, 3.0),
        ADV,
        Y,
        reference.llr(net(), x, adv, y, 4.0, 3.0),
    ),
    'llr, soft labels': lambda: (
        llr(EPS, 2.0, 0.6),
        ADV,
        SOFT,
        # The authors' code has the weights 2, 4 and 1.2: twice this.
        times(0.5, reference.llr(net(), x, adv, soft, 4.0, 1.2, 2.0)),
    ),
    'grad_align': lambda: (
        grad_align(EPS, 0.7),
        (ADV, POINT),
        Y,
        reference.grad_align(net(), x, adv, y, eta, 0.7),
    ),
    'grad_align, soft labels': lambda: (
        grad_align(EPS, 0.7),
        (ADV, POINT),
        SOFT,
        reference.grad_align(net(), x, adv, soft, eta, 0.7),
    ),
    'grad_align through both': lambda: (
        grad_align(training.pgd_at(EPS), 0.7, through_both=True),
        (ADV, POINT),
        Y,
        reference.grad_align(net(), x, adv, y, eta, 0.7, detach_first=False),
    ),
    'virtual_adversarial': lambda: (
        virtual_adversarial(EPS, 2.0),
        ADV,
        Y,
        reference.vat(net(), x, adv - x, y, 2.0),
    ),
    'joint': lambda: (
        training.joint(EPS),
        ADV,
        Y,
        # The sum, as in the paper; the port has the mean of both halves.
        times(2, reference.mixed(net(), x, adv, y, 0.5)),
    ),
}


def times(factor, result):
    value, grads = result
    return factor * value, [(factor * w, factor * b) for w, b in grads]


@pytest.mark.parametrize('name', OUTER)
def test_losses_and_gradients_are_the_authors(name):
    method, images, labels, expected = OUTER[name]()
    compare(method, images, labels, expected)


def test_advprop_has_the_loss_of_two_networks_that_share_weights():
    trees = (params(), params(7))

    def forward(state, x, branch=0, draw=0):
        return model().apply(trees[branch], state, x, train=True, key=KEY)

    outer = training.advprop(EPS).outer
    loss = jnp.mean(outer(forward, {}, X, (ADV,), Y)[0])
    paper, port = reference.advprop(net(), as_net(params(7)), x, adv, y)
    np.testing.assert_allclose(loss, paper, rtol=RTOL)
    np.testing.assert_allclose(loss, 2 * port, rtol=RTOL)


def test_grad_align_leaves_out_examples_without_a_gradient():
    tree = params()
    first = {**tree['hidden'][0], 'bias': jnp.full_like(tree['hidden'][0]['bias'], -1)}
    first['kernel'] = 3 * first['kernel']
    tree = {**tree, 'hidden': {**tree['hidden'], 0: first}}
    weights = as_net(tree)
    # A black image opens no ReLU.
    clean, found, point = (a.at[2].set(0) for a in (X, ADV, POINT))
    gradients = reference.input_gradient(weights, rows(clean), y)
    lengths = np.linalg.norm(gradients, axis=1)
    assert lengths[2] == 0
    assert np.all(np.delete(lengths, 2) > 0)
    # The authors' mean is over the five that remain; here it is over all six.
    images = rows(clean), rows(found), y, rows(point) - rows(clean)
    expected = reference.grad_align(weights, *images, 0.7 * 5 / 6)
    compare(grad_align(EPS, 0.7), (found, point), Y, expected, clean, tree)


def test_grad_align_has_the_authors_weight():
    for eps in (1, 8, 16):
        found = published_coefficient(balls.linf(eps / 255))
        np.testing.assert_allclose(found, reference.grad_align_weight(eps), rtol=RTOL)


# ----------------------------------------------------------------------------- searches


def found_by(inner, tree=None, labels=Y, images=X):
    """What an inner maximum finds; jitted, as in training."""

    @jax.jit
    def run(inner, tree, images, labels):
        logits_fn = models.logits_fn(model(), tree, {})
        return inner(logits_fn, KEY, images, labels)

    return run(inner, params() if tree is None else tree, images, labels)


START = X + uniform(11, -EPS, EPS)
NEAR = X + 0.001 * jnp.asarray(
    np.random.default_rng(12).normal(size=X.shape), jnp.float32
)
EDGE = jnp.clip(uniform(13, -0.1, 1.1), 0, 1)


def test_pgd_is_the_authors_search():
    inner = training.pgd_at(EPS, steps=5, rate=0.4).inner
    found = found_by(dataclasses.replace(inner, start=at(START)))
    expected = reference.cross_entropy_ascent(
        net(), x, y, rows(START), EPS, 0.4 * EPS, 5
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_the_search_of_trades_is_the_authors():
    inner = training.trades(EPS, steps=5, rate=0.3).inner
    search = dataclasses.replace(inner.attack, start=at(NEAR))
    found = found_by(dataclasses.replace(inner, attack=search))
    expected = reference.kl_ascent(net(), x, rows(NEAR), EPS, 0.3 * EPS, 5)
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_the_search_of_ard_is_the_authors():
    method = training.adversarially_robust_distillation(teacher(), EPS, steps=5)
    found = found_by(dataclasses.replace(method.inner, start=at(START)))
    expected = reference.cross_entropy_ascent(
        net(), x, y, rows(START), EPS, 0.5 * EPS, 5
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_the_search_of_rslad_is_the_authors():
    inner = training.rslad(teacher(), EPS, steps=5, rate=0.3).inner
    search = dataclasses.replace(inner.attack, start=at(NEAR))
    found = found_by(dataclasses.replace(inner, attack=search))
    expected = reference.kl_ascent(
        net(), x, rows(NEAR), EPS, 0.3 * EPS, 5, as_net(params(7))
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_fgsm_rs_is_the_authors_mnist_code():
    # Images on the edge, where a clipped start would differ.
    delta = uniform(14, -EPS, EPS)
    inner = training.fast(EPS).inner
    inner = dataclasses.replace(inner, start=at(EDGE + delta))
    found = found_by(inner, images=EDGE)
    expected, other = (
        reference.fgsm_rs_image(
            net(), rows(EDGE), y, rows(delta), EPS, 1.25 * EPS, clip_start
        )
        for clip_start in (False, True)
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)
    assert np.abs(expected - other).max() > 1e-3
    assert training.fast(EPS).inner.start is attacks.starts.unclipped
    result = reference.fgsm_rs(
        net(), rows(EDGE), y, rows(delta), EPS, 1.25 * EPS, clip_start=False
    )
    compare(training.fast(EPS), found, Y, result, EDGE)


def test_a_whole_step_of_trades_is_the_authors():
    method = training.trades(EPS, beta=6.0, steps=5, rate=0.3)
    search = dataclasses.replace(method.inner.attack, start=at(NEAR))
    inner = dataclasses.replace(method.inner, attack=search)
    method = dataclasses.replace(method, inner=inner)
    batch = {'image': X, 'label': Y}
    new, metrics = stepped(method, state_of(params(), 0.5), batch)
    found = reference.kl_ascent(net(), x, rows(NEAR), EPS, 0.3 * EPS, 5)
    loss, grads = reference.trades(net(), x, found, y, 6.0)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=RTOL)
    assert_nets(as_net(new.params), reference.add(net(), grads, -0.5))


def test_ensemble_training_is_the_authors():
    sources = [teacher(), models.logits_fn(model(), params(8), {})]
    nets = [as_net(params(7)), as_net(params(8))]
    method = training.ensemble_at(EPS, sources)
    assert isinstance(method.inner, OneOf)
    for chosen, attack in enumerate(method.inner.attacks):
        found = found_by(attack, images=EDGE)
        source = [*nets, net()][chosen]
        expected = reference.ensemble_image(source, rows(EDGE), EPS)
        np.testing.assert_allclose(rows(found), expected, atol=1e-6)
    expected = reference.ensemble_training(net(), nets, 1, x, y, EPS)
    images = found_by(method.inner.attacks[1])
    compare(method, images, Y, expected)


def test_the_search_of_mart_is_the_authors():
    inner = mart(EPS, steps=5, rate=0.3).inner
    assert inner.start is attacks.starts.gaussian
    found = found_by(dataclasses.replace(inner, start=at(NEAR)))
    expected = reference.cross_entropy_ascent(
        net(), x, y, rows(NEAR), EPS, 0.3 * EPS, 5
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_the_images_of_grad_align_are_fgsm_and_a_random_point():
    found, point = found_by(grad_align(EPS, 0.7).inner, images=EDGE)
    expected = reference.fgsm(net(), rows(EDGE), y, EPS, reference.UNIT_BOX)
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)
    away = np.abs(rows(point) - rows(EDGE))
    assert EPS / 2 < away.max() <= EPS + 1e-6
    assert rows(point).min() < 0
    assert rows(point).max() > 1


def test_the_search_of_llr_climbs_the_papers_objective():
    inner = llr(EPS, steps=4, rate=0.6).inner
    search = dataclasses.replace(inner.search, start=at(START))
    found = found_by(dataclasses.replace(inner, search=search))
    expected = reference.sign_ascent(
        x,
        rows(START),
        lambda a: reference.nonlinearity_gradient(net(), x, y, a),
        EPS,
        0.6 * EPS,
        4,
    )
    np.testing.assert_allclose(rows(found), expected, atol=1e-6)


def test_the_search_of_llr_finds_more_than_the_published_code():
    # It stops the gradient of delta, and climbs the loss instead of its curvature.
    inner = llr(EPS, steps=10).inner
    search = dataclasses.replace(inner.search, start=at(START))
    ours = rows(found_by(dataclasses.replace(inner, search=search)))
    adam, code = (
        reference.llr_image(net(), x, y, rows(START), EPS, [0.1] * 10, as_in_code)
        for as_in_code in (False, True)
    )
    ours, adam, code = (
        np.abs(reference.nonlinearity(net(), x, y, a - x)).mean()
        for a in (ours, adam, code)
    )
    assert ours > 0.8 * adam
    assert ours > 1.2 * code


@pytest.mark.parametrize(('xi', 'atol'), [(1.0, 1e-5), (1e-2, 1e-3)])
@pytest.mark.parametrize('iterations', [1, 3])
def test_the_adversary_of_vat_is_the_authors(xi, atol, iterations):
    # The smaller xi, the more of the divergence's gradient is rounding in float32.
    eps = 0.5
    inner = virtual_adversarial(eps, probe=xi, power_iterations=iterations).inner
    each = keys.per_example(KEY, B)
    start = keys.draw(lambda k: jax.random.normal(k, SHAPE, jnp.float32), each)
    expected = reference.vat_perturbation(net(), x, rows(start), eps, xi, iterations)
    found = rows(found_by(inner)) - x
    np.testing.assert_allclose(found, expected, atol=atol * eps)
    # What the code calls an iteration with xi = 1e-6 has the same limit.
    limit = reference.vat_perturbation(net(), x, rows(start), eps, 1e-6, iterations)
    cosine = (reference.unit(found) * reference.unit(limit)).sum(axis=1)
    if xi == 1e-2:
        assert cosine.min() > 0.99


def test_gaussian_augmentation_is_not_clipped():
    noise = found_by(training.gaussian_augmentation(1.0).inner) - X
    found = found_by(training.gaussian_augmentation(0.5).inner)
    np.testing.assert_allclose(rows(found), x + 0.5 * rows(noise), atol=1e-6)
    method = training.gaussian_augmentation(0.5)
    compare(method, found, Y, reference.gaussian(net(), x, y, rows(noise), 0.5))


# ------------------------------------------------------------------------------- AWP


AWP = {
    'pgd_at': (
        lambda: training.pgd_at(EPS),
        lambda n: reference.standard(n, adv, y),
    ),
    'trades': (
        lambda: training.trades(EPS, beta=6.0),
        lambda n: reference.trades(n, x, adv, y, 6.0),
    ),
    'mart': (
        lambda: mart(EPS, beta=5.0),
        lambda n: reference.mart(n, x, adv, y, 5.0),
    ),
}


@pytest.mark.parametrize('name', AWP)
@pytest.mark.parametrize('gamma', [0.01, 0.2])
def test_awp_takes_the_authors_step(name, gamma):
    base, transcription = AWP[name]
    method = with_images(training.awp(base(), gamma), ADV)
    batch = {'image': X, 'label': Y}
    new, metrics = stepped(method, state_of(params(), 0.1), batch)
    loss, grads, moved, after = reference.awp_step(net(), transcription, gamma, 0.1)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=RTOL)
    assert_nets(as_net(new.params), after)
    change = reference.add(as_net(new.params), net(), -1)
    assert_nets(change, [(-0.1 * w, -0.1 * b) for w, b in grads])
    for (w, b), (v, c) in zip(net(), moved, strict=True):
        np.testing.assert_allclose(
            np.linalg.norm(v - w), gamma * np.linalg.norm(w), rtol=1e-6
        )
        assert np.array_equal(b, c)


# ------------------------------------------------------------------------------ Free


@pytest.mark.parametrize('rate', [1.0, 0.4])
def test_free_walks_the_trajectory_of_the_algorithm(rate):
    replays, batches = 3, []
    for seed in range(3):
        images = jnp.clip(uniform(20 + seed, -0.2, 1.2), 0.01, 0.99)
        batches.append((images, jnp.roll(Y, seed)))
    method = training.free(EPS, replays, rate)
    assert method.replays == replays
    state = state_of(params(), 0.5, method=method, shape=X.shape)
    nets, noises, losses = reference.free(
        net(),
        [(rows(images), np.asarray(labels)) for images, labels in batches],
        replays,
        EPS,
        rate * EPS,
        0.5,
        np.zeros_like(x),
        clip='image',
    )
    step = 0
    for images, labels in batches:
        for _ in range(replays):
            batch = {'image': images, 'label': labels}
            state, metrics = stepped(method, state, batch)
            np.testing.assert_allclose(metrics['loss'], losses[step], rtol=RTOL)
            assert_nets(as_net(state.params), nets[step])
            np.testing.assert_allclose(
                rows(state.carried), noises[step], atol=1e-6, err_msg=str(step)
            )
            step += 1
    assert np.abs(noises[-1]).max() <= EPS + 1e-9


def test_free_is_the_same_in_all_its_codes_away_from_the_edge():
    walks = [
        reference.free(net(), [(x, y)] * 2, 2, EPS, EPS, 0.5, np.zeros_like(x), clip)
        for clip in ('input', 'delta', 'image')
    ]
    for other in walks[1:]:
        for a, b in zip(walks[0][0], other[0], strict=True):
            assert_nets(a, b)


# -------------------------------------------------------------------------- averages


def test_the_moving_average_is_the_authors():
    state = state_of(params(), 0.5, averaging=training.ema(0.25))
    state = dataclasses.replace(state, mean={'params': params(), 'model_state': {}})
    average = net()
    # The warm-up of the decay ends within these steps, at (1 + 2) / (10 + 2).
    for step in range(5):
        state, _ = stepped(training.standard(), state, {'image': X, 'label': Y})
        average = reference.moving_average(average, as_net(state.params), step, 0.25)
        assert_nets(as_net(state.mean['params']), average)
