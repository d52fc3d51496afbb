"""What attacks did to a model, example by example, and its figures."""

import dataclasses
from typing import Any

import numpy as np

from advjax.balls import Ball, limit

CLEAN_ERROR = -1
ROBUST = -2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What attacks did to a model: N examples, A attacks, NumPy arrays.

    Attributes:
      names: (A,) names of the attacks.
      ball: the threat model that everything was verified against.
      clean_correct: (N,) the model is right on the clean image.
      clean_prediction: (N,) its answer there.
      success: (A, N) a verified adversarial was found. Images that are wrong
        without an attack are not attacked and are False here.
      rejected: (A, N) the attack's result fools the model but lies outside the ball
        or the range, so it does not count.
      norm: (A, N) verified distance of the attack's result from the clean image.
      in_range: (A, N) every pixel of it lies within the bounds.
      margin: (A, N) verified margin at it, in logits; positive means wrong.
      finite: (A, N) the logits at it, and without an attack, are finite.
      calls: (A, N) model calls spent; -1 where the attack does not declare them.
      survivors: each attack ran only on what those before it left standing.
      worst: (N, ...) the point of largest margin that was verified to lie inside the
        ball and the range: an adversarial image where one was found, else the nearest
        miss, and the clean image where that was wrong already.
      prediction: (N,) the answer at ``worst``.
    """

    names: tuple[str, ...]
    ball: Ball
    clean_correct: np.ndarray
    clean_prediction: np.ndarray
    success: np.ndarray
    rejected: np.ndarray
    norm: np.ndarray
    in_range: np.ndarray
    margin: np.ndarray
    finite: np.ndarray
    calls: np.ndarray
    worst: np.ndarray
    prediction: np.ndarray
    survivors: bool = False

    @property
    def robust(self) -> np.ndarray:
        """(N,) right on the clean image and after every attack."""
        return self.clean_correct & ~self.success.any(axis=0)

    @property
    def broken_by(self) -> np.ndarray:
        """(N,) index of the first attack that broke it; CLEAN_ERROR, or ROBUST."""
        first = np.where(self.success.any(axis=0), self.success.argmax(axis=0), ROBUST)
        return np.where(self.clean_correct, first, CLEAN_ERROR)

    @property
    def distance(self) -> np.ndarray:
        """(N,) norm of the closest verified adversarial example, infinite for none.

        Zero where the model is wrong without an attack.
        """
        norm = np.where(self.success, self.norm, np.inf).min(axis=0)
        return np.where(self.clean_correct, norm, 0.0)

    def accuracy_at(self, eps: float) -> float:
        """Fraction right under every attack, had its radius been ``eps``.

        Exact only for minimum-norm attacks, which look for the closest example.
        """
        ball: Any = self.ball.with_eps(np.asarray(eps))  # type: ignore[arg-type]
        return float((self.distance > limit(ball, self.worst)).mean())

    @property
    def clean_accuracy(self) -> float:
        """Fraction of all examples that are right without an attack."""
        return float(self.clean_correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of all examples that are right under every attack."""
        return float(self.robust.mean())

    def accuracy(self, name: str) -> float:
        """Robust accuracy under one attack alone, clean errors counted as errors.

        Of a cascade (``survivors``) it is that after this attack and all before it.
        """
        if name not in self.names:
            raise ValueError(f'name must be one of {list(self.names)}, got {name!r}')
        number = self.names.index(name)
        first = 0 if self.survivors else number
        broken = self.success[first : number + 1].any(axis=0)
        return float((self.clean_correct & ~broken).mean())

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON-ready values."""
        return {
            'examples': len(self.clean_correct),
            'clean_accuracy': self.clean_accuracy,
            'robust_accuracy': self.robust_accuracy,
            'survivors': self.survivors,
            'attacks': [self._summary_of(i, n) for i, n in enumerate(self.names)],
        }

    def _summary_of(self, i: int, name: str) -> dict[str, Any]:
        success, rejected = self.success[i], self.rejected[i]
        calls = self.calls[i][self.clean_correct]
        return {
            'name': name,
            'robust_accuracy': self.accuracy(name),
            'found': int((success | rejected).sum()),
            'verified': int(success.sum()),
            'rejected': int(rejected.sum()),
            'outside_range': int((rejected & ~self.in_range[i]).sum()),
            'max_norm': float(self.norm[i][success].max(initial=0.0)),
            'model_calls': int(calls.max(initial=0)),
        }

    def __str__(self) -> str:
        """A table: one line per attack and one for the worst case."""
        after = 'after ' if self.survivors else ''
        rows = [('clean', self.clean_accuracy, '')]
        for a in self.summary()['attacks']:
            note = f'{a["verified"]} verified'
            ranged = a['outside_range']
            reasons = [(a['rejected'] - ranged, 'ball'), (ranged, 'range')]
            told = [f'{n} outside the {what}' for n, what in reasons if n]
            note += f', {a["rejected"]} REJECTED: {", ".join(told)}' if told else ''
            rows.append((after + a['name'], a['robust_accuracy'], note))
        odd = int((~self.finite).any(axis=0).sum())
        note = f'{odd} images with infinite or NaN logits' if odd else ''
        rows.append(('worst case', self.robust_accuracy, note))
        width = max(len(name) for name, *_ in rows)
        return '\n'.join(
            f'{name:<{width}}  {accuracy:7.2%}  {note}'.rstrip()
            for name, accuracy, note in rows
        )
