"""The folder of a run: a new one, or one to go on with."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from advjax import files


class OtherRunError(ValueError):
    """The folder holds a run of another configuration."""


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as a JSON file gives it back."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON in one piece."""
    files.write_text(path, json.dumps(value, indent=1))


def run_folder(folder: Path, config: Any, fresh: bool) -> Path:
    """Opens the folder of a run: a new one, or one to go on with.

    Args:
      folder: where; made if it is missing.
      config: a dataclass; saved as ``config.json``.
      fresh: delete what is there.

    Raises:
      OtherRunError: if the folder holds a run of another configuration.
    """
    wanted = as_json(config)
    record = folder / 'config.json'
    if fresh and folder.exists():
        if not record.exists() and any(folder.iterdir()):
            raise OtherRunError(f'{folder} is not the folder of a run: not deleted')
        shutil.rmtree(folder)
    if record.exists():
        try:
            found = dict(json.loads(record.read_text()))
        except (ValueError, TypeError) as error:
            raise OtherRunError(
                f'{record} is damaged ({error}): start over with --fresh'
            ) from None
        other = {
            key: (found.get(key), wanted.get(key))
            for key in found.keys() | wanted.keys()
            if found.get(key) != wanted.get(key)
        }
        if other:
            listed = ', '.join(
                f'{k}: {a!r} there, {b!r} now' for k, (a, b) in other.items()
            )
            raise OtherRunError(
                f'{folder} holds a run of another configuration ({listed}). Choose '
                'another --name, or delete it by --fresh'
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)
    return folder


def opened_by_all(folder: Path, config: Any, fresh: bool) -> Path:
    """``run_folder`` for a run in several processes, of which the first opens it.

    Raises:
      OtherRunError: in every process, if the first one cannot.
    """
    if jax.process_count() == 1:
        return run_folder(folder, config, fresh)
    from jax.experimental import multihost_utils

    problem: Exception | None = None
    if jax.process_index() == 0:
        try:
            run_folder(folder, config, fresh)
        except (ValueError, OSError) as error:
            problem = error
    fine = multihost_utils.broadcast_one_to_all(np.bool_(problem is None))
    if problem is not None:
        raise problem
    if not fine:
        raise OtherRunError(f'the first process could not open {folder}')
    return folder
