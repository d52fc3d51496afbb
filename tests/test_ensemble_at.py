"""Ensemble adversarial training, and the attack that its authors break FGSM-AT with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, keys, linf, models, training, zoo
from advjax.training.ensemble import OneOf
from tests.test_models import NnxNet

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE, 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)
SOURCES = [
    models.logits_fn(MODEL, MODEL.init(jax.random.key(seed))[0]) for seed in (7, 8)
]


def start(model=MODEL):
    return training.create(model, SGD, key=KEY)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-5, **tolerance}),
        a,
        b,
    )


def by_hand(f, x, eps):
    """FGSM on the model's own answer, from the paper."""
    own = jnp.argmax(f(x), axis=1)

    def loss(x):
        return -jax.nn.log_softmax(f(x))[jnp.arange(len(x)), own].sum()

    return jnp.clip(x + eps * jnp.sign(jax.grad(loss)(x)), 0, 1)


def test_loss_and_gradient_are_those_of_the_equation_for_every_source():
    """Plain JAX from the paper and the authors' code; each source is drawn in turn."""
    state, method = start(), training.ensemble_at(0.2, SOURCES, clean_weight=0.3)
    own = models.logits_fn(MODEL, state.params)
    images = [by_hand(f, X, 0.2) for f in (*SOURCES, own)]

    @jax.jit
    def expected(params, x_adv):
        def ce(x):
            z = MODEL.apply(params, {}, x)[0]
            return -jax.nn.log_softmax(z)[jnp.arange(6), Y].mean()

        return 0.3 * ce(X) + 0.7 * ce(x_adv)

    drawn = set()
    for seed in range(12):
        new, metrics = STEP(method, state, BATCH, jax.random.key(seed))
        values = np.array([expected(state.params, x_adv) for x_adv in images])
        found = np.flatnonzero(np.isclose(values, metrics['loss'], rtol=1e-5))
        assert len(found) == 1
        drawn.add(int(found[0]))
        gradient = jax.grad(expected)(state.params, images[found[0]])
        moved = jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params)
        close(moved, gradient)
    assert drawn == {0, 1, 2}


def shifts(*values):
    return OneOf(tuple(jax.tree_util.Partial(shift, v) for v in values))


def shift(by, logits_fn, key, x, y):
    return x + by


def test_the_draw_is_uniform_and_one_for_the_batch():
    one_of = shifts(1.0, 2.0, 3.0)
    many = jax.random.split(jax.random.key(3), 600)
    made = jax.vmap(lambda k: one_of(None, k, X, Y) - X)(many)
    np.testing.assert_allclose(made, jnp.round(made), atol=1e-5)
    assert float(jnp.ptp(made.reshape(600, -1), axis=1).max()) < 1e-5
    counts = np.bincount(np.round(made[:, 0, 0, 0, 0]).astype(int), minlength=4)
    # Five standard deviations of a binomial.
    assert counts[0] == 0
    assert np.abs(counts[1:] - 200).max() < 5 * (600 * 2 / 9) ** 0.5


def test_the_first_example_draws():
    one_of = shifts(*range(50))
    each = keys.per_example(KEY, 6)
    whole = one_of(None, each, X, Y) - X
    swapped = one_of(None, each[jnp.array([0, 4, 5, 1, 2, 3])], X, Y) - X
    np.testing.assert_array_equal(whole, swapped)
    other = one_of(None, each[::-1], X, Y) - X
    assert float(jnp.abs(whole - other).max()) > 0.5
    state = start()
    spy = training.method(
        one_of, lambda f, s, x, adv, y: ((adv - x)[:, 0, 0, 0], *f(s, x))
    )
    shown = {
        float(STEP(spy, state.replace(step=jnp.int32(i)), BATCH, KEY)[1]['loss'])
        for i in range(5)
    }
    assert len(shown) > 1


def test_the_attack_draws_apart_from_the_choice_and_per_example():
    def noise(logits_fn, key, x, y):
        return keys.draw(lambda k: jax.random.normal(k, SHAPE), key)

    one_of = OneOf((jax.tree_util.Partial(noise),))
    each = keys.per_example(KEY, 6)
    made = one_of(None, each, X, Y)
    np.testing.assert_array_equal(made[2:3], one_of(None, each[2:3], X[2:3], Y[2:3]))
    np.testing.assert_array_equal(made, noise(None, keys.fold(each, 1), X, Y))


def test_only_the_drawn_attack_runs():
    """One program with a branch for each source."""
    method = training.ensemble_at(0.2, SOURCES)
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    program = jax.make_jaxpr(method.inner)(f, KEY, X, Y)
    choices = [e for e in program.eqns if e.primitive.name == 'cond']
    assert [len(e.params['branches']) for e in choices] == [3]


def test_the_label_does_not_leak_into_the_image():
    method = training.ensemble_at(0.2, SOURCES)
    f = models.logits_fn(MODEL, MODEL.init(KEY)[0])
    for seed in range(4):
        one = method.inner(f, jax.random.key(seed), X, Y)
        two = method.inner(f, jax.random.key(seed), X, (Y + 1) % 3)
        np.testing.assert_array_equal(one, two)


