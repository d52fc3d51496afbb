"""What every results.json says of its run: settings, command, time, versions."""

import datetime
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax

from advjax import identity
from experiments.frame.folders import as_json


def envelope(
    title: str,
    config: Any,
    command: str,
    seconds: float,
    content: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what ``results.json`` holds.

    Args:
      title: a line above the page.
      config: a dataclass, the settings of the run.
      command: the command line; '' where there was none.
      seconds: wall time.
      content: what was found.
    """
    return {
        'title': title,
        'config': as_json(config),
        **content,
        'command': command,
        'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'wall_seconds': round(seconds, 1),
        'environment': environment(),
        'code': code(),
    }


def code() -> dict[str, str]:
    """What the figures were made by: versions, or digests of sources in development."""
    return identity.of_packages('advjax', 'experiments', 'jax', 'flax', 'optax')


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        'python': platform.python_version(),
        **{name: version(name) for name in ('advjax', 'jax', 'flax', 'optax')},
        'device': jax.devices()[0].device_kind,
        'cores': os.cpu_count(),
    }


def command_line(name: str, arguments: Sequence[str]) -> str:
    """The command line that was typed."""
    return shlex.join(['python', '-m', 'experiments', name, *arguments])
