"""Keys belong to examples: draws do not see the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import keys

KEY = jax.random.key(5)


def data(key):
    return np.asarray(jax.random.key_data(key))


def test_typed_accepts_old_and_new_keys():
    assert keys.typed(KEY) is KEY
    old = jax.random.PRNGKey(5)
    np.testing.assert_array_equal(data(keys.typed(old)), data(KEY))
    assert keys.typed(old).shape == ()
    many = jax.random.split(old, 3)
    assert keys.typed(many).shape == (3,)
    np.testing.assert_array_equal(data(keys.typed(np.asarray(many))), many)


@pytest.mark.parametrize(
    'bad', [0, 1.5, np.uint32(3), np.zeros(2, np.int32), jnp.zeros(2)]
)
def test_typed_refuses_what_is_no_key_by_name(bad):
    with pytest.raises(ValueError, match=r'key must be .*, got'):
        keys.typed(bad)


def test_one_key_stands_for_the_first_indices():
    each = keys.per_example(KEY, 4)
    assert each.shape == (4,)
    expected = np.stack([data(jax.random.fold_in(KEY, i)) for i in range(4)])
    np.testing.assert_array_equal(data(each), expected)
    assert len(np.unique(expected, axis=0)) == 4
    np.testing.assert_array_equal(data(keys.per_example(KEY, 7)[:4]), data(each))
    np.testing.assert_array_equal(
        data(keys.per_example(jax.random.PRNGKey(5), 4)), data(each)
    )
    assert keys.per_example(KEY, 0).shape == (0,)


def test_keys_of_examples_are_used_as_given():
    each = keys.per_example(KEY, 4)
    assert keys.per_example(each, 4) is each
    old = jax.random.split(jax.random.PRNGKey(0), 3)
    assert keys.per_example(old, 3).shape == (3,)


@pytest.mark.parametrize('shape', [(3,), (5,), (4, 1), (2, 2)])
def test_another_number_of_keys_is_refused_by_name(shape):
    with pytest.raises(ValueError, match='key must be one key or 4 '):
        keys.per_example(jax.random.split(KEY, shape), 4)


def test_keys_of_a_data_set_follow_its_indices():
    index = np.array([7, 0, 123456])
    each = keys.of_index(KEY, index)
    for one, i in zip(each, index, strict=True):
        np.testing.assert_array_equal(data(one), data(jax.random.fold_in(KEY, i)))
    np.testing.assert_array_equal(
        data(keys.of_index(KEY, np.arange(3))), data(keys.per_example(KEY, 3))
    )
    old = keys.of_index(jax.random.PRNGKey(5), index)
    np.testing.assert_array_equal(data(old), data(each))


def test_fold_changes_every_key_in_its_own_way():
    each = keys.per_example(KEY, 3)
    folded = [data(keys.fold(each, step)) for step in (0, 1, jnp.int32(2))]
    for step, got in enumerate(folded):
        for one, row in zip(each, got, strict=True):
            np.testing.assert_array_equal(data(jax.random.fold_in(one, step)), row)
    everything = np.concatenate([data(each), *folded])
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_draws_do_not_see_the_batch():
    each = keys.per_example(KEY, 6)
    whole = keys.draw(lambda key: jax.random.normal(key, (2, 3)), each)
    assert whole.shape == (6, 2, 3)
    for i in range(6):
        np.testing.assert_array_equal(jax.random.normal(each[i], (2, 3)), whole[i])
    order = np.array([3, 5, 0])
    part = keys.draw(lambda key: jax.random.normal(key, (2, 3)), each[order])
    np.testing.assert_array_equal(part, whole[order])


def test_keys_work_under_jit_and_vmap():
    @jax.jit
    def folded(key):
        return keys.fold(keys.per_example(key, 3), 1)

    expected = keys.fold(keys.per_example(KEY, 3), 1)
    np.testing.assert_array_equal(data(folded(KEY)), data(expected))
    both = jax.vmap(folded)(jax.random.split(KEY, 2))
    assert both.shape == (2, 3)
    np.testing.assert_array_equal(
        data(both[1]), data(folded(jax.random.split(KEY, 2)[1]))
    )
