r"""Two Gaussians by maximum likelihood, where robustness is a matter of the metric.

.. math:: y \sim U\{-1, +1\}, \qquad x \sim N(y\mu_*, \Sigma_*)

The classifier is :math:`\mathrm{sign}(x^\top \Sigma^{-1} \mu)`: it measures lengths by
:math:`\Sigma^{-1}`, its adversary in pixels, and where the two disagree a feature is
not robust. Robust learning blends them:

    lemma 1     the worst perturbation of x is (lambda Sigma - I)^-1 (x - mu)
    theorem 1   what the adversary adds is least where Sigma is a multiple of I
    theorem 2   the robust Sigma in closed form; it tends to a multiple of I
    theorem 3   its gradients point more along the mean than the standard ones

All functions are for one Gaussian after the labels have been folded in (y x instead of
x), and keep the precision of their arguments.

Reference: Ilyas et al. 2019, arXiv 1905.02175, section 4 and appendix E. Here
the losses of theorem 1 are squared Mahalanobis distances,
:math:`(x - \mu)^\top \Sigma^{-1} (x - \mu)`, and its penalty is
:math:`C\|\delta\|_2^2` (printed without the square): so the identity is exact. With the
usual factor 1/2 in both it is half as large.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax.types import Array, HostArray

_HALVINGS = 100


class Gaussian(NamedTuple):
    """One of the two classes; the other has the mean -mu.

    Attributes:
      mean: (d,).
      covariance: (d, d), positive definite.
    """

    mean: Array
    covariance: Array


def gaussian(mean: HostArray, covariance: HostArray) -> Gaussian:
    """A Gaussian, checked.

    Args:
      mean: (d,).
      covariance: (d, d), or (d,) variances.

    Raises:
      ValueError: if the shapes differ, or the covariance is not positive definite.
    """
    mean, covariance = jnp.asarray(mean, float), jnp.asarray(covariance, float)
    covariance = jnp.diag(covariance) if covariance.ndim == 1 else covariance
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            f'mean and covariance must have shapes (d,) and (d, d) or (d,), got '
            f'{mean.shape} and {covariance.shape}'
        )
    if not isinstance(covariance, jax.core.Tracer):
        least = np.linalg.eigvalsh(np.asarray(covariance)).min()
        symmetric = np.allclose(covariance, covariance.T)
        if not (symmetric and least > 0 and np.isfinite(mean).all()):
            raise ValueError(
                'covariance must be symmetric and positive definite and mean finite, '
                f'got a least eigenvalue of {least:g}'
            )
    return Gaussian(mean, covariance)


def weights(model: Gaussian) -> Array:
    r"""The direction :math:`\Sigma^{-1}\mu` of the classifier, (d,)."""
    return jnp.linalg.solve(model.covariance, model.mean)


def accuracy(truth: Gaussian, direction: Array, eps: float | Array = 0.0) -> Array:
    r"""The accuracy of sign(w^T x) on the true distribution, under L2 perturbations.

    .. math:: \Phi\big((w^\top \mu_* - \epsilon\|w\|_2) / \sqrt{w^\top\Sigma_* w}\big)
    """
    margin = direction @ truth.mean - eps * jnp.linalg.norm(direction)
    spread = jnp.sqrt(direction @ truth.covariance @ direction)
    return jax.scipy.stats.norm.cdf(margin / spread)


def worst_case(model: Gaussian, x: Array, multiplier: float | Array) -> Array:
    r"""Lemma 1: the perturbations :math:`(\lambda\Sigma - I)^{-1}(x - \mu)`, (n, d).

    They maximise :math:`(x + \delta - \mu)^\top\Sigma^{-1}(x + \delta - \mu)
    - \lambda\|\delta\|_2^2`, for :math:`\lambda > 1/\sigma_{min}`.

    Args:
      model: mean and covariance.
      x: (n, d), labels folded in.
      multiplier: lambda, () or (n,).
    """
    values, basis = jnp.linalg.eigh(model.covariance)
    parts = (x - model.mean[None]) @ basis
    multiplier = jnp.asarray(multiplier, x.dtype).reshape(-1, 1)
    return (parts / (multiplier * values[None] - 1)) @ basis.T


def adversarial_gap(covariance: Array, penalty: float | Array) -> Array:
    r"""Theorem 1: what an adversary with penalty :math:`C\|\delta\|^2` adds.

    .. math:: L_{adv} - L = \mathrm{tr}\big[(I + (C\Sigma_* - I)^{-1})^2\big] - d

    for the squared Mahalanobis loss of the true parameters. Among all covariances of
    one trace a multiple of I has the least.

    Args:
      covariance: (d, d).
      penalty: C, above :math:`1/\sigma_{min}`.
    """
    values = jnp.linalg.eigvalsh(covariance)
    return jnp.sum(jnp.square(1 + 1 / (penalty * values - 1)) - 1)


def robust(model: Gaussian, eps: float | Array) -> tuple[Gaussian, Array]:
    r"""Theorem 2: the parameters of least adversarial loss.

    .. math:: \mu_r = \mu_*, \quad
        \Sigma_r = \tfrac12\Sigma_* + \tfrac1\lambda I
                   + \sqrt{\tfrac1\lambda\Sigma_* + \tfrac14\Sigma_*^2},
        \quad \sum_i \frac{\sigma_i^*}{(\lambda\sigma_i^r - 1)^2} = \epsilon^2

    of the relaxed problem, whose perturbations are linear in x - mu and have the mean
    square norm eps^2. They keep :math:`\Sigma_r = (I + M)^2\Sigma_*` with
    :math:`M = (\lambda\Sigma_r - I)^{-1}`: the covariance of the perturbed data.

    Args:
      model: the true mean and covariance.
      eps: the root mean square L2 radius, above 0.

    Returns:
      The robust Gaussian and lambda.

    Raises:
      ValueError: if eps is not above 0.
    """
    if not isinstance(eps, jax.core.Tracer) and not eps > 0:
        raise ValueError(f'eps must be a radius > 0, got {eps}')
    values, basis = jnp.linalg.eigh(model.covariance)

    def above_one(multiplier):
        # lambda sigma_r - 1, without the difference of nearly equal numbers.
        product = multiplier * values
        return product / 2 + jnp.sqrt(product + jnp.square(product) / 4)

    def too_far(multiplier):
        moved = jnp.sum(values / jnp.square(above_one(multiplier[0])))
        return (moved > jnp.square(eps))[None]

    # above_one lies between sqrt(lambda sigma) and that + lambda sigma.
    count = values.shape[0]
    low, high = 1e-12 * count / eps**2, 2 * count / eps**2 + 4 / values[0]
    multiplier = _bisect(too_far, jnp.atleast_1d(low), jnp.atleast_1d(high))[0]
    blended = (1 + above_one(multiplier)) / multiplier
    return Gaussian(model.mean, (basis * blended[None]) @ basis.T), multiplier


def least_alignment(covariance: Array) -> Array:
    r"""Theorem 3: the smallest cosine of the mean with the gradient, over all means.

    .. math:: \min_\mu \frac{\mu^\top\Sigma^{-1}\mu}{\|\mu\|\,\|\Sigma^{-1}\mu\|}
        = \frac{2\sqrt{\sigma_{min}\sigma_{max}}}{\sigma_{min} + \sigma_{max}}

    (Kantorovich's inequality), so it only depends on the condition number, which
    robust learning lowers: the paper's claim that it is larger for the robust Sigma.
    """
    values = jnp.linalg.eigvalsh(covariance)
    low, high = values[0], values[-1]
    return 2 * jnp.sqrt(low / high) / (1 + low / high)


def _bisect(go_up, low: Array, high: Array) -> Array:
    """The point of each (low, high) below which ``go_up`` holds, on a log scale."""

    def halve(_, ends):
        low, high = ends
        middle = jnp.sqrt(low) * jnp.sqrt(high)
        up = go_up(middle)
        return jnp.where(up, middle, low), jnp.where(up, high, middle)

    low, high = jnp.broadcast_arrays(low, high)
    return jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))[1]
