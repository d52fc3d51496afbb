"""One row: a network is trained by a method within the budget, then attacked."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from advjax import attacks, balls, evaluation, models, training, zoo
from advjax.models import Model
from advjax.training import Fit
from advjax.types import Attack, LogitsFn
from experiments.commands.compare_methods.methods import ROWS, Row, Setting, warmed
from experiments.frame import folders, record
from experiments.frame.counting import gradient_evaluations
from experiments.frame.datasets import Sets
from experiments.frame.work import Work

CONSTANT = 0.999
"""Share of one class among the answers that counts as a constant classifier."""


def run(config: Any, name: str, folder: Path) -> dict[str, Any]:
    """Trains and attacks one row, or reads what an earlier run has found.

    Args:
      config: of the study.
      name: of the row; the rows that it needs have run.
      folder: of the study.

    Returns:
      'title', 'networks': [{'title', 'clean', 'pgd', 'autoattack', 'constant'}],
      'evaluations' per step, 'replays', 'epochs', 'seconds' per epoch and 'events'.
    """
    path = folder / 'rows' / f'{name}.json'
    row = ROWS[name]
    sets, made_of = sources(config, folder)
    if path.exists():
        earlier = _read(path)
        if earlier.pop('made_of', None) == made_of:
            return earlier
        _clear(folder, name)
    try:
        found = _run(config, row, sets, folder)
    except (training.OtherTrainingError, evaluation.OtherEvaluationError):
        _clear(folder, name)  # Of an interrupted run of other code or data.
        found = _run(config, row, sets, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    folders.write_json(path, {**found, 'made_of': made_of})
    return found


def sources(config: Any, folder: Path) -> tuple[Sets, dict[str, Any]]:
    """The data, and what a row must have been made of to be shown again."""
    work = Work(folder, folder)
    sets = work.sets(
        config.dataset,
        train_images=config.train_images,
        test_images=config.test_images,
        held_out=config.held_out,
    )
    return sets, {'code': record.code(), 'data': work.data}


def _read(path: Path) -> dict[str, Any]:
    """A row, or an empty one where the file is damaged."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _clear(folder: Path, name: str) -> None:
    for old in (folder / 'nets' / name, *(folder / 'attacked').glob(f'{name}-*')):
        shutil.rmtree(old, ignore_errors=True)


def _run(config: Any, row: Row, sets: Sets, folder: Path) -> dict[str, Any]:
    setting = setting_of(config)
    evaluations = gradient_evaluations(lambda nets: row.build(setting, nets), row.needs)
    needed = {
        need: training.restore(
            folder / 'nets' / need, model_of(config, ROWS[need], sets)
        )
        for need in row.needs
    }
    fit, epochs = _train(config, row, setting, needed, evaluations, sets, folder)
    views = {row.title: {}}
    if row.split:
        views = {f'{row.title}, main branch': {}}
        views[f'{row.title}, auxiliary branch'] = {'branch': 1}
    networks = [
        _attack(
            models.logits_fn(fit.model, fit.params, fit.model_state, **view),
            config,
            sets,
            folder / 'attacked' / f'{row.name}-{number}',
            title,
        )
        for number, (title, view) in enumerate(views.items())
    ]
    return {
        'title': row.title,
        'networks': networks,
        'evaluations': evaluations,
        'replays': row.build(setting, needed).replays,
        'epochs': epochs,
        'seconds': seconds_per_epoch(fit.history),
        'events': list(fit.events),
    }


def setting_of(config: Any) -> Setting:
    """What all methods share."""
    eps = config.eps or {'mnist': 0.3}.get(config.dataset, 0.15)
    small = config.dataset == 'digits'
    return Setting(balls.linf(eps), config.attack_steps, pixels=1.0 if small else 3.0)


def model_of(config: Any, row: Row, sets: Sets) -> Model:
    """The network of all rows, or the one with split batch normalisation."""
    if row.split:
        widths = tuple(max(1, int(n * config.scale)) for n in (16, 32))
        hidden = max(1, int(100 * config.scale))
        return zoo.split_norm_cnn(sets.shape, sets.classes, widths, hidden)
    return zoo.fast_mnist(sets.shape, sets.classes, config.scale)


def epochs_within(budget: float, evaluations: float, replays: int) -> int:
    """Whole passes over the training images, at the budget's price or nearest to it."""
    return max(1, round(budget / (evaluations * replays)))


def _train(
    config: Any,
    row: Row,
    setting: Setting,
    needed: Mapping[str, LogitsFn],
    evaluations: float,
    sets: Sets,
    folder: Path,
) -> tuple[Fit, int]:
    method = row.build(setting, needed)
    epochs = epochs_within(config.budget, evaluations, method.replays)
    updates = method.replays * epochs * -(-len(sets.train.labels) // config.batch_size)
    adversary = attacks.pgd(setting.ball, 10) if method.adversarial else None
    fit = training.fit(
        warmed(method, round(config.warm_up * updates)),
        model_of(config, row, sets),
        optax.adam(training.triangular(config.learning_rate, updates)),
        sets.train,
        sets.held_out,
        key=jax.random.key(config.seed),
        epochs=epochs,
        batch_size=config.batch_size,
        attack=adversary,
        averaging=row.averaging,
        checkpoints=folder / 'nets' / row.name,
        recovery=training.Recovery(max_restarts=1),
    )
    return fit, epochs


def seconds_per_epoch(history: Any) -> float:
    """The median epoch, without the first of all, which compiles."""
    ends = [row['seconds'] for row in history]
    spent = np.diff(ends) if len(ends) > 1 else ends
    return float(np.median(spent))


def adversaries(config: Any, classes: int) -> dict[str, Attack]:
    """The attacks on every network, by name."""
    ball = setting_of(config).ball
    pgd = attacks.pgd(ball, config.pgd_steps, rate=1 / 30)
    whole = attacks.autoattack(
        ball,
        classes=min(classes, config.targets + 1),
        steps=config.iterations,
        queries=config.queries,
    )
    return {'pgd': attacks.restarts(pgd, config.restarts), 'autoattack': whole}


def _attack(
    logits_fn: LogitsFn, config: Any, sets: Sets, folder: Path, title: str
) -> dict[str, Any]:
    x, y = Work(folder, folder).images(sets.test)
    found = {
        attack: evaluation.evaluate(
            logits_fn,
            x,
            y,
            search,
            key=jax.random.key(config.seed),
            batch_size=min(100, len(y)),
            survivors=True,
            folder=folder / attack,
        )
        for attack, search in adversaries(config, sets.classes).items()
    }
    answers = np.bincount(found['pgd'].clean_prediction)
    return {
        'title': title,
        'clean': 100 * float(found['pgd'].clean_correct.mean()),
        **{attack: 100 * float(seen.robust.mean()) for attack, seen in found.items()},
        'constant': bool(answers.max() >= CONSTANT * len(y)),
    }
