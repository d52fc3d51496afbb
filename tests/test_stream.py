"""Streams: one order for any number of processes, nothing lost, resumable."""

import json
import sys

import jax
import numpy as np
import pytest

from advjax import data

pytest.importorskip('grain')

N, B = 13, 4


def _dataset(n=N):
    values = np.arange(n, dtype=np.uint8)
    images = values[:, None, None, None] * np.ones((2, 3, 1), np.uint8)
    return data.Dataset(images, (values % 4).astype(np.int32), (*'abcd',), 'x', 's')


class Examples:
    """A source of one's own; module level, so that workers can have it."""

    def __init__(self, sizes=(2,) * N, dtype=np.uint8):
        self.sizes, self.dtype = sizes, dtype

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, i):
        image = np.full((self.sizes[i], 3, 1), i, self.dtype)
        return {'image': image, 'label': np.int64(i % 4)}


def _top_rows(image):
    return image[:2]


@pytest.fixture
def opened():
    """Opens streams, and closes them."""
    streams = []

    def one(source=None, **options):
        options = {'batch_size': B, **options}
        streams.append(data.stream(source or _dataset(), **options))
        return streams[-1]

    yield one
    for stream in streams:
        stream.close()


def _same(a, b):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
        assert a[name].dtype == b[name].dtype


def test_what_a_stream_says_of_itself(opened):
    stream = opened()
    assert (stream.size, stream.batch_size, stream.batches_per_epoch) == (13, 4, 4)
    assert stream.shape == (2, 3, 1)
    assert stream.class_names == (*'abcd',)
    assert opened(Examples()).class_names == ()


