r"""How well features correlate with the labels, without and with an adversary.

A feature is a function :math:`f: X \to R` with :math:`E f = 0` and
:math:`E f^2 = 1`; for labels :math:`y \in \{-1, +1\}` it is

    rho-useful               :math:`E[y f(x)] \ge \rho > 0`
    gamma-robustly useful    :math:`E[\inf_{x' \in B(x)} y f(x')] \ge \gamma > 0`

and a useful, non-robust feature is rho-useful, but not gamma-robustly useful for any
gamma >= 0. Features come as one function x -> (B, F), such as ``linear`` features or
the representation of a network (``models.features_fn``).

Reference: Ilyas et al. 2019, arXiv 1905.02175, section 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.attacks import Ascent
from advjax.features.linear import Linear, per_feature
from advjax.rows import wide
from advjax.types import Array, HostArray, Key, Maximizes, as_pytree, dataclass

FeaturesFn = Callable[[Array], Array]


def signs(y: HostArray, positive: int) -> Array:
    """Labels of one class against the rest: +1 where y is ``positive``, else -1."""
    return jnp.where(jnp.asarray(y) == positive, 1, -1)


@dataclass
class Standardised:
    """Features with mean 0 and mean square 1; build them with ``standardise``."""

    features_fn: Any
    mean: Array
    scale: Array

    def __call__(self, x: Array) -> Array:
        """Values (B, F)."""
        return (self.features_fn(x) - self.mean[None]) / self.scale[None]


def _check_batch(x: HostArray) -> None:
    if not len(x):
        raise ValueError(f'x must be (B, ...), B >= 1, got shape {np.shape(x)}')


def standardise(features_fn: FeaturesFn, x: HostArray) -> Any:
    r"""Scales features to :math:`E f = 0, E f^2 = 1` over a sample.

    A constant feature cannot be scaled; it becomes 0, which is not useful.

    Args:
      features_fn: x -> (B, F).
      x: (B, ...) a sample of the distribution.

    Returns:
      Standardised features, a pytree; ``Linear`` ones remain ``Linear``.

    Raises:
      ValueError: for no example, or if the features are not (B, F), or not finite.
    """
    _check_batch(x)
    values = features_fn(jnp.asarray(x))
    if values.ndim != 2 or values.shape[0] != len(x) or not values.size:
        raise ValueError(
            f'features_fn must map (B, ...) to (B, F), got {values.shape} for a batch '
            f'of {len(x)}'
        )
    if not isinstance(values, jax.core.Tracer) and not np.isfinite(values).all():
        raise ValueError('features_fn must return finite values, got NaN or infinity')
    mean = jnp.mean(values, axis=0)
    spread = jnp.sqrt(jnp.mean(jnp.square(values - mean[None]), axis=0))
    # The rounding errors of a constant are no variation.
    varies = spread > 1e-5 * jnp.max(jnp.abs(values), axis=0)
    if isinstance(features_fn, Linear):
        factor = jnp.where(varies, 1 / jnp.where(varies, spread, 1), 0)
        weights = features_fn.weights * wide(factor, features_fn.weights)
        return Linear(weights, (features_fn.offset - mean) * factor)
    scale = jnp.where(varies, spread, jnp.inf)
    return Standardised(as_pytree(features_fn), mean, scale)


def rho(features_fn: FeaturesFn, x: HostArray, y: HostArray) -> Array:
    r"""The usefulness :math:`\rho = E[y f(x)]` of each feature, (F,).

    Args:
      features_fn: standardised features, x -> (B, F).
      x: (B, ...) inputs.
      y: (B,) labels in {-1, +1}, or (B, F), one for each feature.

    Raises:
      ValueError: for other labels, or for no example.
    """
    _check_batch(x)
    values = features_fn(jnp.asarray(x))
    return jnp.mean(per_feature(y, *values.shape) * values, axis=0)


def worst(
    features_fn: FeaturesFn, x: HostArray, y: HostArray, attack: Ascent, *, key: Key
) -> Array:
    r"""The smallest :math:`y f_j(x')` that an attack finds in its ball, (B, F).

    Each feature is attacked separately, and the clean input counts as well. The result
    is an upper bound of the infimum; for ``linear`` features ``Linear.worst`` is the
    infimum itself.

    Args:
      features_fn: standardised features, x -> (B, F).
      x: (B, ...) float32 inputs.
      y: (B,) labels in {-1, +1}, or (B, F), one for each feature.
      attack: an ``Ascent``, such as ``pgd(ball)``; its loss is not used.
      key: one key, or one per example.

    Raises:
      ValueError: for other labels, or an attack without ``maximize``.
    """
    _check_batch(x)
    if not isinstance(attack, Maximizes):
        raise ValueError(f'attack must have maximize(objective, ...), got {attack!r}')
    x = jnp.asarray(x)
    clean = features_fn(x)
    size, count = clean.shape
    y = per_feature(y, size, count)
    each = keys.per_example(key, size)

    def one(which):
        number, sign = which

        def low(z):
            return -sign * jnp.take(features_fn(z), number, axis=1)

        return -low(attack.maximize(low, keys.fold(each, number), x))

    found = jax.lax.map(one, (jnp.arange(count), y.T)).T
    return jnp.minimum(found, y * clean)


def gamma(
    features_fn: FeaturesFn, x: HostArray, y: HostArray, attack: Ascent, *, key: Key
) -> Array:
    r"""The robust usefulness :math:`\gamma = E[\min_{x' \in B(x)} y f(x')]`, (F,).

    See ``worst``, whose mean over the inputs it is.
    """
    return jnp.mean(worst(features_fn, x, y, attack, key=key), axis=0)
