"""The networks of Table 1, and those of two disjoint halves of the training images."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from advjax import data, l2, training, zoo
from advjax.models import Model
from advjax.training import Fit
from experiments.frame.datasets import Sets, first
from experiments.frame.measures import answers
from experiments.frame.work import Work
from experiments.studies.szegedy2014.autoencoder import sparse_autoencoder

TABLE_1 = ('FC10(1e-4)', 'FC10(1e-2)', 'FC10(1)', 'FC100', 'FC200', 'AE400')
"""In the order of the paper; FC100 and FC200 have two hidden layers of that size."""

HALVES = ('FC100 (P1)', 'FC123-456 (P1)', 'FC100 (P2)')
"""Two networks on the first half of the training images, one on the second."""

HARDENED = 'FC100, adversarial'


class Recipe(NamedTuple):
    """What a network is made of, and how it is trained.

    Attributes:
      model: the network.
      epochs: passes over the training images.
      decay: lambda, the weight decay of its layers.
      hidden_decay: that of hidden layers, if it is another one.
      method: of training; on clean images by default.
      peak: of the learning rate; the study's by default.
    """

    model: Model
    epochs: int
    decay: float
    hidden_decay: float | None = None
    method: Any = None
    peak: float | None = None


@functools.cache
def _optimizer(decay, hidden_decay, learning_rate, steps):
    # Cached: the optimizer is static structure of the compiled step.
    layers = {} if hidden_decay is None else {'hidden': hidden_decay}
    return optax.chain(
        training.layer_decay(decay, **layers),
        optax.adam(training.triangular(learning_rate, steps)),
    )


def _recipes(config: Any, sets: Sets) -> dict[str, Recipe]:
    def linear(decay):
        model = zoo.softmax_regression(sets.shape, sets.classes)
        return Recipe(model, config.linear_epochs, decay)

    def perceptron(*widths, method=None):
        model = zoo.mlp(sets.shape, sets.classes, widths, 'sigmoid')
        return Recipe(model, config.epochs, 1e-6, 1e-5, method)

    small, large = ((width, width) for width in config.widths)
    return {
        'FC10(1e-4)': linear(1e-4),
        'FC10(1e-2)': linear(1e-2),
        'FC10(1)': linear(1.0),
        'FC100': perceptron(*small),
        'FC200': perceptron(*large),
        'AE400': Recipe(
            sparse_autoencoder(sets.shape, sets.classes, config.code),
            config.code_epochs,
            1e-6,
            method=training.with_own_loss(training.standard()),
            peak=config.code_learning_rate,
        ),
        'FC100 (P1)': perceptron(*small),
        'FC123-456 (P1)': perceptron(*config.other_widths),
        'FC100 (P2)': perceptron(*small),
        HARDENED: perceptron(*small, method=training.fgsm_at(l2(config.eps))),
    }


def halves(sets: Sets) -> tuple[Sets, Sets]:
    """P1 and P2: the training images in two disjoint parts of one size."""
    count = len(sets.train.labels) // 2
    rest, second = data.split_held_out(sets.train, count, seed=0)
    return sets._replace(train=first(rest, count)), sets._replace(train=second)


def train(config: Any, work: Work, sets: Sets) -> dict[str, Fit]:
    """All networks, by name."""
    one, two = halves(sets)
    fits = {}
    for name, recipe in _recipes(config, sets).items():
        part = one if '(P1)' in name else two if '(P2)' in name else sets
        steps = recipe.epochs * -(-len(part.train.labels) // config.batch_size)
        fits[name] = work.fit(
            ''.join(c if c.isalnum() else '-' for c in name).strip('-'),
            recipe.method or training.standard(),
            recipe.model,
            part,
            epochs=recipe.epochs,
            batch_size=config.batch_size,
            optimizer=_optimizer(
                recipe.decay,
                recipe.hidden_decay,
                recipe.peak or config.learning_rate,
                steps,
            ),
            # P2's network must differ from P1's by its images, not only by them.
            seed=config.seed + ('(P2)' in name),
        )
    return fits


def error(logits_fn: Any, x: Any, y: np.ndarray) -> float:
    """The share of wrong answers, in per cent."""
    return 100 * float(np.mean(answers(logits_fn, x, batch_size=1000) != y))


def errors(
    fits: Mapping[str, Fit], parts: Mapping[str, data.Dataset], work: Work
) -> dict[str, list[float]]:
    """The error of every network on every part, in per cent, on all of its images."""
    images = {name: work.images(part) for name, part in parts.items()}
    return {
        name: [error(fit.logits_fn, *images[part]) for part in parts]
        for name, fit in fits.items()
    }
