"""Attacks that see scores or answers only: estimates, budgets, no gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, keys, losses
from advjax.attacks import gradients, minimum
from tests import contract
from tests.contract import BATCH, CLASSES, KEY, SHAPE, images, margin, network
from tests.test_square import Recorder

SIZE = int(np.prod(SHAPE))
search = jax.jit(contract.search)


# -------------------------------------------------------------- gradients from queries

estimate = jax.jit(
    lambda source, objective, key, x: source(
        lambda x, key: (objective(x), objective(x)),
        balls.linf(0.1),
        x,
        keys.per_example(key, x.shape[0]),
        (),
    )
)


def _bowl(params, x):
    rows = x.reshape(x.shape[0], -1)
    return jnp.sum(jnp.tanh(rows @ params['w']) * params['v'], axis=1)


def bowl():
    rng = np.random.default_rng(0)
    params = {
        'w': jnp.float32(rng.normal(size=(SIZE, 8)) / SIZE**0.5),
        'v': jnp.float32(rng.normal(size=(1, 8))),
    }
    return jax.tree_util.Partial(_bowl, params)


@pytest.mark.parametrize('signs', [False, True])
def test_estimates_converge_to_the_gradient(signs):
    """The error falls as the root of d / N, and from both sides of zero."""
    f, (x, _) = bowl(), images()
    true = np.asarray(jax.grad(lambda x: jnp.sum(f(x)))(x)).reshape(BATCH, -1)
    length = np.linalg.norm(true, axis=1)
    errors = {}
    for samples in (64, 4096):
        source = gradients.Differences(jnp.float32(0.02), samples, signs=signs)
        got, rank, _ = estimate(source, f, KEY, x)
        np.testing.assert_allclose(rank, f(x), rtol=1e-5, atol=1e-6)
        difference = np.asarray(got).reshape(BATCH, -1) - true
        errors[samples] = np.linalg.norm(difference, axis=1) / length
        expected = (SIZE / samples) ** 0.5
        assert errors[samples].mean() < 1.3 * expected
        # No example far off, no systematic scale.
        scale = np.sum((difference + true) * true, axis=1) / length**2
        np.testing.assert_allclose(
            scale.mean(), 1, atol=4 * (2 / samples / BATCH) ** 0.5
        )
    np.testing.assert_allclose(errors[64].mean() / errors[4096].mean(), 8, rtol=0.3)


@pytest.mark.parametrize('signs', [False, True])
def test_one_direction_gives_its_exact_slope(signs):
    """On a linear objective one pair is (w . u) u, u the example's own draw."""
    rng = np.random.default_rng(1)
    w = jnp.float32(rng.normal(size=(1, *SHAPE)))
    f = jax.tree_util.Partial(lambda w, x: jnp.sum(w * x, axis=(1, 2, 3)), w)
    x, _ = images()
    source = gradients.Differences(jnp.float32(0.5), 1, signs=signs)
    got, _, _ = estimate(source, f, KEY, x)
    own = keys.fold(keys.per_example(KEY, BATCH), 1)
    sample = jax.random.rademacher if signs else jax.random.normal
    u = np.asarray(keys.draw(lambda k: sample(k, SHAPE, jnp.float32), own))
    slope = np.sum(np.asarray(w) * u, axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(got, slope * u, atol=1e-4)
    assert np.abs(u[0] - u[1]).max() > 0.5


def test_one_bad_pair_does_not_spoil_the_others():
    f = jax.tree_util.Partial(
        lambda w, x: jnp.where(x[:, 0] > 0.5, jnp.nan, jnp.sum(w * x, axis=1)),
        jnp.ones((1, 4)),
    )
    x = jnp.full((2, 4), 0.45)
    source = gradients.Differences(jnp.float32(0.05), 3000)
    got, _, _ = estimate(source, f, KEY, x)
    assert np.isfinite(got).all()
    # Where it is NaN for |u| > 1, the slope is E[u^2; |u| < 1] = 0.2 along it.
    np.testing.assert_allclose(got, [[0.2, 0.68, 0.68, 0.68]] * 2, atol=0.15)


def test_clipped_queries_stay_in_range():
    seen = []

    def values(x, key):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x)
        return jnp.sum(x, axis=1), None

    source = gradients.Differences(jnp.float32(0.3), 5, clipped=True)
    x = jnp.float32([[0.05, 0.95, 0.5]])
    source(values, balls.linf(0.1), x, keys.per_example(KEY, 1), ())
    jax.effects_barrier()
    assert len(seen) == source.calls == 11
    assert min(v.min() for v in seen) >= 0
    assert max(v.max() for v in seen) <= 1


# ------------------------------------------------------------------------------ budgets


@jax.custom_vjp
def _opaque(params, x):
    flat = x.reshape(x.shape[0], -1)
    return jnp.tanh(flat @ params['w1'] + params['b1']) @ params['w2']


def _refuse(*args):
    raise AssertionError('a gradient was taken')


