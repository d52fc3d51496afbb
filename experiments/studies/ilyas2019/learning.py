"""The data sets of section 3, and the networks that learn from each."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, balls, data, features, models, training, zoo
from advjax.data import Dataset
from advjax.evaluation import verify
from advjax.models import Model
from advjax.types import LogitsFn
from experiments.frame import measures, nets
from experiments.frame.datasets import Sets, first
from experiments.frame.work import Work

BATCH = 100
"""Images per step of training."""

RATES = {
    'fast_mnist': 2e-3,
    'madry_mnist': 1e-3,
    'mlp': 1e-3,
    'maxout': 2e-3,
    'softmax': 5e-3,
}
"""Five networks, each with the peak of its learning rate."""


def linear_descent(t: jax.Array) -> jax.Array:
    """Steps that shrink to nothing: fewer are needed than of one length."""
    return 1 - t


def constructors(config: Any, work: Work, sets: Sets) -> dict[str, training.Fit]:
    """The standard network, and one trained to be robust in L2."""
    # A training set is in random order already.
    some = sets._replace(train=first(sets.train, config.robust_images))
    robust = work.fit(
        'robust',
        training.pgd_at(balls.l2(config.eps), config.robust_steps),
        zoo.fast_mnist(sets.shape, sets.classes),
        some,
        epochs=config.robust_epochs,
        seed=config.seed,
    )
    return {'standard': nets.natural(work, sets), 'robust': robust}


def towards(eps: float, steps: int) -> attacks.Ascent:
    """Targeted L2 PGD from the image itself, last iterate: the paper's equation 7."""
    return attacks.pgd(
        balls.l2(eps), steps, start=attacks.starts.clean, keep_best=False
    )


def build(
    config: Any, work: Work, sets: Sets, fits: Mapping[str, training.Fit]
) -> dict[str, Dataset]:
    """All data sets by name; those by a robust constructor end with '_robust'."""
    base, few = (first(sets.train, n) for n in (config.images, config.inverted_images))
    key = jax.random.key(config.seed)

    def kept(name, source, make):
        def compute():
            made = make()
            return {'images': made.images, 'labels': made.labels}

        return source._replace(**work.keep(name, compute), split=name)

    def restricted(name, which):
        fit = fits[which]
        g = models.features_fn(fit.model, fit.params, fit.model_state)
        return kept(
            name, few,
            lambda: features.restricted(
                g, few, key=key, step=config.step, steps=config.inversion_steps,
                schedule=linear_descent, batch_size=config.batch,
            ),
        )  # fmt: skip

    def relabelled(name, which, eps, how):
        return kept(
            name, base,
            lambda: features.relabelled(
                fits[which].logits_fn, towards(eps, config.attack_steps), base, how,
                key=key, batch_size=config.batch,
            ),
        )  # fmt: skip

    made = {
        'D': base,
        'D_few': few,
        'D_R': restricted('D_R', 'robust'),
        'D_NR': restricted('D_NR', 'standard'),
        'D_rand': relabelled('D_rand', 'standard', config.eps, 'random'),
        'D_rand_robust': relabelled('D_rand_robust', 'robust', config.eps, 'random'),
        'D_det_robust': relabelled('D_det_robust', 'robust', config.eps, 'next'),
    }
    for eps in radii(config):
        made[det(eps)] = relabelled(det(eps), 'standard', eps, 'next')
    return made


def radii(config: Any) -> list[float]:
    """Radii of D_det: the study's own, and larger ones."""
    return [config.eps * factor for factor in config.factors]


def learnt_from(config: Any) -> dict[str, float]:
    """The sets that all architectures learn from, and their radii."""
    return {'D_rand': config.eps, det(radii(config)[-1]): radii(config)[-1]}


def det(eps: float) -> str:
    """The name of D_det of a radius."""
    return f'D_det_{eps:g}'


