"""Linearity, boundaries and slices of models whose geometry is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, geometry, losses
from advjax.balls import l2, linf

KEY = jax.random.key(7)
SHAPE = (4, 3, 1)
rng = np.random.default_rng(0)
W = np.float32(rng.normal(size=(12, 1)))
X = np.float32(rng.uniform(0.3, 0.7, (6, *SHAPE)))
Y = np.array([0, 1, 0, 1, 0, 1])


def linear(params, x):
    score = x.reshape(len(x), -1) @ params['w'] + params['b']
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


def curved(params, x):
    """A score that is linear plus a quadratic form of known curvature."""
    logits = linear(params, x)
    bend = params['curvature'] * jnp.square(x.reshape(len(x), -1)).sum(1, keepdims=True)
    return logits.at[:, 1:].add(bend)


def wave(params, x):
    return linear(params, x) + jnp.sin(params['rate'] * linear(params, x))


def model(fn, **params):
    params = {k: jnp.atleast_2d(jnp.float32(v)) for k, v in params.items()}
    return jax.tree_util.Partial(fn, params)


LINEAR = model(linear, w=W, b=-W.sum() / 2)
CURVED = model(curved, w=W, b=-W.sum() / 2, curvature=0.5)

alignment = jax.jit(geometry.gradient_alignment, static_argnames=('loss', 'samples'))
linearisation = jax.jit(geometry.linearisation, static_argnames=('loss', 'samples'))
BALLS = {
    'linf': linf(0.2),
    'linf free': linf(0.2, bounds=None),
    'l2': l2(0.5, bounds=None),
}
every_ball = pytest.mark.parametrize('ball', BALLS.values(), ids=BALLS)


# ---------------------------------------------------------------------------- linearity


@every_ball
def test_a_linear_model_is_linear(ball):
    # Of two classes the cross entropy's gradient keeps its direction as well.
    for loss in (losses.margin, losses.cross_entropy):
        value = alignment(LINEAR, X, Y, ball, key=KEY, loss=loss)
        np.testing.assert_allclose(value, 1, atol=1e-5)
    found = linearisation(LINEAR, X, Y, ball, key=KEY, loss=losses.margin)
    np.testing.assert_allclose(found.worst, 0, atol=1e-5)
    np.testing.assert_allclose(found.relative, 0, atol=1e-5)
    if ball.bounds is None:
        dual = 1 if ball.norm_name == 'linf' else 2
        expected = ball.eps * np.linalg.norm(W[:, 0], dual)
        np.testing.assert_allclose(found.predicted, expected, rtol=1e-5)


def test_the_error_of_a_quadratic_is_its_second_order():
    # |f(x + d) - f(x) - <g, d>| = c ||d||^2, at most c eps^2 in L2, c n eps^2 in Linf.
    for ball, largest in ((l2(0.5, None), 0.5 * 0.25), (linf(0.1, None), 0.5 * 0.12)):
        found = linearisation(
            CURVED, X, Y, ball, key=KEY, loss=losses.margin, samples=64
        )
        np.testing.assert_allclose(found.worst, largest, rtol=1e-3)
        assert (found.sampled <= found.worst + 1e-6).all()
        assert (found.mean <= found.sampled).all()
    # The mean of ||d||^2 over the cube is n eps^2 / 3.
    np.testing.assert_allclose(found.mean, 0.5 * 0.12 / 3, rtol=0.15)


def test_the_ascent_finds_more_than_the_draws():
    f = model(wave, w=W, b=-W.sum() / 2, rate=3.0)
    ball = linf(0.2)
    found = linearisation(f, X, Y, ball, key=KEY, loss=losses.margin, samples=4)
    few = geometry.linearisation(
        f,
        X,
        Y,
        ball,
        key=KEY,
        loss=losses.margin,
        samples=4,
        search=attacks.bim(0.0, 1),
    )
    np.testing.assert_allclose(few.sampled, found.sampled, rtol=1e-4)
    np.testing.assert_allclose(few.worst, few.sampled)
    assert (found.worst >= found.sampled).all()
    assert (found.worst > 1.05 * found.sampled).any()


def test_alignment_of_a_quadratic_in_closed_form():
    ball = linf(0.3, bounds=None)
    found = geometry.gradient_alignment(
        CURVED, X, Y, ball, key=KEY, loss=losses.margin, samples=400
    )
    flat = X.reshape(6, -1)
    there = flat[:, None] + np.random.default_rng(1).uniform(-0.3, 0.3, (6, 4000, 12))

    def gradient(x):
        return W[:, 0] + 2 * 0.5 * x

    a, b = gradient(flat)[:, None], gradient(there)
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(found, cosines.mean(axis=1), atol=0.01)
    assert (found < 0.999).all()
    one = geometry.gradient_alignment(
        CURVED, X, Y, ball, key=KEY, loss=losses.margin, samples=1
    )
    assert (jnp.abs(one - found) > 1e-4).all(), 'a draw of its own for every sample'


def test_no_angle_is_nan_and_no_prediction_is_infinite():
    def dead(x):
        return jnp.zeros((len(x), 2)) + 0 * x.sum()

    assert jnp.isnan(geometry.gradient_alignment(dead, X, Y, 0.1, key=KEY)).all()
    found = geometry.linearisation(dead, X, Y, 0.1, key=KEY)
    assert jnp.isinf(found.relative).all()
    np.testing.assert_array_equal(found.worst, 0)
    cosines = geometry.cosine(jnp.array([[1e-30, 0]]), jnp.array([[1e-30, 1e-30]]))
    np.testing.assert_allclose(cosines, 0.5**0.5, rtol=1e-6)


@pytest.mark.parametrize('measure', [alignment, linearisation])
def test_a_measure_belongs_to_its_example(measure):
    f = model(wave, w=W, b=0.1, rate=9.0)
    each = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(6))
    whole = measure(f, X, Y, linf(0.2), key=KEY, samples=3)
    order = np.array([4, 1, 2, 0, 5, 3])
    shuffled = measure(f, X[order], Y[order], linf(0.2), key=each[order], samples=3)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(shuffled), strict=True):
        np.testing.assert_allclose(a[order], b, rtol=1e-4, atol=1e-5)


def test_two_radii_share_one_program():
    traces = []

    def count(x):
        traces.append(1)
        return LINEAR(x)

    run = jax.jit(functools.partial(geometry.linearisation, count, samples=2))
    run(ball=linf(0.1), key=KEY, x=X, y=Y)
    before = len(traces)
    run(ball=linf(0.3), key=KEY, x=X, y=Y)
    assert len(traces) == before


# ----------------------------------------------------------------------------- boundary


def test_distances_along_directions_of_a_linear_model():
    plane = geometry.hyperplane(W, -W.sum() / 2)
    away = geometry.signed_distance(plane, X)
    y = (away > 0).astype(int)
    for direction in (W[:, 0], W[:, 0] + 0.5):
        towards = np.where(away[:, None] > 0, -1, 1) * direction
        towards = np.float32(towards.reshape(X.shape))
        found = geometry.distance_along(LINEAR, X, y, 7 * towards, 3.0)
        expected = geometry.flip_distance(plane, X, direction)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        near = geometry.distance_along(LINEAR, X, y, towards, 0.5 * expected)
        assert jnp.isinf(near).all()
        assert jnp.isinf(geometry.distance_along(LINEAR, X, y, -towards, 3.0)).all()
    far = geometry.distance_along(LINEAR, X, y, towards, 1e4, geometric=True)
    np.testing.assert_allclose(far, expected, rtol=1e-4)
    # Errors at the start, and directions that are none.
    np.testing.assert_array_equal(
        geometry.distance_along(LINEAR, X, 1 - y, towards, 3.0), 0
    )
    none = geometry.distance_along(LINEAR, X, y, np.zeros(SHAPE, np.float32), 3.0)
    assert jnp.isinf(none).all()


def test_the_first_of_several_crossings_is_found_on_its_wrong_side():
    def teeth(x):
        # Class 1 in (0.3, 0.4) and beyond 0.8.
        s = x[:, :1]
        other = ((s > 0.3) & (s < 0.4)) | (s > 0.8)
        return jnp.concatenate([jnp.where(other, 0.0, 1.0), jnp.full_like(s, 0.5)], 1)

    y = jnp.zeros(1, int)
    fine = geometry.first_crossing(teeth, y, lambda t: t[:, None], grid=40)
    np.testing.assert_allclose(fine, 0.3, atol=1e-5)
    assert teeth(fine[:, None]).argmax(1) == 1
    # Between 0 and 0.5 nothing is seen: a coarse grid can only overestimate.
    coarse = geometry.first_crossing(teeth, y, lambda t: t[:, None], grid=2)
    np.testing.assert_allclose(coarse, 0.8, atol=1e-5)
    rough = geometry.first_crossing(teeth, y, lambda t: t[:, None], grid=10, halvings=0)
    np.testing.assert_allclose(rough, 0.9, atol=1e-6)


def test_nan_is_no_answer():
    def broken(x):
        return jnp.where(x[:, :1] > 0.5, jnp.nan, jnp.array([[1.0, 0.0]]))

    y = jnp.zeros(1, int)
    found = geometry.first_crossing(broken, y, lambda t: t[:, None])
    np.testing.assert_allclose(found, 0.5, atol=1e-5)


def test_the_normal_of_a_linear_model_is_its_own_everywhere():
    towards = np.where(Y[:, None] == 0, 1, -1) * W[:, 0] / np.linalg.norm(W)
    found = geometry.normal(LINEAR, X, Y)
    np.testing.assert_allclose(found.reshape(6, -1), towards, atol=1e-5)


# ---------------------------------------------------------------------------- landscape


def test_a_slice_of_a_linear_model_is_a_plane():
    ball = l2(1.0, bounds=None)
    first, second = geometry.gradient_plane(
        LINEAR, X, Y, ball, key=KEY, loss=losses.margin
    )
    a, b = first.reshape(6, -1), second.reshape(6, -1)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((a * b).sum(axis=1), 0, atol=1e-5)
    s, t = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)
    found = geometry.cut(LINEAR, X, first, second, s, t)
    assert found.logits.shape == (6, 3, 5, 2)
    # Along the second direction nothing changes; along the first the slope is ||w||.
    loss = np.asarray(found.loss(Y, losses.margin))
    here = np.asarray(losses.margin(LINEAR(X), Y))
    expected = here[:, None, None] + s * np.linalg.norm(W) + 0 * t[:, None]
    np.testing.assert_allclose(loss, expected, atol=1e-4)
    away = abs(loss) > 1e-4
    answers = np.asarray(found.answers)
    np.testing.assert_array_equal(answers[away], loss_answers(loss)[away])
    # Each point is the model there, and the centre is the image.
    np.testing.assert_allclose(found.logits[:, 1, 2], LINEAR(X), atol=1e-5)
    there = LINEAR(X + np.float32(s[4]) * first + np.float32(t[0]) * second)
    np.testing.assert_allclose(found.logits[:, 0, 4], there, atol=1e-4)


def loss_answers(margins):
    return np.where(np.asarray(margins) > 0, 1 - Y[:, None, None], Y[:, None, None])


def test_slices_in_signs_and_within_the_range():
    first, second = geometry.gradient_plane(LINEAR, X, Y, 0.1, key=KEY)
    assert set(np.unique(first)) == {-1, 1}
    assert set(np.unique(second)) == {-1, 1}
    assert not np.array_equal(second[0], second[1]), 'drawn for each example'
    inside = geometry.cut(LINEAR, X, first, second, [9.0], [0.0], bounds=(0.0, 1.0))
    np.testing.assert_allclose(
        inside.logits[:, 0, 0], LINEAR(jnp.clip(X + 9 * first, 0, 1)), atol=1e-5
    )


@pytest.mark.parametrize(
    ('call', 'names'),
    [
        (
            lambda: geometry.gradient_alignment(LINEAR, X, Y, 0.1, key=KEY, samples=0),
            'sam',
        ),
        (lambda: geometry.gradient_alignment(LINEAR, X, Y, -1.0, key=KEY), 'eps'),
        (
            lambda: geometry.gradient_alignment(LINEAR, X, Y, 0.1, key=KEY, loss=1),
            'loss',
        ),
        (
            lambda: geometry.linearisation(
                LINEAR, jnp.zeros((6, 3), int), Y, 0.1, key=KEY
            ),
            'x must',
        ),
        (
            lambda: geometry.linearisation(LINEAR, X, Y, 0.1, key=KEY, samples=1.5),
            'sampl',
        ),
        (
            lambda: geometry.distance_along(LINEAR, X, Y, X[:2], 1.0),
            'direction must',
        ),
        (
            lambda: geometry.first_crossing(LINEAR, Y, lambda t: X, grid=0),
            'grid',
        ),
        (
            lambda: geometry.first_crossing(LINEAR, Y, lambda t: X, halvings=-1),
            'halvings',
        ),
        (lambda: geometry.cut(LINEAR, X, X[:1], X, [0.0], [0.0]), 'first'),
        (lambda: geometry.cut(LINEAR, X, X, X, [], [0.0]), 'at_first'),
    ],
)
def test_bad_settings_are_refused(call, names):
    with pytest.raises(ValueError, match=names):
        call()


def test_distances_name_what_is_wrong():
    x, y = jnp.ones((3, 4)), jnp.zeros(3, int)

    def logits(x):
        return x[:, :2]

    for reach in (0.0, -1.0, np.nan, np.array([1.0, 1.0, -1.0])):
        with pytest.raises(ValueError, match='reach must be > 0, got'):
            geometry.distance_along(logits, x, y, x, reach)
    with pytest.raises(ValueError, match=r'y must have shape \(3,\), got \(2,\)'):
        geometry.distance_along(logits, x, y[:2], x, 1.0)
