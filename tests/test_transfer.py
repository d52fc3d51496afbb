"""Views, gradient smoothing, variance tuning and ensembles, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from advjax import attacks, balls, keys, losses
from advjax.testing.trial import compiled
from tests import reference
from tests.contract import BATCH, CLASSES, KEY, SHAPE, images, margin, network, run

SIZE = int(np.prod(SHAPE))
BALL = balls.linf(0.1)

shown = jax.jit(lambda transform, key, x: transform(key, x))
sampled = jax.jit(lambda f, key, x: f.sample(key, x))


class Twin:
    """The network of the contract in NumPy, float64."""

    def __init__(self, f):
        self.p = {k: np.float64(v) for k, v in f.args[0].items()}

    def logits(self, x):
        rows = np.float64(x).reshape(len(x), -1)
        return np.tanh(rows @ self.p['w1'] + self.p['b1']) @ self.p['w2']

    def gradient(self, x, cotangent):
        rows = np.float64(x).reshape(len(x), -1)
        hidden = np.tanh(rows @ self.p['w1'] + self.p['b1'])
        back = (cotangent @ self.p['w2'].T) * (1 - hidden**2) @ self.p['w1'].T
        return back.reshape(np.shape(x))

    def slope(self, x, y):
        """Of the cross entropy."""
        return self.gradient(x, reference.cross_entropy_gradient(self.logits(x), y))

    def loss(self, x, y):
        return reference.cross_entropy(self.logits(x), y)


def each():
    return keys.per_example(KEY, BATCH)


@jax.jit
def value_and_slope(f, key, x, y):
    """What an attack maximises, its gradient and the logits it ranks by."""
    goal = attacks.goal(f, y, loss=losses.cross_entropy)

    def total(x):
        value, logits = goal.value_and_logits(x, key)
        return jnp.sum(value), (value, logits)

    slope, (value, logits) = jax.grad(total, has_aux=True)(x)
    return value, slope, logits


# ------------------------------------------------------------------------------- views


def test_scales_average_loss_and_gradient():
    f, (x, y) = network(), images()
    twin = Twin(f)
    value, slope, logits = value_and_slope(
        attacks.views(f, attacks.scales(4)), each(), x, y
    )
    factors = [0.5**i for i in range(4)]
    expected = np.mean([twin.loss(k * np.asarray(x), y) for k in factors], axis=0)
    gradient = np.mean([k * twin.slope(k * np.asarray(x), y) for k in factors], axis=0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, gradient, atol=1e-6)
    p = np.mean([reference.softmax(twin.logits(k * np.asarray(x))) for k in factors], 0)
    np.testing.assert_allclose(logits, np.log(p), atol=1e-5)


def test_views_multiply_and_are_applied_in_order():
    f, (x, y) = network(), images()

    def brighter(key, x):
        return jnp.stack([x, x + 0.1])

    def squared(key, x):
        return jnp.stack([x, x**2, x**3])

    seen = attacks.views(f, brighter, squared)
    samples = jax.jit(lambda f, x: f.sample(each(), x))(seen, x)
    assert samples.shape == (6, BATCH, CLASSES)
    points = [p for q in (x, x + 0.1) for p in (q, q**2, q**3)]
    expected = {tuple(np.round(f(p)[0], 4).tolist()) for p in points}
    got = {tuple(np.round(s[0], 4).tolist()) for s in samples}
    assert got == expected
    np.testing.assert_array_equal(seen(x), f(x))
    value, _, _ = value_and_slope(seen, each(), x, y)
    by_hand = np.mean([Twin(f).loss(np.asarray(p), y) for p in points], axis=0)
    np.testing.assert_allclose(value, by_hand, rtol=1e-5)


def shrunk(image, factor, shift):
    """Bilinear shrinking in NumPy: a triangle as wide as a pixel of the small image."""

    def matrix(size, offset):
        at = (np.arange(size) + 0.5 - offset) / factor - 0.5
        weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)) * factor)
        total = weights.sum(axis=1, keepdims=True)
        weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 0)
        return weights * ((at >= -0.5) & (at <= size - 0.5))[:, None]

    rows, columns = (matrix(n, s) for n, s in zip(image.shape[:2], shift, strict=True))
    return np.einsum('ij,jkc,lk->ilc', rows, image, columns)


def test_diverse_shrinks_and_places():
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.uniform(size=(5, 12, 10, 2)))
    own = keys.per_example(KEY, 5)
    made = shown(attacks.diverse(0.4, 1.0, copies=2), own, x)
    assert made.shape == (2, *x.shape)
    factors = []
    for copy in range(2):
        for i, k in enumerate(keys.fold(own, copy)):
            scale, place, _ = jax.random.split(k, 3)
            factor = float(jax.random.uniform(scale, (), jnp.float32, 0.4, 1))
            unit = np.asarray(jax.random.uniform(place, (2,), jnp.float32))
            expected = shrunk(
                np.asarray(x[i]), factor, unit * (1 - factor) * np.array([12, 10])
            )
            np.testing.assert_allclose(made[copy, i], expected, atol=2e-4)
            factors.append(factor)
    assert min(factors) < 0.6
    assert max(factors) > 0.7
    assert made.min() >= -1e-6
    assert made.max() <= 1 + 1e-6


def test_diverse_does_nothing_as_often_as_asked():
    x, _ = images()
    own = keys.per_example(KEY, BATCH)
    np.testing.assert_array_equal(shown(attacks.diverse(0.5, 0.0), own, x)[0], x)
    whole = shown(attacks.diverse(1.0, 1.0), own, x)[0]
    np.testing.assert_allclose(whole, x, atol=1e-6)
    many = jnp.broadcast_to(x[:1], (400, *SHAPE))
    views = shown(attacks.diverse(0.5, 0.3), keys.per_example(KEY, 400), many)[0]
    changed = np.abs(views - many).max(axis=(1, 2, 3)) > 1e-6
    np.testing.assert_allclose(changed.mean(), 0.3, atol=0.08)


# ---------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(('size', 'sigma'), [(3, 1.0), (7, 3.0), (5, 0.5), (1, 1.0)])
def test_translation_is_the_convolution_with_a_gaussian(size, sigma):
    gradient = np.float32(np.random.default_rng(0).normal(size=(3, 6, 9, 2)))
    smooth = attacks.transforms.translation(size, sigma)
    got, _ = smooth.update(jnp.asarray(gradient), smooth.init(gradient))
    reach = np.arange(size) - size // 2
    kernel = np.exp(-(reach[:, None] ** 2 + reach[None] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    expected = ndimage.convolve(
        np.float64(gradient), kernel[None, :, :, None], mode='constant'
    )
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert attacks.transforms.translation(size, sigma) is smooth


def test_ti_fgsm_is_a_step_along_the_smoothed_gradient():
    f, (x, y) = network(), images()
    free = balls.linf(0.1, bounds=None)
    attack = attacks.bim(free, 3, rate=0.5).replace(
        transform=attacks.transforms.translation(3, 1.0)
    )
    reach = np.arange(3) - 1
    kernel = np.exp(-(reach[:, None] ** 2 + reach[None] ** 2) / 2)
    kernel /= kernel.sum()
    point, centre = np.float64(x), np.float64(x)
    for _ in range(3):
        slope = Twin(f).slope(point, y)
        slope = ndimage.convolve(slope, kernel[None, :, :, None], mode='constant')
        point = np.clip(point + 0.05 * np.sign(slope), centre - 0.1, centre + 0.1)
    np.testing.assert_allclose(run(attack, f, KEY, x, y), point, atol=1e-5)


def vmi_by_hand(twin, x, y, noise, nesterov, eps=0.1, rate=0.3, mu=0.7, beta=1.5):
    """Algorithm 1 of Wang and He; the gradient's norm is the mean, as in the codes."""
    point, momentum, variance = np.float64(x), np.zeros_like(x), np.zeros_like(x)
    for draws in noise:
        ahead = point + eps * rate * mu * momentum * nesterov
        slope = twin.slope(ahead, y)
        tuned = slope + variance
        size = np.abs(tuned).mean(axis=(1, 2, 3), keepdims=True)
        momentum = mu * momentum + tuned / size
        around = [twin.slope(ahead + beta * eps * r, y) for r in draws]
        variance = np.mean(around, axis=0) - slope
        point = point + eps * rate * np.sign(momentum)
        point = np.clip(np.clip(point, x - eps, x + eps), 0, 1)
    return point


