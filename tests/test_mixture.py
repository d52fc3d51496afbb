"""Mixtures: the ratio of every batch, and what an epoch passes over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import data

N, M = 23, 17


def _dataset(n, name='real', first=0, classes='abcd'):
    values = np.arange(first, first + n, dtype=np.uint8)
    images = values[:, None, None, None] * np.ones((2, 3, 1), np.uint8)
    return data.Dataset(images, (values % 4).astype(np.int32), (*classes,), name, 's')


def _mixture(fraction=0.3, n=N, m=M):
    return data.mixture(_dataset(n), _dataset(m, 'made', first=100), fraction)


def _flat(epoch):
    return np.asarray(epoch.index), np.asarray(epoch.mask)


@pytest.mark.parametrize(
    ('fraction', 'batch_size', 'share'), [(0.3, 8, 2), (0.7, 10, 7), (0.5, 4, 2)]
)
def test_every_batch_has_the_ratio(fraction, batch_size, share):
    mixture = _mixture(fraction)
    assert mixture.shares(batch_size) == (batch_size - share, share)
    epoch = data.epoch_of(mixture, jax.random.key(0), 3, batch_size)
    steps = -(-N // (batch_size - share))
    assert epoch.index.shape == epoch.mask.shape == (steps, batch_size)
    assert epoch.index.dtype == jnp.int32
    assert data.batches_per_epoch(mixture, batch_size) == steps
    index, mask = _flat(epoch)
    extra = index >= N
    assert index.max() < N + M
    np.testing.assert_array_equal(extra.sum(axis=1), share)
    # One pass over train under the mask; what fills up is of train, too.
    assert sorted(index[mask & ~extra]) == list(range(N))
    assert mask[extra].all()
    assert not mask[-1][~extra[-1]].all() or N % (batch_size - share) == 0
    # Any run of rows has the ratio within one.
    total = np.cumsum(np.pad(extra, ((0, 0), (1, 0))), axis=1)
    for width in range(1, batch_size):
        counts = total[:, width:] - total[:, :-width]
        assert np.abs(counts - width * share / batch_size).max() < 1


def test_extra_examples_are_cycled_across_epochs():
    mixture, key = _mixture(0.3), jax.random.key(4)
    used = []
    for number in range(9):
        index, _ = _flat(data.epoch_of(mixture, key, number, 8))
        used += [i - N for i in index.ravel() if i >= N]
    passes = [used[i : i + M] for i in range(0, len(used) - M + 1, M)]
    assert len(passes) == 4
    for one in passes:
        assert sorted(one) == list(range(M))
    assert len({tuple(one) for one in passes}) == len(passes)


def test_a_small_extra_set_is_cycled_within_an_epoch():
    index, _ = _flat(data.epoch_of(_mixture(0.5, m=3), jax.random.key(0), 0, 4))
    used = [i - N for i in index.ravel() if i >= N]
    assert len(used) == 24
    for start in range(0, 24, 3):
        assert sorted(used[start : start + 3]) == [0, 1, 2]


def test_an_epoch_is_made_of_the_key_and_the_number():
    mixture, key = _mixture(), jax.random.key(1)
    first = data.epoch_of(mixture, key, 5, 8)
    data.epoch_of(mixture, key, 2, 8)
    again = data.epoch_of(mixture, key, 5, 8)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for other in (
        data.epoch_of(mixture, key, 6, 8),
        data.epoch_of(mixture, jax.random.key(2), 5, 8),
    ):
        for which in (first.index < N, first.index >= N):
            assert np.any(np.asarray(first.index != other.index)[which])


def test_an_epoch_of_a_data_set_is_that_of_its_indices():
    key, dataset = jax.random.key(1), _dataset(20)
    expected = data.epoch_indices(jax.random.fold_in(key, 7), 20, 8)
    got = data.epoch_of(dataset, key, 7, 8)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert data.batches_per_epoch(dataset, 8) == 3


def test_a_mixture_stands_where_a_data_set_does():
    mixture = _mixture()
    on_device = data.device_data(mixture)
    assert on_device.images.shape == (N + M, 2, 3, 1)
    epoch = data.epoch_of(mixture, jax.random.key(0), 0, 8)
    batch = data.take(on_device, jax.tree.map(lambda rows: rows[1], epoch))
    index = np.asarray(batch['index'])
    value = np.where(index < N, index, index - N + 100)
    np.testing.assert_array_equal(
        batch['image'][:, 0, 0, 0], value.astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(batch['label'], value % 4)
    assert mixture.class_names == (*'abcd',)
    assert (mixture.name, mixture.split) == ('real with 0.3 made', 's with s')
    assert mixture.images is mixture.images


@pytest.mark.parametrize(
    ('change', 'fraction', 'match'),
    [
        ({}, 0, r'^fraction must be between 0 and 1, got 0'),
        ({}, 1.0, r'^fraction .* got 1.0'),
        ({}, float('nan'), r'^fraction .* got nan'),
        (
            {'images': np.zeros((17, 4, 3, 1), np.uint8)},
            0.5,
            r'^extra must .*\(2, 3, 1',
        ),
        (
            {'images': np.zeros((17, 2, 3, 1), np.float32)},
            0.5,
            '^extra must .* float32',
        ),
        ({'labels': np.zeros(3, np.int32)}, 0.5, '^extra must .* 17 images and 3'),
        ({'class_names': (*'dcba',)}, 0.5, '^extra must have the classes'),
    ],
)
def test_mixtures_refuse(change, fraction, match):
    extra = _dataset(M, 'made')._replace(**change)
    with pytest.raises(ValueError, match=match):
        data.mixture(_dataset(N), extra, fraction)


def test_batches_too_small_for_both_are_refused():
    for fraction in (0.1, 0.9):
        for call in (
            lambda mixture: data.epoch_of(mixture, jax.random.key(0), 0, 3),
            lambda mixture: data.batches_per_epoch(mixture, 3),
        ):
            with pytest.raises(ValueError, match=r'^batch_size must leave room'):
                call(_mixture(fraction))
    with pytest.raises(ValueError, match=r'^number must be >= 0, got -1'):
        data.epoch_of(_mixture(), jax.random.key(0), -1, 8)


@pytest.mark.parametrize('batch_size', [4, 10, 50])
def test_pseudo_labels_are_the_answers(batch_size):
    images = _dataset(11).images

    def logits_fn(x):
        value = jnp.round(x[:, 0, 0, 0] * 255)
        return -jnp.abs(value[:, None] % 3 - jnp.arange(3)[None])

    made = data.pseudo_labelled(
        images, logits_fn, ('a', 'b', 'c'), batch_size=batch_size
    )
    np.testing.assert_array_equal(made.labels, np.arange(11) % 3)
    assert made.labels.dtype == np.int32
    assert made.class_names == ('a', 'b', 'c')
    with pytest.raises(ValueError, match=r'^class_names must name the 3 .* got 2'):
        data.pseudo_labelled(images, logits_fn, ('a', 'b'))
    with pytest.raises(ValueError, match=r'^images must hold at least one'):
        data.pseudo_labelled(images[:0], logits_fn, ('a', 'b', 'c'))
