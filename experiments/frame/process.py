"""A process of an experiment: its compiled programs, and the others beside it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


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


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def join_processes() -> None:
    """Makes this process one of those that run the same command.

    Clusters that JAX knows (TPU pods, SLURM, Open MPI, ...) tell it the rest. Elsewhere
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` do.

    Raises:
      ValueError: if neither says how many processes there are.
    """
    names = {'num_processes': 'JAX_NUM_PROCESSES', 'process_id': 'JAX_PROCESS_ID'}
    said: dict[str, Any] = {
        k: int(os.environ[v]) for k, v in names.items() if v in os.environ
    }
    try:
        jax.distributed.initialize(**said)
    except RuntimeError as error:
        raise ValueError(f'the processes did not find each other: {error}') from error
