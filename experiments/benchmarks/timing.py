"""Compiling and timing, so that figures can be compared."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def compiled(fn: Callable, *args: Any) -> tuple[Callable, float]:
    """Compiles without the persistent cache; returns the program and the seconds."""
    lowered = jax.jit(fn).lower(*args)
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    jax.config.update('jax_enable_compilation_cache', cache)
    return program, seconds


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each run; taking turns spreads the noise evenly."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}
