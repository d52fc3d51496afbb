"""Adapters: nnx, linen and plain functions become the same two pure functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from advjax import attacks, models, training

X = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1))
Y = jnp.arange(6) % 3


class NnxNet(nnx.Module):
    def __init__(self, rngs, rate=0.5):
        self.one = nnx.Linear(16, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.two = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.one(x.reshape(x.shape[0], -1))))
        return self.two(self.drop(x))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.Dense(8)(x.reshape(x.shape[0], -1))
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(x))


@pytest.fixture(params=['nnx', 'linen'])
def model(request):
    if request.param == 'nnx':
        return models.from_nnx(NnxNet)
    return models.from_linen(LinenNet(), X, train_argument='train')


def test_eval_mode_is_deterministic_and_changes_nothing(model):
    params, state = model.init(jax.random.key(1))
    one, after = model.apply(params, state, X, train=False, key=jax.random.key(1))
    two, _ = model.apply(params, state, X, train=False, key=jax.random.key(2))
    np.testing.assert_array_equal(one, two)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), state, after))


def test_train_mode_drops_by_key_and_updates_statistics(model):
    params, state = model.init(jax.random.key(1))
    one, after = model.apply(params, state, X, train=True, key=jax.random.key(1))
    same, _ = model.apply(params, state, X, train=True, key=jax.random.key(1))
    other, _ = model.apply(params, state, X, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state, after)
    assert any(jax.tree.leaves(changed))


def test_attack_and_training_leave_the_statistics_to_the_outer_step(model):
    """Attacking inside the step must not move BatchNorm: eps does not matter to it."""
    batch = {'image': X, 'label': Y}
    moved = []
    for steps in (1, 7):
        method = training.pgd_at(0.0, steps)
        state = training.create(model, optax.sgd(0.1), key=jax.random.key(0))
        state, _ = jax.jit(training.step)(method, state, batch, jax.random.key(3))
        moved.append(jax.tree.leaves(state.model_state))
    for a, b in zip(*moved, strict=True):
        np.testing.assert_array_equal(a, b)


def test_examples_do_not_meet_in_eval_mode(model):
    params, state = model.init(jax.random.key(1))
    f = models.logits_fn(model, params, state)
    np.testing.assert_allclose(f(X)[2:3], f(X[2:3]), rtol=1e-5, atol=1e-6)


def test_new_parameters_do_not_recompile(model):
    run = jax.jit(lambda f, x: attacks.pgd(0.1, 2)(f, jax.random.key(0), x, Y))
    for seed in (0, 1):
        run(models.logits_fn(model, *model.init(jax.random.key(seed))), X)
    assert run._cache_size() == 1


def test_stacked_parameters_are_many_models(model):
    stacked = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))
    attack = attacks.pgd(0.1, 2)

    def run(params, state):
        return attack(models.logits_fn(model, params, state), jax.random.key(0), X, Y)

    together = jax.jit(jax.vmap(run))(*stacked)
    for i in range(3):
        alone = run(*jax.tree.map(lambda a, i=i: a[i], stacked))
        np.testing.assert_allclose(together[i], alone, atol=1e-5)


def test_the_module_of_the_user_gives_the_same_logits():
    model = models.from_nnx(NnxNet)
    params, state = model.init(jax.random.key(4))
    module = NnxNet(rngs=nnx.Rngs(jax.random.key(4)))
    module.eval()
    got = model.apply(params, state, X)[0]
    np.testing.assert_allclose(got, module(X), rtol=1e-5, atol=1e-6)


def test_plain_functions():
    model = models.from_function(
        lambda key: jax.random.normal(key, (16, 3)),
        lambda w, x: x.reshape(x.shape[0], -1) @ w,
    )
    params, state = model.init(jax.random.key(0))
    assert state == {}
    assert models.logits_fn(model, params)(X).shape == (6, 3)


def test_linen_argument_is_named():
    with pytest.raises(ValueError, match=r"\['x', 'train'\].*'training'"):
        models.from_linen(LinenNet(), X, train_argument='training')


def test_partial_constructors():
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    params, state = model.init(jax.random.key(1))
    one, _ = model.apply(params, state, X, train=True, key=jax.random.key(1))
    two, _ = model.apply(params, state, X, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(one, two)


class Normalised(nnx.Module):
    """A network with its normalisation inside, as constants."""

    def __init__(self, rngs):
        self.mean, self.std = (
            nnx.Variable(jnp.float32(0.5)),
            nnx.Variable(jnp.float32(2)),
        )
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = (x - self.mean[...]) / self.std[...]
        return self.out(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize('train', [False, True])
def test_constants_inside_the_module_are_kept(train):
    model = models.from_nnx(Normalised)
    params, state = model.init(jax.random.key(4))
    expected = Normalised(rngs=nnx.Rngs(jax.random.key(4)))(X)
    got, after = model.apply(params, state, X, train=train)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), state, after))


def test_a_module_instead_of_its_class_is_refused():
    with pytest.raises(ValueError, match='instance of Normalised: pass its class'):
        models.from_nnx(Normalised(rngs=nnx.Rngs(0)))
