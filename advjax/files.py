"""Atomic writes, and reads that refuse damaged files."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class DamagedError(ValueError):
    """The file exists, but cannot be read."""


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """Yields a path to write to, and then replaces ``path`` by that file atomically.

    A reader finds the old file or the new one, never a part. If writing fails, the old
    one stays and the new one is removed. Of several processes or threads that write the
    same file, the last one wins.

    Args:
      path: the file to write or replace; its folder must exist.
      durable: sync the contents to disk first, so that the file survives a power cut.
    """
    path = Path(path)
    # In the same folder, or the move would not be atomic. Not tempfile, whose files
    # only their owner can read, because caches are shared.
    unfinished = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.unfinished')
    try:
        yield unfinished
        if durable:
            with open(unfinished, 'rb+') as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text atomically, the same bytes on every system."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding='utf-8', newline='\n')


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz archive.

    Raises:
      FileNotFoundError: if there is no such file.
      DamagedError: if it cannot be read.
    """
    try:
        # Opened here, because NumPy does not close a damaged archive.
        with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # Whatever NumPy, zipfile and zlib raise at bad bytes.
        raise DamagedError(f'{type(error).__name__}: {error}') from error
