"""Checkpoints that survive being killed, on orbax."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Checkpoints:
    """Numbered checkpoints of a pytree and a JSON record in a directory.

    A save is atomic: it appears under its number only when it is complete. Restoring
    takes the newest that can be read; a damaged one is set aside with a warning.
    """

    def __init__(self, directory: str | Path, keep: int = 3):
        # Orbax takes longer to import than all of advjax.
        from orbax.checkpoint import v1 as ocp

        self._directory = Path(directory).absolute()
        latest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._open = lambda: ocp.training.Checkpointer(
            str(self._directory),
            preservation_policy=latest,
            cleanup_tmp_directories=True,
        )
        self._checkpointer = self._open()

    def save(self, number: int, tree: Any, record: Any) -> None:
        """Saves in the background; ``tree`` may be donated right after."""
        # A copy on the host is what is written, whatever becomes of the original's
        # buffers, and it can be read on any devices.
        copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        self._checkpointer.save_checkpointables_async(
            number, {'tree': copy, 'record': {'json': text}}, force=True
        )

    def restore(self, like: Any) -> tuple[Any, Any] | None:
        """Returns (tree, record) of the newest readable checkpoint, or None.

        Args:
          like: a pytree of arrays or ``jax.ShapeDtypeStruct`` of the saved structure.

        Raises:
          ValueError: if a readable checkpoint holds a tree of another structure: it
            belongs to another run.
        """
        for step in sorted(
            (c.step for c in self._checkpointer.checkpoints), reverse=True
        ):
            try:
                stored = self._checkpointer.load_checkpointables(
                    step, {'tree': None, 'record': None}
                )
                record = json.loads(np.asarray(stored['record']['json']).tobytes())
                tree = stored['tree']
            except Exception as error:  # Any damage, whatever its type.
                self._set_aside(step, error)
                continue
            return self._like(tree, like, step), record
        return None

    def _like(self, tree: Any, like: Any, step: int) -> Any:
        """Gives what was read the structure and the devices that training uses."""
        # Orbax knows dicts and lists; compare leaf by leaf, by name.
        read = dict(_named(tree))
        leaves = []
        for name, leaf in _named(like):
            found = read.pop(name, None)
            if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f'{self._directory}: checkpoint {step} belongs to another run: '
                    f'{name} must be {leaf.dtype}{list(leaf.shape)}, got '
                    f'{None if found is None else (found.dtype, found.shape)}. Choose '
                    'another directory or delete this one'
                )
            leaves.append(jnp.asarray(found))
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        warnings.warn(
            f'checkpoint {step} in {self._directory} cannot be read and is skipped: '
            f'{reason}',
            stacklevel=3,
        )
        self._checkpointer.close()
        damaged = self._directory / str(step)
        if damaged.exists():
            aside = self._directory.parent / f'{self._directory.name}-damaged-{step}'
            shutil.rmtree(aside, ignore_errors=True)
            damaged.rename(aside)
        self._checkpointer = self._open()

    def close(self) -> None:
        """Waits for the last save."""
        self._checkpointer.close()


def _named(tree: Any) -> list[tuple[str, Any]]:
    def name(path):
        return '/'.join(
            str(getattr(part, 'name', getattr(part, 'key', getattr(part, 'idx', part))))
            for part in path
        )

    return [
        (name(p), leaf) for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