_opaque.defvjp(_refuse, _refuse)


def opaque():
    """The network of the contract, but whoever differentiates it raises."""
    params = dict(network().args[0])
    del params['nan_above']
    return jax.tree_util.Partial(_opaque, params)


BLACK = {
    'nes': lambda ball: attacks.nes(ball, 300, samples=5, sigma=0.01),
    'spsa': lambda ball: attacks.spsa(ball, 300, samples=6, rate=0.3),
    'random_search': lambda ball: attacks.random_search(ball, 100),
    'square': lambda ball: attacks.square(ball, 100),
    'boundary': lambda ball: attacks.boundary(ball, 300, tries=20),
    'hop_skip_jump': lambda ball: attacks.hop_skip_jump(
        ball, 400, first=20, tries=20, bisections=10
    ),
}
NEED = {'boundary': balls.l2(float('inf')), 'hop_skip_jump': balls.l2(float('inf'))}
every = pytest.mark.parametrize('name', BLACK)


def built(name, ball=None):
    return BLACK[name](ball or NEED.get(name, balls.linf(0.15)))


def test_the_model_that_refuses_gradients_refuses_them():
    _, (x, y) = network(), images()
    with pytest.raises(AssertionError, match='a gradient was taken'):
        attacks.fgsm(0.1)(opaque(), KEY, x, y)


@every
def test_no_gradient_is_ever_taken(name):
    x, y = images()
    attack = built(name)
    found = search(attack, opaque(), KEY, x, y)
    assert (np.asarray(found.queries) <= attack.calls).all()
    before, after = margin(network(), x, y), margin(network(), found.x, y)
    assert (after >= before - 1e-6).all()
    assert (after > 0).any()


@every
def test_those_right_from_the_start_cost_next_to_nothing(name):
    x, y = images()
    attack = built(name)
    found = search(attack, opaque(), KEY, x, (y + 1) % CLASSES)
    most = {'nes': 11, 'spsa': 13, 'boundary': 11, 'hop_skip_jump': 11}.get(name, 60)
    assert (np.asarray(found.queries) <= most).all()
    if name in NEED:
        np.testing.assert_array_equal(found.x, x)


@pytest.mark.parametrize(
    ('attack', 'asked'),
    [
        (attacks.nes(0.1, 51, samples=5), 45),  # 4 steps of 11, and the last point.
        (attacks.nes(0.1, 12, samples=5), 12),
        (attacks.spsa(0.1, 40, samples=3), 36),  # 5 steps of 7.
        (attacks.random_search(0.1, 23), 23),
        (attacks.random_search(0.1, 1), 1),
    ],
    ids=['nes', 'nes one step', 'spsa', 'random_search', 'random_search once'],
)
def test_budgets_are_kept_to_the_query(attack, asked):
    """On a model that no image fools."""
    model = Recorder(constant=True)
    x, y = images()[0], jnp.zeros(BATCH, jnp.int32)
    found = jax.jit(lambda x, y: contract.search(attack, model, KEY, x, y))(x, y)
    jax.effects_barrier()
    np.testing.assert_array_equal(found.queries, asked)
    assert len(model.seen) == asked <= attack.queries == attack.calls


def test_random_search_stops_at_its_first_success():
    x, _ = images()
    model = Recorder()
    y = jnp.asarray(model.logits(x).argmax(axis=1))
    attack = attacks.random_search(0.3, 60)
    found = jax.jit(lambda x, y: contract.search(attack, model, KEY, x, y))(x, y)
    jax.effects_barrier()
    margins = np.stack([margin(lambda v: jnp.float32(model.logits(v)), p, y)
                        for p in model.seen])  # fmt: skip
    won = margins > 0
    ends = np.where(won.any(0), won.argmax(0) + 1, 60)
    np.testing.assert_array_equal(found.queries, ends)
    assert len(set(ends)) > 2
    assert len(model.seen) == ends.max()
    best = [margins[:n, i].argmax() for i, n in enumerate(ends)]
    np.testing.assert_array_equal(
        found.x, np.stack([model.seen[k][i] for i, k in enumerate(best)])
    )


@pytest.mark.parametrize('name', ['nes', 'spsa'])
def test_estimated_ascents_stop_at_success_and_stay(name):
    """An example in the batch of slower ones ends as it does alone."""
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, BATCH)
    attack = built(name)
    whole = search(attack, f, each, x, y)
    queries = np.asarray(whole.queries)
    won = margin(f, whole.x, y) > 0
    cost = attack.ascent.gradient.calls
    steps = (attack.queries - 1) // cost
    assert won.any()
    assert not won.all()
    assert (queries[~won] == steps * cost + 1).all()
    assert (queries[won] <= steps * cost + 1).all()
    for i in (int(won.argmax()), int((~won).argmax())):
        alone = search(attack, f, each[i : i + 1], x[i : i + 1], y[i : i + 1])
        assert alone.queries[0] == queries[i]
        np.testing.assert_allclose(alone.x[0], whole.x[i], atol=1e-4)


