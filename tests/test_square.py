"""The Square Attack, query by query, against the NumPy transcription."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from advjax import attacks, balls, keys, losses
from advjax.attacks import square_windows as windows
from tests import contract, reference, reference_attacks
from tests.contract import BATCH, CLASSES, KEY, SHAPE, images, margin, network

# The factory has taken the name of the module in ``advjax.attacks``.
module = importlib.import_module('advjax.attacks.square')

QUERIES = 80
BALLS = [
    balls.linf(0.12),
    balls.l2(0.5),
    balls.l1(1.5),
    balls.l2(np.linspace(0.1, 0.8, BATCH)),
    balls.linf(0.12, bounds=None),
]
kinds = pytest.mark.parametrize(
    'ball', BALLS, ids=['linf', 'l2', 'l1', 'l2 each', 'linf unbounded']
)

search = jax.jit(contract.search)


class Recorder:
    """A NumPy model that keeps every batch it is asked about."""

    def __init__(self, seed=0, classes=CLASSES, constant=False):
        rng = np.random.default_rng(seed)
        size = int(np.prod(SHAPE))
        w1, w2 = rng.normal(size=(size, 16)) / size**0.5, rng.normal(size=(16, classes))
        self.w1, self.w2 = 2 * w1, w2 * (not constant)
        self.bias = np.arange(classes) * -1.0 * constant
        self.classes, self.seen = classes, []

    def logits(self, x):
        rows = np.asarray(x, np.float64).reshape(len(x), -1)
        return np.tanh(rows @ self.w1) @ self.w2 + self.bias

    def __call__(self, x):
        def ask(value):
            self.seen.append(np.asarray(value))
            return np.float32(self.logits(value))

        shape = jax.ShapeDtypeStruct((x.shape[0], self.classes), jnp.float32)
        return io_callback(ask, shape, x, ordered=True)


def recorded(attack, model, x, y):
    found = jax.jit(lambda x, y: contract.search(attack, model, KEY, x, y))(x, y)
    jax.effects_barrier()
    return found


# ---------------------------------------------------------------------------- schedule


@pytest.mark.parametrize('p_init', [0.8, 0.05, 1.0])
def test_shares_are_those_of_the_transcription(p_init):
    got = module.shares(9000, p_init)
    expected = [reference_attacks.square_p(p_init, i) for i in range(9000)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize('size', [(28, 28), (32, 32), (4, 5), (1, 1), (3, 9)])
def test_sides_are_those_of_the_transcription(size):
    got = module.sides(9000, 0.8, *size, 'linf')
    expected = reference_attacks.square_linf_windows(0.8, 9000, *size)
    np.testing.assert_array_equal(got, expected)
    # Odd, at least 3 and inside the image, where it is large enough for that.
    for kind in ('l2', 'l1'):
        side = module.sides(9000, 0.8, *size, kind)
        assert (side % 2 == 1).all()
        assert (side <= max(min(size) - 1, 1)).all()
        if min(size) > 3:
            assert side.min() == 3
        plain = np.maximum(expected, 3)
        if min(size) > 10:
            assert (np.abs(side - plain) <= 1).all()


# ----------------------------------------------------------------------- query by query


def draws_of(x, ball, queries):
    """The library's own draws, seen on gray images."""
    each = keys.per_example(KEY, len(x))
    gray = jnp.full_like(x, 0.5)
    probe = balls.linf(0.25)
    stripes = windows.stripes(probe, keys.fold(each, 0), gray) - gray
    sides = module.sides(queries, 0.8, *x.shape[1:3], 'linf')
    ask = jax.jit(
        lambda i, s: windows.recolour(probe, keys.fold(each, i), gray, gray, s)
    )
    rows, columns, signs = [], [], []
    for i, side in enumerate(sides):
        moved = np.asarray(ask(i + 1, int(side)) - gray)
        hit = moved[..., 0] != 0
        top, left = hit.any(2).argmax(1), hit.any(1).argmax(1)
        for b in range(len(x)):
            inside = np.zeros(x.shape[1:3], bool)
            inside[top[b] : top[b] + side, left[b] : left[b] + side] = True
            np.testing.assert_array_equal(hit[b], inside)
        rows.append(top)
        columns.append(left)
        signs.append(np.sign(moved[np.arange(len(x)), top, left]))
    stripes = np.sign(np.asarray(stripes))
    assert (stripes == stripes[:, :1]).all()
    return reference_attacks.SquareDraws(
        stripes[:, :1], np.array(rows), np.array(columns), np.array(signs)
    )


