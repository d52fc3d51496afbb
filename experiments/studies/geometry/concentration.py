r"""What dimension alone does: spherical caps, and the sum of many small changes.

Two arguments are made for why images have adversarial examples. One is geometry: on a
sphere in high dimension nearly all points are close to *any* set that is not tiny, so
that any error rate puts an error near every point. The other is arithmetic: eps in each
of n coordinates adds up to :math:`\epsilon \|w\|_1 = \epsilon\, m\, n` in a linear
score, m the mean of :math:`|w_i|`. Both are closed forms, in float64 on the host.
"""

from typing import Any

import numpy as np

from advjax.attacks.checks import check_count


def cap_threshold(measure: float, dimension: int) -> float:
    r"""The height t of a spherical cap :math:`\{x : \|x\| = 1, x_1 \ge t\}`.

    .. math:: \mu = \tfrac12 I_{1 - t^2}\big(\tfrac{n-1}{2}, \tfrac12\big)

    Args:
      measure: mu, the share of the sphere's surface in the cap, at most one half.
      dimension: n.

    Raises:
      ValueError: if the measure is not in (0, 0.5] or the dimension below 2.
    """
    from scipy import special

    check_count('dimension', dimension, least=2)
    if not 0 < measure <= 0.5:
        raise ValueError(f'measure must be in (0, 0.5], got {measure!r}')
    rest = special.betaincinv((dimension - 1) / 2, 0.5, 2 * measure)
    return float(np.sqrt(1 - rest))


def cap_distance(measure: float, dimension: int) -> float:
    r"""The mean distance of the unit sphere's points to a cap, along chords.

    By the isoperimetric inequality on the sphere, of all sets of one measure the cap is
    the farthest from the rest: no model whose errors have measure mu keeps its errors
    farther away, on average, than this. With u the first coordinate of a point outside,

    .. math:: d = \int_{-1}^{t} 2 \sin\frac{\arccos u - \arccos t}{2}\;
              \frac{(1 - u^2)^{(n-3)/2}}{B(\frac{n-1}{2}, \frac12)}\, du

    which tends to :math:`-\Phi^{-1}(\mu) / \sqrt n` for large n.

    Args:
      measure: mu in (0, 0.5], the rate of errors.
      dimension: n.

    Reference: Gilmer et al. 2018, arXiv 1801.02774, theorem 5.1.
    """
    from scipy import integrate, stats

    border = np.arccos(cap_threshold(measure, dimension))
    # (1 + u) / 2 is Beta((n - 1)/2, (n - 1)/2).
    height: Any = stats.beta((dimension - 1) / 2, (dimension - 1) / 2)

    def chord(half):
        angle = np.arccos(np.clip(2 * half - 1, -1, 1))
        return 2 * np.sin((angle - border) / 2) * height.pdf(half)

    top = (1 + np.cos(border)) / 2
    spread = 6 * height.std()
    where = [b for b in (0.5 - spread, 0.5, 0.5 + spread) if 0 < b < top]
    return float(integrate.quad(chord, 0, top, points=where or None, limit=200)[0])


def most_distant(errors: int, samples: int, dimension: int) -> float:
    """The cap bound for a model that was seen to err on some of many samples.

    The rate of errors is at least its lower 95 % confidence limit (Clopper and
    Pearson), and the larger the set of errors the nearer it is.

    Args:
      errors: errors seen, at least 1: from none no bound follows.
      samples: samples looked at.
      dimension: n.

    Returns:
      An upper bound of the mean distance to the nearest error, at that confidence.
    """
    from scipy import stats

    rate = stats.beta.ppf(1 - 0.95, errors, samples - errors + 1)
    return cap_distance(min(float(rate), 0.5), dimension)


def accumulation(weights: np.ndarray, eps: float) -> float:
    r"""How far a linear score moves under eps in every coordinate.

    .. math:: \max_{\|\eta\|_\infty \le \epsilon} w^\top \eta
              = \epsilon \|w\|_1 = \epsilon\, m\, n

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 3.
    """
    return float(eps * np.abs(weights).sum())


def upscaled(x: np.ndarray, factor: int) -> np.ndarray:
    """Images (B, H, W, C) with every pixel repeated ``factor`` times along each side.

    More dimensions, no more information.

    Raises:
      ValueError: if the factor is below 1.
    """
    check_count('factor', factor)
    return x.repeat(factor, axis=1).repeat(factor, axis=2)
