"""An evaluation in progress, kept in a file so that it can be killed and go on.

The file holds every array of the record, the adversarial images among them, their
digest, and the identity of what is evaluated: model, images, labels, attacks, threat
model, key and library. A file that lacks an array, or holds another than was written,
is damaged.
"""

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from advjax import files, identity
from advjax.types import HostArray


class OtherEvaluationError(ValueError):
    """The file belongs to an evaluation of something else."""


class ProgressFile:
    """Writes arrays at most once in a while, and reads them back.

    A file that is damaged is set aside with a warning, never deleted; one of another
    evaluation is refused by naming what differs.

    Args:
      path: the file.
      made_of: {name: identity} of all that the results depend on.
      seconds: between two writes.
    """

    def __init__(self, path: Path, made_of: Mapping[str, str], seconds: float = 20.0):
        self._path = path
        self._made_of = dict(made_of)
        self._seconds = seconds
        self._saved = time.monotonic()

    def load(self, schema: Mapping[str, HostArray]) -> dict[str, np.ndarray] | None:
        """The arrays saved, or None where there are none that can be used.

        Args:
          schema: arrays of the names, shapes and types that must be there.

        Raises:
          OtherEvaluationError: if they belong to another evaluation.
        """
        if not self._path.exists():
            return None
        try:
            found = files.load_npz(self._path)
        except files.DamagedError as error:
            return self.set_aside(f'is damaged ({error})')
        if str(found.pop('digest', '')) != identity.of(found):
            return self.set_aside('is damaged (its digest is another)')
        other = [
            name
            for name, text in self._made_of.items()
            if str(found.get(f'identity_{name}', '')) != text
        ]
        if other:
            raise OtherEvaluationError(
                f'{self._path} holds an evaluation with another {", ".join(other)}: '
                'choose another folder, or delete it'
            )
        wrong = [
            name
            for name, like in schema.items()
            if name not in found
            or found[name].shape != like.shape
            or found[name].dtype != like.dtype
        ]
        if wrong:
            return self.set_aside(f'is damaged (no such {", ".join(wrong)})')
        return {name: found[name] for name in schema}

    def set_aside(self, why: str) -> None:
        """Keeps the file under another name, and says so."""
        aside = self._path.with_suffix('.damaged')
        os.replace(self._path, aside)
        warnings.warn(
            f'{self._path} {why}: kept as {aside.name}, and the evaluation starts over',
            stacklevel=4,
        )

    def save(self, arrays: dict[str, np.ndarray], now: bool = False) -> None:
        """Writes the arrays in one piece, if the last time is long enough ago."""
        if not now and time.monotonic() - self._saved < self._seconds:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = dict(arrays)
        whole |= {f'identity_{n}': np.array(t) for n, t in self._made_of.items()}
        whole['digest'] = np.array(identity.of(whole))
        with (
            files.replaced(self._path, durable=True) as unfinished,
            open(unfinished, 'wb') as file,
        ):
            np.savez(file, **whole)  # type: ignore[arg-type]
        self._saved = time.monotonic()
