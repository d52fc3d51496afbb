"""Balls against independent projections, closed forms and the laws of sampling."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from advjax import attacks, balls, keys
from advjax.evaluation.verify import norm_of
from tests import reference

BATCH, SIZE = 5, 8
KEY = jax.random.key(11)
EACH = keys.per_example(KEY, BATCH)
UNIT = (0.0, 1.0)


class Kind(NamedTuple):
    name: str
    make: Callable[..., Any]
    project: Callable[..., np.ndarray]
    p: float
    eps: float
    each: tuple[float, ...]


LINF = Kind(
    'linf', balls.linf, reference.project_linf_box, np.inf, 0.15, (0, 0.05, 0.3, 2, 9)
)
L2 = Kind('l2', balls.l2, reference.project_l2_box, 2, 0.5, (0, 0.1, 0.6, 1.1, 9))
L1 = Kind('l1', balls.l1, reference.project_l1_box, 1, 1.2, (0, 0.1, 0.9, 2.5, 9))
L0 = Kind('l0', balls.l0, reference.project_l0_box, 0, 3, (0, 1, 3, 6, 8))
CONVEX = [LINF, L2, L1]
KINDS = [*CONVEX, L0]

every_kind = pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.name)
every_convex = pytest.mark.parametrize('kind', CONVEX, ids=lambda kind: kind.name)
every_range = pytest.mark.parametrize('bounds', [UNIT, None], ids=['box', 'no box'])


@jax.jit
def project(ball, x, x0):
    return ball.project(x, x0)


@jax.jit
def sample(ball, each, x0):
    return ball.sample(each, x0)


def draw_points(seed, scale=1.0):
    """Centres in [0, 1], some on its ends, and points around them."""
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(0, 1, (BATCH, SIZE))
    x0[0, :3] = 0, 1, 1
    x0[3, 1:4] = 1, 0, 0
    x = x0 + scale * rng.normal(size=x0.shape)
    return x.astype(np.float32), x0.astype(np.float32)


def feasible(kind, x, x0, eps, bounds):
    """Whether rows of x lie in the ball, measured in float64."""
    norm = reference.norm(
        np.asarray(x, np.float64) - np.asarray(x0, np.float64), kind.p
    )
    inside = norm <= np.asarray(eps) + 1e-6 * np.maximum(eps, 1)
    if bounds is not None:
        inside &= ((x >= bounds[0]) & (x <= bounds[1])).all(axis=1)
    return inside.all()


# ----------------------------------------------------------------------- projections


@every_kind
@every_range
@pytest.mark.parametrize('scale', [0.05, 0.5, 3.0, 50.0])
@pytest.mark.parametrize('each', [False, True], ids=['one eps', 'eps per example'])
def test_projection_equals_bisection(kind, bounds, scale, each):
    x, x0 = draw_points(round(scale * 100), scale)
    eps = np.array(kind.each) if each else kind.eps
    ball = kind.make(eps, bounds)
    projected = np.asarray(project(ball, x, x0))
    expected = kind.project(x, x0, eps, bounds)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected, expected, atol=1e-5)
    assert feasible(kind, projected, x0, eps, bounds)
    again = np.asarray(project(ball, projected, x0))
    np.testing.assert_allclose(again, projected, rtol=3e-7, atol=3e-7)


@every_convex
@every_range
def test_projection_satisfies_the_variational_inequality(kind, bounds):
    x, x0 = draw_points(1)
    z = np.asarray(project(kind.make(kind.eps, bounds), x, x0), np.float64)
    moved = np.zeros(BATCH, bool)
    for i in range(BATCH):
        outwards = x[i] - z[i]
        most = reference.max_linear_gain(outwards, x0[i], kind.eps, kind.p, bounds)
        assert most - outwards @ (z[i] - x0[i]) <= 1e-5
        moved[i] = np.abs(outwards).max() > 0.01
    assert moved.all()


SPECIAL = [0.0, 1.0, 0.5, -1.0, 2.0, 1e-30, -1e-30, 1e-7, 1 + 1e-6]
COORDINATES = st.sampled_from(SPECIAL) | st.floats(-4, 5, width=32)
CENTRES = st.sampled_from([0.0, 1.0, 0.5, 1e-30]) | st.floats(0, 1, width=32)


def rows(elements):
    return hnp.arrays(np.float32, (BATCH, SIZE), elements=elements)


@every_kind
@every_range
@hypothesis.settings(
    max_examples=30, deadline=None, derandomize=True, database=None
)  # fmt: skip
@hypothesis.given(data=st.data())
def test_projection_is_the_nearest_feasible_point(kind, bounds, data):
    x, x0 = data.draw(rows(COORDINATES)), data.draw(rows(CENTRES))
    radii = st.integers(0, 6) if kind is L0 else st.floats(0, 3) | st.just(1e-30)
    eps = np.array(data.draw(st.lists(radii, min_size=BATCH, max_size=BATCH)))
    ball = kind.make(eps, bounds)
    projected = np.asarray(project(ball, x, x0))
    expected = kind.project(x, x0, eps, bounds)
    assert feasible(kind, projected, x0, eps, bounds)
    far, least = np.sum((x - projected) ** 2, 1), np.sum((x - expected) ** 2, 1)
    np.testing.assert_allclose(far, least, rtol=1e-4, atol=1e-4)
    if kind is not L0:  # Of equal gains float32 may keep another coordinate.
        np.testing.assert_allclose(projected, expected, atol=1e-5)
    np.testing.assert_allclose(project(ball, projected, x0), projected, atol=1e-6)


@every_kind
@every_range
def test_feasible_points_come_back_bit_for_bit(kind, bounds):
    x, x0 = draw_points(2)
    inner = kind.project(x, x0, kind.eps, UNIT)
    if kind is L0:
        tiny = x0.copy()
        tiny[3, [3, 6, 7]] += [1e-30, 1e-4, 1e-5]  # Squares that underflow as well.
        points = [inner, x0, tiny]
    else:
        points = [x0 + k * (inner - x0) for k in (0.999, 0.5, 1e-4, 1e-30)]
        points.append(x0)
    if kind is LINF:
        points.append(np.clip(x0 + np.float32(kind.eps), 0, 1))
    for point in points:
        point = np.asarray(point, np.float32)
        np.testing.assert_array_equal(
            project(kind.make(kind.eps, bounds), point, x0), point
        )


@every_kind
@every_range
def test_radius_zero_returns_the_centre_bit_for_bit(kind, bounds):
    x, x0 = draw_points(3)
    x[1] = x0[1] + 1e-6
    x[2], x0[2] = 1e-30, 0
    np.testing.assert_array_equal(project(kind.make(0, bounds), x, x0), x0)


@every_kind
def test_infinite_radius_only_clips(kind):
    x, x0 = draw_points(4, 3.0)
    x[1], x[2] = 1e30, -1e30
    ball = kind.make(np.inf)
    np.testing.assert_array_equal(project(ball, x, x0), np.clip(x, 0, 1))
    unbounded = kind.make(np.inf, None)
    np.testing.assert_array_equal(project(unbounded, x, x0), x)
    assert unbounded.contains(x, x0).all()


@jax.jit
def sensitivity(ball, x, x0, cotangent):
    def inner(x, eps):
        return jnp.sum(cotangent * ball.replace(eps=eps).project(x, x0))

    return jax.grad(inner, argnums=(0, 1))(x, ball.eps)


def _extremes():
    """Points on which naive norms, squares and quotients fail."""
    _, x0 = draw_points(5)
    pattern = np.array([[1, -1, 0, 0.5, -0.25, 1, 3, -2]], np.float32)
    for size in (0, 1e-38, 1e-30, 1e-20, 1e-7, 1e8, 1e20, 1e30):
        yield np.float32(size) * pattern * np.ones_like(x0), np.zeros_like(x0)
        yield x0 + np.float32(size) * pattern, x0
    yield np.full_like(x0, 0.5), np.full_like(x0, 0.5)
    yield np.full_like(x0, 2.0), np.ones_like(x0)
    yield np.full_like(x0, -2.0), np.ones_like(x0)


@every_kind
@every_range
@pytest.mark.parametrize('eps', [0.0, 1e-30, 0.3, 3.0, np.inf])
def test_extreme_points_neither_leave_the_ball_nor_make_nan(kind, bounds, eps):
    eps = np.floor(eps) if kind is L0 else eps
    ball = kind.make(np.full(BATCH, eps), bounds)
    for x, x0 in _extremes():
        projected = np.asarray(project(ball, x, x0))
        assert np.isfinite(projected).all()
        assert feasible(kind, projected, x0, eps, bounds)
        for gradient in sensitivity(ball, x, x0, np.ones_like(x)):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize('distance', [1e-30, 1.0, 1e10, 1e25])
def test_l2_projection_does_not_care_how_far_the_point_is(distance):
    x = np.float32(distance) * np.array([[3, 4, 0], [0, 0, 1]], np.float32)
    x0, eps = np.zeros_like(x), np.float32(min(distance, 1.0))
    expected = eps * np.array([[0.6, 0.8, 0], [0, 0, 1]])
    projected = project(balls.l2(eps, None), x, x0)
    np.testing.assert_allclose(projected, expected, rtol=1e-5)
    if distance > 1:
        projected = project(balls.l2(0.5), x + np.float32(0.5), x0 + np.float32(0.5))
        ahead = np.array([[0.5 * 0.6 + 0.5, 0.9, 0.5], [0.5, 0.5, 1.0]])
        np.testing.assert_allclose(projected, ahead, rtol=1e-5)


def test_l0_projection_ranks_far_points_by_what_they_gain():
    # Squares of 1e5 differ by less than float32 resolves, those of 1e30 are infinite.
    x0 = np.array([[0.5, 0.4999, 0.6], [0.5, 0.2, 0.6]], np.float32)
    x = np.array([[1.0001e5, 1e5, 1e5], [0.0, 1e30, 0.7]], np.float32)
    expected = np.array([[0.5, 1, 0.6], [0.5, 1, 0.6]], np.float32)
    x[0, 0] = 0.98e5
    np.testing.assert_array_equal(project(balls.l0(1), x, x0), expected)


def test_l2_projection_with_an_active_box_is_exact():
    # One coordinate stops at the box, one runs into it later, the last is free:
    # delta = (0.1, 0.2, t) with 0.01 + 0.04 + t^2 = 0.25.
    x0 = np.array([[0.9, 0.8, 0.1]], np.float32)
    x = x0 + np.array([[3.0, 0.9, 0.8]], np.float32)
    projected = project(balls.l2(0.5), x, x0)
    np.testing.assert_allclose(projected, [[1, 1, 0.1 + 0.2**0.5]], rtol=1e-6)
    clipped_ball = reference.project_l2_then_clip(x, x0, 0.5)
    assert np.abs(clipped_ball - projected).max() > 0.1


# ------------------------------------------------------------------------- gradients


@every_kind
@every_range
@pytest.mark.parametrize('scale', [0.01, 0.4, 2.0])
def test_gradient_equals_finite_differences_of_the_reference(kind, bounds, scale):
    rng = np.random.default_rng(6)
    x0 = rng.uniform(0.1, 0.9, (BATCH, SIZE)).astype(np.float32)
    x = (x0 + scale * rng.normal(size=x0.shape)).astype(np.float32)
    cotangent = rng.normal(size=x.shape).astype(np.float32)
    eps = np.linspace(0.8, 1.2, BATCH).astype(np.float32) * kind.eps
    eps = np.floor(eps) + 0.5 if kind is L0 else eps
    by_x, by_eps = sensitivity(kind.make(eps, bounds), x, x0, cotangent)

    def value(x, eps):
        return np.sum(cotangent * kind.project(x, x0, np.float64(eps), bounds), axis=1)

    h = 1e-5
    for j in range(SIZE):
        step = h * np.eye(SIZE)[j]
        slope = (value(x + step, eps) - value(x - step, eps)) / (2 * h)
        np.testing.assert_allclose(by_x[:, j], slope, atol=2e-3)
    eps = np.float64(eps)
    slope = (value(x, eps + h) - value(x, eps - h)) / (2 * h)
    np.testing.assert_allclose(by_eps, slope, atol=2e-3)


def test_slope_of_l2_projection_at_radius_zero_is_one_sided():
    x, x0 = np.array([[0.7, 0.6, 0.45]], np.float32), np.full((1, 3), 0.5, np.float32)
    cotangent = np.array([[1.0, 2.0, 4.0]], np.float32)
    _, slope = sensitivity(balls.l2(0.0), x, x0, cotangent)
    moved = reference.project_l2_box(x, x0, 1e-6) - x0
    np.testing.assert_allclose(slope, np.sum(cotangent * moved) / 1e-6, rtol=1e-4)


# --------------------------------------------------------------------- transformations


@every_kind
def test_vmap_over_eps_equals_the_loop(kind):
    x, x0 = draw_points(7)
    radii = np.array([[0.0], [1.0], [2.0]]) * np.full(BATCH, kind.eps)
    ball = kind.make(radii[1])
    swept = jax.jit(jax.vmap(lambda eps: project(ball.replace(eps=eps), x, x0)))
    for eps, projected in zip(radii, swept(jnp.float32(radii)), strict=True):
        np.testing.assert_allclose(projected, project(kind.make(eps), x, x0), atol=1e-6)


@every_kind
def test_jit_equals_eager(kind):
    x, x0 = draw_points(7)
    ball = kind.make(kind.eps)
    compiled = project(ball, x, x0)
    np.testing.assert_allclose(ball.project(x, x0), compiled, rtol=1e-6, atol=1e-6)


@every_kind
@every_range
def test_rows_do_not_see_each_other(kind, bounds):
    x, x0 = draw_points(8)
    ball = kind.make(kind.eps, bounds)
    alone = project(ball, x[2:3], x0[2:3])
    x[[0, 1, 3, 4]] *= 1e6
    np.testing.assert_allclose(project(ball, x, x0)[2:3], alone, atol=1e-6)
    x[1] = np.nan
    np.testing.assert_allclose(project(ball, x, x0)[2:3], alone, atol=1e-6)


@every_kind
@pytest.mark.parametrize('shape', [(0, 3, 1), (4,)], ids=['no examples', 'no axes'])
def test_any_shape_with_a_batch_axis_will_do(kind, shape):
    x0 = jnp.full(shape, 0.5)
    ball = kind.make(np.ones(shape[0]))

    @jax.jit
    def everything(x, x0):
        return (
            (ball.project(x, x0), ball.sample(KEY, x0), ball.steepest(x)),
            (ball.norm(x), ball.contains(x, x0)),
        )

    arrays, values = everything(x0 + 3, x0)
    assert all(a.shape == shape for a in arrays)
    assert all(v.shape == shape[:1] for v in values)
    np.testing.assert_array_equal(arrays[0], np.ones(shape))


@every_kind
def test_axes_of_an_image_are_one_vector(kind):
    x, x0 = draw_points(9)
    ball, cube = kind.make(kind.eps), (BATCH, 2, 2, 2)
    pixels, x0_pixels = x.reshape(cube), x0.reshape(cube)
    np.testing.assert_allclose(
        project(ball, pixels, x0_pixels).reshape(x.shape),
        project(ball, x, x0),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        ball.steepest(pixels).reshape(x.shape), ball.steepest(x), atol=1e-6
    )
    np.testing.assert_allclose(ball.norm(pixels), reference.norm(x, kind.p), rtol=1e-6)


# --------------------------------------------------------------------------- steepest


def unit_ball_points(rng, p, count):
    """Random points of the unit ball, many of them on its boundary."""
    points = rng.normal(size=(count, SIZE)) * (rng.random((count, SIZE)) < 0.6)
    norm = np.maximum(reference.norm(points, p), 1e-9)[:, None]
    return points / norm * rng.choice([1.0, 0.7], (count, 1))


@every_convex
def test_steepest_is_the_best_direction_of_the_unit_ball(kind):
    rng = np.random.default_rng(10)
    gradient = rng.normal(size=(BATCH, SIZE)).astype(np.float32)
    direction = np.asarray(kind.make(kind.eps).steepest(gradient), np.float64)
    gain = np.sum(gradient * direction, axis=1)
    assert (reference.norm(direction, kind.p) <= 1 + 1e-6).all()
    others = unit_ball_points(rng, kind.p, 500)
    assert (gain[:, None] >= gradient @ others.T - 1e-6).all()
    dual = reference.norm(gradient, reference.DUAL[kind.p])
    np.testing.assert_allclose(gain, dual, rtol=1e-6)


def test_steepest_of_sparse_balls_moves_the_largest_coordinates_by_rate():
    rng = np.random.default_rng(11)
    gradient = rng.normal(size=(BATCH, SIZE)).astype(np.float32)
    eps = np.array([0, 1, 2.5, 6, 8])
    move = np.asarray(balls.l0(eps).steepest(gradient)) * eps[:, None]
    for row, g, k in zip(move, gradient, np.floor(eps).astype(int), strict=True):
        top = np.argsort(-np.abs(g))[:k]
        expected = np.zeros(SIZE)
        expected[top] = np.sign(g[top])
        np.testing.assert_allclose(row, expected, rtol=1e-6)


@every_kind
def test_steepest_of_degenerate_gradients(kind):
    ball = kind.make(kind.eps)
    gradient = np.zeros((4, SIZE), np.float32)
    gradient[1] = [0, 1, 0, -2, 0, 0, 0, 0]
    gradient[2], gradient[3] = 1e-30 * gradient[1], 1e30 * gradient[1]
    direction = np.asarray(jax.jit(lambda g: ball.steepest(g))(gradient))
    np.testing.assert_array_equal(direction[0], np.zeros(SIZE))
    assert (direction[1:, [0, 2, 4, 5, 6, 7]] == 0).all()
    assert (direction[1:, 3] < 0).all()
    np.testing.assert_allclose(direction[2], direction[1], rtol=1e-6)
    np.testing.assert_allclose(direction[3], direction[1], rtol=1e-6)
    slope = jax.grad(lambda g: jnp.sum(jnp.cos(ball.steepest(g))))(gradient)
    assert np.isfinite(slope).all()


def test_steepest_l1_takes_the_first_of_equals():
    gradient = jnp.array([[1.0, -2.0, 2.0]])
    np.testing.assert_array_equal(balls.l1(1).steepest(gradient), [[0, -1, 0]])


# --------------------------------------------------------------------------- sampling

COUNT, FEW = 4000, 3
# Exceeded with probability 1e-4, see `reference.kolmogorov_distance`.
KOLMOGOROV = 2.23 / COUNT**0.5


@functools.cache
def draws(kind, eps):
    """Many draws from the ball alone."""
    each, x0 = keys.per_example(KEY, COUNT), np.full((COUNT, FEW), 0.5, np.float32)
    return np.asarray(sample(kind.make(eps, None), each, x0), np.float64) - x0


@every_convex
def test_radii_of_draws_are_those_of_a_uniform_distribution(kind):
    radius = reference.norm(draws(kind, 0.3), kind.p) / 0.3
    assert radius.max() <= 1 + 1e-5

    def cdf(r):
        return reference.ball_radius_cdf(r, FEW)

    assert reference.kolmogorov_distance(radius, cdf) < KOLMOGOROV
    # The old mistakes: always on the sphere, or the radius itself uniform.
    assert reference.kolmogorov_distance(np.ones(COUNT), cdf) > 0.9
    assert reference.kolmogorov_distance(radius**FEW, cdf) > 2 * KOLMOGOROV


@every_convex
def test_coordinates_of_draws_are_centred_and_uncorrelated(kind):
    delta = draws(kind, 0.3)
    square, absolute = {
        'linf': (0.3**2 / 3, reference.mean_abs_coordinate_linf(0.3)),
        'l2': (reference.mean_square_coordinate_l2(0.3, FEW), None),
        # Coordinates of the simplex are Beta(1, d) distributed.
        'l1': (
            2 * 0.3**2 / ((FEW + 1) * (FEW + 2)),
            reference.mean_abs_coordinate_l1(0.3, FEW),
        ),
    }[kind.name]
    assert (np.abs(delta.mean(axis=0)) < 4.5 * (square / COUNT) ** 0.5).all()
    covariance = delta.T @ delta / COUNT
    np.testing.assert_allclose(
        covariance, square * np.eye(FEW), atol=4.5 * 2 * square / COUNT**0.5
    )
    if absolute is not None:
        np.testing.assert_allclose(np.abs(delta).mean(axis=0), absolute, rtol=0.06)


def test_each_linf_coordinate_is_uniform():
    def cdf(r):
        return (np.clip(r, -0.3, 0.3) + 0.3) / 0.6

    for column in draws(LINF, 0.3).T:
        assert reference.kolmogorov_distance(column, cdf) < KOLMOGOROV


@every_convex
def test_bounded_draws_are_the_unbounded_ones_clipped(kind):
    _, x0 = draw_points(12)
    eps = np.full(BATCH, kind.eps)
    free = sample(kind.make(eps, None), EACH, x0)
    held = np.asarray(sample(kind.make(eps, UNIT), EACH, x0))
    np.testing.assert_allclose(held, np.clip(free, 0, 1), atol=1e-6)
    assert feasible(kind, held, x0, kind.eps, UNIT)
    assert ((free < 0) | (free > 1)).any()


@every_kind
@every_range
def test_draws_from_infinite_or_mixed_radii_are_finite(kind, bounds):
    _, x0 = draw_points(13)
    eps = np.array([0, 1, np.inf, 2, np.inf])
    drawn = np.asarray(sample(kind.make(eps, bounds), EACH, x0))
    assert np.isfinite(drawn).all()
    assert feasible(kind, drawn, x0, eps, bounds)
    np.testing.assert_array_equal(drawn[0], x0[0])
    assert (drawn[1] != x0[1]).any()
    if bounds is not None:
        assert (drawn[2] != x0[2]).any()


@pytest.mark.parametrize('bounds', [(0.0, 2.0), None])
def test_sparse_draws_choose_coordinates_and_values_uniformly(bounds):
    d, k = 5, 2
    x0 = np.full((COUNT, d), 0.5 if bounds else 100.0, np.float32)
    each = keys.per_example(KEY, COUNT)
    delta = np.asarray(sample(balls.l0(k, bounds), each, x0), np.float64) - x0
    assert (reference.norm(delta, 0) == k).all()
    chosen = (delta != 0).mean(axis=0)
    deviation = (k / d * (1 - k / d) / COUNT) ** 0.5
    np.testing.assert_allclose(chosen, k / d, atol=4.5 * deviation)
    low, high = (-0.5, 1.5) if bounds else (-1, 1)

    def cdf(r):
        return np.clip((r - low) / (high - low), 0, 1)

    assert reference.kolmogorov_distance(delta[delta != 0], cdf) < KOLMOGOROV


@every_kind
def test_draws_belong_to_examples(kind):
    _, x0 = draw_points(14)
    eps = kind.eps * np.array([0.4, 0.7, 1.0, 1.4, 1.8])
    whole = np.asarray(sample(kind.make(eps), EACH, x0))
    assert len(np.unique((whole - x0).round(5), axis=0)) == BATCH
    for index in ([4, 2, 0, 3, 1], [3, 1]):
        part = sample(kind.make(eps[index]), EACH[np.array(index)], x0[index])
        np.testing.assert_array_equal(part, whole[index])


def test_one_key_draws_what_its_keys_of_examples_draw():
    _, x0 = draw_points(14)
    ball = balls.l2(np.full(BATCH, 0.5))
    drawn = jax.jit(ball.sample)(KEY, x0)
    np.testing.assert_array_equal(drawn, sample(ball, EACH, x0))


# ------------------------------------------------------------------- contains and norm


@every_convex
@pytest.mark.parametrize('eps', [0.5, 10.0])
def test_contains_allows_a_millionth_of_the_pixel_scale(kind, eps):
    x0, ball = np.zeros((1, 3), np.float32), kind.make(eps, (-16, 16))
    slack = 1e-6 * 16

    def inside(size):
        return bool(ball.contains(np.array([[0, -size, 0]], np.float32), x0)[0])

    assert inside(eps)
    assert inside(eps + 0.5 * slack)
    assert not inside(eps + 2 * slack)


@every_kind
def test_contains_measures_each_example_against_its_own_radius(kind):
    x0 = np.full((3, 4), 0.5, np.float32)
    x = x0.copy()
    x[:, :2] += np.float32(0.25)
    size = float(reference.norm(x - x0, kind.p)[0])
    ball = kind.make(np.array([0.9, 1.1, np.inf]) * size)
    np.testing.assert_array_equal(ball.contains(x, x0), [False, True, True])
    x[2, 0] = np.nan
    np.testing.assert_array_equal(ball.contains(x, x0), [False, True, False])


@every_kind
def test_contains_has_no_tolerance_for_the_range(kind):
    x0 = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    x = x0 + np.array([[0, 0], [2e-7, 0], [0, -1e-9]], np.float32)
    np.testing.assert_array_equal(
        kind.make(2).contains(x, x0), [True, False, False]
    )  # fmt: skip
    assert kind.make(2, None).contains(x, x0).all()


@every_kind
def test_norm_equals_numpy_and_survives_extremes(kind):
    delta = draw_points(15)[0]
    delta[0] = 0
    delta[1, 2] = 0
    ball = kind.make(1)
    np.testing.assert_allclose(
        ball.norm(delta), reference.norm(delta, kind.p), rtol=1e-6
    )  # fmt: skip
    for size in (1e-30, 1e30):
        one = np.array([[3 * size, -4 * size]], np.float32)
        expected = {'linf': 4 * size, 'l2': 5 * size, 'l1': 7 * size, 'l0': 2}
        np.testing.assert_allclose(ball.norm(one), expected[kind.name], rtol=1e-6)


# -------------------------------------------------------------------------- factories


@every_kind
@pytest.mark.parametrize(
    'eps', [-0.1, np.nan, [0.1, -0.1], [[0.1], [0.2]], 'wide', None, [], True]
)
def test_factories_refuse_bad_radii_by_name(kind, eps):
    if eps == []:
        kind.make(eps)  # A batch of none.
        return
    with pytest.raises(ValueError, match=r'^eps must .*got'):
        kind.make(eps)


@every_kind
@pytest.mark.parametrize(
    'bounds',
    [(1, 0), (0, 0), (0, np.inf), (np.nan, 1), (0, 1, 2), (0,), 1.0, 'ab', ('a', 'b')],
)
def test_factories_refuse_bad_bounds_by_name(kind, bounds):
    with pytest.raises(ValueError, match=r'bounds must .*got'):
        kind.make(0.1, bounds)


@every_kind
def test_radius_is_a_leaf_and_bounds_are_static(kind):
    ball = kind.make(0.25)
    (leaf,) = jax.tree.leaves(ball)
    assert leaf.dtype == jnp.float32
    assert leaf.shape == ()
    np.testing.assert_array_equal(kind.make([1, 2]).eps, [1.0, 2.0])
    structure = jax.tree.structure(ball)
    assert structure == jax.tree.structure(kind.make(0.5, (0, 1)))
    assert structure != jax.tree.structure(kind.make(0.25, (0, 255)))
    assert structure != jax.tree.structure(kind.make(0.25, None))

    traces = []

    @jax.jit
    def norm(ball, x):
        traces.append(1)
        return ball.norm(x)

    for eps in (1, 2.0, np.float64(3), jnp.float32(4)):
        norm(kind.make(eps), np.ones((2, 3)))
    assert len(traces) == 1
    assert jax.jit(kind.make)(jnp.float32(0.5)).eps == 0.5


def test_different_types_have_different_structures():
    # JAX compares dataclasses by their fields alone, and jit trusts the comparison.
    attack = attacks.fgm(0.1)
    values = [kind.make(0.1) for kind in KINDS]
    values += [combine(attack, 2) for combine in (attacks.restarts, attacks.targeted)]
    structures = [jax.tree.structure(value) for value in values]
    for i, one in enumerate(structures):
        assert structures.index(one) == i


def test_as_ball_reads_a_number_as_a_linf_radius():
    ball = balls.l2(0.5)
    assert balls.as_ball(ball) is ball
    assert balls.as_ball(0.25) == balls.linf(0.25)
    with pytest.raises(ValueError, match='eps must'):
        balls.as_ball(-1)


def nested_attack():
    """Three balls, of one radius and of one for each of three examples."""
    each = balls.l2(np.array([0.1, 0.2, 0.3]))
    return attacks.restarts(
        attacks.worst_of([attacks.pgd(each, 2), attacks.fgm(balls.l1(2.0))]), 2
    )


def test_balls_of_an_attack_are_found_and_resized():
    attack = nested_attack()
    found = balls.of(attack)
    assert [type(ball) for ball in found] == [balls.L2, balls.L1]
    resized = balls.with_eps(attack, jnp.float32(0.7))
    assert [float(ball.eps) for ball in balls.of(resized)] == pytest.approx([0.7] * 2)
    assert resized.attack.attacks[0].rate == attack.attack.attacks[0].rate
    assert [ball.bounds for ball in balls.of(resized)] == [UNIT, UNIT]
    assert balls.of((1, 'a', found[0])) == found[:1]


def test_take_indexes_radii_that_belong_to_examples():
    attack = nested_attack()
    part = balls.take(attack, np.array([2, 0]), 3)
    one, other = balls.of(part)
    np.testing.assert_array_equal(one.eps, np.float32([0.3, 0.1]))
    assert other.eps == 2.0
    with pytest.raises(ValueError, match=r'eps must have shape \(\) or \(4,\)'):
        balls.take(attack, np.array([2, 0]), 4)


@pytest.mark.parametrize('norm', ['linf', 'l2', 'l1', 'l0'])
def test_a_ball_by_the_name_of_its_norm(norm):
    ball = balls.of_norm(norm, 2.0, bounds=(-1.0, 1.0))
    assert ball.norm_name == norm
    assert float(ball.eps) == 2
    assert ball.bounds == (-1.0, 1.0)
    assert balls.of_norm(norm, 1.0).bounds == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"norm must be one of .*got 'l3'"):
        balls.of_norm('l3', 1.0)


def test_inside_keeps_bounds_and_masks():
    from advjax.masks import masked

    x0, moved = jnp.array([[0.2, 0.4, 0.6]]), jnp.array([[-1.0, 2.0, 0.5]])
    np.testing.assert_array_equal(balls.clip(balls.linf(1), moved), [[0, 1, 0.5]])
    free = balls.linf(1, bounds=None)
    np.testing.assert_array_equal(balls.clip(free, moved), moved)
    first = masked(balls.linf(1), jnp.array([[True, False, False]]))
    expected = np.float32([[0, 0.4, 0.6]])
    np.testing.assert_array_equal(balls.inside(first, moved, x0), expected)


@pytest.mark.parametrize('eps', [0.0, 0.3, 1.0, 8.0, np.inf])
@pytest.mark.parametrize('bounds', [(0.0, 1.0), (0.0, 255.0), (-3.0, 2.0), None])
def test_the_limit_follows_the_pixels(eps, bounds):
    x = np.float32([[0.5, -1.5, 0.25, 1.0], [0.5, 4.0, 0.25, 1.0]])
    scale = [1.5, 4.0] if bounds is None else [max(map(abs, bounds))] * 2
    weight = {'linf': 1, 'l2': 1 + 2 / 16, 'l1': 1 + 4 / 16, 'l0': 0}
    for name, share in weight.items():
        found = balls.limit(balls.of_norm(name, eps, bounds), x)
        added = 2**-20 * share * np.maximum(eps, scale) if share else 0.0
        np.testing.assert_allclose(np.broadcast_to(found, 2), eps + added, rtol=1e-7)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    name=st.sampled_from(['linf', 'l2', 'l1', 'l0']),
    exponent=st.floats(-3, 6),
    share=st.floats(1e-3, 2.0),
    size=st.sampled_from([3, 48, 3072]),
    seed=st.integers(0, 99),
    low=st.sampled_from([0.0, -0.5, -1.0]),
)
def test_projections_are_inside_and_what_is_beyond_is_not(
    name, exponent, share, size, seed, low
):
    """On any scale of pixels, measured in float64 as the verifier does."""
    rng, scale = np.random.default_rng(seed), 10.0**exponent
    low, high = (np.float32(scale * end) for end in (low, low + 1))
    x0 = np.clip(np.float32(rng.uniform(low, high, (4, size))), low, high)
    far = x0 + np.float32(scale * rng.normal(size=x0.shape))
    factor = {'linf': 1, 'l2': size**0.5, 'l1': size, 'l0': size / scale}[name]
    eps = np.float32(0.5 * share * scale * factor)
    ball = balls.of_norm(name, float(eps), (float(low), float(high)))
    for point in (ball.project(far, x0), ball.sample(KEY, x0)):
        norm = norm_of(ball, np.float64(point) - np.float64(x0))
        assert (norm <= balls.limit(ball, x0)).all(), norm / eps
        assert np.asarray(balls.contains(ball, jnp.asarray(point), x0)).all()
    one = x0.astype(np.float64)
    one[:, 0] += {'l0': 1.0}.get(name, float(eps)) * (1 + 1e-3)
    beyond = norm_of(balls.of_norm(name, float(eps)), one - x0)
    if name != 'l0' and eps > 1e-2 * scale:
        assert (beyond > balls.limit(ball, x0)).all()
