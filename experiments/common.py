"""What every experiment needs: the compilation cache, run folders, provenance."""

import dataclasses
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, data, files
from advjax.data import prepared
from advjax.evaluation.verify import logits_of
from advjax.types import HostArray, LogitsFn


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in ``JAX_COMPILATION_CACHE_DIR`` if set.

    One folder per host and jaxlib: programs are compiled for the very processor.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get('ADVJAX_CACHE', Path.home() / '.cache' / 'advjax'))
        folder = home / 'xla' / f'{platform.node()}-{version("jaxlib")}'
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # A read-only home costs compile time, nothing else.
        jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        'python': platform.python_version(),
        **{name: version(name) for name in ('advjax', 'jax', 'flax', 'optax')},
        'device': jax.devices()[0].device_kind,
        'cores': os.cpu_count(),
    }


def command(module: str) -> str:
    """The command line that was typed."""
    return ' '.join(['python', '-m', module, *sys.argv[1:]])


class OtherRunError(ValueError):
    """The folder holds a run of another configuration."""


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as a JSON file gives it back."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


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


def join_processes() -> None:
    """Makes this process one of those that run the same command.

    Clusters that JAX knows (TPU pods, SLURM, Open MPI, ...) tell it the rest. Elsewhere
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` do.

    Raises:
      ValueError: if neither says how many processes there are.
    """
    names = {'num_processes': 'JAX_NUM_PROCESSES', 'process_id': 'JAX_PROCESS_ID'}
    said = {k: int(os.environ[v]) for k, v in names.items() if v in os.environ}
    try:
        jax.distributed.initialize(**said)
    except RuntimeError as error:
        raise ValueError(f'the processes did not find each other: {error}') from error


def about_images(dataset: str) -> str:
    """'re-encoded JPEGs' if a prepared data set says so of itself, or ''."""
    if dataset == 'digits':
        return ''
    try:
        folder = Path(prepared.open_set(dataset, None).data_path)
        said = json.loads((folder / 'dataset_info.json').read_text())['description']
    except (data.DatasetNotFound, OSError, ValueError, KeyError):
        return ''
    return 're-encoded JPEGs' if re.search('JPEG re-?encod', said) else ''


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON in one piece."""
    files.write_text(path, json.dumps(value, indent=1))


def unchanged_at_zero(attack, logits_fn, key, x, y) -> int:
    """Counts the images that an attack of radius 0 returns bit for bit."""
    still = run_attack(balls.with_eps(attack, jnp.float32(0)), logits_fn, key, x, y)
    return int(jnp.sum(jnp.all(still == x, axis=tuple(range(1, x.ndim)))))


def answers(
    logits_fn: LogitsFn, x: HostArray, batch_size: int | None = None
) -> np.ndarray:
    """The class that a network gives each image, (N,).

    Args:
      logits_fn: the network.
      x: (N, H, W, C) images.
      batch_size: images at a time; all at once by default.
    """
    size = batch_size or len(x)
    parts = [logits_of(logits_fn, x[i : i + size]) for i in range(0, len(x), size)]
    return np.concatenate(parts).argmax(axis=1)


def accuracy(logits_fn: LogitsFn, x: HostArray, y: HostArray) -> float:
    """The share of images that a network gets right, in per cent."""
    return 100 * float(np.mean(answers(logits_fn, x) == np.asarray(y)))


@jax.jit
def run_attack(attack, logits_fn, key, x, y):
    """One compiled call of any attack."""
    return attack(logits_fn, key, x, y)
