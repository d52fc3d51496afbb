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


def sample(key: Key, count: int, dimension: int, radius: float | Array) -> Array:
    """Uniform points of a sphere, (count, n) float32; one key, or one per point.

    Raises:
      ValueError: if ``count`` is below 1 or ``dimension`` below 2.
    """
    check_count('count', count)
    check_count('dimension', dimension, least=2)
    drawn = keys.draw(
        lambda k: jax.random.normal(k, (dimension,)), keys.per_example(key, count)
    )
    return to_sphere(drawn, radius)


def to_sphere(x: Array, radius: float | Array) -> Array:
    """Moves points (B, n) along their rays to a sphere; the centre stays."""
    radius = jnp.broadcast_to(jnp.asarray(radius, x.dtype), x.shape[:1])
    return radius[:, None] * l2(1.0).steepest(x)


def _on_sphere(logits_fn: LogitsFn, radius: Array, x: Array) -> Array:
    return logits_fn(to_sphere(x, radius))


def on_sphere(logits_fn: LogitsFn, radius: float | Array) -> LogitsFn:
    r"""The model as a function of the direction alone, :math:`f(r\, x / \|x\|)`.

    Its gradients are tangential, so any attack on it in an L2 ball without bounds
    searches the sphere; ``to_sphere`` brings what it found back. The nearest error in
    space lies on the ray of the nearest error on the sphere.
    """
    made: Any = jax.tree_util.Partial(
        _on_sphere, as_pytree(logits_fn), jnp.float32(radius)
    )
    return made


def _quadratic(alphas: Array, x: Array) -> Array:
    score = jnp.square(x) @ alphas[:, None] - 1
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


def quadratic(alphas: np.ndarray) -> LogitsFn:
    r"""The quadratic network: logits :math:`(0, \sum_i \alpha_i x_i^2 - 1)`."""
    made: Any = jax.tree_util.Partial(_quadratic, jnp.float32(alphas))
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


def clt_error(alphas: np.ndarray) -> float:
    r"""The rate of errors on the inner sphere, by the central limit theorem.

    With :math:`x = z / \|z\|`, z normal, the network answers "outer" where
    :math:`\sum_i (\alpha_i - 1) z_i^2 > 0`, a sum of independent terms of mean
    :math:`\mu = \sum_i (\alpha_i - 1)` and variance
    :math:`\sigma^2 = 2 \sum_i (\alpha_i - 1)^2`: at a rate of about
    :math:`1 - \Phi(-\mu/\sigma)`.
    """
    from scipy import stats

    excess = alphas - 1
    return float(stats.norm.sf(-excess.sum() / np.sqrt(2 * np.sum(excess**2))))


def _share(alphas: np.ndarray) -> tuple[Any, float]:
    r"""Distribution of the share B of the squared norm in the higher level, and B*.

    B is :math:`\mathrm{Beta}(k/2, (n-k)/2)`, and the answer is "outer" where
    :math:`\alpha_{low} + (\alpha_{high} - \alpha_{low}) B > 1`, that is B > B*.
    """
    from scipy import stats

    (low, high), counts = np.unique(alphas, return_counts=True)
    bound = np.clip((1 - low) / (high - low), 0, 1)
    return stats.beta(counts[1] / 2, counts[0] / 2), float(bound)


def exact_error(alphas: np.ndarray) -> float:
    """The rate of errors on the inner sphere of a network of two levels, exactly."""
    share, bound = _share(alphas)
    return float(share.sf(bound))


def exact_distance(alphas: np.ndarray) -> float:
    r"""The mean distance to the nearest error on the inner sphere, along chords.

    For coefficients of two levels. On a great circle from the one subspace to the other
    only the angle :math:`\psi = \arcsin\sqrt B` counts: the nearest error is the turn
    to :math:`\psi^* = \arcsin\sqrt{B^*}` away, a chord of
    :math:`2 \sin((\psi^* - \psi) / 2)`, and 0 for points that are errors themselves.

    Returns:
      The mean over the sphere; infinite if there are no errors.
    """
    from scipy import integrate

    share, bound = _share(alphas)
    if bound in (0, 1) and exact_error(alphas) == 0:
        return float('inf')
    border = np.arcsin(np.sqrt(bound))

    def chord(b):
        turn = border - np.arcsin(np.sqrt(b))
        return 2 * np.sin(max(turn, 0) / 2) * share.pdf(b)

    centre, width = share.mean(), share.std()
    where = [centre - 6 * width, centre, centre + 6 * width]
    where = [b for b in where if 0 < b < bound]
    return float(integrate.quad(chord, 0, bound, points=where or None, limit=200)[0])