def test_linf_is_the_transcription_query_by_query():
    x, _ = images()
    model = Recorder()
    y = model.logits(x).argmax(axis=1)
    y[1] = (y[1] + 1) % CLASSES  # One is wrong from the start.
    ball, queries = balls.linf(0.12), QUERIES
    draws = draws_of(x, ball, queries - 1)
    run = reference_attacks.square_linf(model.logits, x, y, float(ball.eps), draws)
    found = recorded(attacks.square(ball, queries), model, x, jnp.asarray(y))

    fooled = run.margins[-1] <= 0
    assert 1 < fooled.sum() < BATCH
    assert run.accepted.sum() > 10
    np.testing.assert_array_equal(found.queries, np.where(fooled, run.queries, queries))
    assert len(model.seen) == int(found.queries.max())
    np.testing.assert_allclose(model.seen[0], run.iterates[0], atol=1e-6)
    low, high = np.asarray(x) - float(ball.eps), np.asarray(x) + float(ball.eps)
    eps = np.full(BATCH, float(ball.eps))
    for query, proposal in enumerate(model.seen[1:]):
        best = run.iterates[query]
        expected = reference_attacks._square_proposal(
            best, draws, query, run.sides[query], eps
        )
        expected = np.clip(np.clip(expected, low, high), 0, 1)
        np.testing.assert_allclose(proposal, expected, atol=1e-5)
    np.testing.assert_allclose(found.x, run.iterates[-1], atol=1e-5)


def test_windows_lie_everywhere_and_signs_are_fair():
    x = jnp.full((500, 6, 7, 3), 0.5)
    each = keys.per_example(KEY, len(x))
    moved = np.asarray(windows.recolour(balls.linf(0.25), each, x, x, jnp.array(3)) - x)
    hit = moved[..., 0] != 0
    assert set(hit.any(2).argmax(1)) == set(range(4))
    assert set(hit.any(1).argmax(1)) == set(range(5))
    assert (hit.sum(axis=(1, 2)) == 9).all()
    signs = moved.max(axis=(1, 2)) > 0  # (500, 3)
    np.testing.assert_allclose(signs.mean(0), 0.5, atol=0.08)
    np.testing.assert_allclose(np.corrcoef(signs.T) - np.eye(3), 0, atol=0.15)


# --------------------------------------------------------------------------- contract


@pytest.mark.parametrize('ball', BALLS[:4], ids=['linf', 'l2', 'l1', 'l2 each'])
def test_never_outside_ball_and_range(ball):
    x, _ = images()
    model = Recorder()
    y = jnp.asarray(model.logits(x).argmax(axis=1))
    recorded(attacks.square(ball, 40), model, x, y)
    assert len(model.seen) > 20
    norm = {}
    for point in model.seen:
        delta = np.float64(point) - np.float64(x)
        flat = np.abs(delta.reshape(BATCH, -1))
        norm = {'linf': flat.max(1), 'l2': (flat**2).sum(1) ** 0.5, 'l1': flat.sum(1)}
        slack = 1e-6 * np.maximum(1, np.asarray(ball.eps))
        assert (norm[ball.norm_name] <= np.asarray(ball.eps) + slack).all()
        if ball.bounds is not None:
            assert point.min() >= 0
            assert point.max() <= 1
    # And queries are not wasted well inside the ball.
    assert np.mean(norm[ball.norm_name] / np.asarray(ball.eps)) > 0.5


@pytest.mark.parametrize('ball', [BALLS[0], BALLS[2]], ids=['linf', 'l1'])
def test_queries_are_counted_and_end_with_success(ball):
    """Example by example: alone, the model is asked as often as is reported."""
    x, _ = images()
    model = Recorder()
    y = jnp.asarray(model.logits(x).argmax(axis=1)).at[1].set(0)
    budget, each = 60, keys.per_example(KEY, BATCH)
    attack = attacks.square(ball, budget)
    whole = jax.jit(lambda x, y: contract.search(attack, model, each, x, y))(x, y)
    jax.effects_barrier()
    wrong = -reference.cw_margin(model.logits(whole.x), y) < 0
    queries = np.asarray(whole.queries)
    assert (queries >= 1).all()
    assert (queries <= budget).all()
    assert (queries[~wrong] == budget).all()
    assert wrong.sum() > 0
    # The model's own record: the first query that fools it is the last that counts.
    first = np.full(BATCH, budget)
    for number, point in reversed(list(enumerate(model.seen))):
        fooled = -reference.cw_margin(model.logits(point), y) < 0
        first = np.where(fooled, number + 1, first)
    np.testing.assert_array_equal(queries, first)
    # Frozen from there on: the result is the point that fooled it.
    for i in np.flatnonzero(wrong):
        np.testing.assert_array_equal(whole.x[i], model.seen[queries[i] - 1][i])
    if ball.norm_name == 'l1':
        return
    # An example alone asks as often as it reports.
    alone = Recorder()
    i = int(np.flatnonzero(wrong)[-1])
    one = balls.take(attack, np.array([i]), BATCH)
    found = jax.jit(lambda k, x, y: contract.search(one, alone, k, x, y))(
        each[i : i + 1], x[i : i + 1], y[i : i + 1]
    )
    jax.effects_barrier()
    assert len(alone.seen) == int(found.queries[0]) == queries[i]
    np.testing.assert_allclose(found.x[0], whole.x[i], atol=1e-6)


