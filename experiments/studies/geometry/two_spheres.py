r"""Adversarial spheres: a task of which everything is known exactly.

Points are uniform on one of two concentric spheres in n dimensions, of radius 1 (class
0, inner) and R (class 1, outer). A quadratic network can be brought to the form "outer
if :math:`\sum_i \alpha_i x_i^2 > 1`". It makes no error exactly if all
:math:`\alpha_i \in [1/R^2, 1]`; otherwise the rate of its errors and their distance
have closed forms. They show how, in high dimension, an error that is not seen in
millions of samples can be near every point.

``concentration`` has the bound that holds for every model.

Reference: Gilmer et al. 2018, arXiv 1801.02774. The central-limit formulas are derived
again in ``clt_error``; those printed differ in signs and variances.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.attacks.checks import check_count
from advjax.balls import l2
from advjax.types import Array, Key, LogitsFn, as_pytree


def sample(key: Key, count: int, dimension: int, radius: float | Array = 1.0) -> Array:
    """Uniform points of a sphere, (count, n) float32.

    Args:
      key: one key, or one per point.
      count: number of points.
      dimension: n, at least 2.
      radius: of the sphere, () or (count,).

    Raises:
      ValueError: if ``count`` is below 1 or ``dimension`` below 2.
    """
    check_count('count', count)
    check_count('dimension', dimension, least=2)
    drawn = keys.draw(
        lambda k: jax.random.normal(k, (dimension,)), keys.per_example(key, count)
    )
    return to_sphere(drawn, radius)


def to_sphere(x: Array, radius: float | Array = 1.0) -> Array:
    """Moves points (B, n) along their rays to a sphere; the centre stays."""
    radius = jnp.broadcast_to(jnp.asarray(radius, x.dtype), x.shape[:1])
    return radius[:, None] * l2(1.0).steepest(x)


def _on_sphere(logits_fn: LogitsFn, radius: Array, x: Array) -> Array:
    return logits_fn(to_sphere(x, radius))


def on_sphere(logits_fn: LogitsFn, radius: float | Array = 1.0) -> LogitsFn:
    r"""The model as a function of the direction alone, :math:`f(r\, x / \|x\|)`.

    Its gradients are tangential, so any attack on it in an L2 ball without bounds
    searches the sphere; ``to_sphere`` brings what it found back. The nearest error in
    space lies on the ray of the nearest error on the sphere.

    Args:
      logits_fn: the model.
      radius: of the sphere, ().
    """
    made: Any = jax.tree_util.Partial(
        _on_sphere, as_pytree(logits_fn), jnp.float32(radius)
    )
    return made


def _quadratic(alphas: Array, x: Array) -> Array:
    score = jnp.square(x) @ alphas[:, None] - 1
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


def quadratic(alphas: Any) -> LogitsFn:
    r"""The quadratic network: logits :math:`(0, \sum_i \alpha_i x_i^2 - 1)`.

    Args:
      alphas: (n,) coefficients.

    Raises:
      ValueError: if they are no finite vector.
    """
    made: Any = jax.tree_util.Partial(_quadratic, jnp.float32(_alphas(alphas)))
    return made


def two_levels(dimension: int, count: int, high: float, low: float) -> np.ndarray:
    """Coefficients of which ``count`` are ``high`` and the others ``low``, (n,).

    Raises:
      ValueError: if ``count`` is not between 1 and n - 1.
    """
    check_count('dimension', dimension, least=2)
    if check_count('count', count) >= dimension:
        raise ValueError(f'count must be below dimension {dimension}, got {count}')
    return np.where(np.arange(dimension) < count, float(high), float(low))


def clt_error(alphas: Any, radius: float = 1.0) -> float:
    r"""The quadratic network's rate of errors on a sphere, by the central limit.

    With :math:`x = r z / \|z\|`, z normal, it answers "outer" where
    :math:`\sum_i (\alpha_i - 1/r^2) z_i^2 > 0`, a sum of independent terms of mean
    :math:`\mu = \sum_i (\alpha_i - 1/r^2)` and variance
    :math:`\sigma^2 = 2 \sum_i (\alpha_i - 1/r^2)^2`. So the inner sphere (r = 1) errs
    at a rate of about :math:`1 - \Phi(-\mu/\sigma)`, the outer at
    :math:`\Phi(-\mu/\sigma)`.

    Args:
      alphas: (n,) coefficients.
      radius: r; 1 is the inner sphere, anything larger an outer one.

    Raises:
      ValueError: if the radius is below 1.
    """
    from scipy import stats

    excess = _alphas(alphas) - 1 / _radius(radius) ** 2
    spread = np.sqrt(2 * np.sum(excess**2))
    if spread == 0:
        # Every point of this sphere lies on the boundary itself.
        return 0.0
    outer = stats.norm.sf(-excess.sum() / spread)
    return float(outer if radius == 1 else 1 - outer)


def _share(alphas: Any, radius: float) -> tuple[int, int, float]:
    """Sizes of the two levels and the share of the squared norm at the boundary."""
    values, counts = np.unique(_alphas(alphas), return_counts=True)
    if len(values) != 2:
        raise ValueError(
            f'alphas must have two different values, got {len(values)} of them'
        )
    low, high = values
    # alpha . x^2 = r^2 (low + (high - low) B): outer where the share B is larger.
    bound = (1 / _radius(radius) ** 2 - low) / (high - low)
    return int(counts[1]), int(counts[0]), float(np.clip(bound, 0, 1))


def exact_error(alphas: Any, radius: float = 1.0) -> float:
    r"""The rate of errors of a quadratic network of two levels, exactly.

    The share B of the squared norm that lies in the k coordinates of the higher level
    is :math:`\mathrm{Beta}(k/2, (n-k)/2)`, and the answer depends on B alone.

    Args:
      alphas: (n,) coefficients of two different values.
      radius: r; 1 is the inner sphere, anything larger an outer one.

    Raises:
      ValueError: if there are not two values, or the radius is below 1.
    """
    from scipy import stats

    high, low, bound = _share(alphas, radius)
    share = stats.beta(high / 2, low / 2)
    return float(share.sf(bound) if radius == 1 else share.cdf(bound))


def exact_distance(alphas: Any, radius: float = 1.0) -> float:
    r"""The mean distance to the nearest error of such a network, along chords.

    On a great circle from the one subspace to the other the angle
    :math:`\psi = \arcsin\sqrt B` is the only thing that counts: the nearest error is
    the turn to :math:`\psi^* = \arcsin\sqrt{B^*}` away, a chord of
    :math:`2r \sin(|\psi^* - \psi| / 2)`, and 0 for points that are errors themselves.

    Args:
      alphas: (n,) coefficients of two different values.
      radius: r; 1 is the inner sphere, anything larger an outer one.

    Returns:
      The mean over the sphere; infinite if there are no errors.
    """
    from scipy import integrate, stats

    high, low, bound = _share(alphas, radius)
    if bound in (0, 1) and exact_error(alphas, radius) == 0:
        return float('inf')
    share: Any = stats.beta(high / 2, low / 2)
    border = np.arcsin(np.sqrt(bound))

    def chord(b):
        turn = border - np.arcsin(np.sqrt(b))
        turn = turn if radius == 1 else -turn
        return 2 * radius * np.sin(max(turn, 0) / 2) * share.pdf(b)

    centre, width = share.mean(), share.std()
    ends = (0.0, bound) if radius == 1 else (bound, 1.0)
    where = [centre - 6 * width, centre, centre + 6 * width]
    where = [b for b in where if ends[0] < b < ends[1]]
    return float(integrate.quad(chord, *ends, points=where or None, limit=200)[0])


def _radius(radius: float) -> float:
    if not (np.isfinite(radius) and radius >= 1):
        raise ValueError(f'radius must be a number >= 1, got {radius!r}')
    return float(radius)


def _alphas(alphas: Any) -> np.ndarray:
    vector = np.asarray(alphas, np.float64)
    if vector.ndim != 1 or vector.size < 2 or not np.isfinite(vector).all():
        raise ValueError(
            f'alphas must be a vector of at least 2 finite numbers, got {alphas!r}'
        )
    return vector
