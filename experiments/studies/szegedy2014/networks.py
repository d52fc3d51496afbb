"""The networks of Table 1, and those of two disjoint halves of the training images."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from advjax import data, l2, training, zoo
from advjax.models import Model
from advjax.training import Fit
from experiments.frame.datasets import Sets
from experiments.frame.measures import answers
from experiments.frame.work import Work
from experiments.studies.szegedy2014.autoencoder import sparse_autoencoder

TABLE_1 = ('FC10(1e-4)', 'FC10(1e-2)', 'FC10(1)', 'FC100', 'FC200', 'AE400')
"""In the order of the paper; FC100 and FC200 have two hidden layers of that size."""

HALVES = ('FC100 (P1)', 'FC123-456 (P1)', 'FC100 (P2)')
"""Two networks on the first half of the training images, one on the second."""

HARDENED = 'FC100, adversarial'


class Recipe(NamedTuple):
    """What a network is made of and how long it learns."""

    model: Model
    epochs: int
    rate: float
    decay: tuple[tuple[str, float], ...] = ()
    method: Any = None
    peak: float | None = None


@functools.cache
def _optimizer(recipe_rate, decay, learning_rate, steps):
    # Cached: the optimizer is static structure of the compiled step.
    return optax.chain(
        training.layer_decay(recipe_rate, **dict(decay)),
        optax.adam(training.triangular(learning_rate, steps)),
    )


def _perceptron(sets: Sets, widths: tuple[int, ...]) -> Model:
    return zoo.mlp(sets.shape, sets.classes, widths, 'sigmoid')


def _recipes(config: Any, sets: Sets) -> dict[str, Recipe]:
    softmax = zoo.softmax_regression(sets.shape, sets.classes)
    small, large = (_perceptron(sets, (w, w)) for w in config.widths)
    other = _perceptron(sets, config.other_widths)
    auto = sparse_autoencoder(sets.shape, sets.classes, config.code)
    deep = (('hidden', 1e-5),)
    own = training.with_own_loss(training.standard())
    hard = training.fgsm_at(l2(config.eps))
    return {
        'FC10(1e-4)': Recipe(softmax, config.linear_epochs, 1e-4),
        'FC10(1e-2)': Recipe(softmax, config.linear_epochs, 1e-2),
        'FC10(1)': Recipe(softmax, config.linear_epochs, 1.0),
        'FC100': Recipe(small, config.epochs, 1e-6, deep),
        'FC200': Recipe(large, config.epochs, 1e-6, deep),
        'AE400': Recipe(
            auto, config.code_epochs, 1e-6, (), own, config.code_learning_rate
        ),
        'FC100 (P1)': Recipe(small, config.epochs, 1e-6, deep),
        'FC123-456 (P1)': Recipe(other, config.epochs, 1e-6, deep),
        'FC100 (P2)': Recipe(small, config.epochs, 1e-6, deep),
        HARDENED: Recipe(small, config.epochs, 1e-6, deep, hard),
    }


def halves(sets: Sets) -> tuple[Sets, Sets]:
    """P1 and P2: the training images in two disjoint parts of one size."""
    count = len(sets.train.labels) // 2
    rest, second = data.split_held_out(sets.train, count, seed=0)
    first = rest._replace(images=rest.images[:count], labels=rest.labels[:count])
    return sets._replace(train=first), sets._replace(train=second)


def train(config: Any, work: Work, sets: Sets) -> dict[str, Fit]:
    """All networks, by name."""
    first, second = halves(sets)
    fits = {}
    for name, recipe in _recipes(config, sets).items():
        part = first if '(P1)' in name else second if '(P2)' in name else sets
        steps = recipe.epochs * -(-len(part.train.labels) // config.batch_size)
        fits[name] = work.fit(
            ''.join(c if c.isalnum() else '-' for c in name).strip('-'),
            recipe.method or training.standard(),
            recipe.model,
            part,
            epochs=recipe.epochs,
            batch_size=config.batch_size,
            optimizer=_optimizer(
                recipe.rate,
                recipe.decay,
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
