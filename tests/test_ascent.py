"""Projected ascent against the papers' pseudocode, iterate by iterate, in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, balls, keys, losses
from advjax.training import named
from tests import reference

BATCH, SIZE, HIDDEN, CLASSES = 4, 8, 16, 4
KEY = jax.random.key(3)
EPS, ALPHA, STEPS = 0.25, 0.1, 5
LENGTH, STRIDE = 0.6, 0.25  # The same in L2.


def linear(params, x):
    return x @ params['w'].T + params['b']


def two_layer(params, x):
    hidden = jax.nn.relu(x @ params['w1'].T + params['b1'])
    return hidden @ params['w2'].T + params['b2']


class Problem(NamedTuple):
    """One model twice, as the library and as the oracle see it, and its inputs."""

    fn: Callable[..., Any]
    params: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    start: np.ndarray

    @property
    def logits_fn(self):
        params = {k: jnp.atleast_2d(jnp.float32(v)) for k, v in self.params.items()}
        return jax.tree_util.Partial(self.fn, params)

    @property
    def model(self):
        kind = reference.Linear if self.fn is linear else reference.TwoLayer
        return kind(**self.params)


# With this seed no sign and no relu of any trajectory below hangs on a rounding error.
SEED = 4


def problem(fn=two_layer, seed=SEED):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    if fn is linear:
        params = {'w': normal(CLASSES, SIZE), 'b': 0.1 * normal(CLASSES)}
    else:
        params = {
            'w1': normal(HIDDEN, SIZE) / SIZE**0.5,
            'b1': 0.3 * normal(HIDDEN),
            'w2': normal(CLASSES, HIDDEN),
            'b2': 0.1 * normal(CLASSES),
        }
        params = {k: np.float32(v) for k, v in params.items()}
    x = rng.uniform(0.02, 0.98, (BATCH, SIZE)).astype(np.float32)
    # Inside the L2 ball too, and part of it on the ends of the range.
    start = np.clip(x + rng.uniform(-0.12, 0.12, x.shape), 0, 1).astype(np.float32)
    one = Problem(fn, params, x, np.zeros(BATCH, int), start)
    y = one.model.logits(x).argmax(1)
    y[-1] = (y[-1] + 1) % CLASSES  # One is misclassified to begin with.
    return one._replace(y=y)


def from_point(point):
    return lambda ball, key, x0: point


def run(attack, f, x, y, target=None, key=KEY):
    return jax.jit(lambda a, f: a(f, key, x, y, target))(attack, f)


def trajectory(attack, f, x, y, target=None):
    """Every iterate of the state machine, and the answer of the attack itself."""

    @jax.jit
    def both(f):
        objective = attacks.goal(f, y, target, loss=attack.loss)

        def body(state, _):
            state = attack.step(objective, x, state)
            return state, state.x

        state = attack.init(objective, keys.per_example(KEY, x.shape[0]), x)
        _, rest = jax.lax.scan(body, state, length=attack.steps)
        answer = attack(f, KEY, x, y, target)
        return jnp.concatenate([state.x[None], rest]), answer

    iterates, answer = both(f)
    return np.asarray(iterates), np.asarray(answer)


# ------------------------------------------------------- the rows of the table of names

MARGIN = {'loss_gradient': reference.cw_margin_gradient}
EACH = np.array([0.1, 0.15, 0.2, 0.3])


ROWS = {
    'fgsm': lambda m, x, y, s: (
        attacks.fgsm(EPS),
        reference.fgsm(m, x, y, EPS, (0, 1)),
    ),
    'fgsm unbounded': lambda m, x, y, s: (
        attacks.fgsm(balls.linf(EPS, bounds=None)),
        reference.fgsm(m, x, y, EPS),
    ),
    'fgm l2': lambda m, x, y, s: (
        attacks.fgm(balls.l2(LENGTH, bounds=None)),
        reference.fgm_l2(m, x, y, LENGTH),
    ),
    'bim': lambda m, x, y, s: (
        attacks.bim(EPS, STEPS, rate=ALPHA / EPS),
        reference.bim(m, x, y, EPS, STEPS, ALPHA),
    ),
    'pgd linf': lambda m, x, y, s: (
        attacks.pgd(EPS, STEPS, ALPHA / EPS, start=from_point(s), keep_best=False),
        reference.pgd_linf(m, x, y, EPS, ALPHA, STEPS, x_init=s),
    ),
    'pgd linf margin per example': lambda m, x, y, s: (
        attacks.pgd(
            balls.linf(EACH), STEPS, 0.4, losses.margin, from_point(s), keep_best=False
        ),
        reference.pgd_linf(m, x, y, EACH, 0.4 * EACH, STEPS, x_init=s, **MARGIN),
    ),
    'pgd l2': lambda m, x, y, s: (
        attacks.pgd(
            balls.l2(LENGTH),
            STEPS,
            STRIDE / LENGTH,
            start=from_point(s),
            keep_best=False,
        ),
        reference.pgd_l2(
            m, x, y, LENGTH, STRIDE, STEPS, x_init=s, project=reference.project_l2_box
        ),
    ),
    'mi-fgsm': lambda m, x, y, s: (
        attacks.mi_fgsm(EPS, STEPS, ALPHA / EPS, decay=0.8),
        reference.mi_fgsm(m, x, y, EPS, STEPS, 0.8, ALPHA),
    ),
    'mi-fgsm l2': lambda m, x, y, s: (
        attacks.mi_fgsm(balls.l2(LENGTH, bounds=None), STEPS, decay=0.8),
        reference.mi_fgsm(m, x, y, LENGTH, STEPS, 0.8, box=None, p=2),
    ),
    'ni-fgsm': lambda m, x, y, s: (
        attacks.ni_fgsm(EPS, STEPS, ALPHA / EPS, decay=0.8),
        reference.ni_fgsm(m, x, y, EPS, STEPS, 0.8, ALPHA, reduction='mean'),
    ),
    'adam-pgd l2': lambda m, x, y, s: (
        attacks.adam_pgd(
            balls.l2(LENGTH), STEPS, STRIDE / LENGTH, keep_best=False
        ).replace(start=from_point(s)),
        reference.adam_pgd(
            m, x, y, LENGTH, STRIDE, STEPS, 2, x_init=s,
            project=reference.project_l2_box, **MARGIN,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize('row', ROWS)
def test_iterates_are_those_of_the_paper(row):
    p = problem()
    attack, expected = ROWS[row](p.model, p.x, p.y, p.start)
    iterates, answer = trajectory(attack, p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(iterates, expected, atol=1e-5)
    np.testing.assert_allclose(answer, expected[-1], atol=1e-5)
    assert np.abs(expected[-1] - expected[0]).max(axis=1).min() > 0.05


@pytest.mark.parametrize('row', ['pgd linf', 'pgd l2'])
def test_iterates_on_a_linear_model(row):
    p = problem(linear)
    attack, expected = ROWS[row](p.model, p.x, p.y, p.start)
    iterates, answer = trajectory(attack, p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(iterates, expected, atol=1e-5)
    np.testing.assert_allclose(answer, expected[-1], atol=1e-5)


def test_nesterov_looks_ahead():
    # Otherwise the row above could not tell it from MI-FGSM.
    p = problem()
    _, ni = ROWS['ni-fgsm'](p.model, p.x, p.y, p.start)
    _, mi = ROWS['mi-fgsm'](p.model, p.x, p.y, p.start)
    assert np.abs(ni[-1] - mi[-1]).max() > 0.05


def test_inner_attack_of_fast_training_is_fgsm_from_an_unclipped_start():
    p = problem()
    inner = named.fast(EPS, rate=1.25).inner
    start = attacks.starts.unclipped(
        balls.linf(EPS), keys.fold(keys.per_example(KEY, BATCH), 0), p.x
    )
    assert ((start < 0) | (start > 1)).any()
    assert np.abs(start - p.x).max() <= EPS + 1e-6
    expected = reference.fgsm_rs(p.model, p.x, p.y, EPS, 1.25 * EPS, x_init=start)
    iterates, answer = trajectory(inner, p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(iterates, expected, atol=1e-5)
    np.testing.assert_allclose(answer, expected[-1], atol=1e-5)


def test_inner_attack_of_trades_climbs_the_divergence():
    p = problem()
    inner = named.trades(EPS, steps=STEPS, rate=ALPHA / EPS).inner
    clean = jnp.asarray(p.logits_fn(p.x))
    iterates, answer = trajectory(inner.attack, p.logits_fn, p.x, clean)
    noise = np.float64(iterates[0]) - p.x
    assert 3e-4 < noise.std() < 3e-3
    expected = reference.trades_inner(p.model, p.x, EPS, ALPHA, STEPS, noise)
    np.testing.assert_allclose(iterates, expected, atol=1e-5)
    np.testing.assert_allclose(answer, expected[-1], atol=1e-5)
    np.testing.assert_array_equal(run_plain(inner, p), answer)


def run_plain(attack, p):
    return jax.jit(lambda a, f: a(f, KEY, p.x, p.y))(attack, p.logits_fn)


def test_targets_are_approached():
    p = problem()
    target = (p.y + 1) % CLASSES
    attack, _ = ROWS['pgd linf'](p.model, p.x, p.y, p.start)
    expected = reference.pgd_linf(
        p.model, p.x, target, EPS, ALPHA, STEPS, x_init=p.start,
        loss_gradient=reference.targeted_cross_entropy_gradient,
    )  # fmt: skip
    answer = run(attack, p.logits_fn, p.x, p.y, target)
    np.testing.assert_allclose(answer, expected[-1], atol=1e-5)


def test_untargeted_losses_of_users_need_no_target_argument():
    p = problem()
    attack = attacks.pgd(EPS, 3, loss=lambda z, y: losses.cross_entropy(z, y))
    expected = run(attacks.pgd(EPS, 3), p.logits_fn, p.x, p.y)
    np.testing.assert_array_equal(run(attack, p.logits_fn, p.x, p.y), expected)


def test_a_schedule_scales_every_step():
    p = problem()
    attack = attacks.pgd(
        EPS, STEPS, 0.8, start=from_point(p.start), keep_best=False,
        schedule=lambda t: 1 - t,
    )  # fmt: skip
    expected = [p.start]
    for k in range(STEPS):
        alpha = 0.8 * EPS * (1 - k / STEPS)
        expected += reference.pgd_linf(
            p.model, p.x, p.y, EPS, alpha, 1, x_init=expected[-1]
        )[1:]
    iterates, _ = trajectory(attack, p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(iterates, expected, atol=1e-5)


def test_transforms_of_users_act_on_the_gradient():
    p = problem()
    ball = balls.l2(LENGTH, bounds=None)
    attack = attacks.pgd(
        ball, 3, 0.4, start=attacks.starts.clean, keep_best=False
    ).replace(transform=optax.chain(optax.clip(0.05), optax.trace(0.5)))
    x, trace = np.float64(p.x), 0.0
    for _ in range(3):
        g = reference.gradient(p.model, x, p.y, reference.cross_entropy_gradient)
        trace = np.clip(g, -0.05, 0.05) + 0.5 * trace
        moved = x + 0.4 * LENGTH * reference.steepest_l2(trace)
        x = reference.project_l2_box(moved, p.x, LENGTH, None)
    np.testing.assert_allclose(run(attack, p.logits_fn, p.x, p.y), x, atol=1e-5)


def test_default_step_sizes():
    assert float(attacks.fgm(balls.l2(1)).rate) == 1
    for factory in (attacks.bim, attacks.mi_fgsm, attacks.ni_fgsm):
        assert float(factory(0.1, 8).rate) == 1 / 8
    for factory in (attacks.pgd, attacks.adam_pgd):
        assert float(factory(0.1, 8).rate) == 2.5 / 8
    assert attacks.adam_pgd(0.1).loss is losses.margin
    assert float(attacks.ni_fgsm(0.1, decay=0.25).lookahead) == 0.25


def test_starts():
    # Near the ends of the range, so that clipping shows.
    x = np.linspace(0.01, 0.99, 500 * SIZE, dtype=np.float32).reshape(500, SIZE)
    each, ball = keys.per_example(KEY, 500), balls.linf(0.05)
    np.testing.assert_array_equal(attacks.starts.clean(ball, each, x), x)
    for start in (
        attacks.starts.uniform,
        attacks.starts.unclipped,
        attacks.starts.gaussian,
    ):
        point = np.asarray(jax.jit(start)(ball, each, x))
        assert (np.abs(point - x) <= 0.05 + 1e-6).all()
        outside = ((point < 0) | (point > 1)).any()
        assert outside == (start is attacks.starts.unclipped)
    noise = point - x
    assert 0.9e-3 < noise.std() < 1.1e-3
    assert abs(noise.mean()) < 1e-4


# ------------------------------------------------------------ differentiating an attack

W = np.array([1.0, -2.0, 0.5, 0.25, -0.75, 1.5], np.float32)


@pytest.mark.parametrize(
    ('norm', 'bounds'), [('linf', (0.0, 1.0)), ('linf', None), ('l2', (0.0, 1.0))]
)
def test_slope_of_the_worst_loss_of_a_linear_model(norm, bounds):
    rng = np.random.default_rng(8)
    x = rng.uniform(0.2, 0.8, (BATCH, 6)).astype(np.float32)
    label = np.array([0, 1, 0, 1])
    sign, b, eps = 2 * label - 1, 0.1, 0.1
    f = jax.tree_util.Partial(
        linear, {'w': jnp.stack([0 * W, W]), 'b': jnp.array([[0.0, b]])}
    )
    ball = getattr(balls, norm)(eps, bounds)

    @jax.jit
    @jax.value_and_grad
    def worst(eps):
        attack = balls.with_eps(attacks.fgm(ball), eps)
        return jnp.sum(losses.cross_entropy(f(attack(f, KEY, x, label)), label))

    value, slope = worst(jnp.float32(eps))
    dual = np.sum(np.abs(W)) if norm == 'linf' else np.sqrt(np.sum(W**2))
    away = reference.binary_softplus(eps * dual - sign * (x @ W + b), -1)
    np.testing.assert_allclose(value, away.sum(), rtol=1e-5)
    hinge = 1 / (1 + np.exp(-eps * dual + sign * (x @ W + b)))
    np.testing.assert_allclose(slope, np.sum(hinge * dual), rtol=1e-4)


def through_pgd(ball, p, alpha_over_eps):
    """Loss at the end of a search, as a function of radius and parameters."""
    attack = attacks.pgd(
        ball, 3, alpha_over_eps, start=from_point(p.start), keep_best=False
    )

    def loss(eps, params, hold=False):
        f = jax.tree_util.Partial(p.fn, params)
        adv = balls.with_eps(attack, eps)(f, KEY, p.x, p.y)
        adv = jax.lax.stop_gradient(adv) if hold else adv
        return jnp.sum(losses.cross_entropy(f(adv), p.y))

    return loss


def test_gradients_through_l2_pgd_equal_finite_differences_of_the_oracle():
    p = problem()
    params = p.logits_fn.args[0]
    loss = through_pgd(balls.l2(LENGTH), p, 0.3)
    by_eps, by_params = jax.jit(jax.grad(loss, (0, 1)))(jnp.float32(LENGTH), params)
    rng = np.random.default_rng(9)
    direction = {k: rng.normal(size=v.shape) for k, v in p.params.items()}

    def oracle(eps, t):
        moved = {
            k: v.astype(np.float64) + t * direction[k] for k, v in p.params.items()
        }
        model = reference.TwoLayer(**moved)
        adv = reference.pgd_l2(
            model, p.x, p.y, eps, 0.3 * eps, 3, x_init=p.start,
            project=reference.project_l2_box,
        )[-1]  # fmt: skip
        return reference.cross_entropy(model.logits(adv), p.y).sum()

    h = 1e-6
    slope = (oracle(LENGTH + h, 0) - oracle(LENGTH - h, 0)) / (2 * h)
    np.testing.assert_allclose(by_eps, slope, rtol=1e-3)
    slope = (oracle(LENGTH, h) - oracle(LENGTH, -h)) / (2 * h)
    along = sum(np.sum(by_params[k].reshape(v.shape) * v) for k, v in direction.items())
    np.testing.assert_allclose(along, slope, rtol=1e-3)
    held = jax.jit(jax.grad(lambda q: loss(jnp.float32(LENGTH), q, hold=True)))(params)
    assert np.abs(held['w1'] - by_params['w1']).max() > 1e-3


def test_gradients_through_linf_pgd_are_those_at_its_end():
    # The derivative of the sign is zero: only the loss sees the parameters.
    p = problem()
    params = p.logits_fn.args[0]
    loss = through_pgd(balls.linf(EPS), p, 0.4)
    through, held = (
        jax.jit(jax.grad(lambda q, hold=hold: loss(jnp.float32(EPS), q, hold)))(params)
        for hold in (False, True)
    )
    for name in params:
        assert np.isfinite(through[name]).all()
        assert np.abs(through[name]).max() > 1e-3
        np.testing.assert_allclose(through[name], held[name], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------ one program, many attacks


@pytest.mark.parametrize(
    ('over', 'ball'),
    [
        ('eps', balls.l2(LENGTH)),
        ('key', balls.linf(EPS)),
        ('params', balls.linf(EPS)),
    ],
)
def test_vmap_equals_the_loop(over, ball):
    p, other = problem(), problem(seed=SEED + 1)
    start = attacks.starts.uniform if over == 'key' else attacks.starts.clean
    attack = attacks.pgd(ball, 4, 0.4, start=start, keep_best=over == 'eps')

    @jax.jit
    def one(eps, key, params):
        changed = balls.with_eps(attack, eps)
        return changed(jax.tree_util.Partial(two_layer, params), key, p.x, p.y)

    args = {
        'eps': ball.eps,
        'key': KEY,
        'params': p.logits_fn.args[0],
    }
    many = {
        'eps': [jnp.float32(v) for v in (0, 0.2, 0.9)],
        'key': [jax.random.key(i) for i in range(3)],
        'params': [p.logits_fn.args[0], other.logits_fn.args[0]],
    }[over]
    alone = [one(**{**args, over: value}) for value in many]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *many)
    axes = [0 if name == over else None for name in args]
    mapped = jax.jit(jax.vmap(lambda *a: one(*a), axes))
    together = mapped(*{**args, over: stacked}.values())
    np.testing.assert_allclose(together, np.stack(alone), atol=2e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_vmap_over_whole_attacks_of_other_radii_and_rates():
    p = problem()
    singles = [attacks.bim(EPS, 3, 0.4), attacks.bim(EPS / 2, 3, 0.8)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *singles)
    together = jax.jit(jax.vmap(lambda a: a(p.logits_fn, KEY, p.x, p.y)))(stacked)
    for attack, swept in zip(singles, together, strict=True):
        alone = run(attack, p.logits_fn, p.x, p.y)
        np.testing.assert_allclose(swept, alone, atol=2e-5)


def counting(p):
    """The model of a problem, and a list that grows whenever it is traced."""
    traces = []

    def fn(params, x):
        traces.append(1)
        return p.fn(params, x)

    return jax.tree_util.Partial(fn, p.logits_fn.args[0]), traces


def test_many_radii_are_one_program():
    p = problem()
    f, traces = counting(p)
    compiled = jax.jit(lambda attack, f, x, y: attack(f, KEY, x, y))
    compiled(attacks.pgd(0.1, 4), f, p.x, p.y)
    first = len(traces)
    answers = [
        compiled(attacks.pgd(float(eps), 4, rate=float(eps)), f, p.x, p.y)
        for eps in np.linspace(0.1, 0.4, 32)
    ]
    assert len(traces) == first
    assert compiled._cache_size() == 1
    assert np.abs(answers[0] - answers[-1]).max() > 0.1


@pytest.mark.parametrize('factory', [attacks.pgd, attacks.ni_fgsm, attacks.adam_pgd])
def test_the_program_does_not_grow_with_the_steps(factory):
    p = problem()
    counts = []
    for steps in (2, 50):
        f, traces = counting(p)
        jax.make_jaxpr(lambda a, f=f: a(f, KEY, p.x, p.y))(factory(0.1, steps))
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def test_equal_attacks_share_their_static_structure():
    for factory in (attacks.pgd, attacks.mi_fgsm, attacks.ni_fgsm, attacks.adam_pgd):
        one, other = factory(0.1, 4), factory(0.2, 4, rate=0.7)
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert jax.tree.structure(one) != jax.tree.structure(factory(0.1, 5))


def test_unrolling_changes_nothing():
    p = problem()
    one = run(attacks.pgd(EPS, 5), p.logits_fn, p.x, p.y)
    other = run(attacks.pgd(EPS, 5, unroll=3), p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(other, one, atol=1e-5)


COUNTED = {
    'fgsm': lambda: attacks.fgsm(0.1),
    'pgd': lambda: attacks.pgd(0.1, 5),
    'pgd unrolled': lambda: attacks.pgd(0.1, 5, unroll=3, start=attacks.starts.clean),
    'ni-fgsm': lambda: attacks.ni_fgsm(0.1, 5),
    'restarts': lambda: attacks.restarts(attacks.bim(0.1, 3), 4),
    'targeted': lambda: attacks.targeted(attacks.bim(0.1, 3), 2),
    'worst of': lambda: attacks.worst_of([attacks.fgsm(0.1), attacks.bim(0.1, 3)]),
    'trades': lambda: named.trades(0.1, steps=3).inner,
}


@pytest.mark.parametrize('name', COUNTED)
def test_declared_calls_are_those_made_at_run_time(name):
    p, attack, calls = problem(), COUNTED[name](), []

    def fn(x):
        jax.debug.callback(lambda: calls.append(1))
        return p.logits_fn(x)

    jax.block_until_ready(jax.jit(lambda a: a(fn, KEY, p.x, p.y))(attack))
    jax.effects_barrier()
    assert attack.calls == len(calls)


# --------------------------------------------------------------------- the best iterate


def margin(p, x):
    return reference.cw_margin(p.model.logits(x), p.y)


@pytest.mark.parametrize('loss', [losses.cross_entropy, losses.dlr])
def test_keep_best_returns_the_iterate_of_largest_margin(loss):
    # Here steps of 1.5 radii overshoot: the last iterate is not always the best.
    p = problem(seed=19)
    attack = attacks.pgd(EPS, 7, 1.5, loss, start=from_point(p.start))
    iterates, answer = trajectory(attack, p.logits_fn, p.x, p.y)
    margins = np.stack([margin(p, x) for x in iterates])
    np.testing.assert_allclose(margin(p, answer), margins.max(axis=0), atol=1e-5)
    best = margins.argmax(axis=0)
    np.testing.assert_allclose(answer, iterates[best, np.arange(BATCH)], atol=1e-6)
    assert (margins[-1] < margins.max(axis=0) - 0.01).any()
    last = run(attack.replace(keep_best=False), p.logits_fn, p.x, p.y)
    np.testing.assert_allclose(last, iterates[-1], atol=1e-6)


def test_keep_best_knows_the_start_and_the_end():
    x0 = jnp.zeros((2, 3))
    ball = balls.linf(1.0, bounds=None)

    def descend(x):
        return -jnp.sum(jnp.abs(x - jnp.array([[1.0], [-1.0]])), axis=1)

    # The first example starts at its best, the second reaches it by its last step.
    attack = attacks.pgd(ball, 4, 0.5, start=lambda b, k, x: x + 1)
    answer = attack.maximize(descend, KEY, x0)
    np.testing.assert_array_equal(answer, [[1, 1, 1], [-1, -1, -1]])


def test_keep_best_follows_the_target():
    p = problem(seed=19)
    target = (p.y + 1) % CLASSES
    attack = attacks.pgd(EPS, 7, 1.5, start=from_point(p.start))
    iterates, answer = trajectory(attack, p.logits_fn, p.x, p.y, target)
    reached = np.stack(
        [reference.targeted_cw_margin(p.model.logits(x), target) for x in iterates]
    )
    best = reached.argmax(axis=0)
    np.testing.assert_allclose(answer, iterates[best, np.arange(BATCH)], atol=1e-6)
    # The last iterate, or the one that is the most wrong, would be another answer.
    wrong = np.stack([margin(p, x) for x in iterates]).argmax(axis=0)
    assert (reached[wrong, np.arange(BATCH)] < reached.max(axis=0) - 0.01).any()
    assert (reached[-1] < reached.max(axis=0) - 0.01).any()


def test_a_start_outside_the_ball_is_never_the_answer():
    p = problem()
    for keep_best in (True, False):
        for steps in (0, 2):
            attack = attacks.pgd(
                EPS, 2, 0.01, start=lambda b, k, x0: x0 + 5, keep_best=keep_best
            ).replace(steps=steps)
            answer = np.asarray(run(attack, p.logits_fn, p.x, p.y))
            assert balls.linf(EPS).contains(answer, p.x).all()


def test_keep_best_without_a_feasible_gradient_point_is_refused():
    p = problem()
    for attack in (
        attacks.ni_fgsm(EPS, 3).replace(keep_best=True),
        attacks.pgd(EPS, 3, start=attacks.starts.unclipped),
    ):
        with pytest.raises(ValueError, match='keep_best'):
            attack(p.logits_fn, KEY, p.x, p.y)


# ------------------------------------------------------------------------ any objective


@pytest.mark.parametrize('kind', ['linf', 'l2', 'l1'])
def test_maximize_finds_the_nearest_point_to_a_target(kind):
    rng = np.random.default_rng(12)
    x0 = rng.uniform(0.2, 0.8, (BATCH, SIZE)).astype(np.float32)
    goal = rng.uniform(-0.5, 1.5, x0.shape).astype(np.float32)
    eps = {'linf': 0.2, 'l2': 0.5, 'l1': 1.0}[kind]
    ball = getattr(balls, kind)(eps)
    project = getattr(reference, f'project_{kind}_box')
    attack = attacks.pgd(
        ball, 300, 0.5, start=attacks.starts.clean, schedule=lambda t: (1 - t) ** 3
    )
    answer = jax.jit(
        lambda: attack.maximize(lambda x: -jnp.sum((x - goal) ** 2, axis=1), KEY, x0)
    )()
    nearest = project(goal, x0, eps)
    far = np.sum((answer - goal) ** 2, axis=1)
    np.testing.assert_allclose(far, np.sum((nearest - goal) ** 2, axis=1), rtol=2e-3)
    np.testing.assert_allclose(answer, nearest, atol=0.05)


@pytest.mark.parametrize(
    ('kind', 'bounds'),
    [('linf', (0.0, 1.0)), ('l2', (0.0, 1.0)), ('l1', None)],
)
def test_maximize_reaches_the_closed_form_of_a_linear_objective(kind, bounds):
    rng = np.random.default_rng(13)
    x0 = rng.uniform(0, 1, (BATCH, SIZE)).astype(np.float32)
    a = rng.normal(size=x0.shape).astype(np.float32)
    eps, p = {'linf': (0.3, np.inf), 'l2': (0.8, 2), 'l1': (1.0, 1)}[kind]
    attack = attacks.pgd(getattr(balls, kind)(eps, bounds), 60, 0.5)
    answer = jax.jit(
        lambda: attack.maximize(lambda x: jnp.sum(a * x, axis=1), KEY, x0)
    )()
    gain = np.sum(a * (answer - x0), axis=1)
    most = [
        reference.max_linear_gain(row, x, eps, p, bounds)
        for row, x in zip(a, x0, strict=True)
    ]
    np.testing.assert_allclose(gain, most, rtol=1e-3)


def test_zero_gradients_and_nan_leave_an_example_where_it_is():
    x0 = np.full((3, 2), 0.5, np.float32)

    def objective(x):
        return jnp.sum(x, axis=1) * jnp.array([1.0, 0.0, jnp.nan])

    for ball in (balls.linf(0.25), balls.l2(0.25)):
        attack = attacks.bim(ball, 3)
        answer = np.asarray(attack.maximize(objective, KEY, x0))
        assert (answer[0] > 0.6).all()
        np.testing.assert_array_equal(answer[1:], x0[1:])


# ----------------------------------------------------------------------------- refusals

FACTORIES = [attacks.bim, attacks.pgd, attacks.mi_fgsm, attacks.ni_fgsm]
every_factory = pytest.mark.parametrize('factory', [*FACTORIES, attacks.adam_pgd])


@every_factory
@pytest.mark.parametrize('steps', [0, -1, 2.5, '3', None])
def test_bad_steps_are_refused_by_name(factory, steps):
    with pytest.raises(ValueError, match=r'^steps must .*got'):
        factory(0.1, steps)


@every_factory
@pytest.mark.parametrize('rate', [-0.1, np.nan, 'fast', [0.1, -0.1]])
def test_bad_rates_are_refused_by_name(factory, rate):
    with pytest.raises(ValueError, match=r'^rate must .*got'):
        factory(0.1, 3, rate)


@every_factory
def test_bad_functions_are_refused_by_name(factory):
    with pytest.raises(ValueError, match=r'^loss must .*got'):
        factory(0.1, 3, loss='margin')


@pytest.mark.parametrize('name', ['start', 'schedule'])
def test_other_bad_functions_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf'^{name} must .*got'):
        attacks.pgd(0.1, 3, **{name: 0.5})


def test_bad_balls_are_refused_by_name():
    with pytest.raises(ValueError, match='eps must'):
        attacks.pgd(-0.1)
    with pytest.raises(ValueError, match='fgsm is defined on linf'):
        attacks.fgsm(balls.l2(0.1))


@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.int32, jnp.float16, jnp.bfloat16])
def test_pixels_that_cannot_be_moved_are_refused(dtype):
    p = problem()
    with pytest.raises(ValueError, match=r'x must be float32 .*got'):
        attacks.fgsm(0.1)(p.logits_fn, KEY, jnp.asarray(p.x, dtype), p.y)


def test_inputs_without_a_batch_axis_are_refused():
    with pytest.raises(ValueError, match='x needs a leading batch axis'):
        attacks.fgsm(0.1)(lambda x: x, KEY, jnp.float32(0.5), jnp.array(0))


def test_another_number_of_keys_is_refused():
    p = problem()
    with pytest.raises(ValueError, match='key must be one key or 4'):
        attacks.pgd(0.1)(p.logits_fn, jax.random.split(KEY, 3), p.x, p.y)


def test_transforms_are_cached():
    assert attacks.transforms.momentum(0.5) is attacks.transforms.momentum(0.5)
    assert attacks.transforms.adam() is attacks.transforms.adam()
