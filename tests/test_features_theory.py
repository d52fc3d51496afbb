"""The Gaussian model, the trade-off distribution and saliency against other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, optimize, stats

from advjax import attacks, balls, models, zoo
from experiments.studies.ilyas2019 import gaussian
from experiments.studies.tsipras2019 import saliency
from experiments.studies.tsipras2019.trade_off import TradeOff, trade_off

KEY = jax.random.key(0)
SPECTRUM = np.array([4.0, 1.0, 0.25])


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def rotated(seed, values=SPECTRUM):
    """A covariance with these variances along no axis."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    return basis @ np.diag(values) @ basis.T


# ------------------------------------------------------------------ the Gaussian


def test_accuracy_is_that_of_a_sample(float64):
    model = gaussian.gaussian(np.array([1.0, 0.2, -0.3]), rotated(1))
    rng = np.random.default_rng(1)
    x = rng.multivariate_normal(model.mean, model.covariance, 200_000)
    w = np.asarray(gaussian.weights(model))
    np.testing.assert_allclose(rotated(1) @ w, model.mean, atol=1e-9)
    for eps in (0.0, 0.3):
        sampled = (x @ w - eps * np.linalg.norm(w) > 0).mean()
        expected = gaussian.accuracy(model, jnp.asarray(w), eps)
        assert abs(expected - sampled) < 4 * 0.5 / 200_000**0.5
    # The maximum-likelihood direction is the most accurate of all.
    others = jnp.asarray(w)[None] + jnp.asarray(rng.normal(size=(50, 3)))
    values = jax.vmap(lambda v: gaussian.accuracy(model, v))(others)
    assert (values <= gaussian.accuracy(model, jnp.asarray(w)) + 1e-12).all()


def test_lemma_1_is_the_worst_perturbation_of_its_norm(float64):
    model = gaussian.gaussian(np.array([1.0, 2, 3]), rotated(2))
    x = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)) * 2)
    inverse = jnp.linalg.inv(model.covariance)
    values, basis = np.linalg.eigh(model.covariance)

    def distance(z):
        centred = z - model.mean[None]
        return jnp.einsum('ni,ij,nj->n', centred, inverse, centred)

    @jax.jit
    def searched(attack, key):
        return distance(attack.maximize(distance, key, x))

    for eps in (0.2, 1.0, 10.0):
        # The multiplier at which the perturbation of each row has this norm.
        multiplier = jnp.asarray([
            optimize.brentq(
                lambda m, row=row, eps=eps: (
                    np.linalg.norm(row / (m * values - 1)) / eps - 1
                ),
                (1 + 1e-12) / values[0], 1e6, xtol=1e-15, rtol=1e-15,
            )
            for row in (np.asarray(x) - np.asarray(model.mean)) @ basis
        ])  # fmt: skip
        delta = gaussian.worst_case(model, x, multiplier)
        np.testing.assert_allclose(jnp.linalg.norm(delta, axis=1), eps, rtol=1e-8)
        attack = attacks.pgd(balls.l2(eps, None), 300, rate=0.05)
        # The other side of the mean is a maximum, too, but not the greatest.
        found = np.max([searched(attack, jax.random.key(i)) for i in range(8)], axis=0)
        exact = distance(x + delta)
        assert (exact >= found - 1e-6 * exact).all()
        np.testing.assert_allclose(found, exact, rtol=5e-3)


def test_lemma_1_penalised(float64):
    model = gaussian.gaussian(np.zeros(3), rotated(3))
    x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)))
    delta = gaussian.worst_case(model, x, 6.0)
    inverse = jnp.linalg.inv(model.covariance)

    def value(d):
        z = x + d
        gain = jnp.einsum('ni,ij,nj->', z, inverse, z)
        return gain - 6.0 * jnp.sum(jnp.square(d))

    np.testing.assert_allclose(jax.grad(value)(delta), 0, atol=1e-9)
    for seed in range(5):
        near = delta + 0.01 * np.random.default_rng(seed).normal(size=(4, 3))
        assert value(near) < value(delta)


