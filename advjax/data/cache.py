"""Decoded images on disk, so that a data set is decoded once.

An entry is three files: ``STEM.images.npy``, ``STEM.labels.npy`` and
``STEM.json``, which says what the arrays were made from and holds their
checksums. Every file is written atomically, the JSON last. So a reader finds a
whole entry, or one whose checksums disagree (a crash, a second writer, a bad
disk), which counts as absent.
"""

import hashlib
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from advjax import files

# Raised when the meaning of the stored arrays changes.
_FORMAT = 1


def default_dir() -> Path:
    """``$ADVJAX_CACHE``, or ``~/.cache/advjax``."""
    named = os.environ.get('ADVJAX_CACHE')
    return Path(named).expanduser() if named else Path.home() / '.cache' / 'advjax'


def stem_of(*parts: str) -> str:
    """A file name for these strings: readable, and distinct by a hash."""
    readable = re.sub(r'[^\w.]+', '_', '-'.join(parts[:3]))[:80]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f'{readable}-{digest}'


def read(
    folder: Path, stem: str, identity: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (images, labels), or None if there is no intact entry.

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
        # A broken file can raise nearly anything (a header that asks for petabytes is a
        # MemoryError), and in every case the set is decoded again.
        return None
    return images, labels


def write(
    folder: Path,
    stem: str,
    identity: dict[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Writes an entry, see ``read``, over whatever is there.

    Raises:
      OSError: if the folder cannot be made or written, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [_describe(images), _describe(labels)]
    meta = {'format': _FORMAT, 'identity': identity, 'arrays': arrays}
    _save(folder / f'{stem}.images.npy', images)
    _save(folder / f'{stem}.labels.npy', labels)
    files.write_text(folder / f'{stem}.json', json.dumps(meta, indent=1))


def _load(path: Path) -> np.ndarray:
    # Opened here: np.load leaves the file open if it takes it for an archive.
    with path.open('rb') as file:
        return np.load(file, allow_pickle=False)


def _save(path: Path, array: np.ndarray) -> None:
    with files.replaced(path) as unfinished, unfinished.open('wb') as file:
        np.save(file, array)


def _describe(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), list(array.shape), zlib.crc32(array)]
