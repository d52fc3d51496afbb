"""Files of weights: PyTorch's, safetensors and NumPy's, as arrays by name.

No file is trusted. PyTorch is not needed, and nothing in a file is executed (see
``weight_pickle``). The sizes stated in a file are compared with the size of the file
before memory is allocated.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from advjax import files
from advjax.zoo import weight_pickle
from advjax.zoo.weight_pickle import Storage, Tensor

# The keys of the weights in checkpoints, in order of preference.
_WEIGHTS = ('state_dict', 'model_state_dict', 'net', 'model', 'last')

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_SAFETENSORS_TYPES = {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
    'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8,
    'BOOL': np.bool_,
}  # fmt: skip

# An npz archive may be compressed. Up to this many bytes any compression is allowed.
_HARMLESS = 2**28
_MOST_COMPRESSED = 100

# What zipfile, zlib and NumPy raise for damaged files besides ValueError.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, MemoryError),
    *(NotImplementedError, OSError, OverflowError, RuntimeError),
)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the weights in a file.

    A .npz file is NumPy's and a .safetensors file the package's of that name; any other
    (.pt, .pth, .pth.tar) is PyTorch's, in the zip format of today or in the one before
    1.6. Tensors and plain values in it are read, and anything else is refused. Of a
    checkpoint with the weights under 'state_dict', 'model_state_dict', 'net' or
    'model', only these are taken, and only the storages they need are read.

    Args:
      path: the file.

    Returns:
      Read-only arrays under the names of the file, with its shapes, layouts and types;
      bfloat16 is that of ml_dtypes. Arrays share memory where tensors do.

    Raises:
      ValueError: if the file is damaged, holds no weights, or asks for an object that
        is neither a tensor nor a plain value; the message names it.
      FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    read = {'.npz': _read_npz, '.safetensors': _read_safetensors}.get(
        path.suffix, _read_torch
    )
    try:
        arrays = read(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except _DAMAGE as error:
        raise ValueError(f'{path} is damaged: {error!r}') from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if not arrays:
        raise ValueError(f'{path} holds no weights')
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max(_HARMLESS, _MOST_COMPRESSED * path.stat().st_size):
        raise ValueError(f'the file says that it unpacks to {size} bytes')
    return files.load_npz(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        # Not the package's NumPy interface, which has no bfloat16.
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    arrays = {}
    for name, entry in entries:
        if entry['dtype'] not in _SAFETENSORS_TYPES:
            raise ValueError(
                f'the type of {name} must be one of {list(_SAFETENSORS_TYPES)}, got '
                f'{entry["dtype"]}'
            )
        array = _from_bytes(entry['data'], _SAFETENSORS_TYPES[entry['dtype']])
        arrays[name] = array.reshape(entry['shape'])
    return arrays


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    with open(path, 'rb') as file:
        if file.read(2) == b'PK':
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive, path.stat().st_size)
    return _read_legacy(path.read_bytes())


def _read_zip(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """A pickle in 'data.pkl' and every storage in a file of its own in 'data/'."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    # PyTorch does not compress, so the parts cannot be larger than the file.
    for entry in entries.values():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f'{entry.filename} is compressed or encrypted')
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError('the parts of the archive are larger than the file')
    folders = [name[:-8] for name in entries if name.endswith('/data.pkl')]
    if len(folders) != 1:
        raise ValueError(
            f'{len(folders)} entries of the archive are called data.pkl: it was not '
            'written by torch.save'
        )
    prefix = folders[0]
    if prefix + 'constants.pkl' in entries:
        raise ValueError(
            'the archive is a TorchScript program; save its state_dict() instead'
        )

    def little(name):
        order = archive.read(name) if name in entries else b'little'
        if order not in (b'little', b'big'):
            raise ValueError(f'byteorder must be little or big, got {order[:20]!r}')
        return order == b'little'

    order = '<' if little(prefix + 'byteorder') else '>'
    checkpoint, _ = weight_pickle.load(io.BytesIO(archive.read(prefix + 'data.pkl')))

    def numbers(storage):
        name = f'{prefix}data/{storage.key}'
        if name not in entries:
            raise ValueError(f'the storage {storage.key!r} is missing')
        if entries[name].file_size != storage.size * storage.dtype.itemsize:
            raise ValueError(
                f'the storage {storage.key!r} has {entries[name].file_size} bytes, not '
                f'{storage.size} numbers of {storage.dtype}'
            )
        return _from_bytes(archive.read(name), storage.dtype, order)

    return _arrays(_weights(checkpoint), numbers)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Five pickles in a row, then every storage as its size and its numbers.

    The numbers are little-endian, whatever machine wrote them.
    """
    stream = io.BytesIO(data)
    if weight_pickle.load(stream)[0] != _LEGACY_MAGIC:
        raise ValueError('it is not a file of PyTorch')
    if weight_pickle.load(stream)[0] != _LEGACY_PROTOCOL:
        raise ValueError('the protocol of the file is unknown')
    weight_pickle.load(stream)  # Properties of the machine that wrote it.
    checkpoint, storages = weight_pickle.load(stream)
    keys, _ = weight_pickle.load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError('the file has no list of its storages')
    if {*keys} != {*storages}:
        raise ValueError('the list of storages is not that of the tensors')
    places, at = {}, stream.tell()
    for key in keys:
        storage = storages[key]
        (size,) = struct.unpack_from('<q', data, at)
        at += 8
        end = at + storage.size * storage.dtype.itemsize
        if size != storage.size or end > len(data):
            raise ValueError(
                f'the storage {key!r} does not have {storage.size} numbers'
            )
        places[key], at = slice(at, end), end

    def numbers(storage):
        return _from_bytes(memoryview(data)[places[storage.key]], storage.dtype)

    return _arrays(_weights(checkpoint), numbers)


def _weights(checkpoint: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint that are the weights."""
    while isinstance(checkpoint, dict):
        inner = next((k for k in _WEIGHTS if isinstance(checkpoint.get(k), dict)), None)
        if inner is None:
            break
        # Taken out, so that a checkpoint that holds itself comes to an end.
        checkpoint = checkpoint.pop(inner)
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'the file must hold a dict of tensors, got a {type(checkpoint).__name__}'
        )
    return {
        name: value
        for name, value in checkpoint.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _arrays(
    weights: Mapping[str, Tensor], numbers: Callable[[Storage], np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensors as views of their storages, which are read once."""
    read: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in weights.items():
        storage = tensor.storage
        if storage.key not in read:
            read[storage.key] = numbers(storage)
        flat = read[storage.key][storage.start + tensor.offset :]
        step = storage.dtype.itemsize
        # The bounds of shape and strides were checked when the pickle was read.
        arrays[name] = np.lib.stride_tricks.as_strided(
            flat, tensor.shape, [step * n for n in tensor.strides], writeable=False
        )
    return arrays


def _from_bytes(data: Any, dtype: Any, order: Literal['<', '>'] = '<') -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        # Bytes other than 0 and 1 are not valid bools of NumPy.
        return np.frombuffer(data, np.uint8) != 0
    plain = np.dtype(f'u{dtype.itemsize}').newbyteorder(order)
    return (
        np.frombuffer(data, plain)
        .astype(plain.newbyteorder('='), copy=False)
        .view(dtype)
    )