def learn(
    config: Any,
    work: Work,
    sets: Sets,
    name: str,
    made: Dataset,
    arch: str = 'fast_mnist',
) -> LogitsFn:
    """Trains on a data set normally, and returns the network of the last epoch.

    No epoch can be chosen: held-out images made in the same way have the wrong labels
    as well.
    """
    few = len(made.labels) < config.images
    epochs = config.few_epochs if few else config.epochs
    fit = work.fit(
        f'{name}-{arch}',
        training.standard(),
        architecture(sets, arch),
        sets._replace(train=made, held_out=first(made, 500)),
        epochs=epochs,
        optimizer=_adam(RATES[arch], epochs * -(-len(made.labels) // BATCH)),
        batch_size=BATCH,
        seed=config.seed + 1,
    )
    return nets.last_of(fit)


@functools.cache
def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    """One object for all networks of a kind, so that they share a program."""
    return optax.adam(training.triangular(rate, steps))


def architecture(sets: Sets, name: str) -> Model:
    """One of the networks of ``RATES``."""
    given = sets.shape, sets.classes
    return {
        'fast_mnist': lambda: zoo.fast_mnist(*given),
        'madry_mnist': lambda: zoo.madry_mnist(*given, scale=0.25),
        'mlp': lambda: zoo.mlp(*given),
        'maxout': lambda: zoo.maxout(*given, units=100),
        'softmax': lambda: zoo.softmax_regression(*given),
    }[name]()


class Score(NamedTuple):
    """Accuracies of a network on the test set, in per cent.

    Attributes:
      clean: right answers.
      next: answers of the class after the right one, to which D_det leads.
      robust: verified accuracy under L2 PGD at each radius, on fewer images.
    """

    clean: float
    next: float
    robust: dict[float, float]


def score(
    config: Any, work: Work, sets: Sets, net: LogitsFn, attacked: bool = False
) -> Score:
    """Tests a network on clean images, and under attack."""
    x, y = work.images(sets.test)
    answers = measures.answers(net, x)
    robust = {}
    if attacked:
        some = slice(config.attacked)
        for eps in (0.25 * config.eps, 0.5 * config.eps, 0.75 * config.eps, config.eps):
            found = work.evaluate(net, x[some], y[some], attacks.pgd(balls.l2(eps), 20))
            robust[eps] = 100 * found.robust_accuracy
    return Score(
        100 * float((answers == y).mean()),
        100 * float((answers == (y + 1) % sets.classes).mean()),
        robust,
    )


def taken(fit: training.Fit, made: Dataset) -> float:
    """Per cent of a data set whose label its constructor gives, after rounding."""
    images = np.asarray(data.to_float(made.images))
    return measures.accuracy(fit.logits_fn, images, made.labels)


def inversion_error(fit: training.Fit, few: Dataset, made: Dataset) -> float:
    """Median of the distance of representations over their length, after rounding."""
    g = jax.jit(models.features_fn(fit.model, fit.params, fit.model_state))
    one, other = (g(data.to_float(d.images[:1000])) for d in (few, made))
    error = jnp.linalg.norm(one - other, axis=1) / jnp.linalg.norm(one, axis=1)
    return float(jnp.median(error))


def transfer(
    config: Any, work: Work, sets: Sets, source: LogitsFn, made: Mapping[str, Dataset]
) -> dict[str, dict[str, float]]:
    """For each architecture: how well it is attacked through another, and learns.

    What is transferred are adversarial images of the radius that the data set was
    made with; the transfer rate is of the images that the network gets right.
    """
    x, y = work.images(sets.test)
    x, y = x[: config.transferred], y[: config.transferred]
    given = learnt_from(config)
    adv = {
        eps: work.evaluate(source, x, y, attacks.pgd(balls.l2(eps), 20)).worst
        for eps in given.values()
    }
    found: dict[str, dict[str, float]] = {}
    for arch in config.architectures:
        own = learn(config, work, sets, 'D', made['D'], arch)
        right = measures.answers(own, x) == y
        found[arch] = {'clean': score(config, work, sets, own).clean}
        for name, eps in given.items():
            fooled = verify(own, balls.l2(eps), x, y, adv[eps]).adversarial[right]
            net = learn(config, work, sets, name, made[name], arch)
            found[arch] |= {
                f'transfer at {eps:g}': 100 * float(fooled.mean()),
                name: score(config, work, sets, net).clean,
            }
    return found