@pytest.mark.parametrize(('n', 'batch_size'), [(13, 4), (12, 4), (3, 8), (1, 1)])
def test_each_example_comes_once_an_epoch(opened, n, batch_size):
    stream = opened(_dataset(n), batch_size=batch_size)
    orders = []
    for epoch in range(3):
        batches = list(stream.batches(epoch))
        assert len(batches) == stream.batches_per_epoch == -(-n // batch_size)
        for batch in batches:
            dtypes = {name: str(value.dtype) for name, value in batch.items()}
            assert dtypes == {
                'image': 'uint8',
                'label': 'int32',
                'index': 'int32',
                'mask': 'bool',
            }
            assert batch['image'].shape == (batch_size, 2, 3, 1)
            # Image, label and position belong together.
            np.testing.assert_array_equal(batch['image'][:, 1, 2, 0], batch['index'])
            np.testing.assert_array_equal(batch['label'], batch['index'] % 4)
        index = np.concatenate([batch['index'] for batch in batches])
        mask = np.concatenate([batch['mask'] for batch in batches])
        assert mask[:n].all()
        assert not mask[n:].any()
        assert sorted(index[mask]) == list(range(n))
        # Filled up by starting over.
        np.testing.assert_array_equal(index, index[np.arange(len(index)) % n])
        orders.append(tuple(index[:n]))
    if n > 5:
        assert len({*orders, tuple(range(n))}) == 4


def test_the_order_belongs_to_the_seed(opened):
    first, again, other = (opened(seed=seed) for seed in (3, 3, 4))
    _same(first.batch(5), again.batch(5))
    orders = [
        [int(i) for k in range(4) for i in stream.batch(k)['index']]
        for stream in (first, other)
    ]
    assert orders[0] != orders[1]


@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_the_batches_of_one(opened, count):
    whole = opened()
    parts = [opened(process_index=p, process_count=count) for p in range(count)]
    assert {part.fingerprint() for part in parts} == {whole.fingerprint()}
    for epoch in (0, 2):
        each = [list(stream.batches(epoch)) for stream in (whole, *parts)]
        for expected, *rows in zip(*each, strict=True):
            assert all(len(part['label']) == B // count for part in rows)
            joined = {
                name: np.concatenate([part[name] for part in rows]) for name in expected
            }
            _same(joined, expected)


def test_the_batch_of_a_step_by_its_number(opened):
    stream = opened()
    numbered = [batch for epoch in range(2) for batch in stream.batches(epoch)]
    for step, batch in enumerate(numbered):
        _same(stream.batch(step), batch)
        assert isinstance(batch['image'], np.ndarray)


def test_an_epoch_may_begin_anywhere(opened):
    stream = opened()
    whole = list(stream.batches(1))
    for first in range(5):
        rest = list(opened().batches(1, first))
        assert len(rest) == 4 - first
        for got, expected in zip(rest, whole[first:], strict=True):
            _same(got, expected)
    # Going back, and reading two at once, is no trouble either.
    one, two = stream.batches(1), stream.batches(1, 2)
    for number in (0, 1):
        _same(next(one), whole[number])
        _same(next(two), whole[number + 2])


def test_an_interrupted_stream_goes_on(opened):
    uninterrupted = opened(seed=2)
    expected = [batch for epoch in range(3) for batch in uninterrupted.batches(epoch)]
    before = opened(seed=2)
    states = [before.state()]
    for epoch in range(3):
        for _ in before.batches(epoch):
            states.append(json.loads(json.dumps(before.state())))  # noqa: PERF401
    assert [states[k]['epoch'] for k in (0, 3, 4, 9)] == [0, 0, 1, 2]
    for done in (0, 1, 4, 6, 11):
        after = opened(seed=2)
        after.restore(states[done])
        assert after.state() == states[done]
        got = list(after.batches())
        assert len(got) == 4 - done % 4
        for batch, same in zip(got, expected[done:], strict=False):
            _same(batch, same)
    # Another number of processes reads the same rows.
    half = opened(seed=2, process_index=1, process_count=2)
    half.restore(states[6])
    np.testing.assert_array_equal(
        next(half.batches())['index'], expected[6]['index'][2:]
    )


def test_a_state_of_other_data_is_refused(opened):
    state = opened().state()
    for other, name in (
        (opened(seed=1), 'seed'),
        (opened(_dataset(12)), 'size'),
        (opened(batch_size=2), 'batch_size'),
    ):
        with pytest.raises(ValueError, match=f'^state must be of a stream with {name}'):
            other.restore(state)


def test_fingerprints_tell_streams_apart(opened):
    same = [opened().fingerprint() for _ in range(2)]
    assert same[0] == same[1]
    changed = _dataset()
    changed.images[0] += 1
    others = [
        opened(seed=1),
        opened(batch_size=2),
        opened(_dataset(12)),
        opened(changed),
        opened(_dataset()._replace(name='y')),
    ]
    assert len({same[0], *(stream.fingerprint() for stream in others)}) == 6


def test_images_of_several_sizes_need_a_transform(opened):
    sizes = (2, 2, 5, *[3] * (N - 3))
    with pytest.raises(ValueError, match=r'^transform must .* \(\d, 3, 1\), the first'):
        list(opened(Examples(sizes)).batches(0))
    stream = opened(Examples(sizes), transform=_top_rows)
    got = {int(i) for batch in stream.batches(0) for i in batch['image'][:, 0, 0, 0]}
    assert got == set(range(N))
    assert stream.shape == (2, 3, 1)


def test_floats_are_refused(opened):
    with pytest.raises(ValueError, match=r'^source must give uint8 .* got float32'):
        opened(Examples(dtype=np.float32))


def test_pixels_arrive_as_they_were(opened):
    batch = opened(_dataset(256), batch_size=256).batch(0)
    pixels = np.asarray(jax.jit(data.to_float)(batch['image']))[:, 0, 0, 0]
    expected = batch['index'].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(pixels, expected)


def test_workers_read_the_same(opened):
    expected = opened(Examples())
    stream = opened(Examples(), workers=1)
    for epoch in range(2):
        each = zip(stream.batches(epoch), expected.batches(epoch), strict=True)
        for got, same in each:
            _same(got, same)


def test_mnist_by_its_name(tfds_dir, opened):
    stream = opened('mnist', split='test[:100]', batch_size=32, data_dir=tfds_dir)
    assert (stream.size, stream.shape) == (100, (28, 28, 1))
    assert stream.class_names == tuple('0123456789')
    loaded = data.load('mnist', 'test', data_dir=tfds_dir)
    seen = []
    for batch in stream.batches(0):
        np.testing.assert_array_equal(batch['image'], loaded.images[batch['index']])
        np.testing.assert_array_equal(batch['label'], loaded.labels[batch['index']])
        seen += batch['index'][batch['mask']].tolist()
    assert sorted(seen) == list(range(100))


def test_a_named_set_of_several_sizes(tmp_path, opened):
    tfds = pytest.importorskip('tensorflow_datasets')
    image_module = pytest.importorskip('PIL.Image')

    class AdvjaxSizes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            features = {
                'image': tfds.features.Image(shape=(None, None, 3)),
                'label': tfds.features.ClassLabel(num_classes=4),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                supervised_keys=('image', 'label'),
                features=tfds.features.FeaturesDict(features),
            )

        def _split_generators(self, dl_manager):
            return {'train': self._generate_examples()}

        def _generate_examples(self):
            for i in range(5):
                pixels = np.full((2 + i, 3, 3), i, np.uint8)
                yield i, {'image': image_module.fromarray(pixels), 'label': i % 4}

    tfds.builder(
        'advjax_sizes', data_dir=tmp_path, file_format='array_record'
    ).download_and_prepare()
    with pytest.raises(ValueError, match=r'data\.stream and a transform'):
        data.stream('advjax_sizes', 'train', batch_size=4, data_dir=tmp_path)
    stream = opened('advjax_sizes', data_dir=tmp_path, transform=_top_rows)
    assert stream.shape == (2, 3, 3)
    rows = list(stream.batches(0))
    value = np.concatenate([batch['image'][:, 0, 0, 0] for batch in rows])
    label = np.concatenate([batch['label'] for batch in rows])
    np.testing.assert_array_equal(label, value % 4)
    assert sorted(value[:5]) == [0, 1, 2, 3, 4]


def test_names_and_splits_are_checked(tfds_dir):
    with pytest.raises(data.DatasetNotFound, match=r"'mnost'.*near it: .*mnist"):
        data.stream('mnost', 'test', batch_size=4, data_dir=tfds_dir)
    with pytest.raises(ValueError, match=r"^split must be one of 'train', 'test'"):
        data.stream('mnist', 'val', batch_size=4, data_dir=tfds_dir)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ({'batch_size': 0}, '^batch_size must be an integer >= 1, got 0'),
        ({'batch_size': 2.0}, '^batch_size must be an integer >= 1, got 2.0'),
        ({'seed': -1}, '^seed must be an integer >= 0, got -1'),
        ({'seed': 2**32}, r'^seed must be below 2\*\*32'),
        ({'workers': -1}, '^workers must be an integer >= 0, got -1'),
        ({'process_count': 3}, '^batch_size must be a multiple of the 3 processes'),
        ({'process_index': 1}, '^process_index must be below process_count=1, got 1'),
        ({'transform': 3}, '^transform must be a function or None, got 3'),
        ({'source': []}, '^source must hold examples, got none'),
    ],
)
def test_streams_refuse(options, match):
    options = {'batch_size': B, 'source': _dataset(), **options}
    with pytest.raises(ValueError, match=match):
        data.stream(options.pop('source'), **options)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ({'epoch': -1}, '^epoch must be >= 0'),
        ({'epoch': 0, 'first': 5}, '^epoch must .* first from 0 to 4, got 0 and 5'),
        ({'first': 1}, '^epoch must be given with first'),
    ],
)
def test_batches_that_are_not_there_are_refused(opened, options, match):
    with pytest.raises(ValueError, match=match):
        opened().batches(**options)


def test_without_grain_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'grain', None)
    with pytest.raises(ImportError, match='pip install grain'):
        data.stream(_dataset(), batch_size=4)
