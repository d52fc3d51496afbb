"""Robust accuracy as the worst case over attacks, with its proof.

An example counts as robust when the model is right on it and every attack failed;
an attack counts as successful only after ``verify`` has confirmed it. Every example
has its own key, and every batch the same size (the last is padded), so one compiled
program serves and the verdict on an example depends on neither its batch-mates nor
their order.

With ``survivors`` it is a cascade: every attack, and every restart and target of an
attack, sees only the examples that nothing before it has broken. They are gathered
into full batches again, so a shrinking set needs fewer calls of the same program.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, identity, keys, programs, sharding
from advjax.attacks.combine import WorstOf
from advjax.attacks.goal import goal
from advjax.attacks.search import run
from advjax.evaluation.inputs import (
    check,
    threat_model,
    warn_of_fresh_functions,
    warn_of_odd_answers,
)
from advjax.evaluation.progress_file import ProgressFile
from advjax.evaluation.record import Evaluation
from advjax.evaluation.verify import Verified, logits_of, margin_of, verify
from advjax.progress import Bar
from advjax.types import (
    Array,
    Attack,
    Ball,
    Composite,
    HostArray,
    Key,
    LogitsFn,
    as_pytree,
)


@jax.jit
def _attack(
    attack: Any, logits_fn: LogitsFn, key: Key, x: Array, y: Array
) -> tuple[Array, Array]:
    """The result and the model calls it took, (B,); -1 where that is unknown."""
    found = run(attack, goal(logits_fn, y), key, x)
    return found.x, found.queries


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
    """Names the attacks and makes each a pytree; takes a ``worst_of`` apart."""
    if isinstance(attacks, WorstOf):
        attacks = attacks.members
    elif callable(attacks):
        attacks = {'attack': attacks}
    if not isinstance(attacks, Mapping) or not attacks:
        raise ValueError(
            f'attacks must be an attack or a non-empty dict of them, got {attacks!r}'
        )
    odd = [name for name in attacks if not isinstance(name, str)]
    if odd:
        raise ValueError(f'attacks must be named by texts, got {odd[0]!r}')
    return {name: as_pytree(attack) for name, attack in attacks.items()}


def index_of(ids: HostArray | None, size: int) -> np.ndarray:
    """The data-set indices of N examples."""
    which = np.arange(size) if ids is None else np.asarray(ids)
    if which.shape != (size,) or not np.issubdtype(which.dtype, np.integer):
        raise ValueError(
            f'ids must be integers of shape ({size},), got {which.dtype} of shape '
            f'{which.shape}'
        )
    if size and not 0 <= which.min() <= which.max() < 2**31:
        raise ValueError(
            f'ids must lie in 0..{2**31 - 1}, got {which.min()}..{which.max()}'
        )
    return which


def key_of(key: Key, name: str, ids: np.ndarray) -> Key:
    """The keys of examples under a named attack: no other attack's draws."""
    key = keys.typed(key)
    if key.shape:
        raise ValueError(f'key must be one key, got an array of shape {key.shape}')
    named = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return keys.of_index(named, jnp.asarray(ids, jnp.int32))


def _parts(attack: Any, survivors: bool) -> list[Any]:
    """The attack as it is, or all that it is made of, in order."""
    if survivors and isinstance(attack, Composite):
        return [p for part in attack.parts().values() for p in _parts(part, survivors)]
    return [attack]


