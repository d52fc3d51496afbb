"""Data sets (their cache, their errors, their facts) and batches."""

import json
import os
import shutil
import socket
import sys
import threading
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import data
from advjax.data import cache, prepared

tfds = pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record.python')


class AdvjaxToy(tfds.core.GeneratorBasedBuilder):
    """Registered under 'advjax_toy': a set that needs no TensorFlow to prepare."""

    VERSION = tfds.core.Version('1.0.0')
    features_of: dict = {}  # noqa: RUF012, changed by tests
    sizes = {'train': 1100, 'test': 7}  # noqa: RUF012

    def _info(self):
        f = tfds.features
        features = {
            'image': f.Image(shape=(4, 5, 3), encoding_format='png'),
            'label': f.ClassLabel(names=['cat', 'dog']),
            **self.features_of,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            supervised_keys=('image', 'label'),
            features=f.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(n) for name, n in self.sizes.items()}

    def _generate_examples(self, n):
        image_module = pytest.importorskip('PIL.Image')
        for i in range(n):
            pixels = np.full((4, 5, 3), i % 256, np.uint8)
            image = image_module.fromarray(pixels)
            # Label and image agree, so that a mismatch of rows shows.
            yield i, {'image': image, 'label': self.label(i)}

    def label(self, i):
        return i % 256 % 2


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv('ADVJAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))


@pytest.fixture(scope='module')
def _prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('prepared with spaces')
    tfds.builder(
        'advjax_toy', data_dir=folder, file_format='array_record'
    ).download_and_prepare()
    return folder


@pytest.fixture
def toy_dir(_prepared, tmp_path):
    """A copy of the prepared toy set, to be damaged at will."""
    return shutil.copytree(_prepared, tmp_path / 'my data sets')


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often images are decoded."""
    calls = []
    decode = prepared.decode
    monkeypatch.setattr(
        prepared, 'decode', lambda *args: calls.append(args[1]) or decode(*args)
    )
    return calls


def _without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)


def _cache_files(folder, end=''):
    return sorted(p for p in Path(folder).iterdir() if p.name.endswith(end))


def _same(a, b):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a[2:] == b[2:]


# Digits.


def test_digits_are_split_once_and_for_all():
    train, test = data.load('digits', 'train'), data.load('digits', 'test')
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert train.class_names == tuple('0123456789')
    # Golden: the split must never change under a published figure.
    assert test.labels[:12].tolist() == [9, 2, 5, 7, 6, 9, 7, 3, 3, 3, 4, 6]
    assert int(test.images.astype(np.int64).sum()) == 1790973


def test_digits_are_those_of_scikit_learn():
    raw = pytest.importorskip('sklearn.datasets').load_digits()
    whole = data.load('digits', 'train+test')
    expected = [[round(v * 255 / 16) for v in row] for row in raw.data.tolist()]
    key = [(tuple(r), y) for r, y in zip(expected, raw.target.tolist(), strict=True)]
    got = [
        (tuple(image.ravel().tolist()), label)
        for image, label in zip(whole.images, whole.labels.tolist(), strict=True)
    ]
    assert sorted(got) == sorted(key)
    assert {v for row in expected for v in row} >= {0, 128, 255}
    # Stratified, and in the order of the source.
    test = data.load('digits', 'test')
    count = np.bincount(raw.target) / 5
    assert np.all(np.abs(np.bincount(test.labels) - count) < 1)
    where = {pair: i for i, pair in reversed(list(enumerate(key)))}
    order = [where[pair] for pair in got[1437:]]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ('split', 'expected'),
    [
        ('train[:1000]', slice(0, 1000)),
        ('train[1000:]', slice(1000, None)),
        ('train[-37:]', slice(1400, None)),
        ('train[:50%]', slice(0, 718)),
        ('train[50%:]', slice(718, None)),
        ('train[:0%]+train[0:7]', None),
        ('train[10:5]', None),
        ('train[:1438]', None),
        ('train[:-1438]', None),
        ('train[a:]', None),
        ('train[:10', None),
        ('train+', None),
        ('valid', None),
    ],
)
def test_parts_of_digits(split, expected):
    if expected is None:
        with pytest.raises(ValueError, match='split'):
            data.load('digits', split)
        return
    part, train = data.load('digits', split), data.load('digits', 'train')
    np.testing.assert_array_equal(part.images, train.images[expected])
    np.testing.assert_array_equal(part.labels, train.labels[expected])
    assert part.split == split


# Prepared sets and the cache.


def test_prepared_set_is_read_without_tensorflow(toy_dir, monkeypatch):
    _without_tensorflow(monkeypatch)
    toy = data.load('advjax_toy', 'train', data_dir=toy_dir)
    assert toy.images.shape == (1100, 4, 5, 3)
    assert (toy.images.dtype, toy.labels.dtype) == (np.uint8, np.int32)
    assert (toy.class_names, toy.name, toy.split) == (
        ('cat', 'dog'),
        'advjax_toy',
        'train',
    )
    assert np.all(toy.images == toy.images[:, :1, :1, :1])
    np.testing.assert_array_equal(toy.images[:, 0, 0, 0] % 2, toy.labels)
    source = tfds.builder(
        'advjax_toy', data_dir=toy_dir, file_format='array_record'
    ).as_data_source('train')
    order = [int(example['image'][0, 0, 0]) for example in source]
    assert toy.images[:, 0, 0, 0].tolist() == order
    assert order != sorted(order)


def test_second_load_comes_from_the_cache(toy_dir, decodings, tmp_path):
    first = data.load('advjax_toy', 'test', data_dir=toy_dir)
    second = data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert decodings == ['test']
    _same(first, second)
    assert len(_cache_files(tmp_path / 'cache')) == 3
    meta = json.loads(_cache_files(tmp_path / 'cache', '.json')[0].read_text())
    assert meta['identity']['class_names'] == ['cat', 'dog']
    # Another part, another entry; another folder, another cache.
    part = data.load('advjax_toy', 'test[2:5]', data_dir=toy_dir)
    np.testing.assert_array_equal(part.images, first.images[2:5])
    data.load('advjax_toy', 'test', data_dir=toy_dir, cache_dir=tmp_path / 'b c')
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert decodings == ['test', 'test[2:5]', 'test']
    assert len(_cache_files(tmp_path / 'b c')) == 3


def test_data_dir_comes_from_the_environment(toy_dir, monkeypatch):
    # Long after tfds was imported, which itself reads the variable only then.
    monkeypatch.setenv('TFDS_DATA_DIR', str(toy_dir))
    assert len(data.load('advjax_toy', 'test').labels) == 7


def test_cache_dir_default(monkeypatch, tmp_path):
    assert cache.default_dir() == tmp_path / 'cache'
    monkeypatch.delenv('ADVJAX_CACHE')
    assert cache.default_dir() == Path.home() / '.cache' / 'advjax'


def test_changed_source_is_not_served_stale(toy_dir, decodings):
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    file = next(toy_dir.glob('**/*-test.array_record*'))
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert len(decodings) == 2
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert len(decodings) == 2


def test_set_without_its_builder_class(toy_dir, decodings):
    """The files are enough, and the names of the classes are part of them."""
    renamed = toy_dir / 'advjax_other'
    (toy_dir / 'advjax_toy').rename(renamed)
    for path in list(renamed.glob('*/advjax_toy-*')):
        path.rename(path.with_name(path.name.replace('toy', 'other')))
    info = next(renamed.glob('*/dataset_info.json'))
    info.write_text(info.read_text().replace('advjax_toy', 'advjax_other'))
    for names in (('cat', 'dog'), ('tac', 'god')):
        next(renamed.glob('*/label.labels.txt')).write_text('\n'.join(names))
        other = data.load('advjax_other', 'test', data_dir=toy_dir)
        assert other.class_names == names
        assert len(other.labels) == 7
    assert len(decodings) == 2


def _flip_a_pixel(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))


def _ask_for_petabytes(path):
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'7', b'7' * 15)[: len(raw)])


@pytest.mark.parametrize('end', ['.images.npy', '.labels.npy', '.json'])
@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'PK\x03\x04 no archive'),
        lambda path: path.write_text('null'),
        lambda path: path.unlink(),
        _flip_a_pixel,
        _ask_for_petabytes,
    ],
    ids=['cut', 'empty', 'zip', 'null', 'gone', 'flipped', 'petabytes'],
)
def test_damaged_cache_is_rebuilt(toy_dir, decodings, tmp_path, end, damage):
    good = data.load('advjax_toy', 'test', data_dir=toy_dir)
    (path,) = _cache_files(tmp_path / 'cache', end)
    before = path.read_bytes()
    damage(path)
    assert not path.exists() or path.read_bytes() != before
    _same(data.load('advjax_toy', 'test', data_dir=toy_dir), good)
    assert len(decodings) == 2
    assert path.read_bytes() == before
    _same(data.load('advjax_toy', 'test', data_dir=toy_dir), good)
    assert len(decodings) == 2
    assert len(_cache_files(tmp_path / 'cache')) == 3


def test_images_and_labels_of_two_writers_are_not_mixed(toy_dir, decodings, tmp_path):
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    (path,) = _cache_files(tmp_path / 'cache', '.labels.npy')
    np.save(path, np.zeros(7, np.int32))  # sound by itself
    again = data.load('advjax_toy', 'test', data_dir=toy_dir)
    np.testing.assert_array_equal(again.labels, again.images[:, 0, 0, 0] % 2)
    assert len(decodings) == 2


def test_interrupted_write_leaves_no_entry(toy_dir, decodings, monkeypatch, tmp_path):
    real = os.replace

    def killed(source, target):
        if str(target).endswith('.json'):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        data.load('advjax_toy', 'test', data_dir=toy_dir)
    monkeypatch.setattr(os, 'replace', real)
    data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert len(decodings) == 2
    assert len(_cache_files(tmp_path / 'cache')) == 3


def test_many_loads_at_once(toy_dir):
    found = []

    def load():
        found.append(data.load('advjax_toy', 'test', data_dir=toy_dir))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for other in found[1:]:
        _same(found[0], other)


def test_cache_that_cannot_be_written_warns_once(toy_dir, tmp_path):
    # A path below a file, because root may write into read-only folders.
    (tmp_path / 'file').write_text('')
    with pytest.warns(RuntimeWarning, match='no cache') as caught:
        toy = data.load(
            'advjax_toy', 'test', data_dir=toy_dir, cache_dir=tmp_path / 'file' / 'sub'
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert len(toy.labels) == 7


def test_full_disk_warns_and_leaves_nothing(toy_dir, monkeypatch, tmp_path):
    def full(file, array):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'save', full)
    with pytest.warns(RuntimeWarning, match='No space left'):
        data.load('advjax_toy', 'test', data_dir=toy_dir)
    assert not _cache_files(tmp_path / 'cache')


# What cannot be loaded.


def _refused(*args, **kwargs):
    with pytest.raises(data.DatasetNotFound) as caught:
        data.load(*args, **kwargs)
    return str(caught.value), caught.value.__cause__


def test_unprepared_set_says_what_to_run(monkeypatch, tmp_path):
    _without_tensorflow(monkeypatch)
    message, _ = _refused('fashion_mnist', 'test')
    assert str(tmp_path / 'tfds' / 'fashion_mnist') in message
    assert 'pip install tensorflow' in message
    assert (
        'python -c "import tensorflow_datasets as tfds; '
        "tfds.builder('fashion_mnist', file_format='array_record', "
        f"data_dir='{tmp_path / 'tfds'}').download_and_prepare()\""
    ) in message
    assert not (tmp_path / 'tfds').exists()


def test_offline_with_tensorflow_fails_at_once(monkeypatch):
    def no_address(*args, **kwargs):
        raise socket.gaierror(-2, 'Name or service not known')

    monkeypatch.setitem(sys.modules, 'tensorflow', types.ModuleType('tensorflow'))
    monkeypatch.setattr(socket, 'getaddrinfo', no_address)
    monkeypatch.setattr('urllib.request.getproxies', dict)
    message, _ = _refused('fashion_mnist', 'test')
    assert 'fashion-mnist.s3' in message
    assert 'cannot be reached' in message


def test_failed_preparation_is_the_same_error(monkeypatch):
    def broken(self, **kwargs):
        raise ConnectionError('the line is dead\nand more')

    monkeypatch.setattr(AdvjaxToy, 'download_and_prepare', broken)
    message, cause = _refused('advjax_toy', 'test')
    assert 'ConnectionError: the line is dead)' in message
    assert isinstance(cause, ConnectionError)


def test_set_that_needs_no_tensorflow_is_prepared(tmp_path, capfd):
    toy = data.load('advjax_toy', 'test', data_dir=tmp_path / 'new folder')
    assert len(toy.labels) == 7
    assert next((tmp_path / 'new folder').glob('**/*.array_record-*'))
    capfd.readouterr()


def test_unknown_name_lists_near_ones():
    message, cause = _refused('minst', 'test')
    assert ' mnist' in message
    assert cause is not None
    assert 'near it: digits' in _refused('digit', 'test')[0]
    assert 'digits' in _refused('no such thing!', 'test')[0]


@pytest.mark.parametrize('name', ['mnist:9.9.9', 'mnist/nothing', 'mnist/a=1'])
def test_unknown_version_or_config(name):
    message, _ = _refused(name, 'test')
    assert repr(name) in message
    assert 'cannot be opened' in message


def test_other_file_format_is_refused(toy_dir):
    for path in list(toy_dir.glob('**/*.array_record*')):
        path.rename(str(path).replace('array_record', 'tfrecord'))
    info = next(toy_dir.glob('**/dataset_info.json'))
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    message, _ = _refused('advjax_toy', 'test', data_dir=toy_dir)
    assert 'TFRECORD' in message
    assert 'moved away' in message


def test_missing_and_damaged_files(toy_dir):
    file = next(toy_dir.glob('**/*-test.array_record*'))
    whole = file.read_bytes()
    for broken in (b'', whole[: len(whole) // 2], whole[:200] + whole[250:]):
        file.write_bytes(broken)
        with pytest.raises(OSError, match=r'cannot be decoded.*prepare it again'):
            data.load('advjax_toy', 'test', data_dir=toy_dir)
    file.unlink()
    assert file.name in _refused('advjax_toy', 'test', data_dir=toy_dir)[0]


@pytest.mark.parametrize(
    'split', ['val', 'test[', 'test[:8]', 'test[3:3]', 'test[5:2]']
)
def test_unknown_or_empty_split(toy_dir, split):
    with pytest.raises(ValueError, match='split must') as caught:
        data.load('advjax_toy', split, data_dir=toy_dir)
    assert repr(split) in str(caught.value)
    if split == 'val':
        assert "'train', 'test'" in str(caught.value).replace(
            "'test', 'train'", "'train', 'test'"
        )


@pytest.mark.parametrize(
    ('name', 'match'),
    [
        ('imagenet2012', 'does not fit load'),
        ('imdb_reviews', "image classification set.*'imdb_reviews'.*Text"),
        ('dsprites', "image classification set.*'dsprites'"),
    ],
)
def test_other_kinds_of_sets_are_refused_before_any_download(name, match):
    with pytest.raises(ValueError, match=match):
        data.load(name, 'train')


@pytest.mark.parametrize(
    'features',
    [
        {'image': tfds.features.Tensor(shape=(4, 5, 3), dtype=np.float32)},
        {'image': tfds.features.Tensor(shape=(4, 5), dtype=np.uint8)},
        {'label': tfds.features.Tensor(shape=(), dtype=np.int64)},
        {'label': tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3))},
    ],
    ids=['float', 'flat', 'nameless', 'many'],
)
def test_features_that_do_not_fit(monkeypatch, features):
    monkeypatch.setattr(AdvjaxToy, 'features_of', features)
    with pytest.raises(ValueError, match='image classification set'):
        data.load('advjax_toy', 'test')


def test_unlabelled_examples_are_refused(monkeypatch, capfd):
    # So tfds marks the hidden labels of a competition.
    monkeypatch.setattr(AdvjaxToy, 'label', lambda self, i: -1)
    with pytest.raises(ValueError, match=r'labelled.*-1'):
        data.load('advjax_toy', 'test')
    capfd.readouterr()


@pytest.mark.parametrize(
    ('module', 'package', 'name'),
    [
        ('tensorflow_datasets', 'tensorflow-datasets', 'advjax_toy'),
        ('array_record', 'array_record', 'advjax_toy'),
        ('PIL', 'pillow', 'advjax_toy'),
        ('tqdm', 'tqdm', 'advjax_toy'),
        ('sklearn', 'scikit-learn', 'digits'),
    ],
)
def test_missing_package_is_named(monkeypatch, toy_dir, module, package, name):
    for loaded in list(sys.modules):
        if loaded == module or loaded.startswith(module + '.'):
            monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match=f'pip install {package}$'):
        data.load(name, 'test', data_dir=toy_dir)


@pytest.mark.parametrize('kind', [ImportError, MemoryError])
def test_not_every_failure_is_blamed_on_the_files(toy_dir, monkeypatch, kind):
    def fails(self, split):
        raise kind('not the files')

    monkeypatch.setattr(AdvjaxToy, 'as_data_source', fails)
    with pytest.raises(kind, match='not the files'):
        data.load('advjax_toy', 'test', data_dir=toy_dir)


@pytest.mark.parametrize('bad', [None, '', 3, b'mnist'])
def test_names_are_strings(bad):
    with pytest.raises(ValueError, match='name must be a non-empty string'):
        data.load(bad, 'test')
    with pytest.raises(ValueError, match='split must be a non-empty string'):
        data.load('digits', bad)


def test_import_is_light():
    import subprocess

    code = (
        'import sys, advjax.data; '
        'heavy = {"tensorflow_datasets", "sklearn", "PIL", "tqdm"} & set(sys.modules); '
        'sys.exit(str(heavy) if heavy else 0)'
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


# The real sets.


@pytest.fixture(scope='module')
def real_dir():
    named = os.environ.get('TFDS_DATA_DIR')
    beside = Path(__file__).parents[1] / '..' / 'shared' / 'tfds'
    folder = Path(named) if named else beside
    if not folder.is_dir():
        pytest.skip('no prepared data sets: set TFDS_DATA_DIR')
    return folder


def _real(name, split, folder):
    if not (folder / name).is_dir():
        pytest.skip(f'no prepared {name} in TFDS_DATA_DIR')
    return data.load(name, split, data_dir=folder)


@pytest.mark.mnist
@pytest.mark.parametrize(
    ('split', 'n', 'mean', 'first'),
    [
        ('train', 60000, 0.130660, [4, 1, 0, 7, 8]),
        ('test', 10000, 0.132515, [2, 0, 4, 8, 7]),
    ],
)
def test_mnist(real_dir, split, n, mean, first):
    mnist = _real('mnist', split, real_dir)
    assert mnist.images.shape == (n, 28, 28, 1)
    assert mnist.class_names == tuple('0123456789')
    # In the order of tfds, not in that of the original file (7 2 1 0 4).
    assert mnist.labels[:5].tolist() == first
    np.testing.assert_allclose(mnist.images.mean() / 255, mean, atol=1e-6)
    count = {60000: [5923, 6742], 10000: [980, 1135]}[n]
    assert np.bincount(mnist.labels)[:2].tolist() == count


def test_cifar10(real_dir):
    test = _real('cifar10', 'test', real_dir)
    assert test.images.shape == (10000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.class_names[0] == 'airplane'
    assert test.class_names[9] == 'truck'
    # Its means are known to 0.001, whatever encoded the images.
    means = test.images.mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4942, 0.4851, 0.4504], atol=2e-3)
    train = _real('cifar10', 'train[:10]', real_dir)
    assert train.images.shape == (10, 32, 32, 3)


# Pixels.


def test_to_float():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    expected = images.astype(np.float32) / np.float32(255)
    for got in (data.to_float(images), jax.jit(data.to_float)(images)):
        assert isinstance(got, jax.Array)
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, expected)
    assert (float(expected.min()), float(expected.max())) == (0.0, 1.0)
    # There and back: no pixel is lost.
    np.testing.assert_array_equal(np.round(expected * 255).astype(np.uint8), images)


@pytest.mark.parametrize(
    ('bad', 'named'),
    [
        (np.zeros(3, np.float32), 'float32'),
        (np.zeros(3, np.int32), 'int32'),
        (np.zeros(3, bool), 'bool'),
        ([1, 2], 'list'),
    ],
)
def test_to_float_refuses_other_types(bad, named):
    with pytest.raises(ValueError, match=f'uint8.*{named}'):
        data.to_float(bad)


# Batches.

SIZES = [(10, 3), (12, 3), (3, 8), (1, 1), (1, 5), (7, 7)]


@pytest.mark.parametrize(('n', 'size'), SIZES)
@pytest.mark.parametrize('order', ['shuffled', 'sequential'])
def test_every_index_appears_once_under_the_mask(n, size, order):
    if order == 'shuffled':
        epoch = data.epoch_indices(jax.random.key(0), n, size)
    else:
        epoch = data.sequential_indices(n, size)
    steps = -(-n // size)
    for array, dtype in [(epoch.index, jnp.int32), (epoch.mask, jnp.bool_)]:
        assert array.shape == (steps, size)
        assert array.dtype == dtype
    index, mask = np.array(epoch.index).ravel(), np.array(epoch.mask).ravel()
    assert sorted(index[mask]) == list(range(n))
    # True first, then real examples of the same order, starting over.
    assert mask[:n].all()
    assert not mask[n:].any()
    np.testing.assert_array_equal(index, index[np.arange(len(index)) % n])
    if order == 'sequential':
        assert index[:n].tolist() == list(range(n))


def test_order_belongs_to_the_key():
    key = jax.random.key(3)
    first = data.epoch_indices(key, 100, 32)
    data.epoch_indices(jax.random.key(9), 50, 7)  # what was drawn between is nothing
    again = data.epoch_indices(key, 100, 32)
    other = data.epoch_indices(jax.random.fold_in(key, 1), 100, 32)
    jitted = jax.jit(data.epoch_indices, static_argnums=(1, 2))(key, 100, 32)
    legacy = data.epoch_indices(jax.random.PRNGKey(3), 100, 32)
    for same in (again, jitted, legacy):
        jax.tree.map(np.testing.assert_array_equal, first, same)
    assert np.any(first.index != other.index)
    assert np.any(np.array(first.index).ravel()[:100] != np.arange(100))
    # One order for any batch size.
    larger = data.epoch_indices(key, 100, 50)
    np.testing.assert_array_equal(
        np.array(larger.index).ravel(), np.array(first.index).ravel()[:100]
    )


def test_resuming_needs_the_step_only():
    def run(start, stop):
        for step in range(start, stop):
            epoch, row = divmod(step, 4)
            key = jax.random.fold_in(jax.random.key(0), epoch)
            yield data.epoch_indices(key, 13, 4).index[row].tolist()

    assert list(run(0, 9))[5:] == list(run(5, 9))


@pytest.mark.parametrize('bad', [0, -1, 2.0, '3', None, True])
def test_sizes_are_positive_integers(bad):
    key = jax.random.key(0)
    for call in (lambda n, b: data.epoch_indices(key, n, b), data.sequential_indices):
        with pytest.raises(ValueError, match=r'^n must be an integer >= 1'):
            call(bad, 4)
        with pytest.raises(ValueError, match=r'^batch_size must be an integer >= 1'):
            call(4, bad)


def test_numpy_sizes_and_one_key():
    assert data.sequential_indices(np.int64(5), np.int32(2)).index.shape == (3, 2)
    with pytest.raises(ValueError, match='one key'):
        data.epoch_indices(jax.random.split(jax.random.key(0), 3), 5, 2)
    with pytest.raises(ValueError, match='key'):
        data.epoch_indices(jnp.zeros(()), 5, 2)


def _small(n=20):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones(
        (2, 3, 1), np.uint8
    )
    return data.Dataset(images, np.arange(n, dtype=np.int32) % 4, (*'abcd',), 'x', 's')


def test_take_gathers_and_casts():
    on_device = data.device_data(_small())
    assert (on_device.images.dtype, on_device.labels.dtype) == (jnp.uint8, jnp.int32)
    epoch = data.epoch_indices(jax.random.key(1), 20, 8)
    batch = jax.tree.map(lambda rows: rows[2], epoch)
    got = data.take(on_device, batch)
    assert set(got) == {'image', 'label', 'index', 'mask'}
    assert got['image'].shape == (8, 2, 3, 1)
    assert got['image'].dtype == jnp.float32
    np.testing.assert_array_equal(
        got['image'][:, 0, 0, 0], np.asarray(batch.index).astype(np.float32) / 255
    )
    np.testing.assert_array_equal(got['label'], np.asarray(batch.index) % 4)
    np.testing.assert_array_equal(got['mask'], [True] * 4 + [False] * 4)
    jitted = jax.jit(data.take)(on_device, batch)
    jax.tree.map(np.testing.assert_array_equal, got, jitted)


def test_epoch_in_a_scan_under_strict_rules():
    on_device = data.device_data(_small())

    @jax.jit
    def total(on_device, key):
        def step(carry, batch):
            rows = data.take(on_device, batch)
            labels = jnp.where(rows['mask'], rows['label'], 0)
            return carry + jnp.sum(labels, dtype=jnp.int32), None

        epoch = data.epoch_indices(key, 20, 8)
        return jax.lax.scan(step, jnp.int32(0), epoch)[0]

    with jax.numpy_dtype_promotion('strict'), jax.numpy_rank_promotion('raise'):
        assert int(total(on_device, jax.random.key(0))) == 30


def test_device_data_is_a_copy():
    # XLA on CPU borrows NumPy memory that is aligned to 64 bytes.
    raw = np.zeros(20 * 64 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    images = raw[start : start + 20 * 64].reshape(20, 8, 8, 1)
    small = _small()._replace(images=images)
    on_device = data.device_data(small)
    small.images[:] = 99
    small.labels[:] = 99
    assert int(on_device.images.max()) == 0
    assert int(on_device.labels.max()) == 3


def test_device_data_refuses_what_does_not_fit():
    small = _small()
    size = small.images.nbytes + small.labels.nbytes
    data.device_data(small, max_bytes=size)
    with pytest.raises(ValueError, match=f"max_bytes={size - 1}, got {size} .*'x'"):
        data.device_data(small, max_bytes=size - 1)
    for bad, match in [
        (small._replace(images=small.images / 255), 'float64'),
        (small._replace(images=small.images[..., 0]), 'shape'),
        (small._replace(images=small.images[:0], labels=small.labels[:0]), 'N > 0'),
        (small._replace(labels=small.labels[1:]), 'one label per image'),
    ]:
        with pytest.raises(ValueError, match=match):
            data.device_data(bad)


def test_split_held_out():
    small = _small()
    rest, held_out = data.split_held_out(small, 5, seed=0)
    assert (len(rest.labels), len(held_out.labels)) == (15, 5)
    ids = [part.images[:, 0, 0, 0].tolist() for part in (rest, held_out)]
    assert sorted(ids[0] + ids[1]) == list(range(20))
    assert all(part == sorted(part) for part in ids)
    for part in (rest, held_out):
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 4)
        assert part.class_names == small.class_names
    assert len({small.split, rest.split, held_out.split}) == 3
    assert ids[1] == [1, 8, 10, 18, 19]  # golden: the same everywhere
    again = data.split_held_out(small, 5, seed=0)
    _same(again[1], held_out)
    assert data.split_held_out(small, 5, seed=1)[1].images.tolist() != (
        held_out.images.tolist()
    )


@pytest.mark.parametrize(
    ('n', 'seed', 'named'),
    [(0, 0, 'n'), (20, 0, 'n'), (2.5, 0, 'n'), (3, -1, 'seed'), (3, 'a', 'seed')],
)
def test_split_held_out_refuses(n, seed, named):
    with pytest.raises(ValueError, match=f'^{named} must be'):
        data.split_held_out(_small(), n, seed)


def test_no_warning_reaches_the_user(toy_dir):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        data.load('advjax_toy', 'test', data_dir=toy_dir)
