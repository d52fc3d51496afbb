"""Split batch normalisation and AdvProp: every branch keeps to itself."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from advjax import attacks, data, evaluation, keys, linf, losses, models, training, zoo

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)


class Split(nnx.Module):
    """A user's own: dense, so that it compiles quickly."""

    def __init__(self, rngs, branches=3):
        self.full = nnx.Linear(16, 8, rngs=rngs)
        self.norm = zoo.SplitBatchNorm(8, branches, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def features(self, x, branch=0):
        return nnx.relu(self.norm(self.full(x.reshape(x.shape[0], -1)), branch))

    def __call__(self, x, branch=0):
        return self.out(self.features(x, branch))


class Ordinary(Split):
    """The same with nnx's own layer."""

    def __init__(self, rngs):
        super().__init__(rngs, branches=1)
        self.norm: Any = self.norm.branches[0]

    def __call__(self, x):
        x = nnx.relu(self.norm(self.full(x.reshape(x.shape[0], -1))))
        return self.out(x)


def net(branches):
    return zoo.split_norm_cnn(SHAPE, 3, (3, 4), 5, branches)


MODEL = models.from_nnx(Split)


class LinenSplit(linen.Module):
    """A user's own: linen makes the layers of a branch when it is first called."""

    @linen.compact
    def __call__(self, x, train, branch=0):
        x = linen.Dense(8)(x.reshape(x.shape[0], -1))
        norm = linen.BatchNorm(use_running_average=not train, name=f'norm{branch}')
        return linen.Dense(3)(linen.relu(norm(x)))


LINEN = models.from_linen(
    LinenSplit(), X, train_argument='train', views=[{'branch': 1}, {'branch': 2}]
)


def branch_of(path):
    """The branch that a leaf belongs to, or None where it is shared."""
    names = [str(getattr(part, 'key', part)) for part in path]
    for before, name in itertools.pairwise(names):
        if before == 'branches':
            return int(name)
    mine = [name for name in names if name.startswith('norm') and name[4:].isdigit()]
    return int(mine[0][4:]) if mine else None


def moved(before, after):
    """The branches with a leaf that changed; 'shared' for those of none."""
    found = set()
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(before),
        jax.tree_util.tree_leaves_with_path(after),
        strict=True,
    ):
        if bool((a != b).any()):
            branch = branch_of(path)
            found.add('shared' if branch is None else branch)
    return found


@pytest.fixture(params=['nnx', 'linen'])
def model(request):
    return MODEL if request.param == 'nnx' else LINEN


def apart(model):
    """Parameters and statistics by which the branches differ."""
    params, state = model.init(KEY)
    for branch in range(3):
        x = X * (1 + branch) + branch
        for _ in range(3):
            _, state = model.apply(params, state, x, train=True, branch=branch)
    return params, state


@pytest.mark.parametrize('branch', [0, 1, 2])
def test_a_batch_touches_the_statistics_of_its_branch_and_no_other(model, branch):
    params, state = model.init(KEY)
    _, after = model.apply(params, state, X, train=True, branch=branch)
    assert moved(state, after) == {branch}


def test_without_a_view_the_main_branch_answers(model):
    params, state = apart(model)
    plain = models.logits_fn(model, params, state)(X)
    by_branch = [models.logits_fn(model, params, state, branch=b)(X) for b in range(3)]
    np.testing.assert_array_equal(plain, by_branch[0])
    for b in (1, 2):
        assert np.abs(plain - by_branch[b]).max() > 1e-2
    assert np.abs(by_branch[1] - by_branch[2]).max() > 1e-2
    _, after = model.apply(params, state, X, train=True)
    assert moved(state, after) == {0}


def test_a_view_may_be_given_when_the_function_is_called(model):
    params, state = apart(model)
    aux: Any = models.logits_fn(model, params, state, branch=1)
    main: Any = models.logits_fn(model, params, state)
    np.testing.assert_array_equal(main(X, branch=1), aux(X))
    np.testing.assert_array_equal(aux(X, branch=0), main(X))