class _Arrays:
    """The record while it is filled: N examples, A attacks."""

    def __init__(self, x: np.ndarray, count: int):
        size = len(x)

        def blank(dtype, fill=0):
            return np.full((count, size), fill, dtype)

        self.clean = np.full(size, -1, np.int64)
        self.correct = np.zeros(size, bool)
        self.clean_finite = np.ones(size, bool)
        self.success, self.rejected = blank(bool), blank(bool)
        self.in_range, self.finite = blank(bool, True), blank(bool, True)
        self.norm, self.margin = blank(np.float64), blank(np.float64, -np.inf)
        self.rank = blank(np.float64, -np.inf)
        self.calls, self.parts = blank(np.int64), blank(np.int64)
        self.worst = x.copy()
        self.best = np.full(size, -np.inf)

    @property
    def robust(self) -> np.ndarray:
        return self.correct & ~self.success.any(axis=0)

    def predict(self, model: Any, x: np.ndarray, y: np.ndarray, batch_size: int):
        """The clean answers."""
        for index, real in padded(np.arange(len(x)), batch_size):
            logits = logits_of(model, x[index])[:real]
            answer, some = logits.argmax(axis=1), index[:real]
            self.clean[some] = answer
            known = ~np.isnan(margin_of(logits, y[some]))
            self.correct[some] = (answer == y[some]) & known
            self.clean_finite[some] = np.isfinite(logits).all(axis=1)

    def holds(
        self, model: Any, ball: Ball, x: np.ndarray, y: np.ndarray, batch_size: int
    ) -> bool:
        """Whether the model does at the stored images what the record says."""
        if (self.clean < 0).any():
            return not self.parts.any()  # Nothing is recorded yet.
        broken = self.correct & self.success.any(axis=0)
        for index, _ in padded(np.arange(len(x)), batch_size):
            claimed = balls.take(ball, index, len(x))
            for point, wrong, some in (
                (x, ~self.correct, np.ones(len(x), bool)),
                (self.worst, broken, self.correct),
            ):
                seen = verify(model, claimed, x[index], y[index], point[index])
                # A device that adds in another order may decide a tie differently.
                clear = ~(np.abs(seen.margin) < 1e-3) | ~seen.inside | ~seen.in_range
                other = seen.adversarial != wrong[index]
                if (other & clear & some[index]).any():
                    return False
        return True

    def add(self, a: int, index: np.ndarray, found: Any, calls: Any, seen: Verified):
        """Records what one part of attack ``a`` did to some examples."""
        first = self.parts[a, index] == 0
        # The first part speaks for itself, a later one only where it did more harm.
        rank = np.nan_to_num(seen.margin, nan=np.inf)
        rank = np.where(seen.inside & seen.in_range, rank, -np.inf)
        harm = (rank > self.rank[a, index]) & ~self.success[a, index]
        speaks = first | seen.adversarial | harm
        some = index[speaks]
        self.rank[a, some] = rank[speaks]
        self.success[a, some] |= seen.adversarial[speaks]
        wrong = seen.wrong & ~seen.adversarial
        self.rejected[a, index] |= wrong
        self.rejected[a] &= ~self.success[a]
        self.norm[a, some] = seen.norm[speaks]
        self.margin[a, some] = seen.margin[speaks]
        self.in_range[a, some] = seen.in_range[speaks]
        self.finite[a, some] = seen.finite[speaks]
        known = (calls >= 0) & (self.calls[a, index] >= 0)
        self.calls[a, index] = np.where(known, self.calls[a, index] + calls, -1)
        self.parts[a, index] += 1

        better = rank > self.best[index]
        self.worst[index[better]] = found[better]
        self.best[index[better]] = rank[better]


