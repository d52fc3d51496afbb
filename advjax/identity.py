"""What a value is, as a short text: equal texts mean that nothing has changed.

Results on disk are shown, and runs resumed, only where the identities of all that they
were made from agree. A function is more than its name: its code, constants, defaults,
what it closes over and the globals it names all count, the functions among them in the
same way. Code of an installed package is known by its name and version, and that of a
package in development (advjax itself, say) by its source files.
"""

import collections
import dataclasses
import functools
import hashlib
import importlib.metadata
import sys
import types
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from advjax.types import HostArray


class UnidentifiedError(ValueError):
    """A value that nothing but its address tells from others."""


def of(value: Any) -> str:
    """The identity of a value: 16 hexadecimal digits.

    Args:
      value: numbers, texts, arrays, containers, functions, classes, objects with a
        state of their own, in any nesting.

    Raises:
      UnidentifiedError: if part of it cannot be known again, such as an open file.
    """
    return _Walk().text(value)[:16]


def each(**values: Any) -> dict[str, str]:
    """The identities of named values; a refusal names the value."""
    texts = {}
    for name, value in values.items():
        name = name.replace('_', ' ')
        try:
            texts[name] = of(value)
        except UnidentifiedError as error:
            raise UnidentifiedError(
                f'the {name} cannot be told from others, so that nothing is kept on '
                f'disk for it: {error}. Pass a function, a pytree of arrays, or an '
                'object whose attributes are such'
            ) from error
    return texts


@functools.cache
def of_package(name: str) -> str:
    """A package's version, or the digest of its source where it is not installed."""
    module = sys.modules.get(name)
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return f'python {sys.version_info.major}.{sys.version_info.minor}'
    file = getattr(module, '__file__', None)
    if file is not None and not _installed(Path(file)):
        root = Path(file)
        sources = (
            sorted(root.parent.rglob('*.py')) if hasattr(module, '__path__') else [root]
        )
        total = hashlib.sha256()
        for source in sources:
            total.update(str(source.relative_to(root.parent)).encode())
            total.update(source.read_bytes())
        return total.hexdigest()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(module, '__version__', ''))


def of_packages(*names: str) -> dict[str, str]:
    """``of_package`` by name."""
    return {name: of_package(name) for name in names}


def _installed(file: Path) -> bool:
    return bool({'site-packages', 'dist-packages'} & set(file.parts))


def _is_own(module: str | None) -> bool:
    """Whether code of this module is looked into: the user's, not a library's."""
    top = (module or '').partition('.')[0]
    if top in ('', '__main__'):
        return True
    if top == 'advjax' or top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(top), '__file__', None)
    return file is not None and not _installed(Path(file))


_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))


