"""The transcriptions of `reference_attacks` against closed forms and each other."""

import itertools

import numpy as np
import pytest

from tests import reference
from tests import reference_attacks as attacks

NORMS = ('linf', 'l2', 'l1')
BATCH, SIZE, CLASSES = 5, 8, 4


@pytest.fixture(name='rng')
def _rng():
    return np.random.default_rng(0)


def two_layer(rng, size=SIZE, classes=CLASSES, hidden=16):
    return reference.TwoLayer(
        rng.normal(size=(hidden, size)),
        rng.normal(size=hidden),
        rng.normal(size=(classes, hidden)),
        rng.normal(size=classes),
    )


def jacobian_of(model, classes=CLASSES):
    def jacobian(x):
        unit = np.eye(classes)
        rows = [model.input_gradient(x, np.tile(u, (len(x), 1))) for u in unit]
        return np.stack(rows, axis=1)

    return jacobian


def gradient_of(model, y, loss_gradient):
    return lambda x: reference.gradient(model, x, y, loss_gradient)


def cross_entropy_of(model, y):
    gradient = gradient_of(model, y, reference.cross_entropy_gradient)
    return lambda x: (reference.cross_entropy(model.logits(x), y), gradient(x))


def script(values):
    """A loss that is `values` in turn, whatever x is, with gradient 1."""
    values = iter(values)

    def value_and_gradient(x):
        return np.full(len(x), float(next(values))), np.ones_like(x)

    return value_and_gradient


def size_of(delta, norm):
    return reference.norm(np.asarray(delta).reshape(len(delta), -1), attacks.P[norm])


# ------------------------------------------------------------------------------- APGD


