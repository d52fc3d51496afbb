"""One command line for all: each field of a dataclass is a flag.

One of the flags may name a preset, which decides what the others default to; flags
beside it change some of its settings.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar('T', bound='DataclassInstance')


def parse(
    kind: type[T],
    arguments: Sequence[str],
    *,
    name: str,
    text: str | None = None,
    chooser: str = '',
    presets: Mapping[str, Any] | None = None,
) -> T:
    """Reads a command line.

    Args:
      kind: a dataclass with a field for each flag.
      arguments: the words after the name of the command.
      name: of the command, as it is typed.
      text: what ``--help`` says above the flags.
      chooser: the field that names a preset.
      presets: by that name, a dataclass with the settings it stands for.

    Raises:
      ValueError: if there is no preset of that name.
    """
    import tyro

    options: dict[str, Any] = {}
    if presets is not None:
        chosen: Any = _value(chooser, arguments)
        if chosen is None:
            defaults = {f.name: f.default for f in dataclasses.fields(kind)}
            chosen = defaults[chooser]
        elif chosen not in presets:
            allowed = ', '.join(presets)
            raise ValueError(f'--{chooser} must be one of {allowed}, got {chosen!r}')
        settings = vars(presets[chosen]) if chosen is not None else {}
        options['default'] = kind(**settings, **{chooser: chosen})
    return tyro.cli(
        kind,
        args=arguments,
        description=text,
        prog=f'python -m experiments {name}',
        **options,
    )


def _value(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of one flag, which is read before the others."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument(f'--{flag}')
    return getattr(reader.parse_known_args(list(arguments))[0], flag)


def part(kind: type[T], args: Any) -> T:
    """The flags that are fields of another dataclass, as that dataclass."""
    return kind(**{f.name: getattr(args, f.name) for f in dataclasses.fields(kind)})
