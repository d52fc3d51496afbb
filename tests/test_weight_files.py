"""Weight files: what they hold is read exactly, and what is not weights never runs."""

import contextlib
import io
import os
import pickle
import struct
import warnings
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advjax import zoo
from advjax.zoo import weight_pickle

# A disassembler may warn of odd escapes in what is no text at all.
pytestmark = pytest.mark.filterwarnings('ignore:invalid .*escape:DeprecationWarning')

DTYPES = {
    'FloatStorage': np.float32,
    'DoubleStorage': np.float64,
    'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}


# Pickles by hand, instruction by instruction: no PyTorch and no pickle module.


class Code(NamedTuple):
    code: bytes


def encode(value):
    if isinstance(value, Code):
        return value.code
    if value is None or isinstance(value, bool):
        return {None: b'N', True: b'\x88', False: b'\x89'}[value]
    if isinstance(value, int):
        raw = value.to_bytes(20, 'little', signed=True)
        return b'\x8a' + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b'G' + struct.pack('>d', value)
    if isinstance(value, str):
        raw = value.encode()
        return b'X' + struct.pack('<I', len(raw)) + raw
    if isinstance(value, dict):
        items = b''.join(encode(k) + encode(v) for k, v in value.items())
        return b'}(' + items + b'u'
    start, end = {tuple: (b'(', b't'), list: (b'](', b'e')}[type(value)]
    return start + b''.join(map(encode, value)) + end


def named(name):
    module, _, attribute = name.rpartition('.')
    return Code(f'c{module}\n{attribute}\n'.encode())


def call(name, *arguments):
    return Code(encode(named(name)) + encode(arguments) + b'R')


def storage(key, size, kind='FloatStorage', view=None, legacy=False):
    rest = (view,) if legacy else ()
    what = ('storage', named(f'torch.{kind}'), key, 'cpu', size, *rest)
    return Code(encode(what) + b'Q')


def view_of(stored, offset, shape, strides):
    hooks = call('collections.OrderedDict')
    return call(
        'torch._utils._rebuild_tensor_v2', stored, offset, shape, strides, False, hooks
    )


def tensor(key, size, shape, strides=None, offset=0, kind='FloatStorage', **options):
    strides = contiguous(shape) if strides is None else strides
    return view_of(storage(key, size, kind, **options), offset, shape, strides)


def contiguous(shape):
    return tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))


def pickled(value):
    return b'\x80\x02' + encode(value) + b'.'


def write_zip(path, value, storages=(), extra=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as file:
        file.writestr('archive/data.pkl', pickled(value))
        for name, data in [*extra, ('version', b'3\n')]:
            file.writestr(f'archive/{name}', data)
        for key, data in dict(storages).items():
            file.writestr(f'archive/data/{key}', np.asarray(data).tobytes())
    return path


def legacy_bytes(value, storages=()):
    head = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, value)
    storages = dict(storages)
    out = b''.join(map(pickled, (*head, list(storages))))
    for data in storages.values():
        out += struct.pack('<q', np.size(data)) + np.asarray(data).tobytes()
    return out


def write_legacy(path, value, storages=()):
    path.write_bytes(legacy_bytes(value, storages))
    return path


WRITERS = {'zip': write_zip, 'legacy': write_legacy}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    def save(value, storages=()):
        path = tmp_path / f'{request.param}.pt'
        return WRITERS[request.param](path, value, storages)

    save.legacy = request.param == 'legacy'
    return save


def same(read, expected):
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.parametrize('kind', DTYPES)
def test_every_type(write, kind):
    values = np.array([[0, 1, 1], [1, 0, 0]]).astype(DTYPES[kind])
    if kind != 'BoolStorage':
        values = (values * 37 - (kind != 'ByteStorage')).astype(DTYPES[kind])
    weights = {'w': tensor('7', 6, (2, 3), kind=kind, legacy=write.legacy)}
    same(zoo.read_state_dict(write(weights, {'7': values})), {'w': values})


