"""The classifiers between which directions transfer."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from advjax import geometry, models, training
from advjax.geometry import Hyperplane
from advjax.types import LogitsFn
from experiments.frame import two_classes
from experiments.frame.datasets import Sets
from experiments.frame.two_classes import Pair
from experiments.frame.work import Work


def linear_classifiers(
    work: Work, task: Pair, iterations: int
) -> dict[str, Hyperplane]:
    """Classifiers of several kinds, trained on all images of the two classes."""

    def train() -> dict[str, Any]:
        from sklearn.linear_model import LogisticRegression, Perceptron
        from sklearn.svm import LinearSVC

        fits: dict[str, Any] = {
            'perceptron': Perceptron(max_iter=iterations, tol=None, random_state=0),
            'logistic': LogisticRegression(C=1e4, max_iter=iterations),
        }
        for cost in (0.01, 1.0):
            fits[f'SVM, C = {cost:g}'] = LinearSVC(
                C=cost, loss='hinge', intercept_scaling=10, random_state=0,
                max_iter=10 * iterations,
            )  # fmt: skip
        # Near zero training error any of them serves: it need not be the optimum.
        return {n: two_classes.fitted(fit, task.x, task.y) for n, fit in fits.items()}

    found = work.keep('classifiers', train)
    planes = {name: geometry.hyperplane(w[:-1], w[-1]) for name, w in found.items()}
    planes['centroid'] = geometry.halfway(*task.means)
    return planes


@functools.cache
def two_layers(shape: tuple[int, ...], width: int) -> models.Model:
    r"""The network :math:`f(x) = \sum_k a_k\,\mathrm{relu}(w_k^\top x)`, logits (0, f).

    Without biases it is homogeneous: f(tx) = t f(x) for t >= 0.
    """
    size = math.prod(shape)

    def init(key):
        one, two = jax.random.split(key)
        return {
            'w': (2 / size) ** 0.5 * jax.random.normal(one, (size, width)),
            'a': width**-0.5 * jax.random.normal(two, (width, 1)),
        }

    def apply(params, x):
        score = jax.nn.relu(x.reshape(len(x), -1) @ params['w']) @ params['a']
        return jnp.concatenate([jnp.zeros_like(score), score], axis=1)

    return models.from_function(init, apply)


def relu_networks(
    work: Work, sets: Sets, widths: tuple[int, ...], seeds: int, epochs: int
) -> dict[str, LogitsFn]:
    """Networks of several widths and seeds, trained on the two classes."""
    both = two_classes.only(sets)
    found = {}
    for width in widths:
        for seed in range(seeds):
            fit = work.fit(
                f'relu-{width}-{seed}',
                training.standard(),
                two_layers(sets.shape, width),
                both,
                epochs=epochs,
                seed=seed,
            )
            found[f'ReLU {width}, seed {seed}'] = fit.logits_fn
    return found
