"""What ``masking`` reports: each sign with its figure, and all of them together."""

import dataclasses
from typing import Any

import numpy as np

from advjax.evaluation.record import Evaluation


@dataclasses.dataclass(frozen=True)
class Sign:
    """One sign of masked gradients.

    Attributes:
      name: a key of ``masking.THRESHOLDS``.
      value: what was measured, a share of images.
      threshold: the sign fires where the value exceeds it.
      sentence: what was measured, in words and with its figures.
    """

    name: str
    value: float
    threshold: float
    sentence: str

    @property
    def fired(self) -> bool:
        """Whether the value exceeds the threshold."""
        return self.value > self.threshold


@dataclasses.dataclass(frozen=True)
class Masking:
    """The report of ``masking``.

    Attributes:
      signs: all signs, fired or not.
      clean: accuracy without an attack.
      accuracy: {attack: accuracy under it alone}, clean errors counted as errors.
      radii: (R,) ascending radii; the last spans the whole range of pixels.
      curve: (R,) accuracy under the iterative attack at each of them.
      evaluation: the verified record of all attacks at the ball's own radius.
    """

    signs: tuple[Sign, ...]
    clean: float
    accuracy: dict[str, float]
    radii: np.ndarray
    curve: np.ndarray
    evaluation: Evaluation

    @property
    def fired(self) -> tuple[str, ...]:
        """Names of the signs that fired."""
        return tuple(sign.name for sign in self.signs if sign.fired)

    def __getitem__(self, name: str) -> Sign:
        """The sign of a name."""
        for sign in self.signs:
            if sign.name == name:
                return sign
        known = [sign.name for sign in self.signs]
        raise ValueError(f'name must be one of {known}, got {name!r}')

    def summary(self) -> dict[str, Any]:
        """The report as plain JSON-ready values."""
        return {
            'fired': list(self.fired),
            'signs': [
                {**dataclasses.asdict(sign), 'fired': sign.fired} for sign in self.signs
            ],
            'clean': self.clean,
            'accuracy': dict(self.accuracy),
            'radii': self.radii.tolist(),
            'curve': self.curve.tolist(),
        }

    def __str__(self) -> str:
        """A line per sign."""
        width = max(len(sign.name) for sign in self.signs)
        lines = [
            f'{"FIRED" if s.fired else "-":<5}  {s.name:<{width}}  {s.sentence}'
            for s in self.signs
        ]
        count = len(self.fired)
        verdict = f'{count} of {len(self.signs)} signs of masked gradients'
        return '\n'.join([verdict, *lines])