def test_views_of_plain_functions():
    def apply(w, x, sign=1):
        return sign * (x.reshape(x.shape[0], -1) @ w)

    model = models.from_function(lambda key: jax.random.normal(key, (16, 3)), apply)
    params, _ = model.init(KEY)
    one = models.logits_fn(model, params)(X)
    np.testing.assert_array_equal(models.logits_fn(model, params, sign=-1)(X), -one)
    with pytest.raises(TypeError, match='branch'):
        models.logits_fn(model, params, branch=1)(X)


def test_one_view_is_one_program():
    run = jax.jit(lambda f, x: f(x))
    for seed in (0, 1):
        for branch in (0, 1):
            params, state = MODEL.init(jax.random.key(seed))
            run(models.logits_fn(MODEL, params, state, branch=branch), X)
    assert run._cache_size() == 2


def test_one_branch_is_ordinary_batch_normalisation():
    """Equal logits, gradients and statistics after training steps."""
    ours = models.from_nnx(functools.partial(Split, branches=1))
    theirs = models.from_nnx(Ordinary)
    trained = []
    for model in (ours, theirs):
        state = training.create(model, SGD, key=KEY)
        for _ in range(3):
            state, metrics = STEP(training.standard(), state, BATCH, KEY)
        f = models.logits_fn(model, state.params, state.model_state)
        trained.append((metrics['loss'], f(X), jax.tree.leaves(state.model_state)))
    (loss, logits, stats), (loss2, logits2, stats2) = trained
    np.testing.assert_array_equal(loss, loss2)
    np.testing.assert_array_equal(logits, logits2)
    for a, b in zip(stats, stats2, strict=True):
        np.testing.assert_array_equal(a, b)


def test_normalises_with_the_statistics_of_the_branch():
    """An independent transcription in NumPy, in both modes."""
    layer = zoo.SplitBatchNorm(3, 2, momentum=0.8, epsilon=1e-3, rngs=nnx.Rngs(0))
    x = np.asarray(jax.random.normal(KEY, (50, 3)) * 3 + 2)
    mean, var = x.mean(0), x.var(0)
    got = layer(jnp.asarray(x), branch=1)
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(var + 1e-3), atol=1e-4)
    np.testing.assert_allclose(layer.branches[1].mean[...], 0.2 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.branches[1].var[...], 0.8 + 0.2 * var, rtol=1e-4)
    np.testing.assert_array_equal(layer.branches[0].mean[...], 0)
    layer.eval()
    np.testing.assert_allclose(layer(jnp.asarray(x)), x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(
        layer(jnp.asarray(x), branch=1),
        (x - 0.2 * mean) / np.sqrt(0.8 + 0.2 * var + 1e-3),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_attack_sees_the_branch_of_the_method(model):
    """What a spy is shown is the method's view, in eval and in train mode."""
    state = training.create(model, SGD, key=KEY)
    params, stats = apart(model)
    state = state.replace(params=params, model_state=stats)
    seen = []

    def spy(logits_fn, key, x, y):
        seen.append(logits_fn(x))
        return x

    for train_mode in (False, True):
        for view in ({}, {'branch': 2}):
            method = training.method(spy, training.on_adversarial, train_mode, view)
            training.step(method, state, BATCH, KEY)
            expected, _ = model.apply(params, stats, X, train=train_mode, **view)
            np.testing.assert_allclose(seen[-1], expected, rtol=1e-5, atol=1e-6)


def test_advprop_crafts_and_trains_in_the_branch():
    """Against its equation in plain JAX, with two auxiliary branches."""
    params, stats = apart(MODEL)
    state = training.create(MODEL, SGD, key=KEY).replace(
        params=params, model_state=stats
    )
    first, second = (attacks.pgd(linf(eps), 2, keep_best=False) for eps in (0.1, 0.3))
    method = training.advprop(first, second)
    now = jax.random.fold_in(KEY, 0)
    each = keys.of_index(jax.random.split(now)[0], jnp.arange(6))
    made = [
        attack(
            models.logits_fn(MODEL, params, stats, branch=b), keys.fold(each, b), X, Y
        )
        for b, attack in ((1, first), (2, second))
    ]

    def loss(params):
        total = 0
        for branch, images in enumerate([X, *made]):
            z, _ = MODEL.apply(params, stats, images, train=True, branch=branch)
            total += losses.cross_entropy(z, Y).mean()
        return total

    new, metrics = STEP(method, state, BATCH, KEY)
    value, gradient = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
    got = jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), got, gradient
    )
    assert moved(stats, new.model_state) == {0, 1, 2}
    assert moved(params, new.params) == {0, 1, 2, 'shared'}
    # Through the main branch other images would have been made.
    wrong = first(models.logits_fn(MODEL, params, stats), keys.fold(each, 1), X, Y)
    assert float(jnp.abs(wrong - made[0]).max()) > 0.1