@every
def test_results_lie_in_the_ball(name):
    f, (x, y) = network(), images()
    ball = balls.l2(0.4)
    found = search(built(name, ball), f, KEY, x, y)
    assert np.asarray(ball.contains(found.x, x)).all()


# ----------------------------------------------------------------------- decisions only


def _answers(f, x):
    return jax.nn.one_hot(jnp.argmax(f(x), axis=1), CLASSES)


DECISIONS = {
    'boundary': attacks.boundary(queries=300, tries=20),
    'hop_skip_jump': attacks.hop_skip_jump(
        queries=400, first=20, tries=20, bisections=10
    ),
    'hop_skip_jump linf': attacks.hop_skip_jump(
        balls.linf(float('inf')), 400, first=20, tries=20, bisections=10
    ),
}
decisive = pytest.mark.parametrize('name', DECISIONS)


@decisive
def test_answers_are_all_they_see(name, monkeypatch):
    """But for ties, which are a matter of rounding."""
    monkeypatch.setattr(minimum, 'TIE', 0.0)
    jax.clear_caches()
    f, (x, y) = network(), images()
    attack = DECISIONS[name]
    told = search(attack, jax.tree_util.Partial(_answers, f), KEY, x, y)
    scored = search(attack, f, KEY, x, y)
    np.testing.assert_array_equal(told.queries, scored.queries)
    np.testing.assert_allclose(told.x, scored.x, atol=1e-6)
    jax.clear_caches()


@decisive
def test_walks_end_close_to_the_boundary(name):
    """Adversarial, and far closer than the random start and its bisection."""
    f, (x, y) = network(), images()
    attack = DECISIONS[name]
    found = search(attack, f, KEY, x, y)
    assert (margin(f, found.x, y) > 0).all()
    assert (np.asarray(found.queries) <= attack.queries).all()
    assert (np.asarray(found.queries) > attack.queries / 2).all()
    short = search(attack.replace(queries=40), f, KEY, x, y)
    norm = np.asarray(attack.ball.norm(found.x - x))
    start = np.asarray(attack.ball.norm(short.x - x))
    assert (norm <= start * (1 + 1e-5)).all()
    assert norm.mean() < 0.7 * start.mean()


@decisive
def test_without_a_start_the_clean_image_is_returned(name):
    model = Recorder(constant=True)
    x, y = images()[0], jnp.zeros(BATCH, jnp.int32)
    attack = DECISIONS[name]
    found = jax.jit(lambda x, y: contract.search(attack, model, KEY, x, y))(x, y)
    jax.effects_barrier()
    np.testing.assert_array_equal(found.x, x)
    assert (np.asarray(found.queries) <= attack.queries).all()
    # One at the image, twenty for a start: what is reported was asked.
    assert (np.asarray(found.queries) <= len(model.seen)).all()


@decisive
def test_decisive_attacks_know_targets(name):
    f, (x, y) = network(), images()
    target = jnp.full_like(y, 1)
    attack = DECISIONS[name]
    found = jax.jit(lambda: contract.search(attack, f, KEY, x, y, target))()
    moved = np.asarray(found.x != x).any(axis=(1, 2, 3))
    reached = np.argmax(f(found.x), axis=1) == 1
    assert reached[moved].all()
    assert moved.any()


# --------------------------------------------------------------------------- validation


BAD = [
    ('nes', {'queries': 10, 'samples': 5}, 'queries must be an integer >= 12, got 10'),
    ('nes', {'samples': 0}, 'samples must be an integer >= 1, got 0'),
    ('nes', {'sigma': 0.0}, 'sigma must be a number > 0, got 0.0'),
    ('spsa', {'rate': -1.0}, 'rate must be a number > 0, got -1.0'),
    ('random_search', {'queries': 0}, 'queries must be an integer >= 1, got 0'),
    ('boundary', {'ball': balls.linf(0.1)}, 'ball of boundary must be one of'),
    ('boundary', {'queries': 20}, 'queries must be an integer >= 63, got 20'),
    ('boundary', {'tries': 0}, 'tries must be an integer >= 1, got 0'),
    ('hop_skip_jump', {'ball': balls.l1(1.0)}, 'ball of hop_skip_jump must be one of'),
    ('hop_skip_jump', {'queries': 9}, 'queries must be an integer >= 63, got 9'),
    ('hop_skip_jump', {'first': 0}, 'first must be an integer >= 1, got 0'),
]


@pytest.mark.parametrize(('name', 'options', 'message'), BAD)
def test_bad_options_are_refused(name, options, message):
    ball = {} if name in NEED else {'ball': 0.1}
    with pytest.raises(ValueError, match=message):
        getattr(attacks, name)(**{**ball, **options})


def test_losses_are_margins_where_the_papers_have_them():
    assert attacks.spsa(0.1).ascent.loss is losses.margin
    assert attacks.nes(0.1).ascent.loss is losses.cross_entropy
