"""APGD and its L1 form, iterate by iterate, against the NumPy transcriptions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, keys, losses
from advjax.attacks import apgd_l1 as l1_module
from advjax.attacks.apgd import checkpoints, surface
from advjax.attacks.search import nothing
from tests import contract, reference, reference_attacks

BATCH, SIZE, HIDDEN, CLASSES = 4, 12, 16, 5
KEY = jax.random.key(11)
MOST = 100

# Steep enough to be curved inside a ball too small for the label to be third, where
# DLR is constant and its gradient nothing but rounding.
SEED, STEEP = 3, 4.0

LOSSES = {
    'ce': (losses.cross_entropy, reference.cross_entropy, False),
    'dlr': (losses.dlr, reference.dlr, False),
    'targeted dlr': (losses.dlr, reference.targeted_dlr, True),
}
SLOPES = {
    'ce': reference.cross_entropy_gradient,
    'dlr': reference.dlr_gradient,
    'targeted dlr': reference.targeted_dlr_gradient,
}
NORMS = {
    'linf': (balls.linf(0.1), {'norm': 'linf'}),
    'l2 unbounded': (balls.l2(0.5, bounds=None), {'norm': 'l2', 'box': None}),
    'l2': (balls.l2(0.5), {'norm': 'l2', 'project': reference.project_l2_box}),
}


def _tanh(params, x):
    return jnp.tanh(x @ params['w1'].T + params['b1']) @ params['w2'].T


class Tanh:
    """The same network in NumPy, z = W2 tanh(W1 x + b1)."""

    def __init__(self, w1, b1, w2):
        self.w1, self.b1, self.w2 = (np.float64(a) for a in (w1, b1, w2))

    def logits(self, x):
        return np.tanh(np.float64(x) @ self.w1.T + self.b1) @ self.w2.T

    def input_gradient(self, x, cotangent):
        hidden = np.tanh(np.float64(x) @ self.w1.T + self.b1)
        return ((cotangent @ self.w2) * (1 - hidden**2)) @ self.w1


@functools.cache
def problem(seed=SEED):
    """One smooth model twice, images, labels, other classes and unit directions."""
    rng = np.random.default_rng(seed)
    params = {
        'w1': STEEP * rng.normal(size=(HIDDEN, SIZE)) / SIZE**0.5,
        'b1': 0.3 * rng.normal(size=(1, HIDDEN)),
        'w2': rng.normal(size=(CLASSES, HIDDEN)),
    }
    model = Tanh(**params)
    x = rng.uniform(0.02, 0.98, (BATCH, SIZE))
    y = model.logits(x).argmax(axis=1)
    target = (y + rng.integers(1, CLASSES, BATCH)) % CLASSES
    f = jax.tree_util.Partial(_tanh, params)
    return model, f, x, y, target, rng.uniform(-1, 1, x.shape)


def start_of(ball, x, direction):
    """A point on the surface of the ball, moved into the range."""
    norm = np.abs(direction).max(1) if ball.norm_name == 'linf' else None
    norm = np.sqrt((direction**2).sum(1)) if norm is None else norm
    point = x + 0.9 * np.asarray(ball.eps) * direction / norm[:, None]
    return point if ball.bounds is None else np.clip(point, *ball.bounds)


def given(ball, key, x0):
    """Starts where the key was drawn for; the tests replace it by a constant."""
    raise AssertionError('the recorded runs are given their start')


@jax.jit
def recorded(attack, f, x, y, target, start, gaps):
    """Every iterate of Apgd.init, move and check; its state before each check."""
    objective = attacks.goal(f, y, target, loss=attack.loss)
    each = keys.per_example(KEY, x.shape[0])
    beginning = attack.replace(start=lambda ball, key, x0: start)
    state = beginning.init(objective, each, x)

    def body(state, gap):
        size = state.size
        moved = attack.move(objective, x, state)
        checked = attack.check(moved, gap)
        halved = checked.size < moved.size
        return checked, (moved.x, moved.value, size, halved)

    last, rows = jax.lax.scan(body, state, gaps)
    return (state.x, state.value), rows, last


def oracle(name, model, y, target):
    value, slope = LOSSES[name][1], SLOPES[name]
    aim = (target,) if LOSSES[name][2] else ()

    def both(x):
        z = model.logits(x)
        return value(z, y, *aim), model.input_gradient(x, slope(z, y, *aim))

    return both


def compared(norm, name, steps, rho=0.75):
    """The library's record and the transcription's, of one run."""
    model, f, x, y, target, direction = problem()
    ball, options = NORMS[norm]
    aim = jnp.asarray(target) if LOSSES[name][2] else None
    attack = attacks.apgd(ball, MOST, LOSSES[name][0], rho, start=given)
    start = start_of(ball, x, direction)
    gaps = np.zeros(MOST, np.int32)
    gaps[:steps] = checkpoints(steps)
    # In float64 no comparison of two losses hangs on a rounding error.
    with jax.enable_x64(True):
        (first, value), rows, last = recorded(attack, f, x, y, aim, start, gaps)
    run = reference_attacks.apgd(
        oracle(name, model, y, target),
        x,
        start,
        float(ball.eps),
        steps,
        rho=rho,
        **options,
    )
    iterates, values, sizes, halved = (np.asarray(r)[:steps] for r in rows[:4])
    iterates = np.concatenate([np.asarray(first)[None], iterates])
    values = np.concatenate([np.asarray(value)[None], values])
    return run, iterates, values, sizes, halved, last


def clear(run, norm):
    """Which decisions hang on no rounding error, (checkpoints, B).

    An L2 run that has converged climbs by less than the rounding of its loss. In Linf
    a corner visited twice is the same point to the last bit.
    """
    rises = np.abs(np.diff(run.losses, axis=0))
    best = np.maximum.accumulate(run.losses)[[0, *run.checkpoints]]
    vague = (rises < 1e-13) & ((rises > 0) | (norm != 'linf'))
    gained = np.diff(best, axis=0)
    vague_gain = (gained > 0) & (gained < 1e-13)
    before = np.maximum.accumulate(vague)[np.array(run.checkpoints) - 1]
    return ~before & ~np.maximum.accumulate(vague_gain)


def same_decisions(run, norm, halved, sizes):
    at = np.array(run.checkpoints) - 1
    sure = clear(run, norm)
    assert sure.any()
    np.testing.assert_array_equal(halved[at][sure], run.reset[sure])
    assert not np.delete(halved, at, axis=0).any()
    # The size after a checkpoint is as sure as the decision.
    known = np.ones(sizes.shape, bool)
    for row, n in zip(sure, at, strict=True):
        known[n + 1 :] &= row[None]
    np.testing.assert_allclose(sizes[known], run.step_sizes[known], rtol=1e-6)
    return known


@pytest.mark.parametrize('steps', [20, 50, 100])
@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('norm', NORMS)
def test_iterates_are_those_of_the_transcription(norm, name, steps):
    run, iterates, values, sizes, halved, _ = compared(norm, name, steps)
    at = np.flatnonzero(checkpoints(steps)) + 1
    np.testing.assert_array_equal(at, run.checkpoints)
    same_decisions(run, norm, halved, sizes)
    np.testing.assert_allclose(iterates, run.iterates, atol=1e-4)
    np.testing.assert_allclose(values, run.losses, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('norm', NORMS)
def test_the_runs_go_both_ways_at_checkpoints(norm, name):
    """Else the comparison above could not tell a condition from its absence."""
    run, iterates, _, sizes, halved, last = compared(norm, name, 100, rho=0.25)
    assert run.reset.any()
    assert not run.reset.all()
    known = same_decisions(run, norm, halved, sizes)
    if norm != 'linf':  # In L2 a vague decision comes with steps too small to matter.
        known = np.ones_like(known)
    np.testing.assert_allclose(
        iterates[1:][known], np.asarray(run.iterates)[1:][known], atol=1e-4
    )
    end = known[-1]
    assert end.any()
    np.testing.assert_allclose(last.best[end], run.best[end], atol=1e-4)
    np.testing.assert_allclose(
        last.best_value[end], run.best_loss[end], atol=1e-4, rtol=1e-4
    )


def test_checkpoints():
    gaps = checkpoints(100)
    np.testing.assert_array_equal(
        np.flatnonzero(gaps) + 1, [22, 41, 57, 70, 80, 87, 93, 99]
    )
    np.testing.assert_array_equal(gaps[gaps > 0], [22, 19, 16, 13, 10, 7, 6, 6])
    for steps in (1, 2, 3, 5, 10, 33, 100, 1000):
        gaps = checkpoints(steps)
        at = reference_attacks.apgd_checkpoints(steps)
        np.testing.assert_array_equal(np.flatnonzero(gaps) + 1, at)
        np.testing.assert_array_equal(gaps[gaps > 0], np.diff([0, *at]))
        assert gaps.shape == (steps,)


# ------------------------------------------------------------------------- the whole

WHOLE = [balls.linf(0.08), balls.l2(0.25), balls.l1(0.6)]
kinds = pytest.mark.parametrize('ball', WHOLE, ids=lambda ball: ball.norm_name)


def at_points(objective, x0):
    """Every point that ``maximize`` evaluates: the objective is asked for all."""
    seen = []

    def recording(x):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x, ordered=True)
        return objective(x)

    return recording, seen


@kinds
def test_the_result_is_the_evaluated_point_of_largest_margin(ball):
    f, (x, y) = contract.network(), contract.images()
    recording, seen = at_points(f, x)
    attack = attacks.apgd(ball, 20, losses.cross_entropy)
    adv = jax.jit(lambda x, y: attack(recording, KEY, x, y))(x, y)
    jax.effects_barrier()
    assert len(seen) == attack.calls
    if ball.norm_name == 'l1':  # The larger radii do not count.
        seen = [p for p in seen if np.asarray(ball.contains(p, x)).all()]
        assert len(seen) >= 9
    margins = np.stack([contract.margin(f, p, y) for p in seen])
    best = margins.argmax(axis=0)
    np.testing.assert_allclose(contract.margin(f, adv, y), margins.max(0), atol=1e-5)
    picked = np.stack([seen[n][i] for i, n in enumerate(best)])
    np.testing.assert_allclose(adv, picked, atol=1e-6)
    assert (best < len(seen) - 1).any()  # Not simply the last.


@kinds
def test_dlr_does_not_care_about_the_scale_of_logits(ball):
    x, y = contract.images(seed=5)
    y = y.at[0].set((y[0] + 1) % contract.CLASSES)  # One is wrong from the start.
    attack = attacks.apgd(ball, 20, losses.dlr)
    verdicts, points = [], []
    for scale in (1.0, 1024.0, 1e3):  # A power of two changes no rounding either.
        adv = contract.run(attack, contract.network(scale=scale), KEY, x, y)
        verdicts.append(contract.margin(contract.network(), adv, y) > 0)
        points.append(np.asarray(adv))
    np.testing.assert_array_equal(verdicts[1:], verdicts[:1] * 2)
    np.testing.assert_allclose(points[1], points[0], atol=1e-5)
    assert len(set(verdicts[0])) == 2


@pytest.mark.parametrize('eps', [0.2, np.linspace(0.1, 0.6, contract.BATCH)])
@pytest.mark.parametrize('make', [balls.linf, balls.l2])
def test_the_start_lies_on_the_surface(make, eps):
    x, _ = contract.images()
    each = keys.per_example(KEY, contract.BATCH)
    free, bounded = make(eps, bounds=None), make(eps)
    point = surface(free, each, x)
    np.testing.assert_allclose(free.norm(point - x), np.broadcast_to(eps, 6), rtol=1e-5)
    inside = surface(bounded, each, x)
    assert np.asarray(bounded.contains(inside, x)).all()
    middle = jnp.full_like(x, 0.5)
    if make is balls.linf and np.ndim(eps) == 0:
        at = surface(bounded, each, middle)
        np.testing.assert_allclose(bounded.norm(at - middle), eps, rtol=1e-6)
        # Uniform on a cube scaled to the surface, not a corner.
        assert np.unique(np.abs(at - middle).round(5)).size > 20
    # Examples draw for themselves.
    alone = surface(bounded, each[2:3], x[2:3]) if np.ndim(eps) == 0 else inside[2:3]
    np.testing.assert_allclose(alone, inside[2:3], atol=1e-6)


@kinds
def test_calls_are_counted(ball):
    for steps in (1, 7, 10, 33):
        attack = attacks.apgd(ball, steps)
        assert attack.calls == steps + (
            3 if ball.norm_name == 'l1' and steps > 2 else 1
        ) or (ball.norm_name == 'l1' and steps == 1 and attack.calls == 6)


def test_rho_decides_the_halvings():
    """With rho = 1 every checkpoint halves; with rho = 0 only those that are stuck."""
    _, f, x, y, _, direction = problem()
    ball = NORMS['linf'][0]
    start, gaps = start_of(ball, x, direction), checkpoints(MOST)
    always, rarely = (
        recorded(
            attacks.apgd(ball, MOST, start=given, rho=rho), f, x, y, None, start, gaps
        )[1][3]
        for rho in (1.0, 0.0)
    )
    assert np.asarray(always)[gaps > 0].all()
    assert not np.asarray(rarely)[np.flatnonzero(gaps)[0]].any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'ball': balls.l0(3)}, 'ball of apgd must be one of .*got L0'),
        ({'steps': 0}, 'steps must be an integer >= 1, got 0'),
        ({'steps': 2.5}, 'steps must be an integer >= 1, got 2.5'),
        ({'rho': 1.5}, r'rho must lie in \[0, 1\], got 1.5'),
        ({'loss': 'dlr'}, "loss must be a function, got 'dlr'"),
        ({'ball': balls.l1(1.0), 'start': surface}, 'start must be None in an L1 ball'),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attacks.apgd(**{'ball': 0.1, **options})


# -------------------------------------------------------------------------------- L1

# Here no coordinate comes back to its place but for a rounding error.
L1 = balls.l1(1.0)


@jax.jit
def recorded_l1(attack, f, key, x0, y, start):
    """Every iterate of one radius, by ApgdL1.init, move, begin and check."""
    objective = attacks.goal(f, y, loss=attack.loss)
    each = keys.per_example(key, x0.shape[0])
    state = attack.init(objective, each, x0)._replace(best=start)
    radius = balls.radius(attack.ball, x0)

    def body(state, row):
        size, density = state.size, state.density
        moved = attack.move(objective, x0, state, attack.ball, row)
        begun, checked = (at(moved, x0, radius) for at in (attack.begin, attack.check))
        adapted = l1_module._pick(row.checks, checked, moved)
        return l1_module._pick(row.begins, begun, adapted), (moved.x, size, density)

    last, rows = jax.lax.scan(body, state, attack._plan())
    # The first row is the start.
    return [row[1:] for row in rows], last


def l1_start(x, key=KEY):
    """The draw of ApgdL1: x + N(0, 1), by the keys of the examples."""
    each = keys.fold(keys.per_example(key, len(x)), 0)
    return jnp.asarray(x) + keys.draw(
        lambda k: jax.random.normal(k, x.shape[1:], jnp.float32), each
    )


@pytest.mark.parametrize('steps', [20, 50, 100])
@pytest.mark.parametrize('name', ['ce', 'dlr'])
def test_l1_iterates_are_those_of_the_transcription(name, steps):
    model, f, x, y, target, _ = problem()
    attack = attacks.apgd(L1, steps, LOSSES[name][0]).replace(stages=((1.0, 1.0),))
    start = reference.project_l1_box(l1_start(x), x, float(L1.eps))
    with jax.enable_x64(True):
        rows, last = recorded_l1(attack, f, KEY, x, y, start)
    run = reference_attacks.apgd_l1(
        oracle(name, model, y, target), x, start, float(L1.eps), steps
    )
    iterates, sizes, density = (np.asarray(r) for r in rows)
    kept = np.maximum(np.ceil(np.round(density * SIZE, 4)), 1)
    np.testing.assert_array_equal(kept, run.kept)
    np.testing.assert_allclose(sizes, run.step_sizes, rtol=1e-6)
    np.testing.assert_allclose(iterates, run.iterates[1:], atol=1e-4)
    np.testing.assert_allclose(last.best, run.best, atol=1e-4)
    assert run.reset.any()
    assert not run.reset.all()


def test_l1_in_one_stage_returns_the_best_of_the_transcription():
    model, f, x, y, _, _ = problem()
    attack = attacks.apgd(L1, 20, losses.margin).replace(stages=((1.0, 1.0),))
    start = reference.project_l1_box(l1_start(x), x, float(L1.eps))

    def both(point):
        z = model.logits(point)
        slope = reference.cw_margin_gradient(z, y)
        return reference.cw_margin(z, y), model.input_gradient(point, slope)

    run = reference_attacks.apgd_l1(both, x, start, float(L1.eps), 20)
    adv = contract.run(attack, f, KEY, x, y)
    np.testing.assert_allclose(adv, run.best, atol=1e-4)
    assert attack.calls == 21


def test_l1_goes_through_three_radii():
    f, (x, y) = contract.network(), contract.images()
    recording, seen = at_points(f, x)
    ball = balls.l1(1.0, bounds=None)
    attack = attacks.apgd(ball, 40)
    jax.jit(lambda x, y: attack(recording, KEY, x, y))(x, y)
    jax.effects_barrier()
    longest = [float(ball.norm(p - x).max()) for p in seen]
    # 12, 12 and 16 steps, and the start of each.
    assert len(seen) == 43
    for part, radius in ((longest[:13], 3), (longest[13:26], 2), (longest[26:], 1)):
        np.testing.assert_allclose(max(part), radius, rtol=1e-4)


def test_as_many_coordinates_move_as_in_whole_numbers():
    """The count of density = support / d / 1.5 must not hang on its rounding."""
    for size in (12, 20, 28 * 28, 3072):
        supports = np.arange(0, min(size, 400) + 1)
        x0 = jnp.zeros((len(supports), size))
        best = jnp.where(jnp.arange(size)[None] < supports[:, None], 0.5, 0.0)
        state = l1_module.ApgdL1State(
            x=best,
            gradient=jnp.broadcast_to(jnp.linspace(1.0, 2.0, size)[None], best.shape),
            size=jnp.ones(len(supports)),
            density=jnp.zeros(len(supports)),
            support=jnp.full(len(supports), float(size)),
            best=best,
            best_value=jnp.zeros(len(supports)),
            best_gradient=jnp.zeros_like(best),
            worst=nothing(x0),
            key=KEY,
            time=jnp.int32(1),
        )
        search: Any = attacks.apgd(L1, 10)
        checked = search.check(state, x0, jnp.ones(len(supports)))
        count = checked.density * size
        moved = l1_module._sparse_sign(state.gradient, count)
        expected = reference_attacks._kept_of_sparsity(supports, size)
        np.testing.assert_array_equal((np.asarray(moved) != 0).sum(axis=1), expected)


def test_sparse_sign():
    gradient = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    for kept in (1, 4, 30):
        got = l1_module._sparse_sign(gradient, jnp.full(4, float(kept)))
        expected = reference_attacks.sparse_sign(gradient, np.full(4, kept))
        np.testing.assert_allclose(got, expected, atol=1e-6)