def test_statistics_of_advprop_are_those_of_each_kind_of_image():
    params, stats = apart(MODEL)
    state = training.create(MODEL, SGD, key=KEY).replace(
        params=params, model_state=stats
    )

    def brighter(logits_fn, key, x, y):
        return x + 5

    new, _ = STEP(training.advprop(brighter), state, BATCH, KEY)
    _, clean = MODEL.apply(params, stats, X, train=True)
    _, other = MODEL.apply(params, clean, X + 5, train=True, branch=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        new.model_state,
        other,
    )


def test_clean_training_never_touches_the_auxiliary_branches(model):
    state = training.create(model, SGD, key=KEY)
    new, _ = STEP(training.standard(), state, BATCH, KEY)
    assert moved(state.model_state, new.model_state) == {0}
    assert moved(state.params, new.params) <= {0, 'shared'}


def test_without_normalisation_advprop_is_joint_training():
    def apply(w, x, branch=0):
        return x.reshape(x.shape[0], -1) @ w

    plain = models.from_function(lambda key: jax.random.normal(key, (16, 3)), apply)
    attack = attacks.fgsm(linf(0.1))
    one, two = (
        STEP(method, training.create(plain, SGD, key=KEY), BATCH, KEY)
        for method in (training.advprop(attack), training.joint(attack))
    )
    np.testing.assert_allclose(one[1]['loss'], two[1]['loss'], rtol=1e-5)
    np.testing.assert_allclose(one[0].params, two[0].params, atol=1e-6)
    # What is counted as right is the clean answer.
    clean = jnp.argmax(apply(plain.init(KEY)[0], X), 1) == Y
    for _, metrics in (one, two):
        np.testing.assert_allclose(metrics['accuracy'], clean.mean(), rtol=1e-6)


def test_joint_training_normalises_the_mixture():
    state = training.create(MODEL, SGD, key=KEY)

    def brighter(logits_fn, key, x, y):
        return x + 5

    new, _ = STEP(training.joint(brighter), state, BATCH, KEY)
    both = jnp.concatenate([X, X + 5])
    _, expected = MODEL.apply(state.params, state.model_state, both, train=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        new.model_state,
        expected,
    )
    assert moved(state.model_state, new.model_state) == {0}


def test_padding_does_not_count_in_advprop_without_statistics():
    """Losses are per example; batch statistics are of real images by construction."""
    method = training.advprop(0.1, steps=1)
    masked = {**BATCH, 'mask': jnp.arange(6) < 4}
    state = training.create(MODEL, SGD, key=KEY)
    _, metrics = STEP(method, state, masked, KEY)
    assert np.isfinite(metrics['loss'])
    assert STEP(method, state, masked, KEY)[0].totals['count'] == 4


def test_the_steps_of_the_paper():
    """On the scale of 0 to 255: radius 4, steps of 1, five of them."""
    inner = training.advprop(4 / 255).inner.attacks[0]
    assert inner.steps == 5
    np.testing.assert_allclose(inner.rate * inner.ball.eps, 1 / 255, rtol=1e-6)
    weak = training.advprop(1 / 255, steps=1).inner.attacks[0]
    np.testing.assert_allclose(weak.rate * weak.ball.eps, 1 / 255, rtol=1e-6)
    assert training.advprop(0.1).adversarial
    assert training.advprop(0.1).view == (('branch', 1),)