def test_theorem_1(float64):
    covariance = jnp.asarray(rotated(4))
    exact = gaussian.adversarial_gap(covariance, 6.0)
    np.testing.assert_allclose(exact, 8.5288, atol=1e-3)
    # By sampling: what the perturbed data cost less what the clean data cost.
    model = gaussian.gaussian(np.zeros(3), covariance)
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.multivariate_normal(np.zeros(3), rotated(4), 200_000))
    inverse = jnp.linalg.inv(covariance)

    def cost(z):
        return jnp.einsum('ni,ij,nj->n', z, inverse, z)

    samples = cost(x + gaussian.worst_case(model, x, 6.0)) - cost(x)
    error = float(samples.std()) / 200_000**0.5
    assert abs(samples.mean() - exact) < 3 * error
    # Of all covariances of a trace the multiple of I has the least.
    least = gaussian.adversarial_gap(jnp.eye(3) * 5.25 / 3, 6.0)
    for _ in range(100):
        values = rng.dirichlet(np.full(3, 5)) * 5.25
        if values.min() > 1 / 6 + 0.01:
            gap = gaussian.adversarial_gap(jnp.diag(jnp.asarray(values)), 6.0)
            assert gap >= least - 1e-9
    assert exact > least


@pytest.mark.parametrize(
    ('eps', 'multiplier', 'variances'),
    [(0.5, 2.898, (4.66, 1.62, 0.79)), (5.0, 0.0867, (20.6, 15.5, 13.4))],
)
def test_theorem_2(float64, eps, multiplier, variances):
    model = gaussian.gaussian(np.array([1.0, 2, 3]), rotated(5))
    made, found = gaussian.robust(model, eps)
    np.testing.assert_allclose(found, multiplier, rtol=5e-4)
    values = np.linalg.eigvalsh(made.covariance)[::-1]
    np.testing.assert_allclose(values, variances, atol=0.05)
    np.testing.assert_array_equal(made.mean, model.mean)
    # Stationary: the covariance of the perturbed data is the robust one itself.
    m = np.linalg.inv(found * made.covariance - np.eye(3))
    moved = (np.eye(3) + m) @ model.covariance @ (np.eye(3) + m)
    np.testing.assert_allclose(moved, made.covariance, atol=1e-8)
    # And the perturbations spend the radius.
    np.testing.assert_allclose(np.trace(m @ model.covariance @ m), eps**2, rtol=1e-9)


def test_theorem_2_is_the_minimum_of_the_adversarial_loss(float64):
    """By brute force over diagonal covariances, the inner maximum by its own solver."""
    truth, eps = SPECTRUM, 0.5

    def inner(variances):
        # max E |x + M x|^2 / variances over M with E |M x|^2 = eps^2: lemma 1.
        low = 1 / variances.min()
        spent = lambda lam: (truth / (lam * variances - 1) ** 2).sum() - eps**2  # noqa: E731
        lam = optimize.brentq(spent, low * (1 + 1e-9), low * 1e6)
        return (truth * (1 + 1 / (lam * variances - 1)) ** 2 / variances).sum()

    def loss(logs):
        return inner(np.exp(logs)) + logs.sum()

    best = optimize.minimize(loss, np.log(truth + 0.3), method='Nelder-Mead', tol=1e-10)
    made, _ = gaussian.robust(gaussian.gaussian(np.zeros(3), truth), eps)
    np.testing.assert_allclose(np.exp(best.x), np.diag(made.covariance), rtol=1e-3)


@pytest.mark.parametrize('eps', [1e-3, 0.5, 5.0, 1e3])
def test_theorem_2_in_float32_and_at_the_ends(eps):
    values = jnp.asarray([4.0, 1.0, 0.25])
    made, multiplier = gaussian.robust(gaussian.gaussian(jnp.zeros(3), values), eps)
    got = jnp.diag(made.covariance)
    assert (got >= values - 1e-5).all()
    assert np.isfinite(multiplier)
    ratio = got.max() / got.min()
    if eps == 1e-3:
        np.testing.assert_allclose(got, values, rtol=5e-3)
    elif eps == 1e3:
        assert ratio < 1.01
    assert ratio <= 16.0 + 1e-3


