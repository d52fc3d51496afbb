"""Sections 2 and 4: features of two classes, and the Gaussian model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, features, models, training
from experiments.frame.datasets import Sets
from experiments.frame.findings import Claim, Table, claim, table
from experiments.frame.work import Work
from experiments.studies.ilyas2019 import gaussian

CLASSES = 3, 7

SPECTRUM = (4.0, 1.0, 0.25)


class Useful(NamedTuple):
    """Features of one kind, turned so that rho is not negative: two arrays (F,)."""

    rho: np.ndarray
    gamma: np.ndarray


def useful(
    config: Any, work: Work, sets: Sets, fits: dict[str, training.Fit]
) -> dict[str, Useful]:
    """Usefulness of features of 3 against 7, clean and at an L2 radius."""
    images, labels = work.images(sets.test)
    chosen = np.flatnonzero(np.isin(labels, CLASSES))[: config.measured]
    x = jnp.asarray(images[chosen])
    y = features.signs(labels[chosen], CLASSES[1])
    ball = balls.l2(config.feature_eps)

    rows = images[chosen].reshape(len(chosen), -1).astype(np.float64)
    varying = np.flatnonzero(rows.std(axis=0) > 0.05)
    pixels = np.eye(rows.shape[1])[varying]
    components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2]

    def signs(fn):
        """The label as each feature has it: with its sign, so that rho is positive."""
        turned = y[:, None] * jnp.sign(features.rho(fn, x, y))[None]
        return jnp.where(turned == 0, 1, turned)

    def linear(weights):
        fn = features.linear(weights.reshape(-1, *x.shape[1:]))
        fn = features.standardise(fn, x)
        turned = signs(fn)
        worst = jax.jit(features.Linear.worst)(fn, ball, x, turned)
        return features.rho(fn, x, turned), jnp.mean(worst, axis=0)

    def learnt(fit):
        fn = models.features_fn(fit.model, fit.params, fit.model_state)
        values = fn(x)
        active = jnp.flatnonzero(jnp.std(values, axis=0) > 0)[: config.units]
        fn = features.standardise(jax.tree_util.Partial(_some, fn, active), x)
        turned = signs(fn)
        attack = attacks.pgd(ball, config.feature_steps)
        gamma = jax.jit(features.gamma)(fn, x, turned, attack, key=work.key)
        return features.rho(fn, x, turned), gamma

    def compute():
        made = {
            'pixels': linear(pixels),
            'principal components': linear(components[: config.components]),
            'units of the standard net': learnt(fits['standard']),
            'units of the robust net': learnt(fits['robust']),
        }
        return {
            f'{name}/{i}': v for name, pair in made.items() for i, v in enumerate(pair)
        }

    found = work.keep('useful', compute)
    names = dict.fromkeys(name.split('/')[0] for name in found)
    return {name: Useful(found[f'{name}/0'], found[f'{name}/1']) for name in names}


def _some(fn, which, x):
    return jnp.take(fn(x), which, axis=1)


def useful_claims(config: Any, found: dict[str, Useful]) -> list[Claim]:
    """What the definitions say of measured features."""
    eps = f'L2 eps {config.feature_eps:g}'
    every = [np.concatenate(part) for part in zip(*found.values(), strict=True)]
    linear = found['principal components']
    kept = {name: 100 * float(np.mean(u.gamma > 0)) for name, u in found.items()}
    return [
        claim('features: least rho - gamma (an adversary never helps)',
              float((every[0] - every[1]).min()), band=(-1e-4, None)),
        claim(f'principal components of 3 and 7 that are useful (rho > 0.05) and not '
              f'robust (gamma < 0) at {eps}',
              float(((linear.rho > 0.05) & (linear.gamma < 0)).sum()),
              paper='such features exist', band=(1, None)),
        claim(f'units that are gamma-robustly useful for some gamma > 0 at {eps}: '
              'robust net minus standard net',
              kept['units of the robust net'] - kept['units of the standard net'],
              paper='robust nets use robust features', band=(0, None), unit='%'),
    ]  # fmt: skip


def gaussian_study(samples: int) -> tuple[list[Claim], Table, dict[str, Any]]:
    """Theorems 1 to 3 at a spectrum with a known answer, and by sampling."""
    key = jax.random.key(0)
    truth = gaussian.gaussian(np.array([1.0, 1.0, 1.0]), np.array(SPECTRUM))
    small, lam_small = gaussian.robust(truth, 0.5)
    large, lam_large = gaussian.robust(truth, 5.0)

    def spectrum(model):
        return np.asarray(jnp.diag(model.covariance))

    noise = jax.random.normal(key, (samples, 3)) * jnp.sqrt(jnp.asarray(SPECTRUM))[None]
    x = truth.mean[None] + noise

    def cost(z):
        return jnp.sum(jnp.square(z) / jnp.asarray(SPECTRUM)[None], axis=1)

    delta = gaussian.worst_case(truth, x, jnp.float32(6.0))
    more = np.asarray(cost(noise + delta) - cost(noise), np.float64)
    gap = float(gaussian.adversarial_gap(truth.covariance, 6.0))
    error = more.std() / samples**0.5

    m = np.linalg.inv(float(lam_small) * np.asarray(small.covariance) - np.eye(3))
    moved = (np.eye(3) + m) @ np.asarray(truth.covariance) @ (np.eye(3) + m)
    least = float(gaussian.least_alignment(truth.covariance))
    means = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (samples, 3)))

    def sampled(model):
        turned = means / spectrum(model)[None]
        lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(turned, axis=1)
        return float(((means * turned).sum(axis=1) / lengths).min())

    claims = [
        claim('theorem 1: cost of the adversary C = 6, Sigma = diag(4, 1, .25)', gap,
              paper='8.53 (formula)', band=(8.52, 8.54)),
        claim('... by sampling, in standard errors from the formula',
              float((more.mean() - gap) / error), band=(-3, 3)),
        claim('... less that of the multiple of I with the same trace',
              gap - float(gaussian.adversarial_gap(jnp.eye(3) * 1.75, 6.0)),
              paper='> 0', band=(0, None)),
        claim('theorem 2: lambda at eps 0.5', float(lam_small), paper='2.898',
              band=(2.8975, 2.8985)),
        claim('... Sigma_r: largest distance from (4.66, 1.62, .79)',
              float(np.abs(spectrum(small) - (4.66, 1.62, 0.79)).max()),
              band=(0, 0.006)),
        claim('theorem 2: lambda at eps 5', float(lam_large), paper='.0867',
              band=(0.08665, 0.08675)),
        claim('... Sigma_r: largest distance from (20.6, 15.5, 13.4)',
              float(np.abs(spectrum(large) - (20.6, 15.5, 13.4)).max()),
              band=(0, 0.06)),
        claim('... stationarity |(I + M)^2 Sigma - Sigma_r| in float32',
              float(np.abs(moved - np.asarray(small.covariance)).max()),
              band=(0, 1e-4)),
        claim('theorem 3: least cosine of mean and gradient, robust (eps 5) minus '
              'standard', float(gaussian.least_alignment(large.covariance)) - least,
              paper='> 0', band=(0, None)),
        claim('... least of sampled means minus the closed form (never below)',
              min(sampled(g) - float(gaussian.least_alignment(g.covariance))
                  for g in (truth, small, large)), band=(-1e-5, 0.01)),
    ]  # fmt: skip
    rows = []
    standard = gaussian.weights(truth)
    for eps in (0.25, 0.5, 1.0, 2.0, 5.0):
        made, multiplier = gaussian.robust(truth, eps)
        own = gaussian.weights(made)
        rows.append([
            f'{eps:g}', f'{float(multiplier):.4g}',
            ', '.join(f'{v:.2f}' for v in spectrum(made)),
            f'{float(gaussian.least_alignment(made.covariance)):.3f}',
            *(f'{100 * float(gaussian.accuracy(truth, w, e)):.1f}'
              for e in (0.0, eps) for w in (standard, own)),
        ])  # fmt: skip
    result = table(
        'The Gaussian model: mean (1, 1, 1), variances (4, 1, .25)',
        ['eps', 'lambda', 'robust variances', 'least cosine', 'standard, clean %',
         'robust, clean %', 'standard, attacked %', 'robust, attacked %'],
        rows,
        f'The standard classifier has a least cosine of {least:.3f}. Accuracies are '
        'exact; attacks are L2 of that eps.',
    )  # fmt: skip
    return (
        claims,
        result,
        {'mean': np.array([1.0, 0.5]), 'variances': np.array([4, 0.25])},
    )