def test_views_share_what_they_view_and_cannot_be_written(write):
    numbers = np.arange(24, dtype=np.float32)

    def view(*geometry):
        return view_of(storage('0', 24, legacy=write.legacy), *geometry)

    weights = {
        'whole': view(0, (4, 6), (6, 1)),
        'transposed': view(0, (6, 4), (1, 6)),
        'strided': view(3, (3, 2), (7, 2)),
        'number': view(5, (), ()),
        'nothing': view(0, (0, 3), (3, 1)),
        'last': view(23, (1, 1), (99, 1)),
    }
    read = zoo.read_state_dict(write(weights, {'0': numbers}))
    square = numbers.reshape(4, 6)
    same(
        read,
        {
            'whole': square,
            'transposed': square.T,
            'strided': np.array([[3, 5], [10, 12], [17, 19]], np.float32),
            'number': np.array(5, np.float32),
            'nothing': np.zeros((0, 3), np.float32),
            'last': np.array([[23]], np.float32),
        },
    )
    assert np.shares_memory(read['whole'], read['transposed'])
    for array in read.values():
        assert not array.flags.writeable


def test_views_of_storages_in_files_before_0_4(tmp_path):
    stored = storage('0', 6, view=('1', 2, 3), legacy=True)
    path = write_legacy(
        tmp_path / 'old.pt',
        {'w': view_of(stored, 1, (2,), (1,))},
        {'0': np.arange(6, dtype=np.float32)},
    )
    same(zoo.read_state_dict(path), {'w': np.array([3, 4], np.float32)})


@pytest.mark.parametrize('under', ['state_dict', 'model_state_dict', 'net', 'model'])
def test_checkpoints_with_more_than_weights(write, under):
    w, momentum = np.arange(2, dtype=np.float32), np.ones(3, np.float64)
    with_versions = Code(
        encode(call('collections.OrderedDict', [['n', 3]]))
        + encode('w')
        + encode(tensor('a', 2, (2,), legacy=write.legacy))
        + b's'
        + encode({'_metadata': {'': {'version': 1}}})
        + b'b'
    )
    other = tensor('b', 3, (3,), kind='DoubleStorage', legacy=write.legacy)
    checkpoint = {
        'optimizer': {'state': {0: {'momentum': other}}, 'lr': 0.1},
        under: {'state_dict': with_versions} if under == 'net' else with_versions,
        'epoch': 7,
        'best': None,
        'size': call('torch.Size', (2, 3)),
        'type': named('torch.float32'),
        'done': [True, ('x', False)],
    }
    # The optimizer's storage comes first: what is not wanted is stepped over.
    path = write(checkpoint, {'b': momentum, 'a': w})
    same(zoo.read_state_dict(path), {'w': w})


def test_parameters_and_the_first_rebuilding_function(write):
    w = np.arange(4, dtype=np.float32)
    stored = storage('0', 4, legacy=write.legacy)
    old = call('torch._utils._rebuild_tensor', stored, 0, (4,), (1,))
    hooks = call('collections.OrderedDict')
    parameter = call('torch._utils._rebuild_parameter', old, True, hooks)
    path = write({'old': old, 'parameter': parameter}, {'0': w})
    same(zoo.read_state_dict(path), {'old': w, 'parameter': w})


def test_storages_saved_on_a_gpu(write):
    what = ('storage', named('torch.cuda.FloatStorage'), '0', 'cuda:0', 2)
    stored = Code(encode((*what, None) if write.legacy else what) + b'Q')
    path = write({'w': view_of(stored, 0, (2,), (1,))}, {'0': np.ones(2, np.float32)})
    same(zoo.read_state_dict(path), {'w': np.ones(2, np.float32)})


@pytest.mark.parametrize('kind', ['FloatStorage', 'BFloat16Storage', 'LongStorage'])
def test_big_endian(tmp_path, kind):
    values = np.array([1, 2, 300]).astype(DTYPES[kind])
    plain = values.view(f'u{values.itemsize}')
    path = write_zip(
        tmp_path / 'big.pth.tar',
        {'w': tensor('0', 3, (3,), kind=kind)},
        {'0': plain.astype(plain.dtype.newbyteorder('>'))},
        extra=[('byteorder', b'big')],
    )
    same(zoo.read_state_dict(path), {'w': values})


def test_pickles_of_other_protocols():
    value = {'a': [1, 2.5, 'x', b'y', None, True, (3,)], 2: -(2**70)}
    for protocol in range(2, 6):
        stream = io.BytesIO(pickle.dumps(value, protocol=protocol) + b'rest')
        # Protocol 2 has no bytes, and calls a codec for them.
        if protocol == 2:
            with pytest.raises(ValueError, match=r'_codecs\.encode'):
                weight_pickle.load(stream)
            continue
        assert weight_pickle.load(stream) == (value, {})
        assert stream.read() == b'rest'


