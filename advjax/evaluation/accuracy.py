"""Robust accuracy as the worst case over attacks, with its proof.

An example counts as robust when the model is right on it and every attack failed;
an attack counts as successful only after ``verify`` has confirmed it. Every example
has its own key, and every batch the same size (the last is padded), so one compiled
program serves and the verdict on an example depends on neither its batch-mates nor
their order.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, keys
from advjax.balls import Ball
from advjax.evaluation.inputs import check, threat_model
from advjax.evaluation.verify import Verified, logits_of, verify
from advjax.progress import Bar
from advjax.types import Array, Attack, HostArray, Key, LogitsFn, as_pytree

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
      finite: (A, N) the logits at it are finite.
      calls: (A, N) model calls spent; -1 where the attack does not declare them.
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
    def clean_accuracy(self) -> float:
        """Fraction of all examples that are right without an attack."""
        return float(self.clean_correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of all examples that are right under every attack."""
        return float(self.robust.mean())

    def accuracy(self, name: str) -> float:
        """Robust accuracy under one attack alone, clean errors counted as errors."""
        if name not in self.names:
            raise ValueError(f'name must be one of {list(self.names)}, got {name!r}')
        broken = self.success[self.names.index(name)]
        return float((self.clean_correct & ~broken).mean())

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON-ready values."""
        return {
            'examples': len(self.clean_correct),
            'clean_accuracy': self.clean_accuracy,
            'robust_accuracy': self.robust_accuracy,
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
            'max_norm': float(self.norm[i][success].max(initial=0.0)),
            'model_calls': int(calls.max(initial=0)),
        }

    def __str__(self) -> str:
        """A table: one line per attack and one for the worst case."""
        rows = [('clean', self.clean_accuracy, '')]
        rows += [
            (a['name'], a['robust_accuracy'], f'{a["verified"]} verified')
            for a in self.summary()['attacks']
        ]
        rows.append(('worst case', self.robust_accuracy, ''))
        width = max(len(name) for name, *_ in rows)
        return '\n'.join(
            f'{name:<{width}}  {accuracy:7.2%}  {note}'.rstrip()
            for name, accuracy, note in rows
        )


@jax.jit
def _attack(attack: Attack, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
    return attack(logits_fn, key, x, y)


def padded(index: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts positions into batches of one size.

    Yields:
      (batch_size,) positions and how many of them are real; the rest repeat the
      batch's own.
    """
    for start in range(0, len(index), batch_size):
        batch = index[start : start + batch_size]
        yield np.resize(batch, batch_size), len(batch)


def as_attacks(attacks: Mapping[str, Attack] | Attack) -> dict[str, Any]:
    """Names the attacks and makes each a pytree."""
    if callable(attacks):
        attacks = {'attack': attacks}
    if not isinstance(attacks, Mapping) or not attacks:
        raise ValueError(
            f'attacks must be an attack or a non-empty dict of them, got {attacks!r}'
        )
    return {str(name): as_pytree(attack) for name, attack in attacks.items()}


def index_of(ids: HostArray | None, size: int) -> np.ndarray:
    """The data-set indices of N examples."""
    which = np.arange(size) if ids is None else np.asarray(ids)
    if which.shape != (size,) or not np.issubdtype(which.dtype, np.integer):
        raise ValueError(
            f'ids must be integers of shape ({size},), got {which.dtype} of shape '
            f'{which.shape}'
        )
    return which


def key_of(key: Key, name: str, ids: np.ndarray) -> Key:
    """The keys of examples under a named attack: no other attack's draws."""
    key = keys.typed(key)
    if key.shape:
        raise ValueError(f'key must be one key, got an array of shape {key.shape}')
    named = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return keys.of_index(named, jnp.asarray(ids, jnp.int32))