@pytest.mark.parametrize('nesterov', [False, True])
def test_vmi_fgsm_is_the_published_algorithm(nesterov):
    f, (x, y) = network(), images()
    steps, samples = 4, 3
    attack = attacks.vmi_fgsm(
        BALL, steps, 0.3, decay=0.7, reach=1.5, samples=samples, nesterov=nesterov
    )
    assert attack.calls == steps * (1 + samples)

    def draws(step, i):
        own = keys.fold(keys.fold(each(), step), i)
        return np.asarray(
            keys.draw(lambda k: jax.random.uniform(k, SHAPE, minval=-1), own),
            np.float64,
        )

    noise = [[draws(t + 1, i + 1) for i in range(samples)] for t in range(steps)]
    expected = vmi_by_hand(Twin(f), np.float64(x), y, noise, nesterov)
    got = run(attack, f, KEY, x, y)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # Variance and look-ahead matter, or the comparison says nothing.
    plain = attacks.ni_fgsm if nesterov else attacks.mi_fgsm
    other = run(plain(BALL, steps, 0.3, 0.7), f, KEY, x, y)
    assert np.abs(got - other).max() > 0.01


# ---------------------------------------------------------------------------- ensembles


@pytest.mark.parametrize('average', ['logits', 'probabilities'])
def test_ensembles_average(average):
    f, g, (x, y) = network(), network(5), images()
    both = attacks.ensemble([f, g], [3.0, 1.0], average)
    z, other = Twin(f).logits(x), Twin(g).logits(x)
    expected = {
        'logits': 0.75 * z + 0.25 * other,
        'probabilities': np.log(
            0.75 * reference.softmax(z) + 0.25 * reference.softmax(other)
        ),
    }[average]
    np.testing.assert_allclose(both(x), expected, atol=1e-5)
    _, slope, _ = value_and_slope(both, each(), x, y)
    assert np.isfinite(slope).all()


