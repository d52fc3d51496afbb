"""The trainings that are compared: their accuracies, and the cost of a step."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, data, training, zoo
from advjax.balls import Ball
from experiments.frame import measures, nets
from experiments.frame.datasets import Sets
from experiments.frame.work import Work

FAST, PGD, ZERO = 'FGSM-RS', 'PGD-7', 'FGSM from the image'


def methods(ball: Ball) -> dict[str, training.Method]:
    """What is compared: a random start, many steps, and neither."""
    return {
        FAST: training.fast(ball),
        PGD: training.pgd_at(ball, 7),
        ZERO: training.method(attacks.fgm(ball), training.on_adversarial),
    }


def trained(
    config: Any, work: Work, sets: Sets, ball: Ball, name: str, seed: int
) -> dict[str, np.ndarray]:
    """Trains one network and attacks it: accuracies in per cent, and the history."""

    def compute() -> dict[str, Any]:
        method, rate = methods(ball)[name], config.learning_rate
        if name == PGD:
            steps = config.pgd_warm_up * -(-len(sets.train.labels) // config.batch_size)
            warm = optax.linear_schedule(0.0, 1.0, steps)
            method = training.scheduled(method, eps=warm)
            rate = config.pgd_learning_rate
        fit = work.fit(
            label,
            method,
            zoo.fast_mnist(sets.shape, sets.classes),
            sets,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=rate,
            seed=seed,
            # Without a random start the failure is the finding, else it is bad luck.
            recovery='continue' if name == ZERO else 'restart',
        )
        x, y = work.images(work.sets(config.dataset, test_images=config.attacked).test)
        ends = {'best': fit.logits_fn, 'last': nets.last_of(fit)}
        found = {
            end: work.evaluate(logits_fn, x, y, strong(ball, config.restarts))
            for end, logits_fn in ends.items()
        }
        clean, labels = work.images(sets.test)
        right = measures.answers(fit.logits_fn, clean, batch_size=1000) == labels
        return {
            'events': np.array(list(fit.events), str),
            'seconds': fit.seconds,
            'chosen': max(row['held_out_robust'] for row in fit.history),
            'clean': 100 * right.mean(),
            **{end: 100 * e.robust_accuracy for end, e in found.items()},
            **{
                column: np.array([row[column] for row in fit.history])
                for column in ('epoch', 'attempt', 'train_accuracy', 'held_out_robust')
            },
        }

    label = ''.join(c if c.isalnum() else '-' for c in f'{name}-{seed}')
    return work.keep(f'trained-{label}', compute)


def strong(ball: Ball, restarts: int) -> dict[str, Any]:
    """PGD-50 of steps of eps / 30, from several starts; any iterate counts."""
    return {'PGD-50': attacks.restarts(attacks.pgd(ball, 50, rate=1 / 30), restarts)}


def seconds_per_step(
    config: Any, sets: Sets, ways: Mapping[str, training.Method]
) -> dict[str, np.ndarray]:
    """Wall time of a training step in each of the rounds, in which methods take turns.

    Compilation, held-out evaluation and the disk are left out.
    """
    model = zoo.fast_mnist(sets.shape, sets.classes)
    # The batch is an argument: a constant would be computed with at compile time.
    batch = {
        'image': data.to_float(sets.train.images[: config.batch_size]),
        'label': jnp.asarray(sets.train.labels[: config.batch_size], jnp.int32),
    }
    key = jax.random.key(0)
    step = jax.jit(training.step)
    state = training.create(model, optax.adam(config.learning_rate), key=key)

    def run(method, count):
        now, metrics = state, None
        began = time.perf_counter()
        for _ in range(count):
            now, metrics = step(method, now, batch, key)
        jax.block_until_ready((now.params, metrics))
        return (time.perf_counter() - began) / count

    for method in ways.values():
        run(method, 1)
    rounds = [
        [run(method, config.timed_steps) for method in ways.values()]
        for _ in range(config.timed_rounds)
    ]
    return dict(zip(ways, np.array(rounds).T, strict=True))
