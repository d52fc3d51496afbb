"""Checkpoints that survive being killed, on orbax."""

import json
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import sharding


class OtherTrainingError(ValueError):
    """The directory holds checkpoints of another run."""


class Checkpoints:
    """Numbered checkpoints of a pytree and a JSON record in a directory.

    A save is atomic: it appears under its number only when it is complete. Restoring
    takes the newest that can be read; a damaged one is set aside with a warning.

    Several processes each make one over a directory that all of them see, and call
    its methods together; process 0 writes.
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
        copy = jax.tree.map(lambda leaf: np.array(_raw(leaf), copy=True), tree)
        sealed = {'record': record, 'crc': _crc(copy)}
        text = np.frombuffer(_sealed(json.dumps(sealed).encode()), np.uint8)
        self._checkpointer.save_checkpointables_async(
            number, {'tree': copy, 'record': {'json': text}}, force=True
        )

    def restore(self, like: Any) -> tuple[Any, Any] | None:
        """Returns (tree, record) of the newest readable checkpoint, or None.

        Args:
          like: a pytree of arrays or ``jax.ShapeDtypeStruct`` of the saved structure.

        Raises:
          OtherTrainingError: if a readable checkpoint holds a tree of another
            structure: it belongs to another run.
        """
        for step in sorted(
            (c.step for c in self._checkpointer.checkpoints), reverse=True
        ):
            tree = record = damage = None
            try:
                stored = self._checkpointer.load_checkpointables(
                    step, {'tree': None, 'record': None}
                )
                sealed = json.loads(
                    _opened(np.asarray(stored['record']['json']).tobytes())
                )
                record, tree = sealed['record'], stored['tree']
                if _crc(tree) != sealed['crc']:
                    raise ValueError('an array does not match its checksum')
            except Exception as error:  # Any damage, whatever its type.
                damage = error
            if sharding.any_of(damage is not None):
                self._set_aside(step, damage)
                continue
            return self._like(tree, like, step), record
        return None

    def _like(self, tree: Any, like: Any, step: int) -> Any:
        """Gives what was read the structure and the devices that training uses."""
        # Orbax knows dicts and lists; compare leaf by leaf, by name.
        read = dict(_named(tree))
        leaves = []
        for name, template in _named(like):
            found, leaf = read.pop(name, None), _raw(template)
            if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
                raise OtherTrainingError(
                    f'{self._directory}: checkpoint {step} belongs to another run: '
                    f'{name} must be {leaf.dtype}{list(leaf.shape)}, got '
                    f'{None if found is None else (found.dtype, found.shape)}. Choose '
                    'another directory or delete this one'
                )
            value = jnp.asarray(found)
            leaves.append(
                value if leaf is template else jax.random.wrap_key_data(value)
            )
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _set_aside(self, step: int, error: Exception | None) -> None:
        reason = (str(error or '').strip() or repr(error)).splitlines()[0][:200]
        warnings.warn(
            f'checkpoint {step} in {self._directory} cannot be read and is skipped: '
            f'{reason}',
            stacklevel=3,
        )
        self._checkpointer.close()
        damaged = self._directory / str(step)
        if jax.process_index() == 0 and damaged.exists():
            aside = self._directory.parent / f'{self._directory.name}-damaged-{step}'
            shutil.rmtree(aside, ignore_errors=True)
            damaged.rename(aside)
        sharding.any_of(True)  # No one looks again before it is gone.
        self._checkpointer = self._open()

    def close(self) -> None:
        """Waits for the last save."""
        self._checkpointer.close()


def numbered(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree under plain names, as a checkpoint holds them."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def filled(template: Any, leaves: dict[str, Any]) -> Any:
    """The pytree like ``template`` whose ``numbered`` leaves these are."""
    flat = [leaves[str(i)] for i in range(len(leaves))]
    return jax.tree.unflatten(jax.tree.structure(template), flat)


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
        for path, leaf in leaves
    ]


def _raw(leaf: Any) -> Any:
    """PRNG keys as the numbers they are made of."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _crc(tree: Any) -> dict[str, int]:
    return {n: zlib.crc32(np.ascontiguousarray(leaf)) for n, leaf in _named(tree)}


def _sealed(text: bytes) -> bytes:
    return zlib.crc32(text).to_bytes(4, 'big') + text


def _opened(sealed: bytes) -> bytes:
    if zlib.crc32(sealed[4:]).to_bytes(4, 'big') != sealed[:4]:
        raise ValueError('the record does not match its checksum')
    return sealed[4:]