# Nothing runs.


class Bait:
    """What it would be when unpickled is decided by the attacker."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def _touch(path):
    open(path, 'w').close()


def attacks(path):
    shell, path = f'touch {path}', str(path)
    yield 'os.system', encode(call('os.system', shell))
    yield 'posix.system', pickle.dumps(Bait(os.system, (shell,)), 2)[2:-1]
    yield 'posix.system', pickle.dumps(Bait(os.system, (shell,)), 5)[2:-1]
    yield 'test_weight_files._touch', pickle.dumps(Bait(_touch, (path,)), 4)[2:-1]
    yield 'builtins.eval', encode(call('builtins.eval', f'open({path!r}, "w")'))
    yield 'builtins.getattr', encode(call('builtins.getattr', 'x', 'upper'))
    yield 'torch.load', encode(call('torch.load', path))
    yield 'torch.hub.load', encode(call('torch.hub.load', path))
    yield (
        'torch.nn.modules.linear.Linear',
        encode(named('torch.nn.modules.linear.Linear')),
    )
    yield (
        'collections.OrderedDict.__init__',
        encode(call('collections.OrderedDict.__init__', 1)),
    )
    # The same by other instructions.
    yield (
        'os.system',
        encode('os') + encode('system') + b'\x93' + encode((shell,)) + b'R',
    )
    yield 'INST', b'(' + encode(shell) + b'ios\nsystem\n'
    yield 'os.system', b'(' + encode(named('os.system')) + encode(shell) + b'o'
    yield 'OBJ', b'(' + encode(named('collections.OrderedDict')) + b'o'
    yield 'NEWOBJ', encode(named('collections.OrderedDict')) + b')\x81'
    yield 'EXT1', b'\x82\x01'
    yield 'PERSID', b'Pstorage\n'
    yield 'NEXT_BUFFER', b'\x97'
    # Instructions that change what they are given.
    yield 'damaged', encode(named('torch.Size')) + encode({'a': 1}) + b'b'
    yield 'damaged', encode('x') + encode((None, {'__class__': 1})) + b'b'
    yield (
        'damaged',
        encode(call('torch.Size', (1,))) + encode({'__setstate__': 1}) + b'b',
    )
    # Types are no functions, and values even less.
    yield 'torch.FloatStorage', encode(call('torch.FloatStorage', 3))
    yield 'torch.float32', encode(call('torch.float32', 3))
    yield 'damaged', encode('os.system') + encode((shell,)) + b'R'


COUNT = len(list(attacks('x')))


@pytest.mark.parametrize('number', range(COUNT))
@pytest.mark.parametrize('where', ['alone', 'beside'])
def test_nothing_runs(write, tmp_path, monkeypatch, number, where):
    canary = tmp_path / 'canary'
    name, code = list(attacks(canary))[number]
    monkeypatch.setattr(os, 'system', lambda _: pytest.fail('it ran'))
    good = tensor('0', 1, (1,), legacy=write.legacy)
    value = Code(code) if where == 'alone' else {'w': good, 'evil': Code(code)}
    path = write(value, {'0': np.ones(1, np.float32)})
    with pytest.raises(ValueError, match=name.replace('.', r'\.')):
        zoo.read_state_dict(path)
    assert not canary.exists()


def test_nothing_runs_in_the_pickles_around_that_of_a_legacy_file(tmp_path):
    whole = legacy_bytes({})
    parts = [
        pickled(v) for v in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})
    ]
    evil = pickled(call('os.system', 'true'))
    for k in range(4):
        data = b''.join([*parts[:k], evil, whole])
        (tmp_path / 'x.pt').write_bytes(data)
        with pytest.raises(ValueError, match=r'os\.system'):
            zoo.read_state_dict(tmp_path / 'x.pt')


# Sizes that lie.

ONE = {'0': np.ones(4, np.float32)}


@pytest.mark.parametrize(
    'lie',
    [
        tensor('0', 4, (5,)),
        tensor('0', 4, (2,), offset=3),
        tensor('0', 4, (2, 2), (3, 2)),
        tensor('0', 4, (10**6,), (0,)),
        tensor('0', 4, (2**40, 2**40)),
        tensor('0', 4, (-1,), (1,)),
        tensor('0', 4, (2,), (-1,), offset=1),
        tensor('0', 4, (2,), (1,), offset=-1),
        tensor('0', 4, (2**64,), (0,)),
        tensor('0', 4, (1,), (2**62,)),
        tensor('0', 4, (True,), (1,)),
        tensor('0', 4, (2.0,), (1,)),
        tensor('0', 4, (2,), (1, 1)),
        tensor('0', 4, (1,) * 65),
        tensor('0', 4, (2**31, 2**31, 0)),
        tensor('0', 5, (5,)),
        tensor('0', 3, (3,)),
        tensor('0', 2**50, (2**50,)),
        tensor('0', -4, (1,)),
        tensor('0', 4, (2,), kind='DoubleStorage'),
        tensor('0', 4, (2,), kind='QInt8Storage'),
        tensor('1', 4, (4,)),
        tensor('../0', 4, (4,)),
        tensor('0', 4, (2,), view=('1', 3, 2), legacy=True),
        view_of('no storage', 0, (1,), (1,)),
        Code(encode(('module', 1, 2)) + b'Q'),
        Code(encode(('storage', 'FloatStorage', '0', 'cpu', 4)) + b'Q'),
    ],
)
def test_sizes_that_lie(write, lie):
    try:
        read = zoo.read_state_dict(write({'w': lie}, ONE))
    except ValueError:
        return
    # No numbers is no lie, however large the other sides.
    assert read['w'].size == 0


def test_one_storage_is_one_thing(write):
    weights = {
        'a': tensor('0', 4, (4,), legacy=write.legacy),
        'b': tensor('0', 2, (2,), kind='DoubleStorage', legacy=write.legacy),
    }
    with pytest.raises(ValueError, match='two different descriptions'):
        zoo.read_state_dict(write(weights, ONE))


def test_pickles_that_are_bombs():
    nested = b')' + b'\x85' * 100_000
    for code, why in [
        (b']r\xff\xff\xff\xff.', None),  # A memo of four billion places.
        (b'\x8e' + struct.pack('<Q', 2**62) + b'.', 'bytes8'),
        (b'\x95' + struct.pack('<Q', 2**62) + b'N.', None),
        (
            b'}' + nested + b'Ns.',
            'cannot be a key',
        ),  # Its hash would need a deep stack.
        (nested + b'.', None),
        (b')' + b'2\x86' * 200 + b'.', None),  # Of 2^200 parts, all the same.
        (b'I' + b'9' * 5000 + b'\n.', 'Exceeds|digits'),
        (b'(' * 1000 + b'.', None),
        (b'.', 'empty|damaged'),
        (b'h\x05.', 'damaged'),
    ]:
        if why is None:
            weight_pickle.load(io.BytesIO(code))
        else:
            with pytest.raises(ValueError, match=why):
                weight_pickle.load(io.BytesIO(code))


def test_long_values_are_not_copied_again_and_again():
    sizes = tuple(range(100))
    remembered = Code(encode(sizes) + b'q\x01')
    by_name = encode(named('torch.Size')) + b'h\x01\x85R'
    (first, *others), _ = weight_pickle.load(
        io.BytesIO(pickled([remembered, Code(by_name), Code(by_name)]))
    )
    assert first == sizes
    assert all(other is first for other in others)
    pairs = Code(encode([[k, k] for k in range(100)]) + b'q\x01')
    again = encode(named('collections.OrderedDict')) + b'h\x01\x85R'
    value, _ = weight_pickle.load(
        io.BytesIO(
            pickled([call('collections.OrderedDict', pairs), *[Code(again)] * 2])
        )
    )
    assert value == [{k: k for k in range(100)}, {}, {}]
    long = b'\x8b' + struct.pack('<I', 1000) + b'\x01' * 1000
    with pytest.raises(ValueError, match='cannot be a key'):
        weight_pickle.load(io.BytesIO(pickled({'a': Code(b'}' + long + b'Ns')})))


def test_a_checkpoint_that_holds_itself_has_an_end(write):
    # {'model': itself}: remembered at 0, and put into itself.
    with pytest.raises(ValueError, match='holds no weights'):
        zoo.read_state_dict(write(Code(b'}q\x00' + encode('model') + b'h\x00s')))


def test_archives_that_unpack_to_more(tmp_path):
    path = write_zip(
        tmp_path / 'bomb.pt',
        {'w': tensor('0', 10**6, (10**6,))},
        {'0': np.zeros(10**6, np.float32)},
        compression=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(ValueError, match='compressed'):
        zoo.read_state_dict(path)
    # All names for the same bytes.
    numbers = np.zeros(10**5, np.float32)
    path = write_zip(
        tmp_path / 'a.pt', {'w': tensor('0', 10**5, (10**5,))}, {'0': numbers}
    )
    with zipfile.ZipFile(path, 'a') as file:
        entry = file.getinfo('archive/data/0')
        file.filelist += [entry] * 3
        for k in range(3):
            twin = zipfile.ZipInfo(f'archive/data/{k + 1}')
            for field in ('header_offset', 'file_size', 'compress_size', 'CRC'):
                setattr(twin, field, getattr(entry, field))
            file.filelist.append(twin)
            file.NameToInfo[twin.filename] = twin
        file._didModify = True
    with pytest.raises(ValueError, match='larger than the file'):
        zoo.read_state_dict(path)


def test_npz_bombs(tmp_path):
    path = tmp_path / 'bomb.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {'descr': '<f4', 'fortran_order': False, 'shape': (2**45,)}
        )
        file.writestr('w.npy', head.getvalue())
    with pytest.raises(ValueError, match='bomb'):
        zoo.read_state_dict(path)


# Files that are something else.


def test_messages(tmp_path, write):
    missing = tmp_path / 'missing.pt'
    with pytest.raises(FileNotFoundError):
        zoo.read_state_dict(missing)
    for value, why in [({}, 'no weights'), ([1], 'a list'), ({'a': 1}, 'no weights')]:
        with pytest.raises(ValueError, match=why):
            zoo.read_state_dict(write(value))
    other = tmp_path / 'other.pt'
    for data in [b'', b'PK', b'hello', pickled(3), pickled(0x1950A86A20F9469CFC6C)]:
        other.write_bytes(data)
        with pytest.raises(ValueError, match=r'other\.pt'):
            zoo.read_state_dict(other)
    script = write_zip(other, {}, extra=[('constants.pkl', b'')])
    with pytest.raises(ValueError, match='TorchScript'):
        zoo.read_state_dict(script)
    with zipfile.ZipFile(other, 'w') as file:
        file.writestr('readme', b'')
    with pytest.raises(ValueError, match=r'torch\.save'):
        zoo.read_state_dict(other)
    np.savez(tmp_path / 'objects.npz', w=np.array([{}], object))
    with pytest.raises(ValueError, match='allow_pickle'):
        zoo.read_state_dict(tmp_path / 'objects.npz')


def test_npz(tmp_path):
    arrays = {'a.weight': np.arange(6.0).reshape(2, 3), 'b': np.array([True])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / 'w.npz', **arrays)
        same(zoo.read_state_dict(tmp_path / 'w.npz'), arrays)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip('safetensors.numpy')
    arrays = {
        'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
        'b': np.array([1.5, -2, 3e38]).astype(ml_dtypes.bfloat16),
        'c': np.array([True, False]),
        'd': np.array(-7, np.int64),
        'e': np.zeros((0, 2), np.float16),
    }
    path = tmp_path / 'w.safetensors'
    path.write_bytes(safetensors.save(arrays))
    read = zoo.read_state_dict(path)
    same(read, arrays)
    assert not read['a.weight'].flags.writeable
    path.write_bytes(safetensors.save({'x': np.ones(2, np.uint32)}))
    with pytest.raises(ValueError, match='U32'):
        zoo.read_state_dict(path)


# Damage.

WEIGHTS = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.array([True, False]),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The bytes of the same small weights in every format."""
    folder = tmp_path_factory.mktemp('whole')
    stored = {'0': WEIGHTS['a.weight'], '1': WEIGHTS['b']}

    def value(legacy):
        bools = tensor('1', 2, (2,), kind='BoolStorage', legacy=legacy)
        return {'a.weight': tensor('0', 6, (2, 3), legacy=legacy), 'b': bools}

    write_zip(folder / 'w.pt', value(False), stored, extra=[('byteorder', b'little')])
    found = {
        '.pt': (folder / 'w.pt').read_bytes(),
        '.pth': legacy_bytes(value(True), stored),
    }
    np.savez(folder / 'w.npz', **WEIGHTS)
    found['.npz'] = (folder / 'w.npz').read_bytes()
    try:
        from safetensors.numpy import save
    except ImportError:
        return found
    return {**found, '.safetensors': save(WEIGHTS)}