def evaluate(
    logits_fn: LogitsFn,
    x: HostArray,
    y: HostArray,
    attacks: Mapping[str, Attack] | Attack,
    *,
    key: Key,
    ball: Ball | None = None,
    ids: HostArray | None = None,
    batch_size: int = 256,
    survivors: bool = False,
    folder: Path | str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Attacks a model and reports what was verified.

    Args:
      logits_fn: the model, x -> (B, K) logits. A pytree such as ``models.logits_fn``
        returns does not recompile when its parameters change.
      x: (N, ...) float32 images within the ball's bounds.
      y: (N,) integer labels.
      attacks: {name: attack}, or one attack; a ``worst_of`` (such as ``autoattack``)
        is taken apart into its members. Each is run on all images that are right
        without an attack.
      key: one key. Example i draws from ``fold_in(., ids[i])`` under each attack.
      ball: the threat model to verify against; by default the one that all the
        attacks search.
      ids: (N,) data-set indices, ``arange(N)`` by default. With them a part of a
        data set gets the verdicts it gets within the whole, but for rounding.
      batch_size: images per compiled call; the last batch is padded to it. For fewer
        images it is the next power of two.
      survivors: run each attack, restart and target only on the images that nothing
        before it has broken. The robust accuracy is the same, attacks alone have none.
      folder: keep the progress in this folder's ``evaluation.npz``, adversarial images
        included, and go on from there. A finished evaluation is read from it.
      progress: show a bar with the robust accuracy so far.

    Raises:
      ValueError: for integer images, NaN, pixels outside the bounds, labels out of
        range, mismatched shapes, eps < 0, or attacks that name no one threat model.
      OtherEvaluationError: if ``folder`` holds an evaluation of something else.

    >>> from advjax import attacks
    >>> x, y = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32), np.array([0, 0])
    >>> found = evaluate(lambda x: x, x, y, attacks.fgsm(0.25), key=jax.random.key(0))
    >>> found.robust.tolist()
    [False, True]
    """
    programs.let_go()
    named = as_attacks(attacks)
    warn_of_fresh_functions(logits_fn, *named.values())
    model: Any = sharding.on_local_devices(as_pytree(logits_fn))
    ball = threat_model(named, ball)
    x, y, _ = check(model, x, y, [ball, *balls.of(named)])
    which = index_of(ids, len(x))
    if not (isinstance(batch_size, int) and batch_size >= 1):
        raise ValueError(f'batch_size must be an integer >= 1, got {batch_size!r}')
    batch_size = min(batch_size, 1 << (len(x) - 1).bit_length())
    warn_of_odd_answers(model, x[:batch_size])

    record, file = _Arrays(x, len(named)), None
    if folder is not None:
        made_of = identity.each(
            model=logits_fn,
            images=(x, y, which),
            attacks=dict(attacks) if isinstance(attacks, Mapping) else attacks,
            threat_model=ball,
            key=keys.typed(key),
            cascade=(survivors, batch_size),
            library=identity.of_packages('advjax', 'jax'),
        )
        file = ProgressFile(Path(folder) / 'evaluation.npz', made_of)
        vars(record).update(file.load(vars(record)) or {})
        if not record.holds(model, ball, x, y, batch_size):
            file.set_aside('says what the model does not do')
            record = _Arrays(x, len(named))
    if (record.clean < 0).any():
        record.predict(model, x, y, batch_size)

    steps = [
        (a, name, part, number)
        for a, (name, attack) in enumerate(named.items())
        for number, part in enumerate(_parts(attack, survivors))
    ]
    whole = int(record.correct.sum())
    with Bar(progress, whole * len(steps), 'image') as bar:
        for done, (a, name, attack, number) in enumerate(steps):
            standing = record.robust if survivors else record.correct
            waiting = np.flatnonzero(standing & (record.parts[a] <= number))
            # Images that need not be attacked any more count as done.
            at_bar = whole * (done + 1) - len(waiting)
            for index, real in padded(waiting, batch_size):
                bar.at(at_bar, name, robust=f'{record.robust.mean():.1%}')
                searched = balls.take(attack, index, len(x))
                searched = sharding.on_local_devices(searched)
                rows = key_of(key, name, which[index]), x[index], y[index]
                rows = sharding.shard_like(model, rows)
                found, calls = _attack(searched, model, *rows)
                found, calls = np.asarray(found), np.asarray(calls)
                _check_result(name, found, x[index])
                claimed = balls.take(ball, index, len(x))
                seen = verify(model, claimed, x[index], y[index], found)
                seen = Verified(*(part[:real] for part in seen))
                record.add(a, index[:real], found[:real], calls[:real], seen)
                at_bar += real
                if file is not None:
                    file.save(vars(record))
                bar.at(at_bar, name, robust=f'{record.robust.mean():.1%}')
    if file is not None:
        file.save(vars(record), now=True)
    return _finish(record, model, tuple(named), ball, batch_size, survivors)


def _finish(
    record: _Arrays,
    model: Any,
    names: tuple[str, ...],
    ball: Ball,
    batch_size: int,
    survivors: bool,
) -> Evaluation:
    prediction = record.clean.copy()
    for index, real in padded(np.flatnonzero(record.correct), batch_size):
        answer = logits_of(model, record.worst[index]).argmax(axis=1)
        prediction[index[:real]] = answer[:real]
    return Evaluation(
        names=names,
        ball=ball,
        clean_correct=record.correct,
        clean_prediction=record.clean,
        success=record.success,
        rejected=record.rejected,
        norm=record.norm,
        in_range=record.in_range,
        margin=record.margin,
        finite=record.finite & record.clean_finite,
        calls=record.calls,
        worst=record.worst,
        prediction=prediction,
        survivors=survivors,
    )


def _check_result(name: str, found: np.ndarray, x: HostArray) -> None:
    if found.shape != x.shape:
        raise ValueError(
            f'attack {name!r} must return an array like x, {x.shape}, got {found.shape}'
        )
