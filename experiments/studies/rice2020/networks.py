"""Long trainings on few images: history, and accuracy of the best and last epoch."""

from typing import Any

import numpy as np
import optax

from advjax import attacks, training, zoo
from advjax.balls import Ball
from experiments.frame import measures, nets
from experiments.frame.datasets import Sets
from experiments.frame.work import Work

PLAIN, AVERAGED = 'PGD training', 'the same, averaged weights'

EPS = {'mnist': 0.3, 'cifar10': 8 / 255, 'digits': 0.15}
"""Radii by data set; the paper's is that of CIFAR-10."""

RATES = {'mnist': 3e-3, 'cifar10': 2e-3, 'digits': 3e-3}
"""Learning rates of Adam."""

DROPS = (0.75, 0.9)
"""Shares of the training after which they fall to a tenth, and again. The paper's are
a half and three quarters; so short a training must fit the images before."""

COLUMNS = ('epoch', 'train_loss', 'train_accuracy', 'held_out_clean', 'held_out_robust')


def trained(
    config: Any, work: Work, sets: Sets, ball: Ball, name: str, seed: int
) -> dict[str, np.ndarray]:
    """Trains for long, and attacks the best epoch on held-out images and the last.

    Returns:
      Columns of the history, and accuracies in per cent on test images ('best' and
      'last', robust; 'best clean' and 'last clean') and on training images ('fitted').
    """

    def compute() -> dict[str, Any]:
        each = -(-len(sets.train.labels) // config.batch_size)
        warm = optax.linear_schedule(0.0, 1.0, config.warm_up * each)
        rate = training.piecewise(RATES[sets.train.name], config.epochs * each, DROPS)
        fit = work.fit(
            label,
            training.scheduled(training.pgd_at(ball, config.steps), eps=warm),
            zoo.fast_mnist(sets.shape, sets.classes),
            sets,
            epochs=config.epochs,
            batch_size=config.batch_size,
            optimizer=optax.adam(rate),
            seed=seed,
            attack=attacks.pgd(ball, 10),
            averaging=training.ema(config.decay) if name == AVERAGED else None,
            # What is to be seen is a fall, which must not end the training.
            recovery='continue',
        )
        test = work.sets(sets.train.name, test_images=config.attacked).test
        parts = {'': test, 'fitted': sets.train}
        # Any iterate counts.
        strong = {'PGD-50': attacks.pgd(ball, 50, rate=1 / 30)}
        found: dict[str, Any]
        found = {column: [row[column] for row in fit.history] for column in COLUMNS}
        for end, logits_fn in (('best', fit.logits_fn), ('last', nets.last_of(fit))):
            x, y = work.images(sets.test)
            right = measures.answers(logits_fn, x, batch_size=1000) == y
            found[f'{end} clean'] = 100 * right.mean()
            for part, images in parts.items():
                robust = work.evaluate(logits_fn, *work.images(images), strong)
                found[f'{end} {part}'.strip()] = 100 * robust.robust_accuracy
        return found

    kind = 'averaged' if name == AVERAGED else 'plain'
    label = f'{sets.train.name}-{kind}-{seed}'
    return work.keep(f'trained-{label}', compute)