def test_theorem_3(float64):
    covariance = jnp.asarray(rotated(6))
    least = gaussian.least_alignment(covariance)
    inverse = np.linalg.inv(covariance)

    def cosine(mean):
        gradient = inverse @ mean
        return mean @ gradient / np.linalg.norm(mean) / np.linalg.norm(gradient)

    starts = np.random.default_rng(6).normal(size=(10, 3))
    found = min(optimize.minimize(cosine, s).fun for s in starts)
    np.testing.assert_allclose(least, found, rtol=1e-5)
    np.testing.assert_allclose(least, 2 * 4 / 17)
    model = gaussian.gaussian(np.zeros(3), covariance)
    grown = [
        float(gaussian.least_alignment(gaussian.robust(model, e)[0].covariance))
        for e in (0.1, 0.5, 2.0, 10.0)
    ]
    assert all(a < b for a, b in zip([float(least), *grown], grown, strict=False))


@pytest.mark.parametrize(
    ('mean', 'covariance'),
    [
        (np.zeros(2), np.eye(3)),
        (np.zeros((2, 2)), np.eye(2)),
        (np.zeros(2), np.array([[1.0, 2], [2, 1]])),
        (np.zeros(2), np.array([[1.0, 0.5], [0, 1]])),
        (np.array([0.0, np.nan]), np.eye(2)),
        (np.zeros(2), np.array([1.0, 0.0])),
    ],
)
def test_refusals_of_gaussians(mean, covariance):
    with pytest.raises(ValueError, match='must'):
        gaussian.gaussian(mean, covariance)


@pytest.mark.parametrize('eps', [0.0, -1.0, float('nan')])
def test_refusals_of_radii(eps):
    model = gaussian.gaussian(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match='eps must be a radius > 0'):
        gaussian.robust(model, eps)


# ------------------------------------------------------------------ the trade-off


@pytest.mark.parametrize('weak', [100, 1000])
@pytest.mark.parametrize(
    ('strength', 'clean', 'turned'),
    [(2, 0.9772, 0.0228), (3, 0.99865, 0.00135), (4, 0.99997, 3.2e-5)],
)
def test_closed_forms_of_the_averaging_classifier(strength, clean, turned, weak):
    made = trade_off(0.95, strength, weak)
    w = made.averaging
    np.testing.assert_allclose(made.accuracy(w), clean, atol=5e-5)
    np.testing.assert_allclose(made.accuracy(w, eps=2 * made.eta), turned, atol=5e-5)
    np.testing.assert_allclose(made.accuracy(made.robust), 0.95)
    np.testing.assert_allclose(made.accuracy(made.robust, eps=0.99), 0.95)
    assert made.accuracy(made.robust, eps=1.0) == 0


def test_the_sample_has_the_distribution():
    made = trade_off(0.9, 3.0, 25)
    draw = jax.jit(TradeOff.sample, static_argnums=2)
    x, y = map(np.asarray, draw(made, KEY, 20_000))
    assert x.shape == (20_000, 26)
    assert set(np.unique(y)) == {-1, 1}
    assert abs(y.mean()) < 4 / 20_000**0.5
    assert set(np.unique(x[:, 0])) == {-1, 1}
    assert abs((x[:, 0] == y).mean() - 0.9) < 4 * 0.3 / 20_000**0.5
    folded = x[:, 1:] * y[:, None]
    np.testing.assert_allclose(folded.mean(), 0.6, atol=4 / 500_000**0.5)
    np.testing.assert_allclose(np.cov(folded.T), np.eye(25), atol=0.05)
    assert stats.kstest(folded[:, 3] - 0.6, 'norm').pvalue > 1e-3
    # Draws belong to examples.
    some, label = draw(made, KEY, 50)
    np.testing.assert_array_equal(some, x[:50])
    np.testing.assert_array_equal(label, y[:50])


