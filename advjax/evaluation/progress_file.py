"""An evaluation in progress, kept in a file so that it can be killed and go on.

The file holds every array of the record, the adversarial images among them, and a
fingerprint of what is evaluated: model, images, labels, attacks, threat model and key.
"""

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from advjax import files
from advjax.fingerprint import of_arrays


class OtherEvaluationError(ValueError):
    """The file belongs to an evaluation of something else."""


class ProgressFile:
    """Writes arrays at most once in a while, and reads them back.

    A file that is damaged is set aside with a warning, never deleted; one of another
    evaluation is refused by naming what differs.
    """

    def __init__(self, path: Path, identity: dict[str, Any], seconds: float = 20.0):
        self._path = path
        self._identity = {name: of_arrays(value) for name, value in identity.items()}
        self._seconds = seconds
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """The arrays saved, or None where there are none.

        Raises:
          OtherEvaluationError: if they belong to another evaluation.
        """
        if not self._path.exists():
            return None
        try:
            found = files.load_npz(self._path)
        except files.DamagedError as error:
            aside = self._path.with_suffix('.damaged')
            os.replace(self._path, aside)
            warnings.warn(
                f'{self._path} is damaged ({error}): kept as {aside.name}, and the '
                'evaluation starts over',
                stacklevel=2,
            )
            return None
        other = [
            name
            for name, text in self._identity.items()
            if str(found.pop(f'identity_{name}', '')) != text
        ]
        if other:
            raise OtherEvaluationError(
                f'{self._path} holds an evaluation with another {", ".join(other)}: '
                'choose another folder, or delete it'
            )
        return found

    def save(self, arrays: dict[str, np.ndarray], now: bool = False) -> None:
        """Writes the arrays in one piece, if the last time is long enough ago."""
        if not now and time.monotonic() - self._saved < self._seconds:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        identity = {f'identity_{n}': np.array(t) for n, t in self._identity.items()}
        with (
            files.replaced(self._path, durable=True) as unfinished,
            open(unfinished, 'wb') as file,
        ):
            np.savez(file, **arrays, **identity)  # type: ignore[arg-type]
        self._saved = time.monotonic()
