"""An optional progress bar."""

from typing import Any, Self


class Bar:
    """A tqdm bar if ``show``, else nothing; tqdm is imported only where needed."""

    def __init__(self, show: bool, total: int, unit: str):
        self._bar: Any = None
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, leave=False)

    def at(self, position: int, description: str, **shown: str) -> None:
        """Moves the bar to a position and sets what it shows."""
        if self._bar is not None:
            new = self._bar.desc != f'{description}: '
            self._bar.set_description(description, refresh=False)
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(position - self._bar.n)
            if new:  # tqdm would wait for its next update.
                self._bar.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
