"""One epoch: the compiled step over all batches, or over those that are left."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from advjax import keys
from advjax.sharding import Placement
from advjax.training.methods import Method
from advjax.training.preemption import Preempted
from advjax.training.recorder import Recorder
from advjax.training.result import NonFiniteLossError
from advjax.training.run import Augment, Plan, Training, kept, outcome
from advjax.training.steps import TrainState, step
from advjax.types import Array

CHECK_EVERY = 50
"""Steps between looks at the loss, which make the host wait for the device."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled step depends on besides shapes."""

    place: Placement
    take: Callable[[Any, Any], dict[str, Array]]
    augment: Augment | None


# Donated: the old state is overwritten in place.
@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def compiled_step(
    program: Program, method: Method, state: TrainState, source: Any, item: Any, key
) -> tuple[TrainState, dict[str, Array]]:
    """Takes a batch, augments it, and makes one update."""
    place = program.place
    batch = place.constrain_rows(program.take(source, item))
    if program.augment is not None:
        # Replays of a batch are of the same images.
        number = state.step // method.replays
        draw = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), number)
        each = keys.of_index(draw, batch['index'])
        x, y = program.augment(each, batch['image'], batch['label'])
        batch = place.constrain_rows({**batch, 'image': x, 'label': y})
    # Sharded weights are gathered here: else it would be in every attack step.
    state = dataclasses.replace(state, params=place.gather(state.params))
    state, metrics = step(method, state, batch, key)
    return place.constrain(state, place.of_state(state)), place.gather(metrics)


def train_epoch(plan: Plan, training: Training, recorder: Recorder) -> Training:
    """Finishes the present epoch.

    Raises:
      NonFiniteLossError: with the step, and the last good state.
      Preempted: after SIGTERM, when all that was done is saved.
    """
    place, method, replays = plan.place, plan.method, plan.method.replays
    key = plan.attempt_key(training.record.attempt)
    shuffles, draws = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
    if jax.process_count() > 1:
        # Device memory belongs to all processes; what is passed to them must, too.
        method, draws = place.put(method), place.put(draws)
    program = Program(place, plan.feed.take, plan.augment)
    number, count = training.record.epoch, plan.updates_per_epoch
    done = int(training.state.step) - number * count
    source, items = plan.feed.epoch(number, shuffles, done // replays)
    recorder.show(training, done)
    for item in items:
        for _ in range(replays - done % replays):
            state, metrics = compiled_step(
                program, method, training.state, source, item, draws
            )
            training, done = training._replace(state=state), done + 1
            if recorder.told_to_stop():
                check_finite(plan, training)
                recorder.save(training, always=True)
                raise Preempted(int(state.step))
            if done % CHECK_EVERY == 0:
                check_finite(plan, training)
                recorder.show(training, done, loss=f'{metrics["loss"]:.3f}')
                if done < count:
                    training = recorder.save(training)
    check_finite(plan, training)
    return training


def check_finite(plan: Plan, training: Training) -> None:
    """Checks that no update has failed.

    Raises:
      NonFiniteLossError: if the loss or its gradient was not finite.
    """
    failed = int(training.state.failed_at)
    if failed >= 0:
        if training.record.best_score < 0:
            training = training._replace(best=kept(training.state))
        raise NonFiniteLossError(failed, outcome(plan, training))
