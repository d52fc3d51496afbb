"""Decoded images on disk, so that a data set is decoded once.

An entry is three files: ``STEM.images.npy``, ``STEM.labels.npy`` and
``STEM.json``, which says what the arrays were made from and holds their
checksums. Every file is written beside its place and moved there; the JSON
comes last. So a reader finds a whole entry, or one whose checksums disagree
(a crash, a second writer, a bad disk) and which it takes for absent.
"""

import hashlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# Raised when the meaning of the stored arrays changes.
_FORMAT = 1


def default_dir() -> Path:
    """Returns ``$ADVJAX_CACHE``, or ``~/.cache/advjax``."""
    named = os.environ.get('ADVJAX_CACHE')
    return Path(named).expanduser() if named else Path.home() / '.cache' / 'advjax'


def stem_of(*parts: str) -> str:
    """Returns a file name for these strings: readable, and distinct by a hash."""
    readable = re.sub(r'[^\w.]+', '_', '-'.join(parts[:3]))[:80]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f'{readable}-{digest}'


def read(
    folder: Path, stem: str, identity: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (images, labels), or None if there is no sound entry.

    Args:
      folder: the cache directory; it need not exist.
      stem: the entry, from ``stem_of``.
      identity: what the arrays must have been made from, as JSON values.
    """
    try:
        meta = json.loads((folder / f'{stem}.json').read_text())
        if meta['identity'] != identity or meta['format'] != _FORMAT:
            return None
        images = _load(folder / f'{stem}.images.npy')
        labels = _load(folder / f'{stem}.labels.npy')
        if [_describe(images), _describe(labels)] != meta['arrays']:
            return None
    except Exception:
        # A broken file can raise nearly anything (a header that asks for
        # petabytes is a MemoryError), and the cure is always the same: decode.
        return None
    return images, labels


def write(
    folder: Path,
    stem: str,
    identity: dict[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Writes an entry over whatever is there.

    Args:
      folder: the cache directory, made if needed.
      stem: the entry, from ``stem_of``.
      identity: what the arrays were made from, as JSON values.
      images: the array to store.
      labels: the array to store.

    Raises:
      OSError: if the folder cannot be made or written, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [_describe(images), _describe(labels)]
    meta = {'format': _FORMAT, 'identity': identity, 'arrays': arrays}
    text = json.dumps(meta, indent=1).encode()
    _replace(folder / f'{stem}.images.npy', lambda file: np.save(file, images))
    _replace(folder / f'{stem}.labels.npy', lambda file: np.save(file, labels))
    _replace(folder / f'{stem}.json', lambda file: file.write(text))


def _load(path: Path) -> np.ndarray:
    # Opened here: np.load leaves the file open if it takes it for an archive.
    with path.open('rb') as file:
        return np.load(file, allow_pickle=False)


def _describe(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), list(array.shape), zlib.crc32(array)]


def _replace(path: Path, save: Callable[[BinaryIO], Any]) -> None:
    # Not tempfile: its files are for the owner alone, and caches are shared.
    part = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        with part.open('wb') as file:
            save(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
