"""Assesses an epoch on held-out images, and decides how training goes on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, data, models, sharding
from advjax.evaluation import evaluate
from advjax.evaluation.verify import logits_of
from advjax.training.diagnosis import diagnose
from advjax.training.run import Plan, Training, initial, kept
from advjax.training.steps import no_totals


def assess(plan: Plan, training: Training) -> dict[str, Any]:
    """The row that an epoch adds to the history: training and held-out accuracy."""
    totals = {name: float(value) for name, value in training.state.totals.items()}
    return {
        'attempt': training.record.attempt,
        'epoch': training.record.epoch + 1,
        'step': int(training.state.step),
        'train_loss': totals['loss'] / totals['count'],
        'train_accuracy': totals['correct'] / totals['count'],
        **held_out_accuracy(plan, training),
    }


def held_out_accuracy(plan: Plan, training: Training) -> dict[str, float | None]:
    """Clean and robust accuracy, and the share of the commonest answer."""
    # Every process attacks its own part, on its own devices.
    result, held_out = training.state.result, plan.held_out
    if jax.process_count() > 1:
        result = sharding.fetched(result)
    size = len(held_out.labels)
    part = sharding.shared_out(size)
    images = np.asarray(data.to_float(held_out.images[part]))
    labels, found = held_out.labels[part], None
    if plan.attack is not None and len(part):
        # The same draws every epoch, so that only the model differs.
        key = jax.random.fold_in(plan.key, 2**31 - 1)
        found = evaluate(
            models.logits_fn(plan.model, *result, **dict(plan.method.view)),
            images,
            labels,
            {'held out': plan.attack},
            key=key,
            # An attack without a ball moves images in ways that no norm measures.
            ball=None if balls.of(plan.attack) else balls.linf(1.0),
            ids=part,
            batch_size=min(-(-size // jax.process_count()), 512),
        )
    if found is None or plan.method.view:
        logits = logits_of(models.logits_fn(plan.model, *result), images)
        answers = np.asarray(jnp.argmax(logits, axis=1))
    else:
        answers = found.clean_prediction
    answers = sharding.put_together(np.asarray(answers), part, size)
    robust = None
    if plan.attack is not None:
        stood = np.zeros(0, bool) if found is None else found.robust
        robust = float(sharding.put_together(stood, part, size).mean())
    return {
        'held_out_clean': float((answers == held_out.labels).mean()),
        'held_out_robust': robust,
        'held_out_top_class': float(np.bincount(answers).max() / size),
    }


def decide(plan: Plan, training: Training, row: Mapping[str, Any]) -> Training:
    """Keeps the best epoch; goes on, stops, or answers a failure.

    Args:
      plan: what is trained.
      training: at the end of an epoch.
      row: of ``assess``.
    """
    record, score = training.record, plan.score(row)
    state = dataclasses.replace(training.state, totals=no_totals())
    training = training._replace(state=state)
    if score > record.best_score:
        training = training._replace(best=kept(state)).note(best_score=score)
    history = (*record.history, {**row, 'seconds': round(record.seconds, 3)})
    training = training.note(history=history, epoch=record.epoch + 1)
    failure = diagnose(training.record.rows, plan.method.adversarial)
    if failure is not None:
        return _recover(plan, training, failure)
    return training.note(finished=training.record.epoch == plan.epochs)


def _recover(plan: Plan, training: Training, failure: str) -> Training:
    """What ``plan.recovery`` says about a failure."""
    record, recovery = training.record, plan.recovery

    def told(action: str) -> tuple[str, ...]:
        return (*record.events, f'{failure}; {action}')

    if recovery.on_failure == 'continue':
        known = any(event.startswith(failure) for event in record.events)
        return training.note(
            events=record.events if known else told('went on'),
            finished=record.epoch == plan.epochs,
        )
    if recovery.on_failure == 'restart' and record.attempt < recovery.max_restarts:
        attempt = record.attempt + 1
        return training._replace(state=initial(plan, attempt)).note(
            attempt=attempt,
            epoch=0,
            events=told(f'began again with seed {attempt}'),
        )
    best = max(record.history, key=plan.score)
    action = f'stopped and went back to epoch {best["epoch"]}'
    if best['attempt'] != record.attempt:
        action += f' of seed {best["attempt"]}'
    return training.note(events=told(action), finished=True)
