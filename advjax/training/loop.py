"""The training loop: epochs, held-out robustness, failures, checkpoints, a log.

A training is a value (``run.Training``); an epoch is trained (``epoch.train_epoch``),
assessed, and decided upon (``assess``), each by a function of that value, while one
recorder owns what lies outside: checkpoints, log, bar and signals.

All arithmetic happens in one compiled step. Every random choice comes from the key,
the attempt and the step, so a run that was killed at any moment and is started again
ends with the same bits.

The same call trains on one device, on several, and in several processes that have
called ``jax.distributed.initialize()``: batches are sharded over all of them (see
``advjax.sharding``), which see the same directory.
"""

import contextlib
import os
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from advjax import attacks, balls, data, keys, sharding
from advjax.attacks.checks import check_count
from advjax.models import Model
from advjax.training import feed as feeds
from advjax.training.assess import assess, decide
from advjax.training.epoch import train_epoch
from advjax.training.methods import Method
from advjax.training.recorder import Recorder
from advjax.training.result import Fit
from advjax.training.run import Augment, Plan, begin, outcome
from advjax.training.settings import Checkpointing, OnFailure, Recovery
from advjax.types import Attack, Key, as_pytree


def fit(
    method: Method,
    model: Model,
    optimizer: optax.GradientTransformation,
    train: data.Dataset | data.Mixture | feeds.Source,
    held_out: data.Dataset,
    *,
    key: Key,
    epochs: int,
    batch_size: int = 128,
    attack: Attack | None = None,
    augment: Augment | None = None,
    averaging: Any = None,
    mesh: Mesh | None = None,
    shard_weights: bool = False,
    checkpoints: Checkpointing | str | os.PathLike[str] | None = None,
    recovery: Recovery | OnFailure = 'restart',
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
      mesh: devices with an axis 'data' to shard batches along; all by default.
      shard_weights: shard weights and the optimizer's state over the devices, too.
      checkpoints: the directory where checkpoints and ``metrics.jsonl`` go, or a
        ``Checkpointing``, which also says how often. If it holds a run that was
        interrupted, that run goes on. None keeps nothing.
      recovery: what follows catastrophic overfitting or collapse, a ``Recovery``;
        'rollback', 'restart' or 'continue' stand for ``Recovery`` of that name.
      progress: show a bar.

    Raises:
      NonFiniteLossError: with the step, and the last good state as ``.fit``.
      Preempted: after SIGTERM, when the directory holds all that was done; a
        ``SystemExit`` of code 0. The same call goes on.
      OtherTrainingError: for a directory of another run, by what differs: method,
        model, optimizer, images, attack, key, augmentation, averaging, library.
      ValueError: for arguments out of range, or labels that the model has no class
        for.
    """
    if not isinstance(checkpoints, Checkpointing | None):
        checkpoints = Checkpointing(checkpoints)
    if not isinstance(recovery, Recovery):
        recovery = Recovery(recovery)
    _validate(method, model, train, held_out, epochs, batch_size)
    place = sharding.placement(batch_size, mesh, shard_weights)
    feed = feeds.of(train, batch_size, place)
    with contextlib.closing(feed):
        plan = Plan(
            method=method,
            model=model,
            optimizer=optimizer,
            feed=feed,
            held_out=held_out,
            key=keys.typed(key),
            epochs=epochs,
            batch_size=batch_size,
            attack=_held_out_attack(method, attack),
            augment=augment,
            averaging=averaging,
            place=place,
            recovery=recovery,
        )
        recorder = Recorder(plan, checkpoints, progress)
        with contextlib.closing(recorder):
            return _run(plan, recorder)


def _run(plan: Plan, recorder: Recorder) -> Fit:
    training = recorder.open(begin(plan))
    if not training.record.finished:
        with recorder.running():
            while not training.record.finished:
                training = train_epoch(plan, training, recorder)
                row = assess(plan, training)
                training = decide(plan, recorder.timed(training), row)
                recorder.log(training)
                if not training.record.finished:
                    training = recorder.save(training)
        training = recorder.save(training, always=True)
    return outcome(plan, training)


def _validate(
    method: Method,
    model: Model,
    train: Any,
    held_out: data.Dataset,
    epochs: int,
    batch_size: int,
) -> None:
    sets = {'held-out': held_out}
    if feeds.in_memory(train):
        sets = {'training': train, **sets}
    check_count('epochs', epochs)
    check_count('batch_size', batch_size)
    for name, each in sets.items():
        check_count(f'the number of {name} images', len(each.labels))
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