@pytest.mark.parametrize('budget', [1, 2, 7])
def test_the_budget_is_never_exceeded(budget):
    x, _ = images()
    model = Recorder(constant=True)
    y = jnp.zeros(BATCH, jnp.int32)
    found = recorded(attacks.square(0.1, budget), model, x, y)
    np.testing.assert_array_equal(found.queries, budget)
    assert len(model.seen) == budget


@kinds
def test_a_larger_budget_is_never_weaker(ball):
    f, (x, y) = network(), images()
    scores, queries = [], []
    for budget in (2, 25, 100):
        found = search(attacks.square(ball, budget), f, KEY, x, y)
        scores.append(margin(f, found.x, y))
        queries.append(np.asarray(found.queries))
    won = np.array(scores) > 0
    assert (np.diff(np.where(won, 1e9, scores), axis=0) >= -1e-5).all()
    assert (np.diff(queries, axis=0) >= 0).all()
    assert scores[-1].mean() > scores[0].mean() + 0.05


def test_another_loss_still_stops_at_the_first_error():
    f, (x, y) = network(), images()
    attack = attacks.square(0.2, 100, loss=losses.cross_entropy)
    found = search(attack, f, KEY, x, y)
    won = margin(f, found.x, y) > 0
    assert won.any()
    assert (np.asarray(found.queries)[won] < 100).any()


def test_a_target_is_what_counts():
    f, (x, y) = network(), images()
    target = (y + 2) % CLASSES
    attack = attacks.square(0.5, 200)
    found = jax.jit(lambda: contract.search(attack, f, KEY, x, y, target))()
    reached = np.argmax(f(found.x), axis=1) == target
    np.testing.assert_array_equal(reached, np.asarray(found.queries) < 200)
    assert reached.any()


# ------------------------------------------------------------------- patterns of L2, L1


def size_of(a, kind, axis=None):
    return np.sqrt((a**2).sum(axis)) if kind == 'l2' else np.abs(a).sum(axis)


