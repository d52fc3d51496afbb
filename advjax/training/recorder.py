"""The side effects of training: checkpoints, log, progress bar, signals, clock."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax

from advjax import identity, sharding
from advjax.progress import Bar
from advjax.training.checkpoint import Checkpoints, OtherTrainingError, filled, numbered
from advjax.training.preemption import Listener
from advjax.training.result import write_log
from advjax.training.run import Plan, Record, Training, placed
from advjax.training.settings import Checkpointing


class Recorder:
    """Saves a training, shows its progress, and listens for SIGTERM.

    Everything is a no-op where it was not asked for: without ``Checkpointing`` nothing
    is written and no signal is handled, without ``progress`` no bar is shown.
    """

    def __init__(self, plan: Plan, checkpointing: Checkpointing | None, progress: bool):
        self._plan, self._settings = plan, checkpointing
        self._progress = progress and jax.process_index() == 0
        self._checkpoints: Checkpoints | None = None
        self._made_with: dict[str, Any] = {}
        self._listener = Listener(checkpointing is not None)
        self._bar = Bar(False, 0, 'step')
        self._saves = 0
        self._clock = self._saved = time.monotonic()

    def open(self, training: Training) -> Training:
        """Opens the directory; returns the training that goes on from there.

        Args:
          training: a new one, with the structure that a checkpoint must have.

        Raises:
          OtherTrainingError: if the directory holds another run.
        """
        if self._settings is not None:
            self._made_with = _made_with(self._plan)
            self._checkpoints = Checkpoints(self._settings.path / 'checkpoints')
            training = self._resumed(self._checkpoints, self._settings, training)
            self.log(training)
        self._clock = self._saved = time.monotonic()
        return training

    def close(self) -> None:
        """Waits for the last save."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Shows the bar and listens for SIGTERM."""
        total = self._plan.epochs * self._plan.updates_per_epoch
        with self._listener, Bar(self._progress, total, 'step') as self._bar:
            yield

    def told_to_stop(self) -> bool:
        """Whether to stop now; every process must ask equally often."""
        return self._listener.told()

    def show(self, training: Training, done: int, **shown: str) -> None:
        """Moves the bar.

        Args:
          training: its epoch, and the held-out accuracy of the last one, are shown.
          done: updates of this epoch.
          **shown: further figures.
        """
        record = training.record
        known = {
            name: f'{row["held_out_" + name]:.1%}'
            for row in record.rows[-1:]
            for name in ('clean', 'robust')
            if row['held_out_' + name] is not None
        }
        at = record.epoch * self._plan.updates_per_epoch + done
        words = f'epoch {record.epoch + 1}/{self._plan.epochs}'
        self._bar.at(at, words, **shown, **known)

    def timed(self, training: Training) -> Training:
        """The training with the time that has passed counted."""
        now = time.monotonic()
        seconds = training.record.seconds + now - self._clock
        self._clock = now
        return training.note(seconds=seconds)

    def log(self, training: Training) -> None:
        """Writes ``metrics.jsonl`` anew."""
        if self._settings is not None and jax.process_index() == 0:
            write_log(self._settings.path, list(training.record.history))

    def save(self, training: Training, always: bool = False) -> Training:
        """Saves a checkpoint if one is due; returns the training, timed.

        Args:
          training: what is saved, in the background; its state may be donated after.
          always: save now, whenever the last one was.
        """
        training = self.timed(training)
        if self._checkpoints is None or self._settings is None:
            return training
        due = always or self._clock - self._saved >= self._settings.save_seconds
        if not sharding.any_of(due):
            return training
        self._saved = self._clock
        self._saves += 1
        tree = _arrays(training)
        if jax.process_count() > 1:
            tree = sharding.fetched(tree)
        record = {
            'record': dataclasses.asdict(training.record),
            'input': self._plan.feed.state(),
            'made_with': self._made_with,
            'saves': self._saves,
        }
        self._checkpoints.save(self._saves, tree, record)
        return training

    def _resumed(
        self, checkpoints: Checkpoints, settings: Checkpointing, training: Training
    ) -> Training:
        """The training of the newest checkpoint, or the new one where there is none."""
        found = checkpoints.restore(_arrays(training))
        if found is None:
            return training
        tree, saved = found
        then, now = saved['made_with'], self._made_with
        other = [name for name in now if then.get(name) != now[name]]
        if other:
            raise OtherTrainingError(
                f'{settings.path} holds another run: its {", ".join(other)} differ. '
                'Choose another directory, or delete this one'
            )
        self._saves = saved['saves']
        self._plan.feed.restore(saved['input'])
        state = filled(training.state, tree['state'])
        best = filled(training.best, tree['best'])
        place = self._plan.place
        if place.several:
            state, best = placed(place, state), place.put(best)
        record = Record(**saved['record'])
        # JSON knows lists alone.
        history, events = tuple(record.history), tuple(record.events)
        record = dataclasses.replace(record, history=history, events=events)
        return Training(state, best, record)


def _arrays(training: Training) -> dict[str, Any]:
    """The arrays of a training, under plain names."""
    return {'state': numbered(training.state), 'best': numbered(training.best)}


def _made_with(plan: Plan) -> dict[str, Any]:
    """What must be unchanged for a run to resume from a checkpoint."""
    return {
        **identity.each(
            method=plan.method,
            model=plan.model,
            optimizer=plan.optimizer,
            held_out_images=tuple(plan.held_out[:2]),
            attack=plan.attack,
            key=plan.key,
            augmentation=plan.augment,
            averaging=plan.averaging,
            library=identity.of_packages('advjax', 'jax', 'optax'),
        ),
        'training images': plan.feed.fingerprint(),
        'epochs': plan.epochs,
        'batch_size': plan.batch_size,
        'on_failure': plan.recovery.on_failure,
        'max_restarts': plan.recovery.max_restarts,
    }
