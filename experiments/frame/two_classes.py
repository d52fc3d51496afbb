"""Two classes of a data set as a task for linear classifiers."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from advjax import models, zoo
from advjax.data import Dataset
from advjax.geometry import Hyperplane, signed_distance
from advjax.types import LogitsFn
from experiments.frame.datasets import Sets
from experiments.frame.work import Work


class Pair(NamedTuple):
    """Images of two classes as rows of pixels in [0, 1].

    Attributes:
      x: (N, n) float64 training images.
      y: (N,) labels -1 (first class) and +1 (second).
      test_x: (M, n) test images.
      test_y: (M,) their labels.
      shape: (H, W, C) of one image.
    """

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    shape: tuple[int, ...]

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """The means i and j of the two classes in the training set."""
        return self.x[self.y < 0].mean(axis=0), self.x[self.y > 0].mean(axis=0)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Rows of pixels as float32 images."""
        return np.float32(rows).reshape(-1, *self.shape)


def pair(work: Work, sets: Sets, first: int = 3, second: int = 7) -> Pair:
    """All images of two classes; held-out images count as training images."""
    parts = []
    for some in ((sets.train, sets.held_out), (sets.test,)):
        images, labels = zip(*map(work.images, some), strict=True)
        x, y = np.concatenate(images), np.concatenate(labels)
        kept = np.isin(y, (first, second))
        parts += [
            np.float64(x[kept]).reshape(kept.sum(), -1),
            np.where(y[kept] == second, 1, -1),
        ]
    x, y, test_x, test_y = parts
    return Pair(x, y, test_x, test_y, sets.shape)


def fitted(classifier: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights and intercept (n + 1,) of a linear classifier of scikit-learn.

    It may stop at its number of iterations, short of the optimum.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        classifier.fit(x, y)
    return np.append(classifier.coef_[0], classifier.intercept_[0])


def margins(
    plane: Hyperplane, x: np.ndarray, y: np.ndarray, norm: str = 'l2'
) -> np.ndarray:
    """Signed distances to the boundary, positive where the answer is right, (N,)."""
    return y * signed_distance(plane, x, norm)


def error(plane: Hyperplane, x: np.ndarray, y: np.ndarray) -> float:
    """The share of examples on the wrong side."""
    return float(np.mean(margins(plane, x, y) <= 0))


def only(sets: Sets, first: int = 3, second: int = 7) -> Sets:
    """The same sets with two classes only, as labels 0 and 1, for training networks."""

    def filtered(dataset: Dataset) -> Dataset:
        kept = np.isin(dataset.labels, (first, second))
        labels = (dataset.labels[kept] == second).astype(np.int32)
        names = tuple(dataset.class_names[k] for k in (first, second))
        return dataset._replace(
            images=dataset.images[kept], labels=labels, class_names=names
        )

    return Sets(*map(filtered, sets))


def as_network(plane: Hyperplane, shape: tuple[int, ...]) -> LogitsFn:
    """A hyperplane as the two logits (0, signed distance)."""
    params = {
        'w': plane.normal.astype(np.float32)[:, None],
        'b': np.full((1, 1), plane.offset, np.float32),
    }
    return models.logits_fn(zoo.logistic(shape), params)