def published_eta(side, kind='l2'):
    """The perturbation of section 4.2 in NumPy: squares laid upon each other.

    Around its centre (rows // 2, columns // 2) a hill is a pile of ever larger squares,
    the one of half-width r of height 1 / (r + 1)^2, in L1 1 / (r + 1)^4, cut by the
    rectangle.
    """
    out, power = np.zeros((side, side)), 2 if kind == 'l2' else 4
    for first, last, sign in ((0, side // 2, 1), (side // 2, side, -1)):
        rows = last - first
        hill = np.zeros((rows, side))
        top, left = rows // 2, side // 2
        for r in range(max(top, left) + 1):
            across = slice(max(top - r, 0), top + r + 1)
            hill[across, max(left - r, 0) : left + r + 1] += 1 / (r + 1) ** power
        if rows:
            out[first:last] = sign * hill / size_of(hill, kind)
    return out / size_of(out, kind)


@pytest.mark.parametrize('kind', ['l2', 'l1'])
@pytest.mark.parametrize('side', [1, 2, 3, 4, 5, 7, 9])
def test_hills_are_the_published_pattern(side, kind):
    top, left = 1, 2
    place = jnp.array(top), jnp.array(left)
    got = np.asarray(jax.jit(lambda s: windows.hills(kind, 10, 12, *place, s))(side))
    expected = np.zeros((10, 12))
    expected[top : top + side, left : left + side] = published_eta(side, kind)
    if side == 1:
        expected = np.abs(expected) * np.sign(got[top, left])
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(size_of(got, kind), 1, rtol=1e-6)


def test_patterns_lie_both_ways():
    turned = jax.jit(lambda k: windows._turned(k, 'l2', 9, 9, 2, 3, jnp.array(5)))
    lying = 0
    for seed in range(40):
        eta = np.asarray(turned(jax.random.key(seed)))
        inner = eta[2:7, 3:8]
        expected = published_eta(5)
        upright = np.allclose(inner, expected, atol=1e-6)
        lying += not upright
        assert upright or np.allclose(inner, expected.T, atol=1e-6)
        np.testing.assert_allclose((eta**2).sum(), (inner**2).sum(), rtol=1e-6)
    assert 8 < lying < 32


@pytest.mark.parametrize('ball', [balls.l2(0.7), balls.l1(2.0)], ids=['l2', 'l1'])
def test_the_start_is_tiled_and_of_full_length(ball):
    x = jnp.full((3, 11, 13, 2), 0.5)
    each = keys.per_example(KEY, 3)
    delta = np.asarray(jax.jit(lambda k: windows.tiles(ball, k, x))(each) - x)
    np.testing.assert_allclose(ball.norm(jnp.asarray(delta)), ball.eps, rtol=1e-4)
    # Tiles of side 2 from row 0: five across eleven rows, six across thirteen columns.
    assert (delta[:, 10] == 0).all()
    assert (delta[:, :, 12] == 0).all()
    tile = delta[:, :10, :12].reshape(3, 5, 2, 6, 2, 2)
    np.testing.assert_allclose(tile.sum(axis=(2, 4)), 0, atol=1e-6)
    if ball.norm_name == 'l2':  # The projection on the L1 ball keeps the peaks.
        assert (tile != 0).all()
        lengths = np.sqrt((tile**2).sum(axis=(2, 4)))
        np.testing.assert_allclose(lengths, lengths[0, 0, 0, 0], rtol=1e-4)


def moved_by_hand(kind, x, x0, radius, eta, to, away):
    """Algorithm 3 and its code in L1, step by step, of one image; eta is (H, W, C)."""
    channels = x.shape[-1]
    delta = x - x0
    first, second = to[..., None], (to | away)[..., None]
    inside = size_of(delta * first, kind, (0, 1))
    whole, both = size_of(delta, kind), size_of(delta * second, kind, (0, 1))
    new = eta + np.where(inside > 0, delta * first / np.where(inside, inside, 1), 0)
    new = new / size_of(new, kind, (0, 1))
    if kind == 'l2':
        new = new * np.sqrt(max(radius**2 - whole**2, 0) / channels + both**2)
    else:
        new = new * (max(radius - whole, 0) / channels + both) * channels
    delta = np.where(first, new, np.where(away[..., None], 0, delta))
    if kind == 'l2':
        return np.clip(x0 + radius * delta / size_of(delta, kind), 0, 1)
    row, centre = (x0 + delta).reshape(1, -1), x0.reshape(1, -1)
    return reference.project_l1_box(row, centre, radius, (0, 1)).reshape(x0.shape)


@pytest.mark.parametrize('ball', [balls.l2(0.6), balls.l1(2.0)], ids=['l2', 'l1'])
def test_mass_moves_as_published(ball):
    side, kind = 3, ball.norm_name
    rng = np.random.default_rng(4)
    x0 = jnp.float32(rng.uniform(0.2, 0.8, (4, 8, 9, 2)))
    each = keys.per_example(KEY, 4)
    x = jax.jit(lambda k: windows.tiles(ball, k, x0))(keys.fold(each, 0))
    own = keys.fold(each, 1)
    move = jax.jit(lambda k, x: windows.move_mass(ball, k, x, x0, jnp.array(side)))
    got = np.asarray(move(own, x))
    for i in range(4):
        one, other, turn, colour = jax.random.split(own[i], 4)
        corners = [windows._corner(k, 8, 9, side) for k in (one, other)]
        masks = []
        for top, left in corners:
            mask = np.zeros((8, 9), bool)
            mask[int(top) : int(top) + side, int(left) : int(left) + side] = True
            masks.append(mask)
        sign = np.asarray(jax.random.rademacher(colour, (1, 1, 2), jnp.float32))
        eta = np.zeros((8, 9))
        pattern = published_eta(side, kind)
        lying = bool(jax.random.bernoulli(turn))
        eta[masks[0]] = (pattern.T if lying else pattern).reshape(-1)
        expected = moved_by_hand(
            kind,
            np.float64(x[i]),
            np.float64(x0[i]),
            float(ball.eps),
            eta[..., None] * sign,
            *masks,
        )
        np.testing.assert_allclose(got[i], expected, atol=1e-5)
        assert not np.allclose(got[i], x[i], atol=1e-3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'ball': balls.l0(3)},
            r"ball of square must be one of \['linf', 'l2', 'l1'\]",
        ),
        ({'queries': 0}, 'queries must be an integer >= 1, got 0'),
        ({'queries': 2.0}, 'queries must be an integer >= 1, got 2.0'),
        ({'p_init': 0.0}, r'p_init must lie in \(0, 1\], got 0.0'),
        ({'p_init': 1.5}, r'p_init must lie in \(0, 1\], got 1.5'),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attacks.square(**{'ball': 0.1, **options})


def test_images_without_rows_are_refused():
    f, (x, y) = network(), images()
    with pytest.raises(ValueError, match=r'x must be \(B, height, width, channels\)'):
        attacks.square(0.1)(f, KEY, x.reshape(BATCH, -1), y)