def evaluate(
    logits_fn: LogitsFn,
    x: HostArray,
    y: HostArray,
    attacks: Mapping[str, Attack] | Attack,
    key: Key,
    *,
    ball: Ball | None = None,
    ids: HostArray | None = None,
    batch_size: int = 256,
    progress: bool = False,
) -> Evaluation:
    """Attacks a model and reports what was verified.

    Args:
      logits_fn: the model, x -> (B, K) logits. A pytree such as ``models.logits_fn``
        returns does not recompile when its parameters change.
      x: (N, ...) float32 images within the ball's bounds.
      y: (N,) integer labels.
      attacks: {name: attack}, or one attack. Each is run on all images that are
        right without an attack.
      key: one key. Example i draws from ``fold_in(., ids[i])`` under each attack.
      ball: the threat model to verify against; by default the one that all the
        attacks search.
      ids: (N,) data-set indices, ``arange(N)`` by default. With them a part of a
        data set gets the verdicts it gets within the whole.
      batch_size: images per compiled call; the last batch is padded to it.
      progress: show a bar with the robust accuracy so far.

    Raises:
      ValueError: for integer images, NaN, pixels outside the bounds, labels out of
        range, mismatched shapes, eps < 0, or attacks that name no one threat model.
    """
    named = as_attacks(attacks)
    model: Any = as_pytree(logits_fn)
    ball = threat_model(named, ball)
    x, y, _ = check(model, x, y, [ball, *balls.of(named)])
    which = index_of(ids, len(x))
    if not (isinstance(batch_size, int) and batch_size >= 1):
        raise ValueError(f'batch_size must be an integer >= 1, got {batch_size!r}')

    size, count = len(x), len(named)
    clean = np.zeros(size, np.int64)
    correct = np.zeros(size, bool)
    for index, real in padded(np.arange(size), batch_size):
        logits = logits_of(model, x[index])[:real]
        clean[index[:real]] = logits.argmax(axis=1)
        right = (logits.argmax(axis=1) == y[index[:real]]) & ~np.isnan(logits).any(
            axis=1
        )
        correct[index[:real]] = right

    def blank(dtype, fill=0):
        return np.full((count, size), fill, dtype)

    success, rejected = blank(bool), blank(bool)
    in_range, finite = blank(bool, True), blank(bool, True)
    norm, margin = blank(np.float64), blank(np.float64, -np.inf)
    calls = blank(np.int64)
    worst, prediction = x.copy(), clean.copy()
    best = np.full(size, -np.inf)
    targets = np.flatnonzero(correct)

    done, bar = 0, Bar(progress, len(targets) * count, 'image')
    with bar:
        for a, (name, attack) in enumerate(named.items()):
            for index, real in padded(targets, batch_size):
                searched = balls.take(attack, index, size)
                at = key_of(key, name, which[index])
                found = np.asarray(_attack(searched, model, at, x[index], y[index]))
                _check_result(name, found, x[index])
                claimed = balls.take(ball, index, size)
                seen = verify(model, claimed, x[index], y[index], found)
                index, found = index[:real], found[:real]
                seen = Verified(*(part[:real] for part in seen))

                success[a, index] = seen.adversarial
                rejected[a, index] = seen.wrong & ~seen.adversarial
                norm[a, index], margin[a, index] = seen.norm, seen.margin
                in_range[a, index], finite[a, index] = seen.in_range, seen.finite
                declared = getattr(attack, 'calls', None)
                calls[a, index] = -1 if declared is None else declared

                rank = np.nan_to_num(seen.margin, nan=np.inf)
                better = seen.inside & seen.in_range & (rank > best[index])
                worst[index[better]] = found[better]
                best[index[better]] = rank[better]
                robust = correct & ~success.any(axis=0)
                done += real
                bar.at(done, name, robust=f'{robust.mean():.1%}')

    for index, real in padded(targets, batch_size):
        answer = logits_of(model, worst[index]).argmax(axis=1)
        prediction[index[:real]] = answer[:real]
    return Evaluation(
        names=tuple(named),
        ball=ball,
        clean_correct=correct,
        clean_prediction=clean,
        success=success,
        rejected=rejected,
        norm=norm,
        in_range=in_range,
        margin=margin,
        finite=finite,
        calls=calls,
        worst=worst,
        prediction=prediction,
    )


def _check_result(name: str, found: np.ndarray, x: HostArray) -> None:
    if found.shape != x.shape:
        raise ValueError(
            f'attack {name!r} must return an array like x, {x.shape}, got {found.shape}'
        )
