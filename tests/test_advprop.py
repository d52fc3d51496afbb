"""AdvProp beyond two branches of balls: augmentations, targets, soft labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, keys, linf, losses, models, training
from advjax.data import augment
from tests.test_split_norm import LINEN, Split, apart, moved

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = models.from_nnx(Split)
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)


def flip(key, x, y):
    """A user's augmentation."""

    def one(key, image):
        return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)

    return jax.vmap(one)(key, x), y


augmented = training.augmented(flip)


def begin(model=MODEL):
    params, stats = apart(model)
    state = training.create(model, SGD, key=KEY)
    return state.replace(params=params, model_state=stats)


def inner_keys():
    return keys.of_index(jax.random.split(jax.random.fold_in(KEY, 0))[0], jnp.arange(6))


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-4, **tolerance}),
        a,
        b,
    )


@pytest.mark.parametrize('model', [MODEL, LINEN], ids=['nnx', 'linen'])
def test_a_branch_may_be_an_augmentation(model):
    """Clean, attacked and augmented images, each in its normalisation."""
    state = begin(model)
    method = training.advprop(linf(0.1), augmented, steps=2)
    each = inner_keys()
    through = models.logits_fn(model, state.params, state.model_state, branch=1)
    attack = attacks.pgd(linf(0.1), 2, 1.0, keep_best=False)
    made = [
        attack(through, keys.fold(each, 1), X, Y),
        augmented(None, keys.fold(each, 2), X, Y),
    ]
    turned = np.asarray((made[1] == X[:, :, ::-1]).all((1, 2, 3)))
    assert 0 < turned.sum() < 6

    def loss(params):
        total, stats = 0, state.model_state
        for branch, images in enumerate([X, *made]):
            z, stats = model.apply(params, stats, images, train=True, branch=branch)
            total -= jax.nn.log_softmax(z)[jnp.arange(6), Y].mean()
        return total, stats

    new, metrics = STEP(method, state, BATCH, KEY)
    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
    got = jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, state.params)
    close(got, gradient, atol=3e-4)
    close(new.model_state, stats)
    assert moved(state.model_state, new.model_state) == {0, 1, 2}


def test_the_augmentations_of_the_library_are_branches():
    method = training.advprop(training.augmented(augment.flip()))
    (made,) = method.inner(None, inner_keys(), X, Y)
    expected, _ = augment.flip()(keys.fold(inner_keys(), 1), X, Y)
    np.testing.assert_array_equal(made, expected)
    assert (made != X).any()
    # Mixing changes labels, which belong to all branches.
    mixing = training.advprop(training.augmented(augment.cutmix(1.0, 3)))
    with pytest.raises(ValueError, match='augment must leave the labels'):
        mixing.inner(None, inner_keys(), X, Y)
    with pytest.raises(ValueError, match='expected a callable'):
        training.augmented('flip')


def test_random_targets_are_uniform_and_reached():
    seen = []

    def spy(logits_fn, key, x, y, target):
        seen.append((key, target))
        return x

    def three(x):
        return jnp.zeros((x.shape[0], 3))

    x = jnp.zeros((900, 2))
    y = jnp.zeros(900, jnp.int32)
    aimed = training.random_target(spy, 3)
    each = keys.per_example(KEY, 900)
    aimed(three, each, x, y)
    key, target = seen[0]
    counts = np.bincount(np.asarray(target), minlength=3)
    assert len(counts) == 3
    assert np.abs(counts - 300).max() < 5 * (900 * 2 / 9) ** 0.5
    # Each example draws for itself, apart from the draws of its attack.
    aimed(three, each[5:7], x[:2], y[:2])
    np.testing.assert_array_equal(seen[1][1], target[5:7])
    assert (key == keys.fold(each, 1)).all()
    # The attack is towards it: what is drawn becomes likelier.
    f = models.logits_fn(MODEL, *apart(MODEL))
    aimed = training.random_target(attacks.pgd(0.2, 5, keep_best=False), 3)
    each = inner_keys()
    drawn = keys.draw(lambda k: jax.random.randint(k, (), 0, 3), keys.fold(each, 0))
    found = aimed(f, each, X, Y)
    before, after = (losses.cross_entropy(f(x), drawn) for x in (X, found))
    assert (after < before).all()


def test_advprop_takes_a_random_target_through_its_branch():
    state = begin()
    inner = training.random_target(attacks.pgd(0.1, 1, 1.0, keep_best=False), 3)
    method = training.advprop(inner)
    f = models.logits_fn(MODEL, state.params, state.model_state, branch=1)
    (made,) = method.inner(f, inner_keys(), X, Y)
    np.testing.assert_array_equal(made, inner(f, keys.fold(inner_keys(), 1), X, Y))
    assert np.isfinite(STEP(method, state, BATCH, KEY)[1]['loss'])


def test_soft_labels():
    """One-hot probabilities are the labels; others weigh the losses of all branches."""
    state, method = begin(), training.advprop(0.1, augmented, steps=2)
    hard, m1 = STEP(method, state, BATCH, KEY)
    soft, m2 = STEP(method, state, {**BATCH, 'label': jax.nn.one_hot(Y, 3)}, KEY)
    np.testing.assert_allclose(m1['loss'], m2['loss'], rtol=1e-6)
    close(hard.params, soft.params, atol=1e-6)
    still = training.advprop(0.0, steps=1)
    other = (Y + 1) % 3
    mixed = 0.3 * jax.nn.one_hot(Y, 3) + 0.7 * jax.nn.one_hot(other, 3)
    values = [
        float(STEP(still, state, {**BATCH, 'label': y}, KEY)[1]['loss'])
        for y in (Y, other, mixed)
    ]
    assert values[2] == pytest.approx(0.3 * values[0] + 0.7 * values[1], rel=1e-5)


def test_smoothed_and_with_weights_perturbed():
    """Wrappers of any method wrap this one."""
    state, method = begin(), training.advprop(0.1, augmented, steps=1)
    plain = STEP(method, state, BATCH, KEY)[0]
    wrapped = training.awp(training.smooth_labels(method, 0.0), gamma=0.0)
    close(STEP(wrapped, state, BATCH, KEY)[0].params, plain.params, atol=1e-6)
    assert wrapped.view == method.view