def test_accuracy_is_that_of_a_sample_for_any_linear_classifier():
    made = trade_off(0.8, 2.0, 20)
    draw = jax.jit(TradeOff.sample, static_argnums=2)
    x, y = draw(made, jax.random.key(1), 40_000)
    accuracy = jax.jit(TradeOff.accuracy)
    rng = np.random.default_rng(0)
    for trial in range(20):
        w = jnp.asarray(rng.normal(0.2, 1, 21), jnp.float32)
        w = w.at[0].multiply(3) if trial % 2 else w
        bias, eps = rng.normal(), rng.uniform(0, 0.3)
        margin = y * (x @ w + bias) - eps * jnp.sum(jnp.abs(w))
        expected = accuracy(made, w, bias, eps)
        assert abs(jnp.mean(margin > 0) - expected) < 4 * 0.5 / 200
    # The closed form of the worst case is that of an attack.
    attack = attacks.pgd(balls.linf(0.1, None), 3, 1.0)
    low = attack.maximize(lambda z: -y * (z @ w + bias), KEY, x)
    found = jnp.mean(y * (low @ w + bias) > 0)
    closed = jnp.mean(y * (x @ w + bias) - 0.1 * jnp.sum(jnp.abs(w)) > 0)
    assert abs(found - closed) < 1e-3


def test_theorem_2_1_is_never_violated_and_is_tight():
    made = trade_off(0.95, 3.0, 50)
    rng = np.random.default_rng(2)
    w = rng.normal(0.3, 1, (4000, 51)) * np.where(
        rng.uniform(size=(4000, 51)) < 0.5, 0, 1
    )
    w[:, 0] *= 10 ** rng.uniform(-2, 2, 4000)
    w = jnp.asarray(w, jnp.float32)
    bias = jnp.asarray(rng.normal(size=4000), jnp.float32)
    accuracy = jax.jit(TradeOff.accuracy)
    clean = accuracy(made, w, bias, 0.0)
    for factor in (2.0, 3.0):
        turned = accuracy(made, w, bias, factor * made.eta)
        assert (turned <= made.bound(clean) + 1e-5).all()
    smaller = accuracy(made, w, bias, 0.2 * made.eta)
    assert (smaller > made.bound(clean)).any()
    np.testing.assert_allclose(made.bound(0.95), 0.95, rtol=1e-5)
    np.testing.assert_allclose(made.bound(0.99), 0.19, rtol=1e-5)
    np.testing.assert_allclose(
        made.accuracy(made.robust, eps=2 * made.eta), made.bound(0.95), rtol=1e-5
    )


@pytest.mark.parametrize(
    'arguments',
    [(0.4,), (1.0,), (float('nan'),), (0.9, 0.0), (0.9, float('inf')), (0.9, 3.0, 0)],
)
def test_refusals_of_trade_off(arguments):
    with pytest.raises(ValueError, match='must'):
        trade_off(*arguments)


# ------------------------------------------------------------------------ saliency


def test_edges_are_those_of_sobel():
    x = np.random.default_rng(0).uniform(size=(2, 9, 7, 3)).astype(np.float32)
    found = saliency.edges(jnp.asarray(x))
    for i in range(2):
        for channel in range(3):
            image = x[i, ..., channel].astype(np.float64)
            parts = [ndimage.sobel(image, axis, mode='nearest') for axis in (0, 1)]
            np.testing.assert_allclose(
                found[i, ..., channel], np.hypot(*parts), atol=1e-5
            )
    with pytest.raises(ValueError, match='x must be images'):
        saliency.edges(jnp.zeros((3, 4)))


def test_correlation_is_pearsons():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 5, 6, 4, 1)).astype(np.float32)
    b[1] = 2 - 3 * a[1]
    b[2] = 7
    found = saliency.correlation(jnp.asarray(a), jnp.asarray(b))
    for i in (0, 1, 3, 4):
        expected = np.corrcoef(a[i].ravel(), b[i].ravel())[0, 1]
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
    assert found[2] == 0


def test_the_gradient_is_that_of_each_example():
    model = zoo.softmax_regression((3, 2, 1), 4)
    w = jax.random.normal(KEY, (6, 4))
    fn = models.logits_fn(model, {'w': w, 'b': jnp.zeros((1, 4))})
    x = jax.random.uniform(KEY, (5, 3, 2, 1))
    y = jnp.arange(5) % 4
    found = saliency.input_gradient(fn, x, y)
    p = jax.nn.softmax(fn(x))
    expected = (p - jax.nn.one_hot(y, 4)) @ w.T
    np.testing.assert_allclose(found.reshape(5, 6), expected, atol=1e-5)


def test_samples_that_make_no_sense_are_refused():
    for size in (0, -1):
        with pytest.raises(ValueError, match='size must be an integer >= 1, got'):
            trade_off().sample(jax.random.key(0), size)
