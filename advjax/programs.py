"""Compiled programs of a long process: let go before there are too many."""

from pathlib import Path

import jax

_MAPS = Path('/proc/self/maps')
_MOST = Path('/proc/sys/vm/max_map_count')


def let_go(share: float = 0.6) -> bool:
    """Clears JAX's caches once programs hold most of what Linux gives a process.

    A program for the CPU holds about a hundred memory maps, of which a process has
    65,530: a sweep over hundreds of configurations would end in a crash. What is still
    used is compiled again, or read from the compilation cache on disk.

    Args:
      share: of the maps allowed, beyond which the caches are cleared.

    Returns:
      Whether they were.
    """
    try:
        most = int(_MOST.read_text())
        with open(_MAPS, 'rb') as maps:
            held = sum(1 for _ in maps)
    except (OSError, ValueError):
        return False  # Not Linux, which alone has this limit.
    if held <= share * most:
        return False
    jax.clear_caches()
    return True