# -------------------------------------------------------------------------- all at once


def composed(ball=BALL, steps=3):
    """SI-DI-TI-MI."""
    transform = attacks.transforms.chain(
        attacks.transforms.translation(3, 1.0), attacks.transforms.momentum()
    )
    return attacks.mi_fgsm(ball, steps).replace(transform=transform)


def surrogate():
    both = attacks.ensemble([network(), network(5)])
    return attacks.views(both, attacks.diverse(0.7, 0.8, 2), attacks.scales(3))


def test_everything_composes_in_one_program():
    x, y = images()
    run(composed(), surrogate(), KEY, x, y)
    before = compiled._cache_size()
    for eps in (0.02, 0.05, 0.2):
        ball = balls.linf(eps)
        adv = run(composed(ball), surrogate(), KEY, x, y)
        assert np.asarray(ball.contains(adv, x)).all()
        np.testing.assert_allclose(ball.norm(adv - x), eps, rtol=1e-4)
    assert compiled._cache_size() == before


def test_the_composition_transfers():
    x, y = images()
    adv = run(composed(balls.linf(0.15)), surrogate(), KEY, x, y)
    for f in (network(), network(5)):
        assert (margin(f, adv, y) - margin(f, x, y)).mean() > 0.1


def test_views_belong_to_examples():
    """Alone, reversed or repeated, an example sees the views it sees in a batch."""
    x, y = images()
    whole = np.asarray(run(composed(), surrogate(), each(), x, y))
    logits = np.asarray(sampled(surrogate(), each(), x))
    for index in ([2], [5, 4, 3, 2, 1, 0]):
        index = np.array(index)
        part = run(composed(), surrogate(), each()[index], x[index], y[index])
        np.testing.assert_allclose(part, whole[index], atol=1e-5)
        one = sampled(surrogate(), each()[index], x[index])
        np.testing.assert_allclose(one, logits[:, index], atol=1e-5)
    assert np.ptp(logits, axis=0).min() > 1e-4


def test_views_change_from_step_to_step():
    x, _ = images()
    f = attacks.views(network(), attacks.diverse(0.5, 1.0))
    one, two = (sampled(f, keys.fold(each(), i), x) for i in (1, 2))
    assert (np.abs(one - two).max(axis=(0, 2)) > 1e-4).all()


BAD = [
    (lambda: attacks.views(network()), 'transforms must be functions, at least one'),
    (lambda: attacks.views(network(), 3), 'transforms must be functions'),
    (lambda: attacks.views(surrogate(), attacks.scales()), 'must be deterministic'),
    (lambda: attacks.diverse(0.0), r'low must lie in \(0, 1\].*got 0.0'),
    (lambda: attacks.diverse(0.9, 1.5), r'probability in \[0, 1\], got 0.9 and 1.5'),
    (lambda: attacks.diverse(copies=0), 'copies must be an integer >= 1, got 0'),
    (lambda: attacks.scales(0), 'copies must be an integer >= 1, got 0'),
    (lambda: attacks.transforms.translation(4), 'size must be odd, got 4'),
    (
        lambda: attacks.transforms.translation(3, 0.0),
        'sigma must be a number > 0, got 0.0',
    ),
    (lambda: attacks.vmi_fgsm(0.1, samples=0), 'samples must be an integer >= 1'),
    (lambda: attacks.ensemble([]), 'members must hold at least one'),
    (lambda: attacks.ensemble([surrogate()]), 'members must be deterministic'),
    (lambda: attacks.ensemble([network()], [0.0]), 'weights must be 1 non-negative'),
]


@pytest.mark.parametrize(('call', 'message'), BAD, ids=[message for _, message in BAD])
def test_bad_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
