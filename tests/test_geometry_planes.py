"""Hyperplanes, separators, spheres and caps against closed forms and brute force."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from advjax import geometry
from advjax.geometry import separators
from experiments.studies.geometry import concentration, two_spheres

KEY = jax.random.key(3)


def classes(seed, size=7, count=40, gap=1.0):
    rng = np.random.default_rng(seed)
    towards = rng.normal(size=size)
    first = rng.normal(size=(count, size)) - gap * towards
    second = rng.normal(size=(count + 3, size)) + gap * towards
    return first, second


# -------------------------------------------------------------------------- hyperplanes


def test_a_hyperplane_is_its_linear_score_in_units_of_distance():
    rng = np.random.default_rng(0)
    w, b, x = rng.normal(size=(2, 3, 1)), 0.7, rng.normal(size=(5, 2, 3, 1))
    plane = geometry.hyperplane(w, b)
    score = x.reshape(5, -1) @ w.ravel() + b
    np.testing.assert_allclose(np.linalg.norm(plane.normal), 1)
    for norm, dual in (('l2', 2), ('linf', 1), ('l1', np.inf)):
        expected = score / np.linalg.norm(w.ravel(), dual)
        np.testing.assert_allclose(
            geometry.signed_distance(plane, x, norm), expected, rtol=1e-12
        )


@pytest.mark.parametrize('norm', ['l2', 'linf', 'l1'])
def test_the_distance_is_that_of_the_nearest_point(norm):
    plane = geometry.hyperplane([3.0, -1.0, 0.5], 1.5)
    x = np.array([[0.2, 0.4, -0.3]])
    expected = abs(geometry.signed_distance(plane, x, norm)[0])
    order = {'l2': 2, 'linf': np.inf, 'l1': 1}[norm]
    points = np.random.default_rng(1).normal(size=(200_000, 3))
    # Onto the plane along the ray from x; the nearest of them is nearly the nearest.
    points *= -(geometry.signed_distance(plane, x) / (points @ plane.normal))[:, None]
    nearest = np.linalg.norm(points, order, axis=1).min()
    assert expected <= nearest <= 1.02 * expected


def test_mirror_images_are_as_far_on_the_other_side():
    first, second = classes(2)
    plane = geometry.nearest_centroid(first, second)
    images = first.reshape(len(first), 7, 1, 1)
    mirrored = geometry.mirror_image(plane, images)
    assert mirrored.shape == images.shape
    there = geometry.signed_distance(plane, mirrored)
    here = geometry.signed_distance(plane, images)
    np.testing.assert_allclose(there, -here, rtol=1e-10)
    np.testing.assert_allclose(
        geometry.mirror_image(plane, mirrored), images, atol=1e-12
    )
    moved = (mirrored - images).reshape(len(first), -1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 2 * abs(here))


def test_nearest_centroid_answers_the_nearer_mean():
    first, second = classes(3)
    plane = geometry.nearest_centroid(first, second)
    x = np.random.default_rng(4).normal(size=(200, 7)) * 3
    i, j = first.mean(axis=0), second.mean(axis=0)
    nearer = np.linalg.norm(x - j, axis=1) < np.linalg.norm(x - i, axis=1)
    np.testing.assert_array_equal(geometry.signed_distance(plane, x) > 0, nearer)


def test_angles_are_degrees_and_exact_at_the_ends():
    assert geometry.angle([1, 0], [0, 5]) == pytest.approx(90)
    assert geometry.angle([1, 0], [1, 1]) == pytest.approx(45)
    assert geometry.angle([1, 0], [-3, 0]) == pytest.approx(180)
    # Where the arc cosine of a rounded product would give 0 or NaN.
    assert geometry.angle([1, 0], [1, 1e-9]) == pytest.approx(np.degrees(1e-9))
    assert geometry.angle([1e-200, 0], [1e200, 1e200]) == pytest.approx(45)


@pytest.mark.parametrize('seed', range(5))
def test_strength_is_the_secant_of_the_deviation_angle(seed):
    first, second = classes(seed)
    i, j = first.mean(axis=0), second.mean(axis=0)
    rng = np.random.default_rng(seed)
    centre = geometry.nearest_centroid(first, second)
    assert geometry.strength(centre, i, j) == pytest.approx(1, abs=1e-12)
    for degrees in (10, 50, 85, 89.9):
        plane = geometry.tilt(centre, rng.normal(size=7), degrees, (i + j) / 2)
        delta = geometry.deviation_angle(plane, i, j)
        assert delta == pytest.approx(degrees, abs=1e-9)
        s = geometry.strength(plane, i, j)
        assert s == pytest.approx(1 / np.cos(np.radians(delta)), rel=1e-9)
        # What the direction of the means costs, in units of the optimal one.
        x = first[:4]
        along = separators.flip_distance(plane, x, j - i)
        np.testing.assert_allclose(
            along / abs(geometry.signed_distance(plane, x)), s, rtol=1e-9
        )


def test_tilting_keeps_the_pivot_where_it_is_on_the_plane():
    plane = geometry.hyperplane([1.0, 2.0, -1.0], 0.3)
    pivot = np.array([0.5, -1.0, 2.0])
    foot = pivot - geometry.signed_distance(plane, pivot[None])[0] * plane.normal
    tilted = geometry.tilt(plane, [0.0, 1.0, 0.0], 30, pivot)
    np.testing.assert_allclose(
        geometry.signed_distance(tilted, foot[None]), 0, atol=1e-12
    )
    assert geometry.angle(plane.normal, tilted.normal) == pytest.approx(30)
    assert tilted.normal[1] > plane.normal[1], 'towards the direction'
    same = geometry.tilt(plane, [0.0, 1.0, 0.0], 0, pivot)
    np.testing.assert_allclose(same.normal, plane.normal)
    assert same.offset == pytest.approx(plane.offset)


def test_taxonomy_splits_at_the_least_error():
    strengths = [1.0, 1.05, 1.3, 1.7, 2.7, 7.9]
    errors = [3.7, 3.6, 2.0, 1.4, 1.7, 2.2]
    assert geometry.taxonomy(strengths, errors) == [0, 0, 1, 1, 2, 2]
    assert geometry.taxonomy(strengths, errors, minimal=1.5) == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    ('call', 'names'),
    [
        (lambda: geometry.hyperplane([0.0, 0.0]), 'weights'),
        (lambda: geometry.hyperplane([np.nan, 1.0]), 'weights'),
        (lambda: geometry.hyperplane([1.0], np.inf), 'bias'),
        (lambda: geometry.hyperplane([1.0], [1.0, 2.0]), 'bias'),
        (lambda: geometry.hyperplane([]), 'weights'),
        (lambda: geometry.signed_distance(geometry.hyperplane([1.0]), [[1, 2]]), 'x'),
        (lambda: geometry.signed_distance(geometry.hyperplane([1.0]), [1.0]), 'x'),
        (
            lambda: geometry.signed_distance(geometry.hyperplane([1.0]), [[1]], 'l3'),
            'norm',
        ),
        (lambda: geometry.nearest_centroid([[1.0]], [[1.0]]), 'zero'),
        (lambda: geometry.nearest_centroid(np.zeros((0, 2)), [[1.0, 1.0]]), 'first'),
        (lambda: geometry.nearest_centroid([[1.0, 2.0]], [[1.0]]), 'second'),
        (lambda: geometry.angle([1.0], [1.0, 0.0]), 'directions'),
        (
            lambda: geometry.strength(geometry.hyperplane([1.0]), [1.0], [2.0]),
            'separate',
        ),
        (
            lambda: geometry.strength(geometry.hyperplane([-1.0]), [-1.0], [2.0]),
            'separate',
        ),
        (
            lambda: geometry.tilt(geometry.hyperplane([1.0, 0]), [2.0, 0], 5, [0, 0]),
            'parallel',
        ),
        (
            lambda: geometry.tilt(geometry.hyperplane([1.0, 0]), [0, 1.0], 90, [0, 0]),
            'degrees',
        ),
        (
            lambda: geometry.tilt(
                geometry.hyperplane([1.0, 0]), [0, 1.0], np.nan, [0, 0]
            ),
            'degrees',
        ),
        (lambda: geometry.taxonomy([1.0, 2.0], [1.0]), 'match'),
        (lambda: geometry.taxonomy([2.0, 1.0], [1.0, 1.0]), 'decrease'),
        (lambda: geometry.taxonomy([], []), 'strengths'),
    ],
)
def test_bad_planes_are_refused(call, names):
    with pytest.raises(ValueError, match=names):
        call()


# --------------------------------------------------------------------------- separators


def hull_distance(positive, negative):
    """The distance of two hulls by a general solver."""
    n, m = len(positive), len(negative)

    def mixture(a):
        return a[:n] @ positive - a[n:] @ negative

    def square(a):
        d = mixture(a)
        return d @ d, 2 * np.concatenate([positive @ d, -negative @ d])

    sums = [
        {'type': 'eq', 'fun': lambda a: a[:n].sum() - 1},
        {'type': 'eq', 'fun': lambda a: a[n:].sum() - 1},
    ]
    start = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = optimize.minimize(
        square, start, jac=True, bounds=[(0, 1)] * (n + m), constraints=sums,
        method='SLSQP', options={'ftol': 1e-12, 'maxiter': 500},
    )  # fmt: skip
    return np.linalg.norm(mixture(found.x))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('scale', [1.0, 1e-3, 1e3])
def test_closest_points_of_two_hulls(seed, scale):
    negative, positive = classes(seed, size=4, count=12, gap=2.0)
    gap = geometry.hull_gap(scale * positive, scale * negative)
    assert 2 * gap.gamma == pytest.approx(
        scale * hull_distance(positive, negative), rel=1e-3
    )
    # Its own proof: the margin of the classifier between them.
    assert gap.gamma * (1 - 1e-3) <= gap.margin <= gap.gamma * (1 + 1e-9)
    margin = geometry.margin_of(gap.plane, scale * positive, scale * negative)
    assert margin == pytest.approx(gap.margin)
    np.testing.assert_allclose(
        gap.direction, (gap.positive - gap.negative) / (2 * gap.gamma)
    )


def test_one_direction_flips_every_separator_within_the_bound():
    negative, positive = classes(1, size=6, count=15, gap=1.5)
    gap = geometry.hull_gap(positive, negative)
    rng = np.random.default_rng(0)
    tightest, tried = np.inf, 0
    while tried < 200:
        # Separators of all kinds, made without the library's own.
        w = gap.direction + rng.normal(size=6) * rng.uniform(0, 0.6)
        low, high = (negative @ w).max(), (positive @ w).min()
        if low >= high:
            continue
        tried += 1
        plane = geometry.hyperplane(w, -rng.uniform(low, high))
        alpha = geometry.margin_of(plane, positive, negative)
        assert 0 < alpha <= gap.gamma * (1 + 1e-6)
        x = rng.normal(size=(20, 6)) * 4
        needed = geometry.flip_distance(plane, x, gap.direction)
        bound = geometry.flip_bound(plane, x, gap.gamma, alpha)
        assert (needed <= bound * (1 + 1e-6)).all()
        tightest = min(tightest, (bound / needed).min())
        side = np.sign(geometry.signed_distance(plane, x))
        moved = x - (side * needed * 1.0001)[:, None] * gap.direction
        assert (np.sign(geometry.signed_distance(plane, moved)) == -side).all()
    assert tightest < 1.6, 'the bound says something'


def test_a_direction_away_from_the_boundary_never_flips():
    plane = geometry.hyperplane([1.0, 0.0])
    x = [[1.0, 0.0]]
    assert geometry.flip_distance(plane, x, [2.0, 0.0])[0] == pytest.approx(1)
    assert np.isinf(geometry.flip_distance(plane, x, [-1.0, 0.0])).all()
    assert np.isinf(geometry.flip_distance(plane, x, [0.0, 1.0])).all()


def test_what_cannot_be_separated_is_refused():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    with pytest.raises(ValueError, match='separable'):
        geometry.hull_gap(x[:20], x[20:])
    with pytest.raises(ValueError, match='separable'):
        geometry.hull_gap(x[:3], x[:3])
    with pytest.raises(ValueError, match='negative'):
        geometry.hull_gap(x[:3], x[:3, :1])
    plane = geometry.hyperplane([1.0, 0.0])
    for alpha in (0.0, -1.0, 2.0, np.nan):
        with pytest.raises(ValueError, match='alpha'):
            geometry.flip_bound(plane, x, 1.0, alpha)


# ------------------------------------------------------------------------------ spheres


def test_points_are_uniform_on_the_sphere_and_belong_to_their_key():
    x = np.asarray(two_spheres.sample(KEY, 4000, 5, 1.3))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.3, rtol=1e-6)
    # (x_1 / R)^2 is Beta(1/2, (n-1)/2).
    share = np.square(x[:, 0] / 1.3)
    assert stats.kstest(share, stats.beta(0.5, 2).cdf).pvalue > 0.01
    assert abs((x[:, 0] > 0).mean() - 0.5) < 0.04
    np.testing.assert_allclose(x[:10], two_spheres.sample(KEY, 10, 5, 1.3), atol=1e-6)


LEVELS = [(60, 10, 1.3, 0.7), (60, 30, 1.1, 0.8), (500, 50, 1.6, 0.8)]


@pytest.mark.parametrize(('dimension', 'count', 'high', 'low'), LEVELS)
def test_errors_of_quadratic_networks(dimension, count, high, low):
    alphas = two_spheres.two_levels(dimension, count, high, low)
    exact = two_spheres.exact_error(alphas)
    x = two_spheres.sample(KEY, 20_000, dimension, 1.0)
    found = np.asarray(jnp.argmax(two_spheres.quadratic(alphas)(x), axis=1)).mean()
    assert abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    assert abs(two_spheres.clt_error(alphas) - exact) < 0.06


def test_a_quadratic_network_within_the_limits_never_errs():
    alphas = two_spheres.two_levels(20, 5, 0.99, 1 / 1.3**2 + 0.01)
    assert two_spheres.exact_error(alphas) == 0
    assert two_spheres.exact_distance(alphas) == np.inf
    assert two_spheres.clt_error(alphas) < 0.06


def test_distance_to_the_nearest_error_of_a_quadratic_network():
    dimension, count = 40, 10
    alphas = two_spheres.two_levels(dimension, count, 1.2, 0.65)
    x = np.asarray(two_spheres.sample(KEY, 4000, dimension, 1.0), np.float64)
    found = []
    for part in x:
        # Turn the point between its two subspaces until the answer changes.
        a, b = np.linalg.norm(part[:count]), np.linalg.norm(part[count:])
        psi = np.arctan2(a, b)
        turns = np.linspace(0, np.pi / 2, 2001)
        wrong = 1.2 * np.sin(turns) ** 2 + 0.65 * np.cos(turns) ** 2 > 1
        found.append(2 * np.sin(np.abs(turns[wrong] - psi).min() / 2))
    noise = np.std(found) / np.sqrt(len(found))
    assert two_spheres.exact_distance(alphas) == pytest.approx(
        np.mean(found), abs=4 * noise + 1e-3
    )


def test_on_sphere_sees_the_direction_alone():
    alphas = two_spheres.two_levels(6, 2, 1.5, 0.5)
    f = two_spheres.quadratic(alphas)
    on = two_spheres.on_sphere(f, 1.3)
    x = jax.random.normal(KEY, (5, 6))
    logits = jax.jit(lambda f, x: f(x))(on, x)
    np.testing.assert_allclose(logits, on(7 * x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logits, f(two_spheres.to_sphere(x, 1.3)), rtol=1e-4, atol=1e-5
    )
    gradient = jax.grad(lambda x: on(x)[:, 1].sum())(x)
    np.testing.assert_allclose(jnp.sum(gradient * x, axis=1), 0, atol=1e-4)


@pytest.mark.parametrize(
    ('measure', 'limit'), [(1e-2, 0.104), (1e-4, 0.166), (1e-6, 0.213), (1e-8, 0.251)]
)
def test_cap_distances_of_the_dossier(measure, limit):
    assert -stats.norm.ppf(measure) / np.sqrt(500) == pytest.approx(limit, abs=5e-4)
    assert concentration.cap_distance(measure, 500) == pytest.approx(limit, rel=0.02)


def test_caps_against_sampling():
    dimension, measure = 12, 0.05
    x = np.asarray(two_spheres.sample(KEY, 20_000, dimension, 1.0))[:, 0]
    t = concentration.cap_threshold(measure, dimension)
    assert abs((x >= t).mean() - measure) < 4 * np.sqrt(measure / 20_000)
    angle = np.maximum(np.arccos(x) - np.arccos(t), 0)
    chords = 2 * np.sin(angle / 2)
    assert concentration.cap_distance(measure, dimension) == pytest.approx(
        chords.mean(), abs=4 * chords.std() / np.sqrt(20_000)
    )
    # In three dimensions a cap of height h has the measure h / 2 (Archimedes).
    assert concentration.cap_threshold(0.2, 3) == pytest.approx(0.6)
    assert concentration.cap_threshold(0.5, 9) == pytest.approx(0)


def test_no_set_of_errors_is_farther_than_the_cap():
    for dimension, count, high, low in LEVELS:
        alphas = two_spheres.two_levels(dimension, count, high, low)
        measure = two_spheres.exact_error(alphas)
        assert 0 < measure < 0.5
        bound = concentration.cap_distance(measure, dimension)
        assert two_spheres.exact_distance(alphas) <= bound * (1 + 1e-6)


def test_confidence_in_the_cap_bound():
    # The rate that errs 3 times or more in 1000 only 5 times in 100.
    bound = concentration.most_distant(3, 1000, 50)
    rate = optimize.brentq(lambda p: stats.binom.sf(2, 1000, p) - 0.05, 1e-6, 0.1)
    assert bound == pytest.approx(concentration.cap_distance(rate, 50), rel=1e-6)
    assert bound > concentration.cap_distance(3 / 1000, 50)


def test_small_changes_add_up_with_the_dimension():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(50, 1))
    eps = 0.1
    grows = concentration.accumulation(w, eps)
    assert grows == pytest.approx(eps * np.abs(w).mean() * 50)
    corners = rng.choice([-eps, eps], size=(2000, 50)) @ w[:, 0]
    assert corners.max() <= grows
    assert (np.sign(w[:, 0]) * eps) @ w[:, 0] == pytest.approx(grows)
    x = rng.uniform(size=(2, 3, 2, 1))
    large = concentration.upscaled(x, 3)
    assert large.shape == (2, 9, 6, 1)
    np.testing.assert_array_equal(large[:, ::3, ::3], x)
    np.testing.assert_array_equal(large[:, 2::3, 1::3], x)


@pytest.mark.parametrize(
    ('call', 'names'),
    [
        (lambda: two_spheres.sample(KEY, 0, 5, 1.0), 'count'),
        (lambda: two_spheres.sample(KEY, 3, 1, 1.0), 'dimension'),
        (lambda: two_spheres.two_levels(5, 5, 1.0, 0.5), 'count'),
        (lambda: concentration.cap_distance(0.0, 5), 'measure'),
        (lambda: concentration.cap_distance(0.6, 5), 'measure'),
        (lambda: concentration.cap_distance(np.nan, 5), 'measure'),
        (lambda: concentration.cap_threshold(0.1, 1), 'dimension'),
        (lambda: concentration.upscaled(np.zeros((2, 3, 3, 1)), 0), 'factor'),
    ],
)
def test_bad_settings_are_refused(call, names):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(ValueError, match=names):
            call()
