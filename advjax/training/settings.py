"""What ``fit`` is told about checkpoints, and about trainings that fail."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

from advjax.attacks.checks import check_count

OnFailure = Literal['rollback', 'restart', 'continue']


@dataclasses.dataclass(frozen=True)
class Checkpointing:
    """Where a training keeps its checkpoints and its log, and how often it saves.

    Attributes:
      directory: holds ``checkpoints/`` and ``metrics.jsonl``. If it holds a run that
        was interrupted, that run goes on.
      save_seconds: least time between two checkpoints.

    Raises:
      ValueError: if the directory is no path, or the time negative or NaN.
    """

    directory: str | os.PathLike[str]
    save_seconds: float = 30.0

    def __post_init__(self):
        if not isinstance(self.directory, str | os.PathLike) or self.directory == '':
            raise ValueError(f'directory must be a path, got {self.directory!r}')
        if not self.save_seconds >= 0:
            raise ValueError(f'save_seconds must be >= 0, got {self.save_seconds!r}')

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.directory)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What follows catastrophic overfitting, or a collapse to a constant answer.

    Attributes:
      on_failure: 'rollback' returns to the best epoch and stops, 'restart' begins
        again with the next seed and rolls back when there is none left, 'continue'
        only says so in ``Fit.events``.
      max_restarts: seeds to try besides the first.

    Raises:
      ValueError: for any other value.
    """

    on_failure: OnFailure = 'restart'
    max_restarts: int = 2

    def __post_init__(self):
        if self.on_failure not in ('rollback', 'restart', 'continue'):
            raise ValueError(
                "on_failure must be 'rollback', 'restart' or 'continue', got "
                f'{self.on_failure!r}'
            )
        check_count('max_restarts', self.max_restarts, 0)
