"""Jobs in several processes, each on a core of its own.

The networks are so small that a program on two cores is slower than two on one.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import jax

from experiments.commands.compare_methods import job
from experiments.commands.compare_methods.methods import Row
from experiments.frame import process


def number() -> int:
    """One for each core that this process may use; one on an accelerator."""
    return len(process.cores()) if jax.default_backend() == 'cpu' else 1


def run(
    config: Any, rows: Sequence[Row], folder: Path, workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs every row, those that it needs before it.

    Args:
      config: of the study.
      rows: what to run, each after those that it needs.
      folder: of the study.
      workers: processes; with 1 it is this one.

    Yields:
      Names and results as they are found.
    """
    if workers == 1:
        for row in rows:
            yield row.name, job.run(config, row.name, folder)
        return
    spawn = multiprocessing.get_context('spawn')
    cores, every = spawn.Queue(), process.cores()
    for i in range(workers):
        cores.put(every[i % len(every)])
    with ProcessPoolExecutor(workers, spawn, _begin, (cores,)) as pool:
        try:
            yield from _in_order(
                rows, lambda name: pool.submit(job.run, config, name, folder)
            )
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(
    rows: Sequence[Row], submit: Callable[[str], Future]
) -> Iterator[tuple[str, dict[str, Any]]]:
    # The longest first, so that no core waits for the last one.
    waiting = sorted(rows, key=lambda row: not row.defends)
    running: dict[Future, str] = {}
    done: set[str] = set()
    while waiting or running:
        for row in [row for row in waiting if done.issuperset(row.needs)]:
            waiting.remove(row)
            running[submit(row.name)] = row.name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name = running.pop(future)
            done.add(name)
            yield name, future.result()


def _begin(cores: Any) -> None:
    """Sets a worker up, before it has asked JAX for a device."""
    core = cores.get()
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {core})
    process.use_compilation_cache()
    # A worker that outlives a killed study would write into the folder of the next.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),),
                     daemon=True).start()  # fmt: skip


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
