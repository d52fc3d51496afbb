"""What is measured on one network: attacks on it, and the gradient it shows them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, losses
from advjax.balls import l0, linf
from advjax.types import LogitsFn
from experiments.frame.measures import answers, run_attack
from experiments.frame.work import Work

ATTACKS = {
    'jsma-softmax': 'saliency, softmax',
    'fgsm-softmax': 'FGSM, softmax',
    'pgd-softmax': 'PGD, softmax',
    'jsma-rescaled': 'saliency, logits / T',
    'pgd-rescaled': 'PGD, logits / T',
    'cw': 'Carlini-Wagner L2',
}
"""Attacks, by the names that ``measure`` keeps them under."""


def measure(
    config: Any, work: Work, f: LogitsFn, temperature: float, test: Any, old: bool
) -> dict[str, Any]:
    """All that is measured on one network.

    Its logits are divided by ``temperature`` for the adaptive attacks; ``test`` are all
    test images and labels, in random order; ``old`` also runs the saliency attacks,
    which take the longest.
    """
    x, y = test
    classes, n = int(y.max()) + 1, config.images
    found: dict[str, Any] = {'accuracy': np.mean(answers(f, x) == y)}
    found['logits'] = np.abs(np.asarray(f(x[:n]))).sum(axis=1)
    size, logarithm = gradient_size(f, x[:n], y[:n])
    found |= {'zero': np.mean(np.asarray(size) == 0), 'gradient': logarithm}
    ball = linf(config.eps)
    named = {'fgsm': attacks.fgsm(ball), 'pgd': attacks.pgd(ball, config.steps)}
    scaled = attacks.rescaled(f, temperature)
    for kind, model in (('softmax', f), ('rescaled', scaled)):
        result = work.evaluate(model, x[:n], y[:n], named)
        broken = result.success.sum(axis=1) / max(result.clean_correct.sum(), 1)
        found |= {f'{a}-{kind}': v for a, v in zip(named, broken, strict=True)}
    if old:
        xs, ys = correct(f, x, y, config.saliency_images)
        to = targets(ys, classes)
        saliency = attacks.jsma(l0(float('inf')), probabilities=True)
        for kind, model in (('softmax', f), ('rescaled', scaled)):
            moved = run_attack(saliency, model, work.key, xs, ys, to)
            won = np.asarray(answers(f, moved) == to)
            pixels = np.asarray(jnp.sum(moved != xs, axis=(1, 2, 3)))
            found[f'jsma-{kind}'] = won.mean()
            found[f'pixels-{kind}'] = pixels[won].mean() if won.any() else np.nan
    xs, ys = correct(f, x, y, config.aimed_images)
    to = targets(ys, classes)
    moved = run_attack(carlini_wagner(config), f, work.key, xs, ys, to)
    won = np.asarray(answers(f, moved) == to)
    inside = np.asarray(jnp.all((moved >= 0) & (moved <= 1), axis=(1, 2, 3)))
    distance = np.linalg.norm(np.asarray(moved - xs).reshape(len(xs), -1), axis=1)
    found['cw'] = (won & inside).mean()
    found['distance'] = np.where(won & inside, distance, np.nan)
    return found


def carlini_wagner(config: Any, kappa: float = 0.0):
    """The L2 attack, with fewer and longer steps than in the paper."""
    return attacks.carlini_wagner(
        steps=config.cw_steps,
        searches=config.cw_searches,
        kappa=kappa,
        c=1e-2,
        rate=5e-2,
    )


@jax.jit
def gradient_size(logits_fn, x, y):
    r"""The L1 norm of the softmax's gradient: in float32, and its true logarithm.

    .. math:: \nabla(-\log p_y) = (1 - p_y)\, \nabla\Big(\log \sum_{j \ne y} e^{z_j}
              - z_y\Big)

    Neither factor underflows when the first is kept as a logarithm.

    Returns:
      (B,) norms and (B,) base-10 logarithms.
    """

    def total(x):
        return jnp.sum(losses.cross_entropy(logits_fn(x), y))

    def others(x):
        z = logits_fn(x)
        own = jax.nn.one_hot(y, z.shape[1], dtype=bool)
        lse = jax.nn.logsumexp(jnp.where(own, -jnp.inf, z), axis=1)
        gap = lse - jnp.sum(jnp.where(own, z, 0), axis=1)
        return jnp.sum(gap), gap

    def size(gradient):
        return jnp.sum(jnp.abs(gradient), axis=tuple(range(1, gradient.ndim)))

    (_, gap), gradient = jax.value_and_grad(others, has_aux=True)(x)
    logarithm = (jax.nn.log_sigmoid(gap) + jnp.log(size(gradient))) / jnp.log(10.0)
    return size(jax.grad(total)(x)), logarithm


def targets(y: np.ndarray, classes: int) -> jax.Array:
    """A random wrong class for every image."""
    shift = np.random.default_rng(0).integers(1, classes, len(y))
    return jnp.asarray((y + shift) % classes, jnp.int32)


def correct(f: LogitsFn, x: np.ndarray, y: np.ndarray, count: int):
    """The first images that a network is right on."""
    right = np.flatnonzero(answers(f, x[: 3 * count]) == y[: 3 * count])
    return x[right[:count]], y[right[:count]]


def percent(row: Any, name: str) -> float:
    """A share that ``measure`` found, in per cent."""
    return 100 * float(row[name])
