"""Section 3 on MNIST: sample sizes, gradients, large perturbations, chosen pixels."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, balls, features, training, zoo
from advjax.types import Array, LogitsFn
from experiments.frame import measures, nets
from experiments.frame.datasets import Sets, first
from experiments.frame.work import Work
from experiments.studies.tsipras2019 import saliency

CLASSES = 3, 7

BATCH = 100
"""Images per step of the sweep."""


def sizes(config: Any, work: Work, sets: Sets) -> dict[str, np.ndarray]:
    """Clean and robust accuracy (%) by the number of training images and the method.

    Up to ``config.sizes`` every network makes the same number of updates, on images
    that come round the more often the fewer there are. The last point is the pair of
    networks that all studies share, trained for longer; other radii have none.

    Returns:
      'sizes', and for each of ``methods(config)`` (sizes, seeds, 2).
    """
    eps = nets.EPS[sets.train.name]
    x, y = work.images(sets.test)
    some = slice(config.attacked)
    attack = attacks.pgd(balls.linf(eps), 20)

    def measured(net):
        clean = measures.accuracy(net, x, y)
        found = work.evaluate(net, x[some], y[some], attack)
        return clean, 100 * found.robust_accuracy

    def trained(name, method, size, seed):
        few = _some(sets, size, config.epoch_images, seed)
        steps = config.epochs * -(-len(few.train.labels) // BATCH)
        fit = work.fit(
            f'{name}-{size}-{seed}'.replace(' ', '-'),
            method,
            zoo.fast_mnist(sets.shape, sets.classes),
            few,
            epochs=config.epochs,
            optimizer=_adam(steps),
            batch_size=BATCH,
            seed=config.seed + seed,
            attack=attacks.bim(balls.linf(eps), 1) if method.adversarial else None,
        )
        # The images held out for choosing would be more than those to learn.
        return nets.last_of(fit)

    whole = {
        name: measured(shared(work, sets).logits_fn)
        for name, shared in (('natural', nets.natural), (f'eps {eps:g}', nets.robust))
    }
    found = {'sizes': np.array([*config.sizes, len(sets.train.labels)])}
    for name, method in methods(config).items():
        values = [
            [
                measured(trained(name, method, size, seed))
                for seed in range(config.seeds)
            ]
            for size in config.sizes
        ]
        last = whole.get(name, (np.nan, np.nan))
        found[name] = np.array([*values, [last] * config.seeds])
    return found


@functools.cache
def _adam(steps: int) -> optax.GradientTransformation:
    """One object for all networks of the sweep, so that they share a program."""
    return optax.adam(training.triangular(5e-3, steps))


def methods(config: Any) -> dict[str, training.Method]:
    """Natural training, and FGSM from random starts at each radius."""
    made = {'natural': training.standard()}
    for eps in config.eps:
        made[f'eps {eps:g}'] = training.fast(balls.linf(eps))
    return made


def robust_in_l2(config: Any, work: Work, sets: Sets) -> LogitsFn:
    """The same network, trained by PGD in an L2 ball."""
    return work.fit(
        'L2',
        training.pgd_at(balls.l2(config.l2_eps), config.l2_steps),
        zoo.fast_mnist(sets.shape, sets.classes),
        sets._replace(train=first(sets.train, config.l2_images)),
        epochs=config.l2_epochs,
        seed=config.seed,
    ).logits_fn


def _some(sets: Sets, size: int, total: int, seed: int) -> Sets:
    """Random images of one size of training set, repeated up to ``total``."""
    order = np.random.RandomState(seed).permutation(len(sets.train.labels))[:size]
    index = np.resize(order, max(total, size))
    train = sets.train._replace(
        images=sets.train.images[index], labels=sets.train.labels[index]
    )
    return sets._replace(train=train, held_out=first(sets.held_out, 200))


def gradients(
    config: Any, work: Work, sets: Sets, trained: Mapping[str, LogitsFn]
) -> dict[str, Array]:
    """Loss gradients of the networks, and how much of the image is in them."""
    x, y = work.images(sets.test)
    x, y = jnp.asarray(x[: config.attacked]), jnp.asarray(y[: config.attacked])
    edges = saliency.edges(x)
    found: dict[str, Array] = {}
    for name, net in trained.items():
        gradient = jax.jit(saliency.input_gradient)(net, x, y)
        size = jnp.abs(gradient)
        found[f'{name} gradient'] = gradient[: config.shown]
        found[f'{name} edges'] = saliency.correlation(size, edges)
        found[f'{name} image'] = saliency.correlation(size, x)
    return found | {'images': x[: config.shown], 'labels': y[: config.shown]}


def large(
    config: Any, work: Work, sets: Sets, trained: Mapping[str, LogitsFn]
) -> dict[str, np.ndarray]:
    """Adversarial images of a large L2 radius, judged by their nearest neighbours.

    The neighbours are clean training images: a judge that knows nothing of networks.
    """
    from sklearn.neighbors import KNeighborsClassifier

    x, y = work.images(sets.test)
    x, y = x[: config.attacked], y[: config.attacked]
    train = work.sets(sets.train.name, train_images=config.neighbours).train
    rows, labels = work.images(train)
    judge = KNeighborsClassifier(5).fit(rows.reshape(len(rows), -1), labels)
    radius = config.large_eps
    attack = attacks.pgd(balls.l2(radius), config.large_steps, keep_best=False)
    found = {}
    for name, net in trained.items():
        adv = np.asarray(measures.run_attack(attack, net, work.key, x, y))
        answers = measures.answers(net, adv)
        fooled = answers != y
        seen = judge.predict(adv.reshape(len(adv), -1))
        agrees = (seen == answers)[fooled].mean() if fooled.any() else 0.0
        found |= {
            f'{name} adv': adv[: config.shown],
            f'{name} answers': answers[: config.shown],
            f'{name} agrees': 100 * agrees,
            f'{name} fooled': 100 * fooled.mean(),
        }
    return found


def chosen_pixels(config: Any, work: Work, sets: Sets) -> dict[str, np.ndarray]:
    """Logistic regressions of 3 against 7 on pixels that go with the label enough.

    The robust accuracy is exact: the worst case of a linear score in closed form.
    """
    from sklearn.linear_model import LogisticRegression

    def task(dataset, count=None):
        images, labels = work.images(dataset)
        chosen = np.flatnonzero(np.isin(labels, CLASSES))[:count]
        return images[chosen], np.asarray(features.signs(labels[chosen], CLASSES[1]))

    x, y = task(sets.train, config.pixel_images)
    test_x, test_y = task(sets.test)
    rows = x.reshape(len(x), -1).astype(np.float64)
    fn = features.standardise(features.linear(np.eye(rows.shape[1])), x)
    correlation = np.abs(np.asarray(features.rho(fn, x, y))) / max(
        np.sqrt(1 - np.mean(y) ** 2), 1e-9
    )
    ball = balls.linf(config.pixel_eps)
    clean, robust, kept = [], [], []
    for tau in config.taus:
        which = correlation > tau
        model = LogisticRegression(C=1.0, max_iter=300).fit(rows[:, which], y)
        w = np.zeros(rows.shape[1])
        w[which] = model.coef_[0]
        score = features.linear(w.reshape(1, *x.shape[1:]), float(model.intercept_[0]))
        clean.append(100 * float((test_y * np.asarray(score(test_x))[:, 0] > 0).mean()))
        worst = np.asarray(score.worst(ball, jnp.asarray(test_x), test_y))[:, 0]
        robust.append(100 * float((worst > 0).mean()))
        kept.append(int(which.sum()))
    return {
        'taus': np.array(config.taus),
        'clean': np.array(clean),
        'robust': np.array(robust),
        'kept': np.array(kept),
        'correlation': correlation.reshape(sets.shape),
    }