class Digits(Split):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.full = nnx.Linear(64, 32, rngs=rngs)
        self.norm = zoo.SplitBatchNorm(32, rngs=rngs)
        self.out = nnx.Linear(32, 10, rngs=rngs)


def test_the_loop_watches_each_branch_for_what_it_is_for(tmp_path):
    """Clean accuracy of the main branch chooses; robust accuracy is branch 1's."""
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 200, seed=0)
    model = models.from_nnx(Digits)
    method = training.advprop(linf(0.15), steps=2)
    fit = training.fit(
        method,
        model,
        optax.adam(1e-2),
        rest,
        held,
        key=KEY,
        epochs=10,
        batch_size=64,
        attack=attacks.pgd(linf(0.25), 5),
        checkpoints=tmp_path,
    )
    assert not fit.events
    best = max(fit.history, key=lambda row: row['held_out_clean'])
    x, y = data.to_float(held.images), jnp.asarray(held.labels)
    clean = float((jnp.argmax(fit.logits_fn(x), 1) == y).mean())
    assert clean == pytest.approx(best['held_out_clean'])
    robust = []
    for branch in (0, 1):
        f = models.logits_fn(model, fit.params, fit.model_state, branch=branch)
        found = evaluation.evaluate(
            f,
            np.asarray(x),
            held.labels,
            {'held out': attacks.pgd(linf(0.25), 5)},
            key=jax.random.fold_in(KEY, 2**31 - 1),
            batch_size=200,
        )
        robust.append(found.robust_accuracy)
    # Farther than in training the branches are apart on every processor.
    assert robust[1] == best['held_out_robust'] > robust[0] + 0.02
    again = training.restore(tmp_path, model)
    np.testing.assert_array_equal(again(x), fit.logits_fn(x))


def test_features_are_the_main_branch():
    params, state = apart(MODEL)
    got = models.features_fn(MODEL, params, state)(X)
    assert got.shape == (6, 8)
    out = params['out']
    expected = models.logits_fn(MODEL, params, state)(X)
    np.testing.assert_allclose(
        got @ out['kernel'] + out['bias'][None], expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: net(0), 'branches must be an integer >= 1, got 0'),
        (lambda: net(1.5), 'branches must be an integer >= 1, got 1.5'),
        (lambda: zoo.split_norm_cnn((3, 3, 1)), 'sides of at least 4'),
        (lambda: training.advprop(), 'inner must hold at least one'),
        (lambda: training.advprop(-0.1), 'eps must be a radius >= 0'),
        (lambda: training.advprop(0.1, steps=0), 'steps must be an integer >= 1'),
        (lambda: training.advprop('pgd'), 'expected a callable'),
        (
            lambda: training.method(
                training.unperturbed, training.on_adversarial, view={'train': True}
            ),
            r"view must not name \['train'\]",
        ),
        (
            lambda: models.logits_fn(MODEL, *MODEL.init(KEY), branch=3)(X),
            'branch must be in 0..2, got 3',
        ),
        (
            lambda: models.logits_fn(MODEL, *MODEL.init(KEY), branch=-1)(X),
            'branch must be in 0..2, got -1',
        ),
        (
            lambda: models.from_linen(LinenSplit(), X, 'train', [{'side': 1}]),
            "views must be one of .*'branch'.*got 'side'",
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_convolutional_network_has_a_norm_for_every_layer():
    assert zoo.split_norm_cnn(SHAPE, 3) is zoo.split_norm_cnn(SHAPE, 3)
    model = net(2)
    params, state = model.init(KEY)
    assert sorted(params['norms']) == [0, 1, 2]
    for branch in (0, 1):
        _, after = model.apply(params, state, X, train=True, branch=branch)
        assert moved(state, after) == {branch}
        assert moved(state['norms'][2], after['norms'][2]) == {branch}
    assert models.logits_fn(model, params, state)(X).shape == (6, 3)
