"""Being told to stop: SIGTERM, sent by schedulers before they take a machine away."""

import signal
import threading
from typing import Any, Self

import jax


class Preempted(SystemExit):
    """Training was told to stop, has saved, and may go on later.

    As a ``SystemExit`` of code 0 it ends a program that does not catch it, cleanly.

    Attributes:
      step: updates made.
    """

    def __init__(self, step: int):
        super().__init__(0)
        self.step = step


class Listener:
    """Listens for SIGTERM while it is entered.

    Several processes agree on the step at which all of them stop, through the
    service of ``jax.distributed``, which listens by itself.
    """

    def __init__(self, listen: bool):
        # Only the main thread of a process may handle signals.
        self._listen = listen
        main = threading.current_thread() is threading.main_thread()
        self._handle = listen and main and jax.process_count() == 1
        self._before: Any = None
        self._told = False
        self._asked = 0

    def __enter__(self) -> Self:
        if self._handle:
            self._before = signal.signal(signal.SIGTERM, self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            signal.signal(signal.SIGTERM, self._before)

    def _tell(self, *_: object) -> None:
        self._told = True

    def told(self) -> bool:
        """Whether to stop now. Every process must ask equally often."""
        if self._listen and jax.process_count() > 1:
            from jax.experimental import multihost_utils

            self._asked += 1
            return multihost_utils.reached_preemption_sync_point(self._asked)
        return self._told
