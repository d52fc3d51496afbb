"""The pickles inside PyTorch's weight files, read without executing anything.

A pickle is a program for a stack machine that may call any function. Here
``pickletools`` only parses it, and the few instructions that weights need act on plain
values: numbers, strings, tuples, lists, dicts and the tensors below. A global stays a
name and is never looked up; any name not listed is an error.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

# Names of storages in the module torch, or torch.cuda in older files.
_STORAGES = {
    'FloatStorage': np.dtype('float32'),
    'DoubleStorage': np.dtype('float64'),
    'HalfStorage': np.dtype('float16'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('int64'),
    'IntStorage': np.dtype('int32'),
    'ShortStorage': np.dtype('int16'),
    'CharStorage': np.dtype('int8'),
    'ByteStorage': np.dtype('uint8'),
    'BoolStorage': np.dtype('bool'),
}

_TYPES = {
    *('float16', 'float32', 'float64', 'bfloat16', 'bool', 'uint8', 'int8', 'int16'),
    *('int32', 'int64'),
}

# The limit of NumPy, which is above that of PyTorch.
_MOST_AXES = 64

_MARK = object()

_VALUES = {
    *('BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4'),
    *('FLOAT', 'BINFLOAT', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
    *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES'),
    'BINBYTES8',
}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class Storage(NamedTuple):
    """A block of numbers elsewhere in the file.

    Attributes:
      key: its name there.
      dtype: of its numbers.
      size: how many there are, as the pickle says.
      start: the first one that counts, for files before 0.4 that had views of them.
      length: how many count.
    """

    key: str
    dtype: np.dtype
    size: int
    start: int
    length: int


class Tensor(NamedTuple):
    """A view of a storage: checked to lie within it, and not to be larger."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    name: str


