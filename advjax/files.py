"""Files that are whole: written in one piece, and read to the end or refused."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class DamagedError(ValueError):
    """The file is there, but cannot be read."""


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """Gives a file to write, which then takes the place of ``path`` in one piece.

    A reader finds the old file or the new one, never half of one. If writing fails,
    the old one stays and nothing is left beside it. Processes and threads may write
    the same file at once: the last one wins.

    Args:
      path: the file to write or replace; its folder must exist.
      durable: force the contents to the disk first, so that the file is whole even
        after a power cut.

    Yields:
      The path to write to.
    """
    path = Path(path)
    # In the same folder, because only then the move cannot be torn apart. Not
    # tempfile: its files are for the owner alone, and caches are shared.
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
    """Writes a text in one piece, the same bytes on every system."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding='utf-8', newline='\n')


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays of an archive of NumPy's.

    Raises:
      FileNotFoundError: if there is none.
      DamagedError: if it cannot be read.
    """
    try:
        # Opened here, because NumPy leaves a damaged archive open.
        with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # Whatever NumPy, zipfile and zlib raise at bad bytes.
        raise DamagedError(f'{type(error).__name__}: {error}') from error
