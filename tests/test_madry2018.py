"""What the study of Madry et al. 2018 computes, against NumPy and closed forms."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, data, losses, models, zoo
from advjax.report import charts
from experiments.frame.work import Work
from experiments.studies.madry2018 import (
    STUDY,
    beyond,
    capacity,
    filters,
    landscape,
    maxima,
    transfer,
    white_box,
)

WEIGHTS = np.random.default_rng(0).normal(size=(12, 3))
BIAS = np.array([0.3, -0.2, 0.1])


def _linear(weights=WEIGHTS, bias=BIAS):
    weights, bias = jnp.float32(weights), jnp.float32(bias)[None]
    return jax.tree_util.Partial(_scores, weights, bias)


def _scores(weights, bias, x):
    return x.reshape(len(x), -1) @ weights + bias


def _cross_entropy(x, label):
    z = x.reshape(len(x), -1) @ WEIGHTS + BIAS
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[:, label]


def _image(seed=1):
    return np.random.default_rng(seed).uniform(size=(3, 4, 1)).astype(np.float32)


def _work(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return Work(folder, folder / 'shared').__enter__()


def _one(findings, *words):
    found = [c for c in findings.claims if all(word in c.what for word in words)]
    assert len(found) == 1, (words, [c.what for c in found])
    return found[0]


# The ascents.


def test_a_climb_is_sign_ascent_step_by_step():
    eps, steps, rate, label = 0.3, 7, 0.2, 1
    search = attacks.pgd(balls.linf(eps), steps, rate, keep_best=False)
    image = _image()
    climb = maxima.climbs(search, _linear(), jax.random.key(3), image, label, 5)

    x = climb.start.astype(np.float64)
    assert (np.abs(x - image) <= eps + 1e-6).all()
    assert ((x >= 0) & (x <= 1)).all()
    assert len(np.unique(x.reshape(5, -1), axis=0)) == 5
    heights = [_cross_entropy(x, label)]
    for _ in range(steps):
        z = x.reshape(5, -1) @ WEIGHTS + BIAS
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = (p - np.eye(3)[label]) @ WEIGHTS.T
        x = x + eps * rate * np.sign(gradient).reshape(x.shape)
        x = np.clip(x, np.maximum(image - eps, 0), np.minimum(image + eps, 1))
        heights.append(_cross_entropy(x, label))
    np.testing.assert_allclose(climb.end, x, atol=1e-5)
    np.testing.assert_allclose(climb.values, heights, rtol=1e-4, atol=1e-5)


def test_a_start_does_not_depend_on_how_many_there_are():
    search = attacks.pgd(balls.linf(0.3), 2, keep_best=False)
    few, many = (
        maxima.climbs(search, _linear(), jax.random.key(3), _image(), 0, count)
        for count in (3, 6)
    )
    np.testing.assert_array_equal(few.start, many.start[:3])
    np.testing.assert_allclose(few.end, many.end[:3], atol=1e-6)


def test_the_box_is_cut_to_the_range():
    low, high = maxima.box(np.array([0.0, 0.1, 0.5, 0.95]), 0.3)
    np.testing.assert_allclose(low, [0, 0, 0.2, 0.65])
    np.testing.assert_allclose(high, [0.3, 0.4, 0.8, 1])


def test_distances_and_angles_of_all_pairs():
    points = np.random.default_rng(2).normal(size=(5, 2, 3))
    centre = np.random.default_rng(3).normal(size=(2, 3))
    distances, angles = [], []
    for i in range(5):
        for j in range(i + 1, 5):
            a, b = (points[k] - centre for k in (i, j))
            distances.append(np.sqrt(((points[i] - points[j]) ** 2).sum()))
            cosine = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
            angles.append(np.degrees(np.arccos(cosine)))
    np.testing.assert_allclose(maxima.distances(points), distances)
    np.testing.assert_allclose(maxima.angles(points, centre), angles)


def test_angles_of_known_points():
    points = np.array([[1.0, 0], [0, 2], [-3, 0], [1, 0]])
    found = maxima.angles(points, np.zeros(2))
    np.testing.assert_allclose(found, [90, 180, 0, 90, 90, 180], atol=1e-6)


def test_independent_points_are_at_right_angles_only_from_the_centre_of_the_box():
    # On a black image pixels can only grow: E[d]^2 / E[d^2] = 3/4 is the cosine.
    image = np.zeros(2000)
    low, high = maxima.box(image, 0.3)
    points = np.random.default_rng(0).uniform(low, high, (30, 2000))
    assert maxima.angles(points, (low + high) / 2).mean() == pytest.approx(90, abs=0.3)
    from_image = np.degrees(np.arccos(0.75))
    assert maxima.angles(points, image).mean() == pytest.approx(from_image, abs=0.3)


def test_outliers_are_beyond_the_outer_fence():
    # Quartiles 2 and 4: the fence is at 10.
    assert maxima.outliers(np.array([1.0, 2, 3, 4, 5])) == 0
    values = np.array([1.0, 2, 2, 3, 4, 4, 10.1, 10.1, 2])
    low, high = np.percentile(values, [25, 75])
    assert maxima.outliers(values) == np.mean(values > high + 3 * (high - low)) > 0
    assert maxima.outliers(np.array([1.0, 2, 3, 4, -500])) == 0


def test_segments_join_each_point_and_the_next():
    ends = np.random.default_rng(4).uniform(size=(4, 3, 4, 1)).astype(np.float32)
    found = maxima.between(_linear(), ends, 2, pairs=3, points=5)
    assert found.shape == (3, 5)
    for pair in range(3):
        for place, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
            point = (1 - share) * ends[pair] + share * ends[pair + 1]
            expected = _cross_entropy(point[None], 2)[0]
            assert found[pair, place] == pytest.approx(expected, rel=1e-4)
    for pairs in (0, 4):
        with pytest.raises(ValueError, match=r'pairs must be in \[1, 3\]'):
            maxima.between(_linear(), ends, 2, pairs=pairs)


def _planted(final, angle, distance, middle, random=0.1):
    """What ``landscape.measure`` would return, (images, ...) on each net."""
    found = {'labels': np.array([3, 7])}
    for net, height in (('natural', 30 * final), ('robust', final)):
        segments = np.full((2, 4, 5), height)
        segments[..., 1:4] = middle * height
        curves = height * (1 - 0.5 ** np.arange(9.0))
        found |= {
            f'{net} curves': np.broadcast_to(curves[:, None], (2, 9, 3)),
            f'{net} final': height * np.linspace(0.9, 1.1, 20).reshape(2, 10),
            f'{net} random': np.full((2, 10), random),
            f'{net} segments': segments,
            f'{net} end distance': np.full((2, 6), distance),
            f'{net} box distance': np.full((2, 6), 1.0),
            f'{net} end angle': np.full((2, 6), angle),
            f'{net} box angle': np.full((2, 6), 90.0),
            f'{net} end angle from image': np.full((2, 6), 50.0),
            f'{net} box angle from image': np.full((2, 6), 40.0),
        }
    return found


def test_what_the_paper_says_of_maxima_is_judged():
    good = landscape.findings(_planted(2.0, 88.0, 1.4, 0.7))
    assert all(c.verdict != 'outside' for c in good.claims)
    bad = landscape.findings(_planted(2.0, 20.0, 0.1, 1.2, random=5.0))
    outside = {c.what for c in bad.claims if c.verdict == 'outside'}
    for words in ('angle between two maxima, from the centre', 'distance of two maxima',
                  'halfway', 'lowest loss'):  # fmt: skip
        assert any(words in what for what in outside), words
    far = _planted(2.0, 88.0, 1.4, 0.7)
    far['robust final'] = far['robust final'].copy()
    far['robust final'][:, -1] *= 50
    found = _one(landscape.findings(far), 'robust', 'outer fence')
    assert found.measured == pytest.approx(10)
    assert found.verdict == 'outside'
    late = _planted(2.0, 88.0, 1.4, 0.7)
    late['natural curves'] = late['natural curves'][:, ::-1] * -1
    assert _one(landscape.findings(late), 'natural', 'gain').verdict == 'outside'


# White box and transfer.


def test_the_cw_loss_is_that_of_the_challenge_less_a_constant():
    logits = jnp.float32(np.random.default_rng(5).normal(size=(6, 4)) * 40)
    y = jnp.array([0, 1, 2, 3, 0, 1])

    def challenge(z):
        own = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
        others = jnp.where(jax.nn.one_hot(y, 4, dtype=bool), -1e9, z).max(axis=1)
        return -jax.nn.relu(own - others + 50)

    ours = white_box.CW_LOSS(logits, y)
    np.testing.assert_allclose(ours - challenge(logits), 50, atol=1e-4)
    gradients = (
        jax.grad(lambda z, f=f: jnp.sum(f(z)))(logits)
        for f in (challenge, lambda z: white_box.CW_LOSS(z, y))
    )
    np.testing.assert_array_equal(*gradients)


def test_the_attacks_of_the_table_are_the_papers():
    named = white_box.white_box_attacks(balls.linf(0.3), 3)
    names = ['FGSM', 'PGD-40', 'PGD-50', 'PGD-100', 'PGD-100 x 3', 'PGD-40, CW loss']
    assert list(named) == names
    for name, steps in (('PGD-40', 40), ('PGD-50', 50), ('PGD-100', 100)):
        assert named[name].steps == steps
        assert float(named[name].ball.eps * named[name].rate) == pytest.approx(0.01)
    assert named['PGD-100 x 3'].count == 3
    assert named['PGD-40, CW loss'].loss is white_box.CW_LOSS
    assert named['FGSM'].loss is losses.cross_entropy


def _set(count=60, seed=6):
    x = np.random.default_rng(seed).uniform(0.2, 0.8, (count, 3, 4, 1))
    x = x.astype(np.float32)
    y = np.asarray(_linear()(x)).argmax(axis=1)
    y[:6] = (y[:6] + 1) % 3
    return x, y


def test_accuracy_left_counts_clean_errors_as_errors(tmp_path):
    x, y = _set()
    named = {'nothing': attacks.fgm(0.0), 'FGSM': attacks.fgm(0.05)}
    found = white_box.left(_work(tmp_path).evaluate(_linear(), x, y, named,
                                                    ball=balls.linf(0.05)))  # fmt: skip
    assert found['natural'] == found['nothing'] == pytest.approx(90)
    assert found['FGSM'] < 90


def test_transfer_from_itself_from_nothing_and_in_the_right_direction(tmp_path):
    x, y = _set()
    constant = _linear(np.zeros((12, 3)))
    sources = {'self': _linear(), 'constant': constant}
    targets = {'self': _linear(), 'other': _linear(WEIGHTS[:, ::-1], BIAS[::-1])}
    found = transfer.measure(_work(tmp_path), sources, targets, x, y, balls.linf(0.05))
    for table in found.values():
        assert table.shape == (3, 2)
        assert table[2, 0] < 90
    fgsm = found['FGSM']
    assert fgsm[1, 0] == pytest.approx(90)  # A flat source moves nothing.
    assert fgsm[0, 0] == fgsm[2, 0]
    # What was made on 'self' and shown to 'other'.
    moved = attacks.fgm(0.05)(_linear(), jax.random.key(0), x, y)
    right = np.asarray(targets['other'](x)).argmax(axis=1) == y
    fooled = np.asarray(targets['other'](moved)).argmax(axis=1) != y
    assert fgsm[0, 1] == pytest.approx(100 * np.mean(right & ~fooled))


def _left(*values):
    names = ['natural', 'FGSM', 'PGD-40', 'PGD-50', 'PGD-100', 'PGD-100 x 9',
             'PGD-40, CW loss']  # fmt: skip
    return dict(zip(names, values, strict=True))


def test_the_order_of_the_white_box_table_is_judged():
    natural = {'natural': 99.0, 'FGSM': 8.0, 'PGD-40': 0.2}
    ordered = _left(98.8, 95.6, 93.2, 93.0, 91.8, 89.3, 94.0)
    clean = {'natural': 99.0, 'robust': 98.8}
    found = white_box.findings({'natural': natural, 'robust': ordered}, clean, 500)
    assert all(c.verdict != 'outside' for c in found.claims)
    assert _one(found, 'smallest gap').measured == pytest.approx(1.4)
    swapped = ordered | {'PGD-100': 93.9}
    found = white_box.findings({'natural': natural, 'robust': swapped}, clean, 500)
    assert _one(found, 'smallest gap').verdict == 'outside'
    # PGD-50 stands in the table but not in the order.
    odd = ordered | {'PGD-50': 20.0}
    found = white_box.findings({'natural': natural, 'robust': odd}, clean, 500)
    assert _one(found, 'smallest gap').measured == pytest.approx(1.4)
    (table,) = found.tables
    assert table.rows[0] == ['natural', 99.0, 98.8, '98.8']
    assert table.rows[3][:3] == ['PGD-50', None, 20.0]


def test_the_golden_weights_are_held_to_what_is_known_of_them():
    natural = {'natural': 99.0, 'FGSM': 8.0, 'PGD-40': 0.2}
    ordered = _left(98.8, 95.6, 93.2, 90.0, 91.8, 89.3, 94.0)
    clean = {'natural': 99.0, 'robust': 98.8, 'golden': 98.5}
    found = {'natural': natural, 'robust': ordered, 'golden': ordered}
    claims = white_box.findings(found, clean, 500)
    held = _one(claims, 'golden weights under PGD-50')
    sample = np.random.default_rng(0).binomial(500, 0.9095, 100_000) / 5
    assert held.band[0] == pytest.approx(90.95 - 3 * sample.std(), abs=0.03)
    assert held.band[1] == pytest.approx(90.95 + 3 * sample.std(), abs=0.03)
    assert _one(claims, 'golden weights, clean').verdict == 'holds'
    clean['golden'] = 98.4
    again = white_box.findings(found, clean, 500)
    assert _one(again, 'golden weights, clean').verdict == 'outside'


def test_transfer_claims_read_the_right_cells():
    names, targets = ['natural', 'FGSM', 'PGD'], ['natural', 'FGSM', 'robust']
    fgsm = np.array([[41.9, 1, 2], [3, 62.0, 4], [5, 6, 96.8], [7, 99.9, 95.6]])
    pgd = np.array([[26.0, 1, 2], [3, 54.1, 4], [5, 6, 96.0], [8, 0.0, 93.2]])
    found = transfer.findings({'FGSM': fgsm, 'PGD-40': pgd}, names, targets)
    for claim in found.claims:
        assert claim.verdict != 'outside', claim
        assert claim.measured == pytest.approx(float(claim.paper)), claim


# Capacity.


def test_scale_one_is_the_papers_smallest_net():
    params = zoo.madry_mnist(scale=capacity.UNIT).init(jax.random.key(0))[0]
    assert params['conv1']['kernel'].shape == (5, 5, 1, 2)
    assert params['conv2']['kernel'].shape == (5, 5, 2, 4)
    assert params['full']['kernel'].shape == (7 * 7 * 4, 64)
    double = zoo.madry_mnist(scale=2 * capacity.UNIT).init(jax.random.key(0))[0]
    assert double['conv1']['kernel'].shape[-1] == 4
    assert double['full']['kernel'].shape[-1] == 128


def test_both_adversarial_trainings_see_no_clean_images():
    ways = capacity.methods(balls.linf(0.3), 5)
    assert list(ways) == ['natural', 'FGSM', 'PGD']
    assert not ways['natural'].adversarial
    assert float(ways['FGSM'].outer.clean_weight) == 0
    assert ways['PGD'].inner.steps == 5
    assert not ways['PGD'].inner.keep_best


def _digits(count=200):
    return data.split_held_out(data.load('digits', 'train'), count, seed=0)[1]


def test_networks_are_trained_once_and_the_last_step_is_kept(tmp_path):
    plan = capacity.Plan(images=200, steps=60, batch_size=50, learning_rate=0.02)
    model = zoo.softmax_regression((8, 8, 1))
    ways = {name: capacity.methods(balls.linf(0.1), 2)[name]
            for name in ('natural', 'PGD')}  # fmt: skip
    digits = _digits()

    def train():
        return capacity.train_all(
            _work(tmp_path / 'run'), 'nets', ways, model, digits, plan
        )

    nets = train()
    x = np.asarray(data.to_float(digits.images))
    right = {
        name: np.mean(np.asarray(net(x)).argmax(axis=1) == digits.labels)
        for name, net in nets.items()
    }
    assert right['natural'] > 0.9
    assert right['PGD'] > 0.5
    alone = capacity._train(ways['PGD'], model, digits, plan, seed=0)
    np.testing.assert_allclose(nets['PGD'](x), _on(model, alone, x), atol=1e-4)
    other = capacity._train(ways['PGD'], model, digits, plan, seed=1)
    assert np.abs(_on(model, alone, x) - _on(model, other, x)).max() > 0.01
    kept = tmp_path / 'run' / 'nets.npz'
    written = kept.stat().st_mtime_ns
    again = train()
    assert kept.stat().st_mtime_ns == written
    for name, net in again.items():
        np.testing.assert_array_equal(np.asarray(net(x)), np.asarray(nets[name](x)))


def _on(model, params, x):
    return np.asarray(models.logits_fn(model, params)(x))


def test_every_image_is_seen_once_before_any_is_seen_again(monkeypatch):
    seen = []

    def step(method, state, on_device, index, key):
        seen.append(index)
        return state, {}

    monkeypatch.setattr(capacity, '_step', step)
    plan = capacity.Plan(images=20, steps=10, batch_size=6)
    model = zoo.softmax_regression((8, 8, 1))
    capacity._train(
        capacity.methods(balls.linf(0.1), 1)['natural'], model, _digits(20), plan, 0
    )
    assert len(seen) == 10
    order = np.concatenate(seen)
    for start in (0, 20, 40):
        assert sorted(order[start : start + 20]) == list(range(20))
    assert not np.array_equal(order[:20], order[20:40])


def test_a_constant_net_is_seen_as_one(tmp_path):
    x, y = _set()
    constant = _linear(np.zeros((12, 3)), np.array([0.0, 5.0, 0.0]))
    found = capacity.examine(_work(tmp_path), constant, x, y, balls.linf(0.1))
    assert found.top_class == 100
    ones = pytest.approx(100 * np.mean(y == 1))
    assert found.clean == found.fgsm == found.pgd == ones
    expected = np.log(np.exp(5.0) + 2) - 5.0 * (y == 1)
    assert found.loss == pytest.approx(expected.mean(), rel=1e-5)


def test_the_loss_of_a_linear_net_is_that_of_the_worst_corner(tmp_path):
    # Two classes, so that the worst point of the box is a corner known in advance.
    weights, bias = WEIGHTS[:, :2], np.zeros(2)
    x, _ = _set()
    y = np.arange(len(x)) % 2
    found = capacity.examine(
        _work(tmp_path), _linear(weights, bias), x, y, balls.linf(0.05)
    )
    score = x.reshape(len(x), -1) @ (weights[:, 1] - weights[:, 0])
    margin = (2 * y - 1) * score - 0.05 * np.abs(weights[:, 1] - weights[:, 0]).sum()
    assert found.loss == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-4)
    assert found.pgd == found.fgsm == pytest.approx(100 * np.mean(margin > 0))


def _grid(pgd_clean, fgsm_pgd, loss):
    blank = {field: np.full(3, 50.0) for field in capacity.Standing._fields}
    return {
        'natural': blank,
        'FGSM': blank | {'fgsm': np.array([60.0, 80, 95]), 'pgd': np.array(fgsm_pgd)},
        'PGD': blank | {'clean': np.array(pgd_clean), 'loss': np.array(loss)},
    }


def test_what_the_paper_says_of_capacity_is_judged():
    good = capacity.findings(
        _grid([11.0, 11, 97], [0.0, 1, 2], [2.3, 2.3, 0.4]), (1, 2, 4), 700
    )
    assert all(c.verdict != 'outside' for c in good.claims)
    bad = capacity.findings(
        _grid([11.0, 80, 97], [0.0, 30, 50], [0.4, 2.3, 2.3]), (1, 2, 4), 700
    )
    verdicts = {
        words: _one(bad, *words).verdict
        for words in (
            ('PGD training at scale 1',), ('PGD training at scale 2',),
            ('best accuracy under PGD',), ('under FGSM less under PGD',),
            ('PGD loss at scale',),
        )
    }  # fmt: skip
    assert list(verdicts.values()) == ['holds', *['outside'] * 4]
    assert _one(bad, 'FGSM training: best').measured == 50
    assert len(good.tables[0].rows) == 9


# Beyond the radius, and the filters.


def test_accuracy_at_a_radius_is_the_share_that_is_further_away():
    found = types.SimpleNamespace(
        success=np.array([[True, True, False, False], [True, False, False, True]]),
        norm=np.array([[2.0, 1.0, 9.0, 9.0], [0.5, 9.0, 9.0, 3.0]]),
        clean_correct=np.array([True, True, True, False]),
    )
    radii = np.array([0.0, 0.5, 0.9, 1.0, 10.0])
    accuracy = beyond.accuracy_at(found, radii)
    np.testing.assert_allclose(accuracy, [75, 50, 50, 25, 25])


def test_curves_and_a_walk_along_the_boundary_of_a_linear_net(tmp_path):
    # Two classes: both distances are |score| over the dual norm of the weights.
    difference = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    net = _linear(np.stack([0 * difference, difference], axis=1), np.array([0.0, 0.0]))
    x, _ = _set(16)
    score = x.reshape(len(x), -1) @ difference
    y = (score > 0).astype(np.int64)
    l2 = np.abs(score) / np.linalg.norm(difference)
    linf = np.abs(score) / np.abs(difference).sum()
    radii_2 = np.array([0.02, 0.1, 0.2], np.float32)
    radii_inf = np.array([0.01, 0.05, 0.1], np.float32)
    found = beyond.measure(
        _work(tmp_path), net, x, y,
        linf=radii_inf, l2=radii_2, steps=20, queries=300, at=(1,),
    )  # fmt: skip
    # Pixels are bounded, so that the true distance is no less than without bounds.
    unbounded = [100 * np.mean(l2 > r) for r in radii_2]
    np.testing.assert_allclose(found['l2'], unbounded, atol=7)
    assert (found['l2'] >= np.array(unbounded) - 1e-3).all()
    exact = [100 * np.mean(linf > r) for r in radii_inf]
    np.testing.assert_allclose(found['linf'], exact, atol=7)
    assert (found['decisions'] >= found['l2'] - 5).all()
    assert (np.diff(found['decisions']) <= 0).all()
    assert found['square'].shape == (1,)
    assert found['square'][0] >= unbounded[1] - 1e-3
    assert np.median(l2) <= found['distance'] < 3 * np.median(l2)


def test_masking_is_judged_where_it_is_widest():
    linf, l2 = np.arange(13) / 8, np.arange(13.0)
    curves = {
        'linf': np.linspace(100, 0, 13),
        'l2': np.linspace(100, 40, 13),
        'decisions': np.linspace(100, 40, 13),
        'square': np.array([90.0, 50.0]),
        'distance': np.array(2.0),
    }
    curves['decisions'][5] -= 30
    found = beyond.findings(curves, linf, l2, (2, 4), 100, 20)
    walk = _one(found, 'boundary attack (100 decisions)')
    assert walk.measured == pytest.approx(30)
    assert ' 5:' in walk.what
    assert walk.verdict == 'holds'
    square = _one(found, 'Square (100 scores)')
    assert square.measured == pytest.approx(30)
    assert ' 4:' in square.what
    assert _one(found, 'radius of training').measured == curves['linf'][8]
    assert '1,' in _one(found, 'radius of training').what
    assert _one(found, 'L2 PGD at 9').measured == pytest.approx(curves['l2'][9])
    honest = dict(curves, decisions=curves['l2'] + 5, square=np.array([95.0, 90.0]))
    again = beyond.findings(honest, linf, l2, (2, 4), 100, 20)
    assert _one(again, 'boundary attack (100').verdict == 'outside'
    assert _one(again, 'Square').verdict == 'outside'


def test_filters_of_one_weight_are_recognised():
    natural = np.ones((8, 3, 3))
    robust = np.zeros((8, 3, 3))
    robust[:3, 1, 1] = [2.0, -1.0, 1.0]
    robust[3, 0, 0] = 0.01
    found = filters.findings({
        'natural filters': natural, 'robust filters': robust,
        'natural bias': np.arange(10.0), 'robust bias': 3 * np.arange(10.0),
    })  # fmt: skip
    assert _one(found, 'robust net: filters', 'in use').measured == 3
    assert _one(found, 'natural net: filters', 'in use').measured == 8
    assert _one(found, 'robust net: share').measured == pytest.approx(100)
    assert _one(found, 'natural net: share').measured == pytest.approx(100 / 9)
    assert _one(found, 'biases').measured == pytest.approx(3)
    assert all(c.verdict != 'outside' for c in found.claims)


def test_filters_come_from_the_first_layer():
    model = zoo.fast_mnist()
    net = models.logits_fn(model, model.init(jax.random.key(0))[0])
    found = filters.measure({'robust': net})
    kernel = net.args[0]['conv1']['kernel']
    assert found['robust filters'].shape == (16, 4, 4)
    np.testing.assert_array_equal(found['robust filters'][5], kernel[:, :, 0, 5])
    np.testing.assert_array_equal(found['robust bias'], net.args[0]['out']['bias'])


def test_no_claim_that_gates_rests_on_an_unread_figure():
    parts = [
        landscape.findings(_planted(2.0, 88.0, 1.4, 0.7)),
        capacity.findings(
            _grid([11.0, 11, 97], [0.0, 1, 2], [2.3, 2.3, 0.4]), (1, 2, 4), 700
        ),
    ]
    for part in parts:
        for claim in part.claims:
            assert claim.tag in ('R', 'C', 'D')
            assert claim.band is None or claim.paper, claim


def test_all_presets_are_of_one_kind():
    kinds = {type(config) for config in STUDY.presets.values()}
    assert len(kinds) == 1
    assert set(STUDY.presets) == {'cpu', 'paper', 'smoke'}


# The charts it is drawn with.


def test_an_open_end_of_an_axis_is_where_the_data_ends():
    figure = charts.lines(
        [charts.Line('a', [0, 1], [40.0, 70.0])],
        y=charts.Axis('loss', limits=(0, None)),
    )
    low, high = figure.axes[0].get_ylim()
    assert low == 0
    assert high >= 70


def test_labels_of_logarithmic_axes_are_numbers():
    figure = charts.lines(
        [charts.Line('a', [0, 1], [0.1, 70.0])], y=charts.Axis('loss', 'log')
    )
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert '10' in labels
    assert not any('$' in label for label in labels)