def load(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle and leaves the stream behind its end.

    Args:
      stream: in memory, where a size that lies costs nothing.

    Returns:
      Its value, with ``Tensor`` for tensors, and all storages that it names.

    Raises:
      ValueError: if it is damaged or holds anything but weights and plain values; the
        message names the global.
    """
    try:
        return _run(stream)
    except (IndexError, KeyError, TypeError) as error:
        # The stack machine's own: an empty stack, an unknown memo, a wrong operand.
        raise ValueError(f'the pickle is damaged: {error!r}') from None


def _run(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    storages: dict[str, Storage] = {}
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError('the pickle is damaged: a mark is missing')
        items = stack[at + 1 :]
        del stack[at:]
        return items

    parsed: Any = pickletools.genops(stream)
    for instruction, argument, _ in parsed:
        name = instruction.name
        if name in ('PROTO', 'FRAME'):
            continue
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise IndexError('the stack is empty')
            items = tuple(stack[len(stack) - count :])
            del stack[len(stack) - count :]
            stack.append(items)
        elif name == 'MARK':
            stack.append(_MARK)
        elif name == 'TUPLE':
            stack.append(tuple(since_mark()))
        elif name in ('EMPTY_LIST', 'LIST'):
            stack.append(since_mark() if name == 'LIST' else [])
        elif name in ('EMPTY_DICT', 'DICT'):
            stack.append({})
            if name == 'DICT':
                target = stack.pop()
                _put(target, since_mark())
                stack.append(target)
        elif name in ('APPEND', 'APPENDS'):
            items = since_mark() if name == 'APPENDS' else [stack.pop()]
            _expect(stack[-1], list).extend(items)
        elif name in ('SETITEM', 'SETITEMS'):
            items = since_mark() if name == 'SETITEMS' else [stack.pop(-2), stack.pop()]
            _put(stack[-1], items)
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name == 'POP':
            stack.pop()
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name == 'GLOBAL':
            stack.append(_global(*argument.split(' ', 1)))
        elif name == 'STACK_GLOBAL':
            attribute, module = stack.pop(), stack.pop()
            stack.append(_global(_expect(module, str), _expect(attribute, str)))
        elif name == 'BINPERSID':
            storage = _storage(stack.pop())
            known = storages.setdefault(storage.key, storage)
            if (known.dtype, known.size) != (storage.dtype, storage.size):
                raise ValueError(
                    f'the storage {storage.key!r} has two different descriptions'
                )
            stack.append(storage)
        elif name == 'REDUCE':
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, _expect(arguments, tuple)))
        elif name == 'BUILD':
            # A state dict's attributes, which hold versions of its modules.
            stack.pop()
            _expect(stack[-1], dict)
        elif name == 'STOP':
            return stack.pop(), storages
        else:
            what = f' of {argument!r}' if name == 'INST' else ''
            raise ValueError(
                f'the pickle has the instruction {name}{what}, which weights never need'
            )
    raise ValueError('the pickle is damaged: it has no end')


def _expect(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(
            f'expected a {kinds[0].__name__} and not a {type(value).__name__}'
        )
    return value


def _put(target: Any, items: list[Any]) -> None:
    _expect(target, dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing deep tuples or huge numbers could take forever.
        short = isinstance(key, int) and -(2**63) <= key < 2**63
        if not (key is None or short or isinstance(key, (str, bytes, float))):
            raise TypeError(f'a {type(key).__name__} cannot be a key')
        target[key] = value


def _global(module: str, attribute: str) -> _Global:
    name = f'{module}.{attribute}'
    if not (
        name in _CALLS
        or (module in ('torch', 'torch.cuda') and attribute in _STORAGES)
        or (module == 'torch' and attribute in _TYPES)
    ):
        raise ValueError(
            f'the pickle asks for {name}, which is neither a tensor nor a plain value '
            'and will not be made. A file of weights alone is written by '
            'torch.save(model.state_dict(), path)'
        )
    return _Global(name)


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    name = _expect(function, _Global).name
    if name not in _CALLS:
        raise ValueError(f'the pickle calls {name}, which is not a function')
    return _CALLS[name](*arguments)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError('a size, stride or offset of a tensor is not a number >= 0')
    return value


def _storage(what: Any) -> Storage:
    kind, *rest = _expect(what, tuple)
    if kind != 'storage':
        raise ValueError('the pickle refers to something that is not a storage')
    name, key, _location, size, *view = rest
    dtype = _STORAGES.get(_expect(name, _Global).name.rpartition('.')[2])
    if dtype is None:
        raise ValueError(f'{name.name} is not a kind of storage')
    size = _natural(size)
    start, length = 0, size
    if view and view[0] is not None:
        _, start, length = _expect(view[0], tuple)
        if _natural(start) + _natural(length) > size:
            raise ValueError(f'a view of storage {key!r} reaches beyond it')
    return Storage(_expect(key, str), dtype, size, start, length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    _expect(storage, Storage)
    _expect(shape, tuple), _expect(strides, tuple)
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise ValueError(f'a tensor has {len(shape)} sizes and {len(strides)} strides')
    shape = tuple(_natural(n) for n in shape)
    strides = tuple(_natural(n) for n in strides)
    offset, elements, last = _natural(offset), 1, 0
    for n, stride in zip(shape, strides, strict=True):
        elements *= n
        last += (n - 1) * stride
    beyond = elements and offset + last >= storage.length
    if beyond or elements > storage.length:
        raise ValueError(
            f'a tensor of shape {shape} is larger than its storage '
            f'{storage.key!r} of {storage.length} numbers'
        )
    if not elements:
        offset = 0
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    return _expect(tensor, Tensor)


def _ordered_dict(*pairs: Any) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    if pairs:
        (items,) = pairs
        for pair in _expect(items, list):
            _put(made, list(_expect(pair, tuple, list)))
        # Emptied, or a short pickle could make any number of long copies.
        items.clear()
    return made


def _size(sizes: Any) -> tuple[int, ...]:
    return _expect(sizes, tuple)


_CALLS: dict[str, Callable[..., Any]] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch.Size': _size,
    'collections.OrderedDict': _ordered_dict,
}