def read_damaged(folder, suffix, data):
    path = folder / f'damaged{suffix}'
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', SyntaxWarning)
        return zoo.read_state_dict(path)


@pytest.mark.parametrize('suffix', ['.pt', '.pth', '.npz', '.safetensors'])
def test_truncations(whole, tmp_path, suffix):
    if suffix not in whole:
        pytest.skip('safetensors is not installed')
    same(read_damaged(tmp_path, suffix, whole[suffix]), WEIGHTS)
    for length in range(0, len(whole[suffix]), 1 if suffix == '.pth' else 3):
        with pytest.raises(ValueError, match='damaged'):
            read_damaged(tmp_path, suffix, whole[suffix][:length])


@pytest.mark.parametrize('suffix', ['.pt', '.pth', '.npz', '.safetensors'])
def test_flipped_bits(whole, tmp_path, suffix):
    if suffix not in whole:
        pytest.skip('safetensors is not installed')
    data = whole[suffix]
    for at in range(0, len(data), 3):
        for bit in (at % 8, (at + 5) % 8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                read = read_damaged(tmp_path, suffix, bytes(flipped))
            except ValueError:
                continue
            # Archives have checksums; the others cannot know.
            if suffix == '.pt':
                same(read, WEIGHTS)
            assert all(isinstance(array, np.ndarray) for array in read.values())


OPCODES = st.sampled_from([bytes([k]) for k in range(256)])
GRAMMAR = st.sampled_from(
    [
        *(encode(v) for v in (0, 7, 'w', 'storage', (), (2,), {}, [], None, 'os')),
        *(encode(named(n)) for n in ('torch.FloatStorage', 'collections.OrderedDict')),
        *(b'Q', b'R', b'b', b's', b'u', b'e', b'a', b't', b'(', b'\x93', b'2', b'0'),
        *(encode(tensor('0', 4, (2, 2))), b'q\x01', b'h\x01', b'.'),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(OPCODES, GRAMMAR), max_size=40).map(b''.join))
def test_any_bytes_for_a_pickle(code):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with contextlib.suppress(ValueError):
            weight_pickle.load(io.BytesIO(code + b'.'))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage(whole, tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(sorted(whole)))
    raw = bytearray(whole[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        read = read_damaged(tmp_path_factory.getbasetemp(), suffix, bytes(raw))
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in read.values())


# Against the real thing.


@pytest.mark.parametrize('zipped', [True, False])
def test_files_that_pytorch_wrote(tmp_path, zipped):
    torch = pytest.importorskip('torch')
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    base = torch.arange(24, dtype=torch.float32)
    weights = net.state_dict()
    weights['parameter'] = torch.nn.Parameter(torch.ones(2))
    weights['transposed'] = base.reshape(4, 6).t()
    weights['part'] = base[5:17:3]
    weights['half'] = torch.tensor([1.5, -2]).half()
    weights['bfloat16'] = torch.tensor([1.5, -2, 1e30]).bfloat16()
    for dtype in (torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool):
        weights[str(dtype)] = torch.tensor([0, 1, 1], dtype=dtype)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    checkpoint = {
        'optimizer': optimizer.state_dict(),
        'state_dict': weights,
        'epoch': 3,
    }
    path = tmp_path / 'w.pt'
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    read = zoo.read_state_dict(path)
    expected = {}
    for name, value in weights.items():
        if value.dtype == torch.bfloat16:
            expected[name] = value.float().numpy().astype(ml_dtypes.bfloat16)
        else:
            expected[name] = value.detach().numpy()
    same(read, expected)
    assert np.shares_memory(read['transposed'], read['part'])
    # A whole module is code, however harmless.
    torch.save(net, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r'torch\.nn\.modules'):
        zoo.read_state_dict(path)
