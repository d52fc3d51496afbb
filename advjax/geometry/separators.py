r"""One direction against every linear classifier that separates the same points.

Let p and q be closest points of the convex hulls of two separable classes,
:math:`v = (p - q) / \|p - q\|` and :math:`\gamma = \|p - q\| / 2`. For *any* separator
(w, b), :math:`\|w\| = 1`, with margin :math:`\alpha = \min_i y_i(w^\top x_i + b)`, both
p and q keep that margin, so

.. math:: w^\top (p - q) \ge 2\alpha \quad\Rightarrow\quad
          w^\top v \ge \frac{\alpha}{\gamma} .

So v, which is the direction of the maximum margin, moves every point across every
separator: one at distance s from w's boundary after at most
:math:`t \le s\gamma/\alpha`. The argument needs any points p and q of the hulls; the
closest ones make the bound smallest.

Reference: after Charles, Rosenberg and Papailiopoulos 2018, arXiv 1811.03531. The bound
itself is not in the paper.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from advjax.geometry.hyperplanes import Hyperplane, flat, halfway, signed_distance, unit


class HullGap(NamedTuple):
    """The gap between two convex hulls; build it with ``hull_gap``.

    Attributes:
      positive: p, (n,), a point of the positive hull.
      negative: q, (n,), one of the negative hull.
      gamma: half their distance.
      margin: the margin of the classifier halfway between p and q. It is at most
        gamma, with equality at the optimum, so it certifies how close p and q are to
        the closest points.
    """

    positive: np.ndarray
    negative: np.ndarray
    gamma: float
    margin: float

    @property
    def direction(self) -> np.ndarray:
        """The unit vector v from q to p."""
        return unit('direction', self.positive - self.negative)

    @property
    def plane(self) -> Hyperplane:
        """The classifier of maximum margin."""
        return halfway(self.negative, self.positive)


def hull_gap(positive: Any, negative: Any) -> HullGap:
    """The closest points of the convex hulls of two separable sets.

    They are the support vectors of a hard-margin support vector machine, weighted by
    its multipliers; scikit-learn solves for them.

    Args:
      positive: (N, ...) examples.
      negative: (M, ...) examples.

    Raises:
      ValueError: if no hyperplane separates the two sets, as far as the solver finds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    above = flat('positive', positive)
    below = flat('negative', negative, above.shape[1])
    x, y = np.concatenate([above, below]), np.repeat([1, -1], [len(above), len(below)])
    # A cost above every multiplier, in units of the data, makes the margin hard.
    spread = np.square(x - x.mean(axis=0)).sum(axis=1).max()
    solver = SVC(
        kernel='linear', C=1e8 / max(spread, 1e-30), tol=1e-4, cache_size=500,
        max_iter=2_000_000,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        solver.fit(x, y)
    found, multipliers = x[solver.support_], solver.dual_coef_[0]

    def mixture(weights):
        weights = np.maximum(weights, 0)
        return weights @ found / weights.sum()

    p, q = mixture(multipliers), mixture(-multipliers)
    gamma = np.linalg.norm(p - q) / 2
    margin = margin_of(halfway(q, p), above, below) if gamma > 0 else -np.inf
    if margin <= 0:
        raise ValueError(
            'positive and negative must be linearly separable: no separating '
            'hyperplane was found'
        )
    return HullGap(p, q, float(gamma), margin)


def margin_of(plane: Hyperplane, positive: Any, negative: Any) -> float:
    """The margin alpha of a classifier on two sets; below 0 if it errs on one."""
    above = signed_distance(plane, positive).min()
    return float(min(above, -signed_distance(plane, negative).max()))


def flip_distance(plane: Hyperplane, x: Any, direction: Any) -> np.ndarray:
    r"""How far each point must move along a direction to reach the boundary.

    .. math:: t = \frac{|d(x, C)|}{c^\top v}

    for points x (B, ...) of the positive side moved along -v and those of the negative
    side along +v, where v is the direction (n,) scaled to unit length. (B,) L2
    distances; infinite where moving leads away from the boundary.
    """
    away = float(plane.normal @ unit('direction', direction))
    distance = np.abs(signed_distance(plane, x))
    return distance / away if away > 0 else np.full(len(distance), np.inf)


def flip_bound(plane: Hyperplane, x: Any, gamma: float, alpha: float) -> np.ndarray:
    r"""The bound :math:`t \le s\gamma/\alpha` on ``flip_distance`` along v, (B,).

    Args:
      plane: a separating classifier.
      x: (B, ...) points, of the training set or not, at distances s.
      gamma: half the distance between the hulls.
      alpha: the classifier's margin on the same sets.

    Raises:
      ValueError: unless 0 < alpha <= gamma (1 + 1e-6): no separator has more margin.
    """
    if not 0 < alpha <= gamma * (1 + 1e-6):
        raise ValueError(
            f'alpha must be a margin > 0 of at most gamma = {gamma!r}, got {alpha!r}'
        )
    return np.abs(signed_distance(plane, x)) * gamma / alpha