class _Walk:
    """One walk through a value; a cycle ends where the value was first met."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._kept: list[Any] = []  # An id means something while its object lives.

    def text(self, value: Any) -> str:
        if id(value) in self._known:
            return self._known[id(value)]
        self._known[id(value)] = f'met {len(self._kept)}'
        self._kept.append(value)
        total = hashlib.sha256()
        for part in self._parts(value):
            total.update(part if isinstance(part, bytes) else part.encode())
            total.update(b'\0')
        self._known[id(value)] = total.hexdigest()
        return self._known[id(value)]

    def _parts(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, _PLAIN):
            return [kind.__name__, repr(value)]
        if isinstance(value, jax.core.Tracer):
            raise UnidentifiedError('it holds a traced value')
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(
            value.dtype, jax.dtypes.prng_key
        ):
            value = jax.random.key_data(value)
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(np.asarray(value))
        if isinstance(value, np.dtype | type(jax.numpy.float32)):
            return ['dtype', str(np.dtype(value))]
        return [*self._name(kind), *self._content(value)]

    def _array(self, value: HostArray) -> list[Any]:
        if value.dtype == object:
            return ['objects', str(value.shape), *map(self.text, value.ravel())]
        data = np.ascontiguousarray(value).tobytes()
        return ['array', str(value.dtype), str(value.shape), data]

    def _content(self, value: Any) -> list[str]:
        """What a value holds, as texts."""
        if isinstance(value, Mapping):
            pairs = [(self.text(key), key) for key in value]
            if not isinstance(value, collections.OrderedDict):
                pairs.sort(key=lambda pair: pair[0])
            return [
                part for text, key in pairs for part in (text, self.text(value[key]))
            ]
        if isinstance(value, Set):
            return sorted(self.text(item) for item in value)
        if isinstance(value, list | tuple | collections.deque):
            return [self.text(item) for item in value]
        if isinstance(value, types.ModuleType):
            return [value.__name__, of_package(value.__name__.partition('.')[0])]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.MethodType):
            return [self.text(value.__func__), self.text(value.__self__)]
        if isinstance(value, types.CellType):
            try:
                held = value.cell_contents
            except ValueError:  # Not assigned yet.
                return ['empty']
            return [self.text(held)]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, functools.partial):
            return [self.text(p) for p in (value.func, value.args, value.keywords)]
        if isinstance(value, property):
            return [self.text(p) for p in (value.fget, value.fset, value.fdel)]
        if isinstance(value, staticmethod | classmethod):
            return [self.text(value.__func__)]
        wrapped = getattr(value, '__wrapped__', None)
        if wrapped is not None and not isinstance(wrapped, types.MethodType):
            return ['wrapped', self.text(wrapped)]
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            owner = getattr(value, '__self__', None)
            named = [str(getattr(value, '__qualname__', value.__name__))]
            plain = owner is None or isinstance(owner, types.ModuleType | type)
            return named if plain else [*named, self.text(owner)]
        return self._object(value)

    def _function(self, f: Any) -> list[str]:
        if not _is_own(f.__module__):
            named = [*self._name(f), self.text(f.__defaults__)]
            # What a factory of the library closed over are its arguments.
            return [*named, self.text(f.__closure__), self.text(f.__kwdefaults__)]
        held = (f.__defaults__, f.__kwdefaults__, f.__closure__)
        return [self.text(f.__code__), *map(self.text, held), *self._globals(f)]

    def _globals(self, f: Any) -> list[str]:
        names, waiting = set(), [f.__code__]
        while waiting:
            code = waiting.pop()
            names |= set(code.co_names)
            waiting += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        known = sorted(names & f.__globals__.keys())
        return [part for n in known for part in (n, self.text(f.__globals__[n]))]

    def _code(self, code: types.CodeType) -> list[str]:
        """Bytecode without the lines and files that it came from."""
        parts = (code.co_code, code.co_consts, code.co_names, code.co_varnames)
        return [self.text(part) for part in parts]

    def _class(self, kind: type) -> list[str]:
        named = self._name(kind)
        if not _is_own(kind.__module__):
            return named
        own = {
            name: value
            for name, value in vars(kind).items()
            if not isinstance(value, _SLOTS)
            and (isinstance(value, _METHODS) or not name.startswith(('__', '_abc_')))
        }
        return [*named, self.text(kind.__bases__), self.text(own)]

    def _object(self, value: Any) -> list[str]:
        own = _is_own(type(value).__module__)
        state = [self.text(type(value))] if own else []
        leaf = jax.tree_util.all_leaves([value])
        if not leaf:
            leaves, structure = jax.tree_util.default_registry.flatten_one_level(value)
            return [*state, self.text(list(leaves)), self.text(structure)]
        return [*state, self.text(_held(value))]

    def _name(self, value: Any) -> list[str]:
        module = str(getattr(value, '__module__', ''))
        if _is_own(module):  # Known by its code, not by the file around it.
            return [value.__qualname__]
        return [module, value.__qualname__, of_package(module.partition('.')[0])]


_METHODS = (types.FunctionType, property, staticmethod, classmethod)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _held(value: Any) -> Any:
    """What an object holds: what it would be pickled from, or its attributes."""
    linen = sys.modules.get('flax.linen')
    if linen is not None and isinstance(value, linen.Module):
        # Frozen but for a serial number, another for every instance.
        fields = dataclasses.fields(value)
        return {f.name: getattr(value, f.name, None) for f in fields if f.compare}
    try:
        return value.__reduce_ex__(4)
    except Exception as error:  # Whatever an object raises that is not for pickling.
        kind = type(value)
        written = any(isinstance(v, types.FunctionType) for v in vars(kind).values())
        if not written:  # In C: there may be more to it than its attributes.
            raise UnidentifiedError(
                f'it holds a {kind.__qualname__}, whose contents cannot be read'
            ) from error
        slots = [s for k in kind.__mro__ for s in getattr(k, '__slots__', ())]
        held = {s: getattr(value, s) for s in slots if hasattr(value, s)}
        return held | getattr(value, '__dict__', {})