def test_apgd_checkpoints():
    """Croce & Hein 2020 for n = 100; for n = 50 and 5 the code, by hand."""
    assert attacks.apgd_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert attacks.apgd_checkpoints(50) == [11, 21, 30, 38, 45]
    assert attacks.apgd_checkpoints(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_apgd_stays_in_ball_and_box_and_keeps_the_best(rng, norm):
    model, x = two_layer(rng), rng.uniform(size=(BATCH, SIZE))
    y = np.argmax(model.logits(x), axis=1)
    run = attacks.apgd(cross_entropy_of(model, y), x, x, 0.3, 40, norm)

    assert len(run.iterates) == len(run.losses) == 41
    assert np.all(size_of(np.array(run.iterates[-1]) - x, norm) <= 0.3 + 1e-12)
    assert all(np.all((z >= 0) & (z <= 1)) for z in run.iterates)
    best = np.argmax(run.losses, axis=0)
    np.testing.assert_array_equal(run.best_loss, run.losses[best, np.arange(BATCH)])
    expected = [run.iterates[n][i] for i, n in enumerate(best)]
    np.testing.assert_array_equal(run.best, expected)
    np.testing.assert_array_equal(run.step_sizes[0], 0.6)
    halvings = np.sum(run.reset, axis=0)
    last = np.where(run.checkpoints[-1] == 40, run.reset[-1], False)
    np.testing.assert_allclose(run.step_sizes[-1], 0.6 / 2.0 ** (halvings - last))


def test_apgd_begins_with_two_projected_gradient_steps(rng):
    """Iterations 1 and 2 written out, and the shape of images kept."""
    model, x = two_layer(rng), rng.uniform(0.3, 0.7, size=(BATCH, SIZE))
    y = np.argmax(model.logits(x), axis=1)
    evaluate = cross_entropy_of(model, y)

    def images(z):
        loss, gradient = evaluate(z.reshape(BATCH, SIZE))
        return loss, gradient.reshape(z.shape)

    shape = (BATCH, 2, 4, 1)
    run = attacks.apgd(images, x.reshape(shape), x.reshape(shape), 0.2, 10, 'linf')
    one = np.clip(x + 0.4 * np.sign(evaluate(x)[1]), x - 0.2, x + 0.2)
    z = np.clip(one + 0.4 * np.sign(evaluate(one)[1]), x - 0.2, x + 0.2)
    two = np.clip(one + 0.75 * (z - one) + 0.25 * (one - x), x - 0.2, x + 0.2)
    assert run.iterates[0].shape == shape
    np.testing.assert_allclose(run.iterates[1].reshape(BATCH, SIZE), one)
    np.testing.assert_allclose(run.iterates[2].reshape(BATCH, SIZE), two)


@pytest.mark.parametrize(
    ('losses', 'wrap', 'reset'),
    [
        # 8 iterations: gaps of 1. Always rising: never halved.
        (range(9), False, '00000000'),
        # One rise in one iteration is more than .75, none is not.
        ([0, 1, 1, 2, 2, 3, 4, 5, 5], False, '01010001'),
        # The first comparison is with the start, or by mistake with zero.
        ([-5, -4, -3, -2, -1, 0, 1, 2, 3], False, '00000000'),
        ([-5, -4, -3, -2, -1, 0, 1, 2, 3], True, '10000000'),
        # Rises, but below the best: halved at every second checkpoint, by condition 2.
        ([9, 1, 2, 3, 4, 5, 6, 7, 8], False, '10101010'),
        # The same with a rise at first: the flag begins as halved, so not at once.
        ([9, 1, 2, 3, 4, 5, 6, 7, 8], True, '01010101'),
    ],
)
def test_apgd_halves_the_step_where_it_should(losses, wrap, reset):
    x = np.full((1, 2), 0.5)
    run = attacks.apgd(script(losses), x, x, 0.1, 8, 'linf', wrap=wrap)
    assert run.checkpoints == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ''.join(str(int(r)) for r in run.reset[:, 0]) == reset


def test_apgd_momentum_after_a_reset_is_from_the_iterate_before():
    """The best point is the start throughout; iterations 1 and 3 go back to it."""
    x = np.full((1, 1), 0.5)
    run = attacks.apgd(script([9, 1, 2, 3, 4, 5, 6, 7, 8]), x, x, 0.2, 8, 'linf')
    one = 0.7  # .5 + .4, projected.
    two = 0.5 + 0.75 * 0.2  # From the start again, which is also where it came from.
    three = 0.7  # .65 + .75 (.7 - .65) + .25 (.65 - .5), projected.
    four = 0.5 + 0.75 * 0.1 + 0.25 * (0.5 - two)  # As if two had led to the start.
    np.testing.assert_allclose(np.ravel(run.iterates[1:5]), [one, two, three, four])
    np.testing.assert_allclose(run.step_sizes[:5, 0], [0.4, 0.2, 0.2, 0.1, 0.1])


def test_apgd_l1_in_the_ball_with_the_published_schedule(rng):
    model, x = two_layer(rng), rng.uniform(size=(BATCH, SIZE))
    y = np.argmax(model.logits(x), axis=1)
    run = attacks.apgd_l1(cross_entropy_of(model, y), x, x, 1.0, 60)
    assert run.checkpoints == list(range(2, 61, 2))
    assert all(np.all(size_of(z - x, 'l1') <= 1 + 1e-9) for z in run.iterates)
    assert np.all((run.step_sizes <= 1) & (run.step_sizes >= 0.1 - 1e-12))
    np.testing.assert_array_equal(run.kept[0], 1)  # The start is the middle.
    for n, reset in zip(run.checkpoints[:-1], run.reset[:-1], strict=True):
        before, after = run.step_sizes[n - 1], run.step_sizes[n]
        expected = np.where(reset, 1.0, np.maximum(before / 1.5, 0.1))
        np.testing.assert_allclose(after, expected)
    # The start itself: nothing has moved, so one coordinate may.
    run = attacks.apgd_l1(cross_entropy_of(model, y), x, x, 1, 4)
    np.testing.assert_array_equal(run.kept[0], 1)


def test_apgd_l1_moves_two_thirds_of_the_sparsity():
    """Kept are d - floor(d - sparsity / 1.5), and at least 1, for every sparsity."""
    for sparsity, kept in enumerate([1, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]):
        assert attacks._kept_of_sparsity(np.array([sparsity]), 10) == [kept]


def test_sparse_sign_by_hand():
    g = np.array([[3.0, -2.0, 1.0, 0.0], [1.0, 1.0, 1.0, -1.0], np.zeros(4)])
    step = attacks.sparse_sign(g, np.array([2, 1, 3]))
    expected = [[0.5, -0.5, 0, 0], [0.25, 0.25, 0.25, -0.25], [0, 0, 0, 0]]
    np.testing.assert_array_equal(step, expected)


# ------------------------------------------------------------------------ DDN and FMN


def linear_problem(rng):
    model = reference.Linear(rng.normal(size=(3, SIZE)), rng.normal(size=3))
    x = rng.uniform(0.4, 0.6, size=(BATCH, SIZE))
    return model, x, np.argmax(model.logits(x), axis=1)


def test_ddn_finds_the_distance_of_a_linear_model(rng):
    model, x, y = linear_problem(rng)
    gradient = gradient_of(model, y, reference.cross_entropy_gradient)
    run = attacks.ddn(model.logits, gradient, x, y, 400, box=None)
    exact = reference.linear_distance(model, x, y, 2)
    assert np.all(run.found)
    assert np.all(run.best_norm >= exact * (1 - 1e-9))
    np.testing.assert_allclose(run.best_norm, exact, rtol=0.1)
    np.testing.assert_allclose(size_of(run.best - x, 'l2'), run.best_norm)


def test_ddn_first_steps_by_hand(rng):
    """From 0 along the gradient to length 1.05; then .95 or 1.05 of that."""
    model, x, y = linear_problem(rng)
    gradient = gradient_of(model, y, reference.cross_entropy_gradient)
    run = attacks.ddn(model.logits, gradient, x, y, 2, box=None)
    one = x + 1.05 * reference.steepest_l2(gradient(x))
    np.testing.assert_allclose(run.iterates[1], one)
    fooled = np.argmax(model.logits(one), axis=1) != y
    np.testing.assert_allclose(run.sizes[1], 1.05 * np.where(fooled, 0.95, 1.05))
    u = one - x + 0.505 * reference.steepest_l2(gradient(one))
    expected = x + run.sizes[1][:, None] * reference.steepest_l2(u)
    np.testing.assert_allclose(run.iterates[2], expected)


@pytest.mark.parametrize('norm', NORMS)
def test_fmn_finds_the_distance_of_a_linear_model(rng, norm):
    model, x, y = linear_problem(rng)
    gradient = gradient_of(model, y, reference.cw_margin_gradient)
    run = attacks.fmn(model.logits, gradient, x, y, 150, norm, box=None)
    exact = reference.linear_distance(model, x, y, attacks.P[norm])
    assert np.all(run.found)
    assert np.all(run.best_norm >= exact * (1 - 1e-9))
    np.testing.assert_allclose(run.best_norm, exact, rtol=0.1)


def test_fmn_starts_with_the_distance_to_the_boundary(rng):
    model, x, y = linear_problem(rng)
    gradient = gradient_of(model, y, reference.cw_margin_gradient)
    run = attacks.fmn(model.logits, gradient, x, y, 1, 'linf')
    margin = -reference.cw_margin(model.logits(x), y)
    np.testing.assert_allclose(run.sizes[0], margin / size_of(gradient(x), 'l1'))
    assert not np.any(run.found)
    np.testing.assert_array_equal(run.best, x)
    assert np.all(np.isinf(run.best_norm))


# ------------------------------------------------------------------- DeepFool and FAB


@pytest.mark.parametrize('variant', ['matlab', 'python'])
@pytest.mark.parametrize('norm', NORMS)
def test_deepfool_is_exact_on_an_affine_classifier(rng, norm, variant):
    """One step; without the overshoot it ends on the nearest boundary."""
    model, x, y = linear_problem(rng)
    jacobian = jacobian_of(model, 3)
    run = attacks.deepfool(model.logits, jacobian, x, norm=norm, variant=variant)
    exact = reference.linear_distance(model, x, y, attacks.P[norm])
    np.testing.assert_array_equal(run.iterations, 1)
    np.testing.assert_allclose(size_of(run.r, norm), exact)
    assert np.all(run.label != y)
    np.testing.assert_allclose(run.x, x + 1.02 * run.r)


def test_deepfool_binary_affine_formula(rng):
    """Moosavi-Dezfooli 2016, r = -f(x) / ||w||^2 w; then with the 1e-4 as well."""
    w, b, x = rng.normal(size=SIZE), 0.3, rng.uniform(size=(BATCH, SIZE))
    model = reference.binary_as_two_class(w, b)
    f = x @ w + b
    run = attacks.deepfool(model.logits, jacobian_of(model, 2), x)
    np.testing.assert_allclose(run.r, -(f / np.sum(w**2))[:, None] * w)
    run = attacks.deepfool(model.logits, jacobian_of(model, 2), x, stability=1e-4)
    expected = np.abs(f) / np.sqrt(np.sum(w**2)) + 1e-4
    np.testing.assert_allclose(size_of(run.r, 'l2'), expected)


@pytest.mark.parametrize('variant', ['paper', 'matlab', 'python'])
def test_deepfool_variants_differ_on_a_curved_boundary(variant):
    """Newton's steps for f = 1/2 - exp(-x) from 0, with overshoot .3; by hand."""

    def logits(x):
        return np.concatenate([np.zeros_like(x), 0.5 - np.exp(-x)], axis=1)

    def jacobian(x):
        return np.stack([np.zeros_like(x), np.exp(-x)], axis=1)

    run = attacks.deepfool(logits, jacobian, [[0.0]], 3, 0.3, variant=variant)
    # The first step falls short in all of them, .5 and .65 against log 2 = .693.
    if variant == 'paper':  # f is concave: r itself never gets there.
        assert run.iterations == 3
        assert run.r == pytest.approx(np.log(2), abs=1e-3)
        return
    at = 0.5 if variant == 'matlab' else 0.65
    assert run.iterations == 2
    assert run.r == pytest.approx(0.5 + (np.exp(-at) - 0.5) / np.exp(-at))
    assert run.label == 1


@pytest.mark.parametrize('norm', NORMS)
def test_fab_projection_is_the_nearest_point(rng, norm):
    for _ in range(50):
        x, w = rng.uniform(size=SIZE), rng.normal(size=SIZE)
        b = w @ rng.uniform(size=SIZE)
        z = attacks.fab_projection(x, w, b, norm)
        assert w @ z == pytest.approx(b, abs=1e-12)
        assert np.all((z >= -1e-15) & (z <= 1 + 1e-15))
        side = np.sign(b - w @ x)
        expected = reference.nearest_in_halfspace(
            side * w, side * (b - w @ x), x, attacks.P[norm], (0, 1)
        )
        np.testing.assert_allclose(z - x, expected, atol=1e-12)


@pytest.mark.parametrize('norm', NORMS)
def test_fab_projection_without_a_box_and_out_of_reach(rng, norm):
    x, w = rng.uniform(size=SIZE), rng.normal(size=SIZE)
    w[2] = 0.0
    z = attacks.fab_projection(x, w, 40.0, norm, box=None)
    expected = reference.nearest_in_halfspace(w, 40 - w @ x, x, attacks.P[norm])
    np.testing.assert_allclose(z - x, expected, atol=1e-11)
    corner = np.where(w > 0, 1.0, 0.0)
    corner[2] = x[2]
    np.testing.assert_allclose(attacks.fab_projection(x, w, 40.0, norm), corner)
    on_it = attacks.fab_projection(x, w, w @ x, norm)
    np.testing.assert_allclose(on_it, x, atol=1e-14)
    np.testing.assert_array_equal(attacks.fab_projection(x, 0 * w, 1.0, norm), x)


@pytest.mark.parametrize('norm', NORMS)
def test_fab_first_step_on_an_affine_classifier(rng, norm):
    """From x0 both projections agree: x0 + 1.05 d, and back to .9 of it."""
    model, x, y = linear_problem(rng)
    target = (y + 1) % 3
    state, p = attacks.fab_init(x), attacks.P[norm]
    state = attacks.fab_step(
        model.logits, jacobian_of(model, 3), state, x, y, target, norm, box=None
    )
    z = model.logits(x)
    for i, (label, t) in enumerate(zip(y, target, strict=True)):
        a, gap = model.w[t] - model.w[label], z[i, label] - z[i, t]
        d = 1.05 * reference.nearest_in_halfspace(a, gap, x[i], p)
        np.testing.assert_allclose(state.best[i], x[i] + d)
        np.testing.assert_allclose(state.x[i], x[i] + 0.9 * d)
        np.testing.assert_allclose(state.best_norm[i], reference.norm(d[None], p)[0])


def test_fab_converges_to_the_distance_of_a_linear_model(rng):
    model, x, y = linear_problem(rng)
    z = model.logits(x)
    target = np.array([np.argsort(row)[-2] for row in z])
    state = attacks.fab_init(x)
    for _ in range(30):
        state = attacks.fab_step(
            model.logits, jacobian_of(model, 3), state, x, y, target, 'l2'
        )
    both = model.w[target] - model.w[y]
    exact = (np.max(z, axis=1) - np.sort(z, axis=1)[:, -2]) / size_of(both, 'l2')
    assert np.all(state.best_norm >= exact * (1 - 1e-9))
    np.testing.assert_allclose(state.best_norm, exact, rtol=0.06)


# ----------------------------------------------------------------------------- Square


def test_square_schedule():
    """The halvings of 1912.00049's code, at raw iteration numbers."""
    p = {10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 500: 8, 501: 16, 1000: 16}
    p |= {1001: 32, 2000: 32, 2001: 64, 4000: 64, 4001: 128, 6001: 256, 8001: 512}
    assert all(attacks.square_p(0.8, i) == 0.8 / part for i, part in p.items())
    assert attacks.square_p(0.8, 0) == 0.8


def test_square_windows():
    """28 x 28 and p = .8, the setting of AutoAttack on MNIST."""
    sides = attacks.square_linf_windows(0.8, 5000, 28, 28)
    changes = [0, 11, 51, 201, 501, 1001, 2001, 4001]
    assert [int(sides[i]) for i in changes] == [25, 18, 13, 9, 6, 4, 3, 2]
    assert sum(np.diff(sides) != 0) == len(changes) - 1
    assert attacks.square_side(0.8, 4, 4) == 3
    assert attacks.square_side(0.8, 4, 4, cap=False) == 4
    assert attacks.square_side(1e-9, 4, 4) == attacks.square_side(1.0, 1, 1) == 1


def square_draws(rng, batch, queries, size, channels, sides):
    return attacks.SquareDraws(
        stripes=rng.choice([-1, 1], size=(batch, 1, size, channels)),
        rows=rng.integers(0, size - sides[:, None] + 1, size=(queries, batch)),
        columns=rng.integers(0, size - sides[:, None] + 1, size=(queries, batch)),
        signs=rng.choice([-1, 1], size=(queries, batch, channels)),
    )


def test_square_linf(rng):
    batch, queries, size, channels, eps = 6, 40, 5, 2, 0.1
    model = two_layer(rng, size * size * channels)
    x = rng.uniform(size=(batch, size, size, channels))

    def logits(images):
        return model.logits(images.reshape(len(images), -1))

    y = np.argmax(logits(x), axis=1)
    sides = attacks.square_linf_windows(0.8, queries, size, size)
    draws = square_draws(rng, batch, queries, size, channels, sides)
    run = attacks.square_linf(logits, x, y, eps, draws)
    assert np.any(run.accepted)
    np.testing.assert_array_equal(run.sides, sides)
    np.testing.assert_allclose(run.iterates[0], np.clip(x + eps * draws.stripes, 0, 1))
    for query, (old, new) in enumerate(itertools.pairwise(run.iterates)):
        np.testing.assert_allclose(
            -reference.cw_margin(logits(new), y), run.margins[1:][query]
        )
        for i in range(batch):
            if not run.accepted[query, i]:
                np.testing.assert_array_equal(new[i], old[i])
                continue
            row, column = draws.rows[query, i], draws.columns[query, i]
            rows = slice(row, row + sides[query])
            columns = slice(column, column + sides[query])
            expected = old[i].copy()
            moved = x[i, rows, columns] + eps * draws.signs[query, i]
            expected[rows, columns] = np.clip(moved, 0, 1)
            np.testing.assert_allclose(new[i], expected)
            assert run.margins[query + 1, i] < run.margins[query, i]
    np.testing.assert_array_equal(run.queries, 1 + np.sum(run.margins[:-1] > 0, axis=0))
    shared = draws._replace(
        rows=draws.rows[:, :1], columns=draws.columns[:, :1], signs=draws.signs[:, :1]
    )
    assert attacks.square_linf(logits, x, y, eps, shared).accepted.shape == (40, 6)


# ------------------------------------------------------------------------------- JSMA


def test_jsma_by_hand():
    """Z_t grows by 1, 2, 3 with x_0, x_1, x_2; x_2 also raises the other class."""
    w = np.array([[0.0, -1.0, -1.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
    model = reference.Linear(w[:, 1:], np.array([3.5, 0.0]))
    x = np.zeros((1, 3))
    # -alpha beta: 3 * 2 for (0, 1), 4 * -1 and 5 * -1 (others rise) for the rest.
    assert attacks.saliency_pair(model.w, 1, 1.0, [0, 1, 2]) == [0, 1]
    assert attacks.saliency_pair(model.w, 1, 1.0, [0, 2]) is None
    assert attacks.saliency_pair(-model.w, 1, -1.0, [0, 1, 2]) == [0, 1]

    def run(theta, budget, once=False, start=x):
        return attacks.jsma(
            model.logits, jacobian_of(model, 2), start, [1], theta, budget, once=once
        )

    # z = (3.5 - x_0 - x_1, x_0 + 2 x_1): (1.5, 3) with both at 1, (2.5, 1.5) at .5.
    assert run(1.0, 2).pairs == [[(0, 1)]]
    assert run(1.0, 2).reached
    np.testing.assert_array_equal(run(1.0, 2).x, [[1, 1, 0]])
    assert run(0.5, 6).pairs == [[(0, 1), (0, 1)]]
    assert run(0.5, 6, once=True).pairs == [[(0, 1)]]
    assert not run(0.5, 3).reached
    # Already of the target class, or no coordinate left: nothing changes.
    assert run(1.0, 2, start=np.ones((1, 3))).pairs == [[]]
    assert run(-1.0, 2).pairs == [[]]


# -------------------------------------------- a model that is not linear, but solvable


def two_piece(rng, size):
    a, v = rng.normal(size=(2, size))
    middle = np.full(size, 0.5)
    # Both boundaries pass not far from the middle of the box.
    return attacks.TwoPiece(
        a, 0.3 * rng.normal() - a @ middle, 2 * rng.normal(), v, -v @ middle
    )


def crossings(model, x0, z):
    """Where the segments from x0 to z meet s = 0; z has the other sign."""
    low, high = np.zeros(len(z)), np.ones(len(z))
    sign = np.sign(model.score(x0[None]))
    for _ in range(60):
        middle = 0.5 * (low + high)
        same = np.sign(model.score(x0 + middle[:, None] * (z - x0))) == sign
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return high[:, None] * (z - x0)


@pytest.mark.parametrize('p', [np.inf, 2, 1])
@pytest.mark.parametrize('size', [2, 5])
def test_two_piece_closest_is_never_beaten(rng, p, size):
    for _ in range(12):
        model, x0 = two_piece(rng, size), rng.uniform(size=size)
        d = model.closest(x0, p)
        points = rng.uniform(-0.2, 1.2, size=(4000, size)).clip(0, 1)
        if d is not None:
            near = x0 + d + rng.normal(size=(4000, size)) * rng.uniform(0, 0.2)
            points = np.concatenate([points, near.clip(0, 1)])
        sign = np.sign(model.score(x0[None]))
        other = points[np.sign(model.score(points)) == -sign]
        if d is None:
            assert len(other) == 0
            continue
        length = reference.norm(d[None], p)[0]
        assert model.score(x0 + d[None]) == pytest.approx(0, abs=1e-9)
        assert np.all((x0 + d >= -1e-9) & (x0 + d <= 1 + 1e-9))
        if len(other):
            lengths = reference.norm(crossings(model, x0, other), p)
            assert np.min(lengths) >= length - 1e-9
            if size == 2:  # Dense enough to come close.
                assert np.min(lengths) <= 1.1 * length + 0.02


@pytest.mark.parametrize('p', [np.inf, 2, 1])
@pytest.mark.parametrize('box', [None, (0.0, 1.0)])
def test_two_piece_with_one_piece_is_linear(rng, p, box):
    for _ in range(5):
        a, v, x0 = rng.normal(size=4), rng.normal(size=4), rng.uniform(size=4)
        model = attacks.TwoPiece(a, -0.5 * np.sum(a), 0.0, v, -0.5 * np.sum(v))
        s = model.score(x0[None])[0]
        d = model.closest(x0, p, box)
        expected = reference.nearest_in_halfspace(-np.sign(s) * a, abs(s), x0, p, box)
        lengths = reference.norm(np.stack([d, expected]), p)
        assert lengths[0] == pytest.approx(lengths[1], abs=1e-9)
        if p == 2:
            np.testing.assert_allclose(d, expected, atol=1e-9)


def test_two_piece_at_the_kink():
    """Boundary x_2 = 1 + |x_1| from the origin: its tip; x_2 = 1 - |x_1|: a side."""
    tip = attacks.TwoPiece([1, 1], -1, -2, [1, 0], 0)
    flat = attacks.TwoPiece([-1, 1], -1, 2, [1, 0], 0)
    origin = np.zeros(2)
    for p in (np.inf, 2, 1):
        d = tip.closest(origin, p, None)
        assert reference.norm(d[None], p)[0] == pytest.approx(1)
    np.testing.assert_allclose(tip.closest(origin, 2, (-2, 2)), [0, 1], atol=1e-9)
    for p, length in ((np.inf, 0.5), (2, np.sqrt(0.5)), (1, 1.0)):
        d = flat.closest(origin, p, (-2, 2))
        assert reference.norm(d[None], p)[0] == pytest.approx(length)
    assert flat.closest(origin, 2, (-0.1, 0.1)) is None


def test_two_piece_gradients(rng):
    model, x = two_piece(rng, 3), rng.uniform(size=(6, 3))
    z, cotangent = model.logits(x), rng.normal(size=(6, 2))
    np.testing.assert_allclose(z[:, 1] - z[:, 0], model.score(x))
    for k, step in enumerate(1e-6 * np.eye(3)):
        slope = (model.logits(x + step) - model.logits(x - step)) / 2e-6
        np.testing.assert_allclose(model.jacobian(x)[:, :, k], slope, atol=1e-6)
    expected = np.einsum('bk,bkd->bd', cotangent, model.jacobian(x))
    np.testing.assert_allclose(model.input_gradient(x, cotangent), expected)
