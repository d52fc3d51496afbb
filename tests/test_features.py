"""Usefulness, its closed forms, and the data sets that hold only some features."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from advjax import attacks, balls, data, features, models, zoo

KEY = jax.random.key(0)
KINDS = {'linf': 0.2, 'l2': 0.5, 'l1': 0.7}
BOXES = [(0.0, 1.0), None]


def sample(seed, count=24, shape=(3, 2, 1)):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (count, *shape)).astype(np.float32)
    # Pixels at the ends of the range leave no room on one side.
    kind = rng.uniform(size=x.shape)
    x = np.where(kind < 0.2, 0, np.where(kind > 0.8, 1, x)).astype(np.float32)
    y = np.where(rng.uniform(size=count) < 0.5, -1, 1)
    w = rng.normal(size=(4, *shape)).astype(np.float32)
    w[0, 0], w[1, 1] = 0, 1e-9
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(w)


def ball_of(kind, bounds):
    return getattr(balls, kind)(KINDS[kind], bounds)


_no_ascent: Any = lambda z: z  # noqa: E731


# ------------------------------------------------------------------ usefulness


def test_signs_are_one_against_the_rest():
    np.testing.assert_array_equal(features.signs(np.array([0, 2, 1]), 2), [-1, 1, -1])


def test_standardised_features_have_mean_0_and_mean_square_1():
    x, _, w = sample(1)

    def squares(z):
        return jnp.square(z.reshape(z.shape[0], -1)) @ w.reshape(4, -1).T + 3

    for fn in (squares, features.linear(w, 2.0)):
        values = features.standardise(fn, x)(x)
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(jnp.square(values).mean(0), 1, rtol=1e-4)
        # Only shifted and scaled, and upwards.
        for raw, value in zip(fn(x).T, values.T, strict=True):
            assert np.corrcoef(raw, value)[0, 1] > 1 - 1e-5


@pytest.mark.parametrize('constant', [0.0, 0.1, 7.3])
def test_a_constant_feature_is_useless_not_infinite(constant):
    x, y, w = sample(2)

    def fn(z):
        return jnp.concatenate([jnp.full_like(z[:, :1, 0, 0], constant), z[:, 0, 0]], 1)

    flat = features.linear(jnp.zeros_like(w).at[1].set(w[1]), constant)
    for made in (features.standardise(fn, x), features.standardise(flat, x)):
        rho = features.rho(made, x, y)
        assert np.isfinite(rho).all()
        assert rho[0] == 0
        assert abs(rho[1]) > 0


def test_a_linear_feature_stays_linear():
    x, y, w = sample(3)
    made = features.standardise(features.linear(w, 1.0), x)
    assert isinstance(made, features.Linear)
    general = features.standardise(lambda z: features.linear(w, 1.0)(z), x)
    np.testing.assert_allclose(made(x), general(x), atol=1e-5)
    np.testing.assert_allclose(
        features.rho(made, x, y),
        [np.mean(y * v) for v in np.asarray(made(x)).T],
        rtol=1e-5,
    )


@pytest.mark.parametrize('bounds', BOXES)
@pytest.mark.parametrize('kind', KINDS)
def test_the_worst_case_of_a_linear_feature_is_exact(kind, bounds):
    """Against greedy filling (L1) and every set of blocked coordinates (L2)."""
    x, y, w = sample(4)
    ball = ball_of(kind, bounds)
    found = jax.jit(lambda m, x: m.worst(ball, x, y))(features.linear(w, 0.3), x)
    for j, weight in enumerate(np.asarray(w, np.float64)):
        for i in range(len(x)):
            x0 = np.asarray(x[i], np.float64).ravel()
            d = -float(y[i]) * weight.ravel()
            room = np.inf * np.ones(d.shape)
            if bounds:
                room = np.where(d > 0, 1 - x0, x0)
            expected = y[i] * (weight.ravel() @ x0 + 0.3) - most(
                kind, np.abs(d), room, KINDS[kind]
            )
            np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


def most(kind, weight, room, eps):
    """The most that <w, size> can be, with 0 <= size <= room and the norm eps."""
    if kind == 'linf':
        return (weight * np.minimum(eps, room)).sum()
    if kind == 'l1':
        total, left = 0.0, eps
        for i in np.argsort(-weight):
            total, left = total + weight[i] * min(left, room[i]), max(left - room[i], 0)
        return total
    # L2: which coordinates are at their bound is tried out.
    best = 0.0
    for blocked in itertools.product([False, True], repeat=len(weight)):
        at = np.array(blocked)
        if not np.isfinite(room[at]).all():
            continue
        left = eps**2 - np.square(room[at]).sum()
        free = np.linalg.norm(weight[~at])
        if left < 0:
            continue
        size = np.where(at, room, 0)
        if free > 0:
            size = np.where(at, room, np.sqrt(left) * weight / free)
        if (size <= room + 1e-9).all():
            best = max(best, weight @ np.where(weight > 0, size, 0))
    return best


@pytest.mark.parametrize('bounds', BOXES)
@pytest.mark.parametrize('kind', KINDS)
def test_a_search_reaches_the_closed_form_and_never_passes_it(kind, bounds):
    x, y, w = sample(5)
    ball, fn = ball_of(kind, bounds), features.linear(w)
    attack = attacks.pgd(ball, steps=60, rate=0.1)
    found = jax.jit(features.worst)(fn, x, y, attack, key=KEY)
    exact = fn.worst(ball, x, y)
    assert (np.asarray(found) >= np.asarray(exact) - 1e-5).all()
    # Steps of one coordinate at a time are slow in L1.
    slack = {'linf': 1e-5, 'l2': 0.01, 'l1': 0.5}[kind]
    assert np.mean(found - exact) < slack
    gamma = np.asarray(found).mean(0)
    assert (gamma < features.rho(fn, x, y)).all()


def test_no_radius_leaves_usefulness_as_it_is():
    x, y, w = sample(6)
    fn = features.linear(w)
    rho = features.rho(fn, x, y)
    for kind in KINDS:
        exact = fn.worst(getattr(balls, kind)(0.0), x, y)
        np.testing.assert_allclose(exact.mean(0), rho, atol=1e-6)
    found = features.gamma(fn, x, y, attacks.bim(balls.linf(0.0), 1), key=KEY)
    np.testing.assert_allclose(found, rho, atol=1e-6)


def test_gamma_is_the_mean_of_the_worst():
    x, y, w = sample(10)
    fn, attack = features.linear(w), attacks.pgd(balls.linf(0.1), 2)
    found = features.worst(fn, x, y, attack, key=KEY)
    gamma = features.gamma(fn, x, y, attack, key=KEY)
    np.testing.assert_allclose(gamma, np.asarray(found).mean(0), atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_an_infinite_radius_leaves_the_range(kind):
    x, y, w = sample(12)
    ball = getattr(balls, kind)(np.inf)
    worst = features.linear(w).worst(ball, x, y)
    rows = np.asarray(w).reshape(4, -1)
    sign = np.asarray(y)[:, None, None]
    lowest = np.minimum(sign * rows[None], 0).sum(axis=2)
    np.testing.assert_allclose(worst, lowest, rtol=1e-5, atol=1e-6)


def test_each_feature_may_have_labels_of_its_own():
    x, y, w = sample(7)
    fn, ball = features.linear(w), balls.linf(0.1)
    each = jnp.stack([y, -y, y, -y], 1)
    both = fn.worst(ball, x, each), features.rho(fn, x, each)
    np.testing.assert_allclose(both[0][:, 1], fn.worst(ball, x, -y)[:, 1], atol=1e-6)
    np.testing.assert_allclose(both[1][3], features.rho(fn, x, -y)[3], atol=1e-6)
    attack = attacks.bim(ball, 1)
    np.testing.assert_allclose(
        features.worst(fn, x, each, attack, key=KEY), both[0], atol=1e-5
    )


def test_a_weak_search_never_makes_a_feature_better():
    x, y, w = sample(8)

    def wrong_way(z):
        return jnp.sin(40 * features.linear(w)(z))

    found = features.worst(wrong_way, x, y, attacks.fgm(balls.linf(0.3)), key=KEY)
    assert (found <= y[:, None] * wrong_way(x)).all()


def test_a_useful_feature_may_be_robust_or_not():
    """Two features of equal rho: one large and simple, one spread thinly."""
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=4000) < 0.5, -1, 1)
    strong = y * np.where(rng.uniform(size=4000) < 0.95, 1, -1)
    weak = 0.1 * y[:, None] + rng.normal(size=(4000, 400))
    x = jnp.asarray(np.concatenate([strong[:, None], weak], 1), jnp.float32)
    w = np.zeros((2, 401), np.float32)
    w[0, 0], w[1, 1:] = 1, 1 / 400
    fn = features.standardise(features.linear(w), x)
    rho = features.rho(fn, x, jnp.asarray(y))
    gamma = fn.worst(balls.linf(0.2, None), x, jnp.asarray(y)).mean(0)
    np.testing.assert_allclose(rho, [0.9, 2 / 5**0.5], atol=0.03)
    # The second has the standard deviation sqrt(.01 + 1/400) = sqrt(5)/20.
    np.testing.assert_allclose(gamma, rho - np.array([0.2, 4 / 5**0.5]), atol=0.03)
    assert gamma[0] > 0.6
    assert gamma[1] < 0


@pytest.mark.parametrize(
    'call',
    [
        lambda x, y, w: features.linear(w[0, 0, 0]),
        lambda x, y, w: features.linear(w[:0]),
        lambda x, y, w: features.linear(w.at[0, 0, 0, 0].set(jnp.nan)),
        lambda x, y, w: features.linear(w, jnp.zeros(3)),
        lambda x, y, w: features.linear(w).worst(balls.l0(3), x, y),
        lambda x, y, w: features.linear(w).worst(balls.l2(1), x, y[:3]),
        lambda x, y, w: features.rho(features.linear(w), x, (y + 1) // 2),
        lambda x, y, w: features.rho(features.linear(w), x, y[:, None]),
        lambda x, y, w: features.worst(features.linear(w), x, y, _no_ascent, key=KEY),
        lambda x, y, w: features.standardise(lambda z: z[:, 0, 0, 0], x),
        # pyrefly: ignore[division-by-zero]
        lambda x, y, w: features.standardise(lambda z: z[:, 0, :, 0] / 0, x),
    ],
)
def test_refusals_of_usefulness(call):
    given = sample(9)
    with pytest.raises(ValueError, match='must'):
        call(*given)


# -------------------------------------------------------------- representations


class Net(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(12, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(5, 3, rngs=rngs)

    def features(self, x):
        return self.drop(nnx.tanh(self.one(x.reshape(x.shape[0], -1))))

    def __call__(self, x):
        return self.out(self.features(x))


class Plain(nnx.Module):
    features = 7

    def __init__(self, rngs):
        self.out = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(x.reshape(x.shape[0], -1))


def test_features_are_what_the_last_layer_reads():
    shape = (8, 8, 1)
    x = jax.random.uniform(KEY, (3, *shape))
    made = {
        'fast_mnist': zoo.fast_mnist(shape),
        'madry_mnist': zoo.madry_mnist(shape, scale=0.1),
        'mlp': zoo.mlp(shape, widths=(9,)),
        'maxout': zoo.maxout(shape, units=6),
    }
    for name, model in made.items():
        params, state = model.init(KEY)
        g = models.features_fn(model, params, state)(x)
        out = params['out']
        logits = g @ out['kernel'] + out['bias'][None]
        expected = models.logits_fn(model, params, state)(x)
        np.testing.assert_allclose(logits, expected, atol=1e-5, err_msg=name)


def test_features_are_deterministic_and_optional():
    x = jax.random.uniform(KEY, (4, 12))
    model = models.from_nnx(Net)
    params, state = model.init(KEY)
    fn = models.features_fn(model, params, state)
    np.testing.assert_array_equal(fn(x), fn(x))
    expected = jnp.tanh(x @ params['one']['kernel'] + params['one']['bias'][None])
    np.testing.assert_allclose(fn(x), expected, atol=1e-6)
    for without in (models.from_nnx(Plain), zoo.softmax_regression((12,), 3)):
        assert without.features is None
        with pytest.raises(ValueError, match='model must have features'):
            models.features_fn(without, {})
    own = zoo.softmax_regression((12,), 3)._replace(features=lambda p, s, x: 2 * x)
    np.testing.assert_array_equal(models.features_fn(own, {})(x), 2 * x)


# -------------------------------------------------------------------- data sets


def dataset(count=30, side=4, classes=3):
    rng = np.random.default_rng(1)
    return data.Dataset(
        images=rng.integers(0, 256, (count, side, side, 1)).astype(np.uint8),
        labels=(np.arange(count) % classes).astype(np.int32),
        class_names=tuple('abcdefghij'[:classes]),
        name='random',
        split='train',
    )


@functools.cache
def network():
    model = zoo.mlp((4, 4, 1), 3, (8,))
    params, _ = model.init(jax.random.key(3))
    return models.logits_fn(model, params), models.features_fn(model, params)


def test_inversion_meets_the_representation_inside_the_range():
    _, g = network()
    made = dataset()
    x = data.to_float(made.images)
    start = jnp.roll(x, 1, axis=0)
    run = jax.jit(
        lambda g, s: features.invert(g, g(x), s, key=KEY, step=0.1, steps=200)
    )
    z = run(g, start)
    assert z.min() >= 0
    assert z.max() <= 1
    before = jnp.linalg.norm(g(start) - g(x), axis=1)
    after = jnp.linalg.norm(g(z) - g(x), axis=1)
    assert np.median(after / before) < 0.1
    assert (after <= before).all()
    # Only what the representation sees has moved: the images have not met.
    pixels = jnp.linalg.norm((z - x).reshape(30, -1), axis=1)
    assert np.median(pixels) > 0.5


def test_a_step_of_the_inversion_has_the_length_asked_for():
    _, g = network()
    x = jnp.full((5, 4, 4, 1), 0.5)
    target = g(x) + 1
    schedule = lambda t: 1 - t  # noqa: E731
    one = features.invert(g, target, x, key=KEY, step=0.1, steps=1)
    two = features.invert(g, target, x, key=KEY, step=0.1, steps=2, schedule=schedule)
    gradient = jax.grad(lambda z: -jnp.sum(jnp.square(g(z) - target)))(x)
    rows = gradient.reshape(5, -1)
    expected = 0.1 * rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose((one - x).reshape(5, -1), expected, atol=1e-5)
    length = jnp.linalg.norm((two - x).reshape(5, -1), axis=1)
    assert (length <= 0.15 + 1e-6).all()
    assert (length > 0.1).all()


def test_restricted_images_hold_the_features_and_the_label():
    _, g = network()
    made = dataset()
    kept = features.restricted(g, made, key=KEY, step=0.1, steps=100, batch_size=7)
    assert kept.images.dtype == np.uint8
    assert kept.images.shape == made.images.shape
    np.testing.assert_array_equal(kept.labels, made.labels)
    assert kept.split == 'train, restricted'
    assert kept.class_names == made.class_names
    x, z = data.to_float(made.images), data.to_float(kept.images)
    error = jnp.linalg.norm(g(z) - g(x), axis=1) / jnp.linalg.norm(g(x), axis=1)
    assert np.median(error) < 0.1
    assert np.median(np.abs(kept.images.astype(int) - made.images).max((1, 2, 3))) > 50


def test_the_start_is_another_image():
    """With no descent to speak of, what comes back is the start."""
    made = dataset(count=5)
    for seed in range(20):
        kept = features.restricted(
            network()[1], made, key=jax.random.key(seed), step=1e-9, steps=1
        )
        for i, image in enumerate(kept.images):
            others = np.delete(made.images, i, axis=0)
            assert (image == others).all((1, 2, 3)).any()


def targeted(eps, steps=20):
    return attacks.pgd(
        balls.l2(eps), steps, 2.5 / steps, start=attacks.starts.clean, keep_best=False
    )


@pytest.mark.parametrize('how', ['random', 'next'])
def test_relabelled_images_are_near_and_taken_for_their_label(how):
    model = zoo.softmax_regression((4, 4, 1), 3)
    w = jax.random.normal(KEY, (16, 3))
    logits_fn = models.logits_fn(model, {'w': w, 'b': jnp.zeros((1, 3))})
    made = dataset()
    moved = features.relabelled(
        logits_fn, targeted(2.0), made, how, key=KEY, batch_size=8
    )
    if how == 'next':
        np.testing.assert_array_equal(moved.labels, (made.labels + 1) % 3)
    assert moved.split == 'train, relabelled'
    x, z = data.to_float(made.images), data.to_float(moved.images)
    # Rounding moves each of 16 pixels by half a level at most.
    distance = jnp.linalg.norm((x - z).reshape(30, -1), axis=1)
    assert distance.max() <= 2.0 + 4 * 0.5 / 255 + 1e-5
    answers = np.argmax(logits_fn(z), axis=1)
    assert (answers == moved.labels).mean() > 0.8
    assert (np.argmax(logits_fn(x), axis=1) == moved.labels).mean() < 0.6


def test_random_targets_are_uniform_and_belong_to_examples():
    logits_fn, _ = network()
    made = dataset(count=3000)
    still = features.relabelled(
        logits_fn, targeted(0.0, 1), made, key=KEY, batch_size=1000
    )
    np.testing.assert_array_equal(still.images, made.images)
    counts = np.bincount(still.labels, minlength=3)
    assert (abs(counts - 1000) < 4 * 26).all()
    # Independent of the label: t = y for a third.
    assert abs((still.labels == made.labels).mean() - 1 / 3) < 0.04
    few = dataset(count=3000)
    few = few._replace(images=few.images[:40], labels=few.labels[:40])
    part = features.relabelled(logits_fn, targeted(0.0, 1), few, key=KEY)
    np.testing.assert_array_equal(part.labels, still.labels[:40])


def test_the_result_does_not_depend_on_the_batch():
    logits_fn, _ = network()
    random = attacks.pgd(balls.l2(0.5), 3)
    one, other = (
        features.relabelled(logits_fn, random, dataset(), key=KEY, batch_size=size)
        for size in (30, 13)
    )
    # An ulp may round another way.
    assert (one.images != other.images).mean() < 0.01
    np.testing.assert_array_equal(one.labels, other.labels)


def test_targets_may_be_given():
    logits_fn, _ = network()
    t = np.arange(30)[::-1] % 3
    moved = features.relabelled(logits_fn, targeted(0.1, 2), dataset(), t, key=KEY)
    np.testing.assert_array_equal(moved.labels, t)


@pytest.mark.parametrize('targets', ['last', [3] * 30, [-1] * 30, [0] * 29, [0.5] * 30])
def test_refusals_of_targets(targets):
    with pytest.raises(ValueError, match='targets must'):
        features.relabelled(network()[0], targeted(1), dataset(), targets, key=KEY)


@pytest.mark.parametrize(
    'options', [{'step': 0.0}, {'steps': 0}, {'batch_size': 0}, {'step': -1.0}]
)
def test_refusals_of_restricted(options):
    with pytest.raises(ValueError, match='must'):
        features.restricted(network()[1], dataset(), key=KEY, **options)


def test_refusals_of_small_sets_and_missing_bounds():
    with pytest.raises(ValueError, match='at least 2 images'):
        features.restricted(network()[1], dataset(count=1), key=KEY)
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match='bounds must'):
        features.invert(network()[1], network()[1](x), x, key=KEY, bounds=None)


def test_what_was_silent_or_unclear_is_refused():
    key, x, y = jax.random.key(0), jnp.full((3, 4), 0.5), jnp.array([1, -1, 1])
    plain = features.linear(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r'x must be \(B, ...\), B >= 1, got .*\(0, 4'):
        features.rho(plain, x[:0], y[:0])
    with pytest.raises(ValueError, match=r'x must be \(B, ...\), B >= 1, got .*\(0, 4'):
        features.worst(plain, x[:0], y[:0], attacks.pgd(balls.linf(0.1), 2), key=key)
    with pytest.raises(ValueError, match=r'x must be \(B, ...\), B >= 1, got .*\(0, 4'):
        features.standardise(plain, x[:0])
    with pytest.raises(ValueError, match='offset must be finite'):
        features.linear(jnp.ones((2, 4)), np.nan)
    for bounds in (None, (1.0, 0.0)):
        with pytest.raises(ValueError, match=r'bounds must be \(low, high\) with low'):
            features.invert(plain, plain(x), x, key=key, bounds=bounds)
    for target in (plain(x)[:2], plain(x)[:, :1]):
        with pytest.raises(ValueError, match=r'target must have .*\(3, 2\), got'):
            features.invert(plain, target, x, key=key)