def test_reductions():
    state = start()
    plain = STEP(training.standard(), state, BATCH, KEY)[0].params
    for method in (
        training.ensemble_at(0.2, SOURCES, clean_weight=1.0),
        training.ensemble_at(0.0, SOURCES),
    ):
        close(STEP(method, state, BATCH, KEY)[0].params, plain, atol=1e-6)
    # On its own, where it is right about every label, it is FGSM-AT.
    right = {**BATCH, 'label': jnp.argmax(models.logits_fn(MODEL, state.params)(X), 1)}
    alone = STEP(training.ensemble_at(0.2, []), state, right, KEY)
    fgsm = STEP(training.fgsm_at(0.2), state, right, KEY)
    close(alone[0].params, fgsm[0].params, atol=1e-7)
    np.testing.assert_allclose(alone[1]['loss'], fgsm[1]['loss'], rtol=1e-6)


def test_sources_are_leaves_and_stay_as_they_are():
    before = STEP._cache_size()
    for seed, eps in ((1, 0.1), (2, 0.2)):
        source = models.logits_fn(MODEL, MODEL.init(jax.random.key(seed))[0])
        method = training.ensemble_at(eps, [source], clean_weight=eps)
        STEP(method, start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1
    leaves = jax.tree.leaves(training.ensemble_at(0.1, SOURCES))
    weights = jax.tree.leaves(SOURCES)
    assert all(any(leaf is weight for leaf in leaves) for weight in weights)


def test_vmap_over_the_weight():
    def one(alpha):
        method = training.ensemble_at(0.2, SOURCES)
        method = method.replace(outer=method.outer.replace(clean_weight=alpha))
        return training.step(method, start(), BATCH, KEY)[0].params

    many = jax.jit(jax.vmap(one))(jnp.array([0.0, 0.25]))
    for i, alpha in enumerate((0.0, 0.25)):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(jnp.float32(alpha)))


def test_soft_labels_and_batch_normalisation():
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    method = training.ensemble_at(attacks.pgd(0.2, 2, keep_best=False), SOURCES)
    state = start(model)
    hard, _ = STEP(method, state, BATCH, KEY)
    soft, _ = STEP(method, state, {**BATCH, 'label': jax.nn.one_hot(Y, 3)}, KEY)
    close(hard.params, soft.params, atol=1e-6)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), state.model_state, hard.model_state
    )
    assert any(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (
            lambda: training.ensemble_at(0.1, SOURCES, clean_weight=-0.1),
            r'clean_weight must .* -0.1',
        ),
        (lambda: training.ensemble_at(0.1, SOURCES[0]), 'sources must be a list'),
        (lambda: training.ensemble_at(0.1, ['net']), 'expected a callable'),
        (lambda: training.ensemble_at('fgsm', SOURCES), 'expected a callable'),
        (lambda: training.ensemble_at(-0.1, SOURCES), 'eps must be a radius >= 0'),
        (lambda: attacks.rand_fgsm(0.1, share=1.5), r'share must lie .* 1.5'),
        (lambda: attacks.rand_fgsm(attacks.fgm(0.1)), 'ball must be a radius of linf'),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_rand_fgsm_is_its_equation():
    """Both steps clipped, from the authors' code, with the signs that were drawn."""
    f, eps, alpha = SOURCES[0], 0.2, 0.05
    ball = linf(eps)
    attack = attacks.rand_fgsm(ball, share=alpha / eps)
    each = keys.per_example(KEY, 6)
    drawn = keys.fold(each, 0)
    signs = (attacks.starts.corner(linf(1.0, bounds=None), drawn, X) - X).round()
    np.testing.assert_array_equal(jnp.abs(signs), 1)
    first = jnp.clip(X + alpha * signs, 0, 1)

    def loss(x):
        return -jax.nn.log_softmax(f(x))[jnp.arange(6), Y].sum()

    step = (eps - alpha) * jnp.sign(jax.grad(loss)(first))
    expected = jnp.clip(first + step, 0, 1)
    np.testing.assert_allclose(attack(f, each, X, Y), expected, atol=1e-6)
    fgsm = attacks.fgsm(ball)(f, each, X, Y)
    np.testing.assert_array_equal(attacks.rand_fgsm(ball, 0)(f, each, X, Y), fgsm)
    random = attacks.rand_fgsm(ball, 1.0)(f, each, X, Y)
    np.testing.assert_array_equal(random, attacks.starts.corner(ball, drawn, X))
    assert attack.calls == 1


def test_a_start_within_a_share_of_the_radius():
    small = attacks.starts.within(attacks.starts.uniform, 0.25)
    assert small is attacks.starts.within(attacks.starts.uniform, 0.25)
    ball = linf(0.4, bounds=None)
    each = keys.per_example(KEY, 6)
    np.testing.assert_array_equal(
        small(ball, each, X), linf(0.1, bounds=None).sample(each, X)
    )
