"""Evaluation believes nothing: what attacks claim is checked, input is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, evaluation, linf, losses, models, zoo
from advjax.evaluation import CLEAN_ERROR, ROBUST, evaluate, robustness_curve
from advjax.types import dataclass
from tests.contract import CLASSES, KEY, images, network

X, Y = (np.asarray(a) for a in images(batch=23))
Y = np.where(np.arange(23) % 6 == 0, (Y + 1) % CLASSES, Y)  # Some clean errors.
F = network(scale=2.0)
PGD = attacks.pgd(linf(0.05), 4)


def report(f, x, y, attacks, key, **kwargs):
    return evaluate(f, x, y, attacks, key=key, **{'batch_size': 8, **kwargs})


def test_accuracy_is_the_worst_case_over_attacks_with_clean_errors_as_errors():
    named = {'fgsm': attacks.fgsm(0.05), 'pgd': PGD}
    e = report(F, X, Y, named, KEY)
    right = np.asarray(jnp.argmax(F(X), axis=1)) == Y
    np.testing.assert_array_equal(e.clean_correct, right)
    assert 0 < right.mean() < 1
    assert e.clean_accuracy == right.mean()
    broken = e.success.any(axis=0)
    assert 0 < broken.sum() < right.sum()
    np.testing.assert_array_equal(e.robust, right & ~broken)
    assert e.robust_accuracy == (right & ~broken).mean()
    assert e.robust_accuracy <= min(e.accuracy(n) for n in named) <= e.clean_accuracy
    np.testing.assert_array_equal(e.broken_by == CLEAN_ERROR, ~right)
    np.testing.assert_array_equal(e.broken_by == ROBUST, e.robust)
    first = e.success.argmax(axis=0)
    np.testing.assert_array_equal(e.broken_by[broken], first[broken])


def test_the_kept_adversarial_is_verified_and_worst():
    e = report(F, X, Y, {'fgsm': attacks.fgsm(0.05), 'pgd': PGD}, KEY)
    broken = e.success.any(axis=0)
    answers = np.argmax(F(e.worst), axis=1)
    assert (answers[broken] != Y[broken]).all()
    np.testing.assert_array_equal(e.prediction, answers)
    np.testing.assert_array_equal(e.worst[~e.clean_correct], X[~e.clean_correct])
    moved = np.abs(e.worst - X).reshape(23, -1).max(1) > 0
    assert moved[e.clean_correct].all()  # Also the near misses.
    at = np.asarray(losses.margin(F(e.worst), jnp.asarray(Y)))
    worst = np.where(e.success, e.margin, -np.inf).max(axis=0)
    np.testing.assert_allclose(at[broken], worst[broken], rtol=1e-4)
    missed = e.robust
    np.testing.assert_allclose(at[missed], e.margin.max(axis=0)[missed], rtol=1e-4)
    distance = np.abs(e.worst - X).reshape(23, -1).max(1)
    assert (distance <= 0.05 + 1e-6).all()


def test_calls_are_those_declared_and_clean_errors_cost_none():
    def own(logits_fn, key, x, y):
        return x

    e = report(F, X, Y, {'pgd': PGD, 'own': own}, KEY, ball=linf(0.05))
    assert (e.calls[0] == np.where(e.clean_correct, 5, 0)).all()
    assert (e.calls[1] == np.where(e.clean_correct, -1, 0)).all()


def test_a_cheating_attack_is_rejected():
    """Outside the ball or the range a fooled model does not count."""

    def beyond(logits_fn, key, x, y):
        return x + 0.06 * jnp.sign(jax.grad(_loss(logits_fn, y))(x))

    def out_of_range(logits_fn, key, x, y):
        return x + 0.9 * jnp.sign(jax.grad(_loss(logits_fn, y))(x))

    def nan(logits_fn, key, x, y):
        return jnp.full_like(x, jnp.nan)

    honest = report(F, X, Y, attacks.fgsm(0.06), KEY)
    assert honest.success.sum() > 0
    e = report(F, X, Y, {'beyond': beyond}, KEY, ball=linf(0.05))
    assert e.success.sum() == 0
    assert e.rejected.sum() == honest.success.sum()
    np.testing.assert_allclose(e.norm[0][e.clean_correct], 0.06, atol=1e-6)
    count = e.rejected.sum()
    outside = int((e.rejected & ~e.in_range).sum())
    assert f'0 verified, {count} REJECTED: {count - outside} outside the ball' in str(e)
    e = report(F, X, Y, {'far': out_of_range}, KEY, ball=linf(1.0))
    assert e.success.sum() == 0
    assert f'{e.rejected.sum()} outside the range\n' in str(e)
    assert 'REJECTED' not in str(honest)
    assert not e.in_range[0][e.clean_correct].any()
    e = report(F, X, Y, {'nan': nan}, KEY, ball=linf(0.05))
    assert e.success.sum() == 0
    assert (e.rejected[0] == e.clean_correct).all()


@pytest.mark.parametrize('norm', ['linf', 'l2', 'l1'])
@pytest.mark.parametrize('scale', [1e-3, 255.0, 65535.0])
def test_verdicts_do_not_depend_on_the_scale_of_the_pixels(norm, scale):
    """[0, 255] and [0, 1] are one threat model."""
    eps = {'linf': 0.05, 'l2': 0.2, 'l1': 0.8}[norm]
    found = []
    for times in (1.0, scale):
        ball = balls.of_norm(norm, eps * times, (0.0, times))
        model = jax.tree_util.Partial(_scaled, F, times)
        x = np.clip(X * np.float32(times), 0, np.float32(times))
        found.append(report(model, x, Y, attacks.pgd(ball, 6), KEY))
    assert not found[1].rejected.any()
    assert found[0].success.sum() > 0
    assert abs(int(found[0].success.sum()) - int(found[1].success.sum())) <= 1


def _scaled(f, times, x):
    return f(x / times)


def test_infinite_answers_that_tie_are_wrong_and_said_so():
    """As are logits of float16 that overflow."""

    def overflows(x):
        return (F(x) * 1e6).astype(jnp.float16)

    def infinite(x):
        return jnp.full((len(x), CLASSES), jnp.inf)

    for model in (overflows, infinite):
        e = report(model, X, 0 * Y, attacks.fgsm(0.01), KEY)
        answers = np.asarray(model(X))
        tied = (answers == np.inf).sum(axis=1) > 1
        assert not e.clean_correct[tied].any()
        assert f'{(~e.finite).any(0).sum()} images with infinite or NaN logits' in str(
            e
        )
    assert e.clean_accuracy == 0


def test_a_model_that_sees_the_batch_is_noticed():
    def normalised(x):
        z = F(x)
        return z - 2 * jnp.mean(z[: len(z) // 2], axis=0, keepdims=True)

    with pytest.warns(UserWarning, match='differently among other images'):
        report(normalised, X, Y, attacks.fgsm(0.01), KEY)


def test_frozen_randomness_is_noticed():
    rng = np.random.default_rng(0)

    def noisy(x):
        return F(x + np.float32(0.01 * rng.normal(size=x.shape)))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        report(noisy, X, Y, attacks.fgsm(0.01), KEY)
    assert any('draws from NumPy or Python' in str(each.message) for each in told)


def test_functions_made_anew_for_every_evaluation_are_noticed():
    def factory(seed):
        return lambda x: network(seed)(x)

    def evaluated(model):
        evaluate(model, X[:2], Y[:2], attacks.fgsm(0.01), key=KEY)

    one = factory(0)
    for _ in range(3):
        evaluated(one)
    evaluated(factory(1))
    with pytest.warns(UserWarning, match='factory.* is made anew .*Partial'):
        evaluated(factory(2))
    evaluated(factory(3))  # Said once.
    for seed in range(4):  # What the library makes holds its weights as arguments.
        model = zoo.mlp((4, 5, 1), CLASSES, (4 + seed,))
        evaluated(models.logits_fn(model, *model.init(jax.random.key(0))))


def test_the_name_of_an_attack_chooses_its_draws():
    e = report(F, X, Y, {'a': PGD, 'b': PGD}, KEY)
    assert (e.margin[0] != e.margin[1])[e.clean_correct].any()
    again = report(F, X, Y, {'b': PGD}, KEY)
    np.testing.assert_array_equal(again.margin[0], e.margin[1])


def test_one_image_is_a_batch_of_one():
    seen = []

    def model(x):
        seen.append(x.shape[0])
        return F(x)

    evaluate(model, X[:1], Y[:1], attacks.fgsm(0.01), key=KEY)
    assert max(seen) <= 2  # Two where the classes are counted.


def _loss(logits_fn, y):
    return lambda x: losses.cross_entropy(logits_fn(x), y).sum()


def test_verification_does_not_use_the_code_that_attacks_project_with(monkeypatch):
    monkeypatch.setattr(balls.Linf, 'norm', lambda self, delta: jnp.zeros(len(delta)))
    monkeypatch.setattr(balls.Linf, 'contains', lambda self, x, x0: True)
    monkeypatch.setattr(balls.Linf, 'project', lambda self, x, x0: jnp.clip(x, 0, 1))
    jax.clear_caches()
    e = report(F, X, Y, attacks.pgd(linf(0.05), 9), KEY)
    jax.clear_caches()
    assert e.success.sum() == 0
    assert e.rejected.sum() > 0


@pytest.mark.parametrize(
    ('ball', 'definition'),
    [
        (balls.linf(0.1), lambda d: np.abs(d).max()),
        (balls.l2(0.3), lambda d: np.sqrt((d**2).sum())),
        (balls.l1(1.0), lambda d: np.abs(d).sum()),
        (balls.l0(3), lambda d: (d != 0).sum()),
    ],
)
def test_norms_are_measured_by_definition(ball, definition):
    e = report(F, X, Y, attacks.pgd(ball, 3), KEY)
    x_adv = np.asarray(ball.sample(KEY, jnp.asarray(X)))
    seen = evaluation.verify(F, ball, X, Y, x_adv)
    for i in range(4):
        d = x_adv[i].astype(np.float64) - X[i]
        assert seen.norm[i] == pytest.approx(definition(d), abs=1e-12)
    assert seen.inside.all()
    assert seen.in_range.all()
    assert (e.norm[e.success] <= float(ball.eps) * (1 + 1e-5)).all()


def test_the_verdict_does_not_depend_on_batch_order_or_company():
    named = {
        'pgd': PGD,
        'restarts': attacks.restarts(attacks.pgd(linf(0.05), 2), 2),
    }
    whole = report(F, X, Y, named, KEY)
    part = np.array([17, 3, 22, 8, 1])
    some = report(F, X[part], Y[part], named, KEY, ids=part)
    np.testing.assert_array_equal(some.success, whole.success[:, part])
    # A smaller batch is another program, which may round otherwise.
    np.testing.assert_allclose(some.margin, whole.margin[:, part], rtol=1e-5)
    order = np.arange(23)[::-1].copy()
    back = report(F, X[order], Y[order], named, KEY, ids=order)
    np.testing.assert_array_equal(back.worst, whole.worst[order])


def test_another_attack_in_the_list_changes_nothing():
    alone = report(F, X, Y, {'pgd': PGD}, KEY)
    after = report(F, X, Y, {'fgsm': attacks.fgsm(0.05), 'pgd': PGD}, KEY)
    np.testing.assert_array_equal(alone.margin[0], after.margin[1])


def test_no_example_is_dropped():
    for batch_size in (1, 7, 23, 64):
        e = evaluate(F, X, Y, attacks.fgsm(0.05), key=KEY, batch_size=batch_size)
        assert len(e.robust) == 23
        assert (
            e.robust_accuracy
            == report(F, X, Y, attacks.fgsm(0.05), KEY).robust_accuracy
        )


def test_radius_zero_is_clean_accuracy_and_large_radius_is_no_accuracy():
    assert report(F, X, Y, attacks.pgd(0.0, 3), KEY).robust_accuracy == pytest.approx(
        (np.argmax(F(X), axis=1) == Y).mean()
    )
    assert report(F, X, Y, attacks.pgd(1.0, 20), KEY).robust_accuracy == 0


def test_radii_per_example():
    eps = np.where(np.arange(23) < 12, 0.0, 0.3).astype(np.float32)
    e = report(F, X, Y, attacks.pgd(linf(eps), 8), KEY)
    assert e.success[0, :12].sum() == 0
    assert e.success[0, 12:].sum() > 0
    assert (e.norm[0, 12:][e.success[0, 12:]] > 0.05).any()


def _nan_logits(x):
    return jnp.full((x.shape[0], CLASSES), jnp.nan)


def test_nan_logits_are_no_answer():
    e = report(_nan_logits, X, Y, PGD, KEY)
    assert e.clean_accuracy == e.robust_accuracy == 0


def test_logits_that_turn_nan_under_attack_are_wrong_and_reported():
    x, y = np.repeat(X[1:2], 3, 0), np.repeat(Y[1:2], 3)

    def model(x):
        moved = jnp.abs(x - jnp.asarray(X[1:2])).max((1, 2, 3))[:, None] > 0
        return jnp.where(moved, jnp.nan, F(x))

    e = report(model, x, y, attacks.fgsm(0.05), KEY)
    assert e.clean_correct.all()
    assert e.success.all()
    assert not e.finite.any()


def test_summary_and_table():
    e = report(F, X, Y, {'fgsm': attacks.fgsm(0.05), 'pgd': PGD}, KEY)
    summary = e.summary()
    assert summary['robust_accuracy'] == e.robust_accuracy
    assert [a['name'] for a in summary['attacks']] == ['fgsm', 'pgd']
    assert summary['attacks'][1]['verified'] == int(e.success[1].sum())
    assert 0.04 < summary['attacks'][0]['max_norm'] <= 0.05 + 1e-6
    assert f'{e.robust_accuracy:.2%}' in str(e).splitlines()[-1]
    with pytest.raises(ValueError, match="'square'"):
        e.accuracy('square')


BAD = [
    ({'x': (X * 255).astype(np.uint8)}, r'x must hold float images, got uint8'),
    ({'x': X.astype(np.float16)}, 'x must be float32, got float16'),
    ({'x': X * 255}, r'bounds \[0, 1\].*normalis'),
    ({'x': X - 0.5}, r'x must lie in the bounds'),
    ({'x': np.where(np.arange(23)[:, None, None, None] == 5, np.nan, X)}, 'index 5'),
    ({'x': X[:0], 'y': Y[:0]}, r'N >= 1, got shape \(0, 4, 5, 1\)'),
    ({'y': Y[:-1]}, r'y must have shape \(23,\).*got \(22,\)'),
    ({'y': Y + CLASSES}, r'y must lie in 0\.\.3'),
    ({'y': Y - 9}, 'y must lie in'),
    ({'y': Y.astype(np.float32)}, 'integer labels, got float32'),
    ({'y': np.eye(23)[:, :4]}, r'y must have shape'),
    ({'attacks': {}}, 'attacks must be'),
    ({'attacks': {'pgd': 'pgd'}}, "'pgd'"),
    (
        {'attacks': attacks.pgd(balls.Linf(jnp.float32(-1)), 2)},
        'eps must be >= 0, got -1',
    ),
    ({'attacks': attacks.pgd(linf(np.ones(5)), 2)}, r'\(23,\).*got \(5,\)'),
    (
        {'attacks': {'a': attacks.fgsm(0.1), 'b': attacks.fgsm(0.2)}},
        'ball must be given',
    ),
    ({'attacks': lambda f, k, x, y: x}, 'ball must be given.*none'),
    ({'attacks': lambda f, k, x, y: x[:2], 'ball': linf(0.1)}, 'array like x'),
    ({'logits_fn': lambda x: x.sum((1, 2, 3))}, r'\(B, K\) logits'),
    ({'batch_size': 0}, 'batch_size .* got 0'),
    ({'ids': np.arange(3)}, r'ids must be integers of shape \(23,\)'),
    ({'ids': np.arange(23.0)}, 'got float64'),
    ({'key': jax.random.split(KEY, 23)}, r'key must be one key.*\(23,\)'),
]


@pytest.mark.parametrize(('change', 'words'), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_refused_by_name(change, words):
    arguments = {'logits_fn': F, 'x': X, 'y': Y, 'attacks': PGD, 'key': KEY, **change}
    with pytest.raises(ValueError, match=words):
        evaluate(**arguments)


@dataclass
class Push:
    """An attack that always goes the whole way in one direction."""

    ball: balls.Linf

    def __call__(self, logits_fn, key, x, y):
        return x + self.ball.eps


class TestCurve:
    radii = np.linspace(0, 0.3, 16)

    def test_is_monotone_and_starts_at_clean_accuracy(self):
        curve = robustness_curve(F, X, Y, PGD, self.radii, key=KEY, batch_size=8)
        assert curve.accuracy[0] == pytest.approx((np.argmax(F(X), axis=1) == Y).mean())
        assert (np.diff(curve.accuracy) <= 0).all()
        assert curve.accuracy[-1] < curve.accuracy[0]

    def test_is_monotone_even_where_the_search_is_not(self):
        """A model that is wrong only in a thin shell, and an attack that overshoots."""

        def shell(x):
            far = jnp.abs(x - 0.5).mean((1, 2, 3), keepdims=True)[:, :, 0, 0]
            return jnp.concatenate([0.1 + 0 * far, (far > 0.1) & (far < 0.3)], axis=1)

        grey, zero = np.full_like(X, 0.5), np.zeros(23, np.int32)
        radii = [0.05, 0.2, 0.4]
        searched = [
            report(shell, grey, zero, Push(linf(r)), KEY).robust_accuracy for r in radii
        ]
        assert searched == [1, 0, 1]
        curve = robustness_curve(
            shell, grey, zero, Push(linf(0.1)), radii, key=KEY, batch_size=8
        )
        assert curve.accuracy.tolist() == [1, 0, 0]

    def test_agrees_with_one_evaluation_per_radius(self):
        """The same draws at one radius: the curve's first broken radii agree."""
        radii = [0.02, 0.05, 0.1]
        deterministic = attacks.bim(linf(0.1), 4)
        curve = robustness_curve(F, X, Y, deterministic, radii, key=KEY, batch_size=8)
        by_hand = np.zeros(23, bool)
        for r, eps in enumerate(radii):
            e = report(F, X, Y, attacks.bim(linf(eps), 4), KEY)
            by_hand |= ~e.robust
            np.testing.assert_array_equal(curve.broken[r], by_hand)

    def test_sixteen_radii_are_one_program(self):
        traces = []

        def counted(x):
            traces.append(x.shape)
            return F(x)

        robustness_curve(counted, X, Y, PGD, self.radii, key=KEY, batch_size=8)
        once = len(traces)
        traces.clear()
        robustness_curve(counted, X, Y, PGD, self.radii / 2, key=KEY, batch_size=8)
        assert once > 0
        assert len(traces) <= 1  # The shape check alone; nothing is compiled again.

    @pytest.mark.parametrize(
        'radii', [[0.2, 0.1], [-0.1, 0.1], [], [[0.1]], [0.1, 0.1]]
    )
    def test_bad_radii(self, radii):
        with pytest.raises(ValueError, match='radii must ascend'):
            robustness_curve(F, X, Y, PGD, radii, key=KEY)

    def test_attack_without_a_ball(self):
        with pytest.raises(ValueError, match='hold a ball of one norm'):
            robustness_curve(F, X, Y, lambda f, k, x, y: x, [0.1], key=KEY)


def _nan_when_moved(x):
    moved = jnp.abs(x - 0.5).max((1, 2, 3))[:, None] > 0.02
    return jnp.where(moved, jnp.nan, jnp.array([[1.0, 0.0]]) + 0 * x.mean())


@pytest.mark.parametrize('keep_best', [False, True])
def test_nan_logits_are_wrong_whichever_iterate_is_kept(keep_best):
    grey, zero = np.full_like(X, 0.5), np.zeros(23, np.int32)
    attack = attacks.pgd(linf(0.3), 4, keep_best=keep_best)
    e = report(_nan_when_moved, grey, zero, attack, KEY)
    assert e.clean_accuracy == 1
    assert e.robust_accuracy == 0
