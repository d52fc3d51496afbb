r"""Linear classifiers as geometry: angles, mirror images, tilting, strength.

A classifier of two classes with means i and j is a hyperplane
:math:`c^\top x + c_0 = 0` with unit normal c, positive on the side of j. Its
adversarial strength s grows with its deviation angle from the nearest-centroid
classifier, whose normal is :math:`b = (j - i) / \|j - i\|`:

.. math:: s(C) = \frac{\|j - i\|}{d(i, C) + d(j, C)} = \frac{1}{\cos\delta_C},
    \qquad \delta_C = \arccos c^\top b .

Everything is closed form and computed in float64 on the host: near 90 degrees float32
would lose the cosine. Angles are in degrees, ``plane`` is the classifier C, and i and j
are the means of the classes, (n,).

Reference: Tanay and Griffin 2016, arXiv 1608.07690.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# The dual of each norm: d / ||c||_q is the distance in the p-norm.
_DUAL = {'linf': 1, 'l2': 2, 'l1': np.inf}


class Hyperplane(NamedTuple):
    r"""The boundary :math:`\langle c, x \rangle + c_0 = 0`; see ``hyperplane``.

    Attributes:
      normal: c, (n,) float64 of unit length, towards the second (positive) class.
      offset: c_0.
    """

    normal: np.ndarray
    offset: float


def _vector(name: str, value: Any) -> np.ndarray:
    vector = np.asarray(value, np.float64).ravel()
    if not (vector.size and np.isfinite(vector).all()):
        raise ValueError(f'{name} must hold finite numbers, got {value!r}')
    return vector


def unit(name: str, value: Any) -> np.ndarray:
    """A finite, nonzero vector, scaled to unit length."""
    vector = _vector(name, value)
    # Scaled first: the square of a tiny number underflows, of a huge one overflows.
    largest = np.abs(vector).max()
    if largest == 0:
        raise ValueError(f'{name} must not be the zero vector')
    vector = vector / largest
    return vector / np.linalg.norm(vector)


def flat(name: str, x: Any, size: int | None = None) -> np.ndarray:
    """Examples as float64 rows, (B, n): at least one, finite, of the given size n."""
    x = np.asarray(x, np.float64)
    if x.ndim < 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(
            f'{name} must be a non-empty (B, ...) array of finite numbers, got one '
            f'of shape {x.shape}'
        )
    x = x.reshape(len(x), -1)
    if size is not None and x.shape[1] != size:
        raise ValueError(f'{name} must hold examples of {size} numbers, got {x.shape}')
    return x


def hyperplane(weights: Any, bias: float = 0.0) -> Hyperplane:
    r"""The boundary of a linear score :math:`\langle w, x \rangle + b`.

    Args:
      weights: w of any shape with n entries; the second class has positive scores.
      bias: b.

    Raises:
      ValueError: if the weights are zero or anything is not finite.
    """
    vector = _vector('weights', weights)
    normal = unit('weights', vector)
    offset = _vector('bias', bias)
    if offset.size != 1:
        raise ValueError(f'bias must be one number, got {bias!r}')
    return Hyperplane(normal, float(offset[0] / (normal @ vector)))


def nearest_centroid(first: Any, second: Any) -> Hyperplane:
    r"""The classifier that predicts the class whose mean is nearer.

    .. math:: b = \frac{j - i}{\|j - i\|}, \qquad b_0 = -\tfrac12 b^\top (i + j)

    for (N, ...) examples of the first (negative) and (M, ...) of the second class.
    """
    i = flat('first', first).mean(axis=0)
    j = flat('second', second, i.size).mean(axis=0)
    return halfway(i, j)


def halfway(i: Any, j: Any) -> Hyperplane:
    """The boundary halfway between two points, with j on its positive side."""
    i, j = _vector('i', i), _vector('j', j)
    normal = unit('j - i', j - i)
    return Hyperplane(normal, float(-normal @ (i + j) / 2))


def signed_distance(plane: Hyperplane, x: Any, norm: str = 'l2') -> np.ndarray:
    r"""Distance to the boundary, positive on the side of the second class.

    .. math:: d_p(x, C) = \frac{c^\top x + c_0}{\|c\|_q}, \qquad 1/p + 1/q = 1

    Args:
      plane: the classifier C.
      x: (B, ...) examples.
      norm: p, 'l2', 'linf' or 'l1'.

    Returns:
      (B,) float64.

    Raises:
      ValueError: for an unknown norm or examples of another size.
    """
    if norm not in _DUAL:
        raise ValueError(f'norm must be one of {sorted(_DUAL)}, got {norm!r}')
    score = flat('x', x, plane.normal.size) @ plane.normal + plane.offset
    return score / np.linalg.norm(plane.normal, _DUAL[norm])


def mirror_image(plane: Hyperplane, x: Any) -> np.ndarray:
    r"""The mirror image :math:`m_C(x) = x - 2\, d(x, C)\, c`.

    It lies on the other side at the same distance, so the classifier predicts the other
    class with the same confidence. float64, in the shape of ``x``; pixels may leave
    their range.
    """
    rows = flat('x', x, plane.normal.size)
    moved = rows - 2 * signed_distance(plane, rows)[:, None] * plane.normal
    return moved.reshape(np.shape(x))


def angle(first: Any, second: Any) -> float:
    """The angle between two directions in degrees, from 0 to 180."""
    a, b = unit('first', first), unit('second', second)
    if a.size != b.size:
        raise ValueError(f'directions must have one size, got {a.size} and {b.size}')
    # Exact near 0 and 180 degrees, where the arc cosine is not.
    return float(
        np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
    )


def deviation_angle(plane: Hyperplane, i: Any, j: Any) -> float:
    r"""The deviation angle :math:`\delta_C = \arccos c^\top b` in degrees."""
    return angle(plane.normal, _vector('j', j) - _vector('i', i))


def strength(plane: Hyperplane, i: Any, j: Any) -> float:
    r"""Adversarial strength: how much nearer than necessary the boundary is.

    .. math:: s(C) = \frac{\|j - i\|}{d(i, C) + d(j, C)}

    the distance between the means over the sum of their distances to the boundary: 1
    for the nearest-centroid classifier, larger for all others. With the means on either
    side :math:`d(i, C) + d(j, C) = c^\top(j - i) = \|j - i\| \cos\delta_C`, so it is
    the secant of the deviation angle. It is also the length of the perturbation along b
    that crosses C, in units of the shortest one, along c.

    Raises:
      ValueError: if C does not have i on its negative and j on its positive side.
    """
    i, j = _vector('i', i), _vector('j', j)
    to_i, to_j = signed_distance(plane, np.stack([i, j]))
    if not to_i < 0 < to_j:
        raise ValueError(
            'plane must separate the means, i on its negative side: their signed '
            f'distances are {to_i:.3g} and {to_j:.3g}'
        )
    return float(np.linalg.norm(j - i) / (abs(to_i) + abs(to_j)))


def tilt(plane: Hyperplane, direction: Any, degrees: float, pivot: Any) -> Hyperplane:
    r"""Tilts the boundary towards a direction, about a point.

    .. math:: c_\theta = \cos\theta\, c + \sin\theta\, z, \qquad z \perp c

    Along a direction z in which the data hardly vary, nearly all predictions stay the
    same, while the strength grows with :math:`\sec\theta`.

    Args:
      plane: the classifier C.
      direction: (n,) direction; its component along c is removed.
      degrees: theta, from 0 to below 90.
      pivot: (n,) point; the boundary turns about its foot on C.

    Raises:
      ValueError: if theta is out of range or the direction is parallel to c.
    """
    if not 0 <= degrees < 90:
        raise ValueError(f'degrees must be >= 0 and < 90, got {degrees!r}')
    z, c = unit('direction', direction), plane.normal
    z = z - (z @ c) * c
    if np.linalg.norm(z) < 1e-9:
        raise ValueError('direction must not be parallel to the normal of the plane')
    z = unit('direction', z)
    theta = np.radians(degrees)
    normal = unit('normal', np.cos(theta) * c + np.sin(theta) * z)
    foot = _vector('pivot', pivot)
    foot = foot - signed_distance(plane, foot[None])[0] * c
    return Hyperplane(normal, float(-normal @ foot))


def taxonomy(
    strengths: Sequence[float] | np.ndarray,
    errors: Sequence[float] | np.ndarray,
    minimal: float = 1.1,
) -> list[int]:
    """The kind of adversarial examples of each classifier along a path.

    Along a path of growing strength (weaker and weaker regularisation):

    - type 0: about the minimal strength, that of the nearest-centroid classifier;
    - type 1: stronger, up to where the test error is least: the deviation buys
      accuracy;
    - type 2: stronger still, for no gain: overfitting, that regularisation removes.

    Args:
      strengths: strengths along the path, not decreasing.
      errors: test errors of the same classifiers.
      minimal: the largest strength that counts as minimal. The paper names no number.

    Returns:
      0, 1 or 2 for each.

    Raises:
      ValueError: if the two differ in length, are empty, or strengths decrease.
    """
    s, e = _vector('strengths', strengths), _vector('errors', errors)
    if s.size != e.size:
        raise ValueError(f'strengths and errors must match, got {s.size} and {e.size}')
    if (np.diff(s) < 0).any():
        raise ValueError(f'strengths must not decrease, got {list(strengths)}')
    best = s[int(e.argmin())]
    return [0 if a <= minimal else 1 if a <= best else 2 for a in s]
