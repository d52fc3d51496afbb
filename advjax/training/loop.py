"""The training loop: epochs, held-out robustness, failures, checkpoints, a log.

All arithmetic happens in one compiled step; the loop is what a pure function cannot
be. Every random choice comes from the key, the attempt and the step, so a run that
was killed at any moment and is started again ends with the same bits.

The same call trains on one device, on several, and in several processes that have
called ``jax.distributed.initialize()``: batches are sharded over all of them (see
``advjax.sharding``), which see the same directory.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from advjax import attacks, balls, data, keys, models, sharding
from advjax.evaluation import evaluate
from advjax.evaluation.verify import logits_of
from advjax.models import Model
from advjax.progress import Bar
from advjax.sharding import Placement
from advjax.training import feed as feeds
from advjax.training import fingerprint
from advjax.training.checkpoint import Checkpoints
from advjax.training.diagnosis import diagnose
from advjax.training.feed import Feed
from advjax.training.methods import Method
from advjax.training.preemption import Listener, Preempted
from advjax.training.result import Fit, NonFiniteLossError, write_log
from advjax.training.steps import TrainState, create, no_totals, step
from advjax.types import Array, Attack, Key, as_pytree

Augment = Callable[[Key, Array, Array], tuple[Array, Array]]


@dataclasses.dataclass
class _Run:
    """What is saved besides arrays."""

    attempt: int = 0
    epoch: int = 0
    best_score: float = -1.0
    history: list = dataclasses.field(default_factory=list)
    events: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False
    saves: int = 0
    input: dict = dataclasses.field(default_factory=dict)
    made_with: dict = dataclasses.field(default_factory=dict)

    def rows(self) -> list:
        """History of the present attempt."""
        return [row for row in self.history if row['attempt'] == self.attempt]


@dataclasses.dataclass(frozen=True)
class _Program:
    """What one compiled step is made for besides shapes."""

    place: Placement
    take: Callable[[Any, Any], dict[str, Array]]
    augment: Augment | None


# Donated: the old state is overwritten in place.
@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _compiled_step(
    program: _Program, method: Method, state: TrainState, source: Any, item: Any, key
) -> tuple[TrainState, dict[str, Array]]:
    place = program.place
    batch = place.constrain_rows(program.take(source, item))
    if program.augment is not None:
        # Replays of a batch are of the same images.
        number = state.step // method.replays
        draw = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), number)
        each = keys.of_index(draw, batch['index'])
        x, y = program.augment(each, batch['image'], batch['label'])
        batch = place.constrain_rows({**batch, 'image': x, 'label': y})
    # Sharded weights are gathered once here, not in every step of the attack.
    state = dataclasses.replace(state, params=place.gather(state.params))
    state, metrics = step(method, state, batch, key)
    return place.constrain(state, place.of_state(state)), place.gather(metrics)


_CHECK_EVERY = 50
"""Steps between looks at the loss, which make the host wait for the device."""


def fit(
    method: Method,
    model: Model,
    optimizer: optax.GradientTransformation,
    train: Any,
    held_out: data.Dataset,
    key: Key,
    *,
    epochs: int,
    batch_size: int = 128,
    attack: Attack | None = None,
    augment: Augment | None = None,
    averaging: Any = None,
    mesh: Mesh | None = None,
    cut_weights: bool = False,
    directory: str | Path | None = None,
    save_seconds: float = 30.0,
    on_failure: Literal['rollback', 'restart', 'continue'] = 'restart',
    max_restarts: int = 2,
    progress: bool = False,
) -> Fit:
    """Trains a network and keeps its best epoch.

    Best means the highest robust accuracy on the held-out images, or the highest
    clean accuracy for a method without an attack or with a view of its own for it.

    Args:
      method: from ``advjax.training``.
      model: the network.
      optimizer: any optax optimizer.
      train: images to train on: a ``data.Dataset``, which is kept in the memory of
        every device, a ``data.mixture`` of two, or a ``data.stream``.
      held_out: training images kept apart, to choose and to watch by. Never test
        images: choosing by them makes the test accuracy untrue.
      key: one key; all randomness of the run.
      epochs: passes over ``train``.
      batch_size: images per step, over all devices and processes; the last batch is
        padded, nothing is dropped.
      attack: what robust held-out accuracy is measured with; PGD-10 over the
        method's ball by default, nothing for a method without an attack.
      augment: from ``data.augment``, such as ``pad_crop(4)``: images and labels are
        changed before they are attacked, each by its own key.
      averaging: ``ema(...)`` or ``swa(...)``; the result is the averaged network.
      mesh: devices with an axis 'data' to shard batches over; all by default.
      cut_weights: shard weights and the optimizer's state, too.
      directory: where checkpoints and ``metrics.jsonl`` go. If it holds a run that
        was interrupted, that run goes on. None keeps nothing.
      save_seconds: least time between two checkpoints.
      on_failure: after catastrophic overfitting or collapse, 'rollback' returns to
        the best epoch and stops, 'restart' begins again with the next seed and rolls
        back when there is none left, 'continue' only says so in ``Fit.events``.
      max_restarts: seeds to try besides the first.
      progress: show a bar.

    Raises:
      NonFiniteLossError: with the step, and the last good state as ``.fit``.
      Preempted: after SIGTERM, when ``directory`` holds all that was done; a
        ``SystemExit`` of code 0. The same call goes on.
      ValueError: for arguments out of range, labels that the model has no class for,
        or a directory of another run.
    """
    _validate(
        method, model, train, held_out, epochs, batch_size, on_failure, max_restarts
    )
    place = sharding.placement(batch_size, mesh, cut_weights)
    loop = _Loop(
        method=method,
        model=model,
        optimizer=optimizer,
        held_out=held_out,
        place=place,
        feed=feeds.of(train, batch_size, place),
        augment=augment,
        averaging=averaging,
        key=keys.typed(key),
        epochs=epochs,
        batch_size=batch_size,
        attack=_held_out_attack(method, attack),
        directory=None if directory is None else Path(directory),
        save_seconds=save_seconds,
        on_failure=on_failure,
        max_restarts=max_restarts,
        progress=progress,
    )
    return loop.run()


def _validate(
    method, model, train, held_out, epochs, batch_size, on_failure, max_restarts
) -> None:
    sets = {'training': train, 'held-out': held_out}
    # The labels of a stream are not known before they are read.
    sets = {name: each for name, each in sets.items() if hasattr(each, 'labels')}
    for name, value, least in (
        ('epochs', epochs, 1),
        ('batch_size', batch_size, 1),
        ('max_restarts', max_restarts, 0),
        *((f'the number of {n} images', len(s.labels), 1) for n, s in sets.items()),
    ):
        if not (isinstance(value, int) and value >= least):
            raise ValueError(f'{name} must be an integer >= {least}, got {value!r}')
    if on_failure not in ('rollback', 'restart', 'continue'):
        raise ValueError(
            "on_failure must be 'rollback', 'restart' or 'continue', got "
            f'{on_failure!r}'
        )
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    for name, each in sets.items():
        image = jax.ShapeDtypeStruct((1, *each.images.shape[1:]), np.float32)
        classes = jax.eval_shape(model.apply, params, state, image)[0].shape[1]
        low, high = int(np.min(each.labels)), int(np.max(each.labels))
        least = -1 if method.unlabelled and name == 'training' else 0
        if low < least or high >= classes:
            raise ValueError(
                f'labels of the {name} images must lie in {least}..{classes - 1}, the '
                f'classes of the model, got {low}..{high}'
            )


def _held_out_attack(method: Method, attack: Attack | None) -> Any:
    if attack is not None:
        return as_pytree(attack)
    found = balls.of(method)
    if found:
        return attacks.pgd(found[0], steps=10)
    if method.adversarial:
        raise ValueError(
            "attack must be given: the method's inner attack holds no ball to measure "
            'robust held-out accuracy in'
        )
    return None


@dataclasses.dataclass
class _Loop:
    method: Method
    model: Model
    optimizer: optax.GradientTransformation
    held_out: data.Dataset
    place: Placement
    feed: Feed
    augment: Augment | None
    averaging: Any
    key: Key
    epochs: int
    batch_size: int
    attack: Any
    directory: Path | None
    save_seconds: float
    on_failure: str
    max_restarts: int
    progress: bool

    def run(self) -> Fit:
        self.now, self.state = _Run(), self._start(0)
        # Device memory belongs to all processes; what is passed to them must, too.
        self.placed = self.place.put(self.method) if self._several else self.method
        self.program = _Program(self.place, self.feed.take, self.augment)
        if self.directory is not None:
            self.now.made_with = self._made_with()
        self.best = self._copy(self.state)
        self.checkpoints: Checkpoints | None = None
        if self.directory is not None:
            self.checkpoints = Checkpoints(self.directory / 'checkpoints')
            self._resume(self.checkpoints)
            self._write_log()
        self.clock = self.saved = time.monotonic()
        show = self.progress and jax.process_index() == 0
        try:
            if not self.now.finished:
                total = self.epochs * self._updates_per_epoch
                with (
                    Listener(self.directory is not None) as self.listener,
                    Bar(show, total, 'step') as bar,
                ):
                    while not self.now.finished:
                        self._epoch(bar)
                self._save(always=True)
        finally:
            self.feed.close()
            if self.checkpoints is not None:
                self.checkpoints.close()
        return self._fit()

    @property
    def _several(self) -> bool:
        return jax.process_count() > 1

    def _start(self, attempt: int) -> TrainState:
        key = jax.random.fold_in(self._attempt_key(attempt), 0)
        shape = (self.batch_size, *self.feed.shape)

        def make(method, averaging, key):
            return create(
                self.model,
                self.optimizer,
                key,
                method=method,
                shape=shape,
                averaging=averaging,
            )

        state = jax.jit(make)(self.method, self.averaging, key)
        return self._place(state) if self.place.several else state

    def _place(self, state: TrainState) -> TrainState:
        return self.place.put(state, self.place.of_state(state))

    def _attempt_key(self, attempt: int) -> Key:
        return jax.random.fold_in(self.key, attempt)

    @staticmethod
    def _copy(state: TrainState) -> dict[str, Any]:
        """The parameters, out of reach of the donation of the state."""
        params, model_state = state.result
        kept = {'params': params, 'model_state': model_state}
        return jax.tree.map(jnp.copy, kept)

    def _tree(self) -> dict[str, Any]:
        """What a checkpoint holds: only arrays, under plain names."""
        leaves = jax.tree.leaves(self.state)
        return {
            'state': {str(i): leaf for i, leaf in enumerate(leaves)},
            'best': {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(self.best))},
        }

    def _made_with(self) -> dict[str, Any]:
        return {
            'method': fingerprint.of_arrays(self.method),
            'optimizer': fingerprint.of_optimizer(self.optimizer, self.state.params),
            'training images': self.feed.fingerprint(),
            'held-out images': fingerprint.of_arrays(tuple(self.held_out[:2])),
            'attack': fingerprint.of_arrays(self.attack),
            'key': fingerprint.of_arrays(jax.random.key_data(self.key)),
            'augmentation': fingerprint.of_augment(self.augment, self.feed.shape),
            'averaging': fingerprint.of_arrays(self.averaging),
            'epochs': self.epochs,
            'batch_size': self.batch_size,
            'on_failure': self.on_failure,
            'max_restarts': self.max_restarts,
        }

    def _resume(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.restore(self._tree())
        if found is None:
            return
        tree, record = found
        then, now = record['made_with'], self.now.made_with
        other = [name for name in now if then.get(name) != now[name]]
        if other:
            raise ValueError(
                f'{self.directory} holds another run: its {", ".join(other)} differ. '
                'Choose another directory, or delete this one'
            )

        def fill(template, leaves):
            flat = [leaves[str(i)] for i in range(len(leaves))]
            return jax.tree.unflatten(jax.tree.structure(template), flat)

        self.state = fill(self.state, tree['state'])
        self.best = fill(self.best, tree['best'])
        if self.place.several:
            self.state = self._place(self.state)
            self.best = self.place.put(self.best)
        self.now = _Run(**record)
        self.feed.restore(self.now.input)

    def _save(self, always: bool = False) -> None:
        moment = time.monotonic()
        self.now.seconds += moment - self.clock
        self.clock = moment
        due = always or moment - self.saved >= self.save_seconds
        if self.checkpoints is None or not sharding.any_of(due):
            return
        self.saved = moment
        self.now.saves += 1
        self.now.input = self.feed.state()
        tree = sharding.fetched(self._tree()) if self._several else self._tree()
        self.checkpoints.save(self.now.saves, tree, dataclasses.asdict(self.now))

    @property
    def _updates_per_epoch(self) -> int:
        return self.feed.batches_per_epoch * self.method.replays

    def _epoch(self, bar: Bar) -> None:
        """Finishes the present epoch, wherever in it the run stands."""
        key = self._attempt_key(self.now.attempt)
        draws = jax.random.fold_in(key, 2)
        if self._several:
            draws = self.place.put(draws)
        count, replays = self._updates_per_epoch, self.method.replays
        before = self.now.epoch * count
        done = int(self.state.step) - before
        source, items = self.feed.epoch(
            self.now.epoch, jax.random.fold_in(key, 1), done // replays
        )
        words = f'epoch {self.now.epoch + 1}/{self.epochs}'
        known = self._known()
        bar.at(before + done, words, **known)
        for item in items:
            for _ in range(replays - done % replays):
                self.state, metrics = _compiled_step(
                    self.program, self.placed, self.state, source, item, draws
                )
                done += 1
                self._stop_if_told()
                if done % _CHECK_EVERY == 0:
                    self._check_finite()
                    bar.at(before + done, words, loss=f'{metrics["loss"]:.3f}', **known)
                    if done < count:
                        self._save()
        self._check_finite()
        self._end_of_epoch()

    def _stop_if_told(self) -> None:
        if self.listener.told():
            self._check_finite()
            self._save(always=True)
            raise Preempted(int(self.state.step))

    def _known(self) -> dict[str, str]:
        """What the last epoch was worth on held-out images, for the bar."""
        return {
            name: f'{row["held_out_" + name]:.1%}'
            for row in self.now.rows()[-1:]
            for name in ('clean', 'robust')
            if row['held_out_' + name] is not None
        }

    def _check_finite(self) -> None:
        failed = int(self.state.failed_at)
        if failed >= 0:
            if self.now.best_score < 0:
                self.best = self._copy(self.state)
            raise NonFiniteLossError(failed, self._fit())

    def _end_of_epoch(self) -> None:
        totals = {name: float(value) for name, value in self.state.totals.items()}
        self.state = dataclasses.replace(self.state, totals=no_totals())
        row = {
            'attempt': self.now.attempt,
            'epoch': self.now.epoch + 1,
            'step': int(self.state.step),
            'train_loss': totals['loss'] / totals['count'],
            'train_accuracy': totals['correct'] / totals['count'],
            **self._held_out_accuracy(),
        }
        score = self._score(row)
        if score > self.now.best_score:
            self.now.best_score = score
            self.best = self._copy(self.state)
        self.now.seconds += time.monotonic() - self.clock
        self.clock = time.monotonic()
        self.now.history.append({**row, 'seconds': round(self.now.seconds, 3)})
        self.now.epoch += 1
        failure = diagnose(self.now.rows(), self.method.adversarial)
        if failure is not None:
            self._act_on(failure)
        elif self.now.epoch == self.epochs:
            self.now.finished = True
        self._write_log()
        if not self.now.finished:
            self._save()

    def _write_log(self) -> None:
        if self.directory is not None and jax.process_index() == 0:
            write_log(self.directory, self.now.history)

    def _held_out_accuracy(self) -> dict[str, float | None]:
        # Every process attacks its own part, on its own devices.
        result = self.state.result
        trained = self.model, *(sharding.fetched(result) if self._several else result)
        size = len(self.held_out.labels)
        part = sharding.shared_out(size)
        images = np.asarray(data.to_float(self.held_out.images[part]))
        labels, found = self.held_out.labels[part], None
        if self.attack is not None and len(part):
            # The same draws every epoch: a difference is the model's.
            key = jax.random.fold_in(self.key, 2**31 - 1)
            found = evaluate(
                models.logits_fn(*trained, **dict(self.method.view)),
                images,
                labels,
                {'held out': self.attack},
                key,
                # An attack without a ball moves images in ways that no norm measures.
                ball=None if balls.of(self.attack) else balls.linf(1.0),
                ids=part,
                batch_size=min(-(-size // jax.process_count()), 512),
            )
        if found is None or self.method.view:
            logits = logits_of(models.logits_fn(*trained), images)
            answers = np.asarray(jnp.argmax(logits, axis=1))
        else:
            answers = found.clean_prediction
        answers = sharding.put_together(np.asarray(answers), part, size)
        robust = None
        if self.attack is not None:
            kept = np.zeros(0, bool) if found is None else found.robust
            robust = float(sharding.put_together(kept, part, size).mean())
        top = float(np.bincount(answers).max() / size)
        return {
            'held_out_clean': float((answers == self.held_out.labels).mean()),
            'held_out_robust': robust,
            'held_out_top_class': top,
        }

    def _act_on(self, failure: str) -> None:
        if self.on_failure == 'continue':
            if not any(event.startswith(failure) for event in self.now.events):
                self.now.events.append(f'{failure}; went on')
            self.now.finished = self.now.epoch == self.epochs
            return
        again = self.on_failure == 'restart' and self.now.attempt < self.max_restarts
        if again:
            self.now.attempt += 1
            self.now.epoch = 0
            self.state = self._start(self.now.attempt)
            action = f'began again with seed {self.now.attempt}'
        else:
            self.now.finished = True
            best = max(self.now.history, key=self._score)
            action = f'stopped and went back to epoch {best["epoch"]}'
            if best['attempt'] != self.now.attempt:
                action += f' of seed {best["attempt"]}'
        self.now.events.append(f'{failure}; {action}')

    def _score(self, row: Mapping[str, Any]) -> float:
        # With a view of its own the adversary serves the answers of the plain one.
        robust = self.method.adversarial and not self.method.view
        return row['held_out_robust' if robust else 'held_out_clean']

    def _fit(self) -> Fit:
        best = self.best
        if self.place.several:  # The result is used on one device, or placed anew.
            best = jax.tree.map(jnp.array, sharding.fetched(best))
        return Fit(
            model=self.model,
            params=best['params'],
            model_state=best['model_state'],
            last=self.state,
            history=tuple(self.now.history),
            events=tuple(self.now.events),
            seconds=self.now.seconds,
        )
