"""Training the networks that a configuration asks for."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from advjax import attacks, models, training
from advjax.balls import Ball
from advjax.models import Model
from advjax.types import LogitsFn
from experiments.commands import choices, runs
from experiments.commands.configuration import Config
from experiments.frame import datasets
from experiments.frame.datasets import Sets


def load(config: Config) -> Sets:
    """The parts of the data set that the configuration asks for."""
    return datasets.load(
        config.dataset,
        train_images=config.train_images,
        test_images=config.test_images,
        held_out=config.held_out,
    )


def train(
    config: Config,
    model: Model,
    sets: Sets,
    ball: Ball,
    folder: Path,
    seed: int,
    progress: bool,
) -> training.Fit:
    """Trains one network in its own folder."""
    assert config.epochs is not None
    assert config.batch_size is not None
    shape, classes = sets.shape, sets.classes
    replays = config.replays if config.method == 'free' else 1
    batches = -(-len(sets.train.labels) // config.batch_size)
    updates = config.epochs * batches * replays
    teachers = [runs.trained(run, shape, classes)[0] for run in config.teacher]
    return training.fit(
        choices.method(config, ball, updates, teachers),
        model,
        choices.optimizer(config, updates),
        sets.train,
        sets.held_out,
        key=jax.random.key(seed),
        epochs=config.epochs,
        batch_size=config.batch_size,
        attack=attacks.pgd(ball, 20),
        augment=choices.augmentation(config),
        averaging=choices.averaging(config),
        shard_weights=config.shard_weights,
        checkpoints=folder,
        recovery=config.on_failure,
        progress=progress,
    )


def best_of(fits: list[training.Fit]) -> training.Fit:
    """The training whose best epoch is most robust on held-out images."""
    return max(fits, key=lambda f: max(row['held_out_robust'] for row in f.history))


class Trained(NamedTuple):
    """One network as it is attacked and reported.

    Attributes:
      name: in tables.
      method: how it was trained.
      fit: the training.
      logits_fn: the network, or a view of it.
    """

    name: str
    method: str
    fit: training.Fit
    logits_fn: LogitsFn


def networks(
    config: Config, sets: Sets, ball: Ball, folder: Path, progress: bool
) -> list[Trained]:
    """Trains what the configuration asks for."""
    shape, classes = sets.shape, sets.classes
    trained_in = choices.network(config, shape, classes, to_train=True)
    attacked_in = choices.network(config, shape, classes)
    fits = []
    if config.baseline or config.method == 'standard':
        normally = dataclasses.replace(
            config, method='standard', awp=0.0, eps_warmup=0.0
        )
        fits.append(
            ('standard', train(normally, trained_in, sets, ball, folder / 'standard',
                               config.seed, progress))
        )  # fmt: skip
    if config.method != 'standard':
        tried = [
            train(config, trained_in, sets, ball, folder / f'{config.method}-{seed}',
                  seed, progress)
            for seed in range(config.seed, config.seed + config.seeds)
        ]  # fmt: skip
        fits.append((config.method, best_of(tried)))
    found = []
    for name, fit in fits:
        for branch in range(choices.branches_of(name)):
            view = {'branch': branch} if branch else {}
            net = models.logits_fn(attacked_in, fit.params, fit.model_state, **view)
            title = f'{name}, auxiliary branch' if branch else name
            found.append(Trained(title, name, fit, net))
    return found
