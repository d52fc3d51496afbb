r"""Logit pairing and squeezing: penalties on the logits of adversarial or noisy images.

- adversarial: the logits of an image and of its adversarial counterpart shall agree;
- clean: so shall those of two random images, both noisy;
- squeezing: logits shall be small.

The last two, and the first on some data, make the loss hard to search rather than the
model robust (Mosbach et al. 2018, arXiv 1810.12042): judge them by many restarts, or by
``evaluation`` with its black-box attacks.
"""

import jax.numpy as jnp

from advjax import attacks, losses
from advjax.attacks.checks import check_weight
from advjax.balls import Ball
from advjax.training.gaussian import GaussianNoise
from advjax.training.methods import Method, method
from advjax.types import Array, dataclass


def _mean_square(difference: Array) -> Array:
    """Mean over the classes, (B, K) -> (B,)."""
    return jnp.mean(jnp.square(difference.astype(jnp.float32)), axis=1)


@dataclass
class AdversarialPairs:
    """Outer loss of ``adversarial_logit_pairing``."""

    coefficient: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        both, state = forward(state, jnp.concatenate([x, x_adv]))
        clean, logits = jnp.split(both, 2)
        mixed = losses.cross_entropy(clean, y) + losses.cross_entropy(logits, y)
        loss = mixed / 2 + self.coefficient * _mean_square(clean - logits)
        return loss, logits, state


@dataclass
class CleanPairs:
    """Outer loss of ``clean_logit_pairing``."""

    coefficient: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the noisy images, and the new state."""
        del x
        logits, state = forward(state, x_adv)
        partner = logits[_partners(forward.mask)]
        loss = losses.cross_entropy(logits, y)
        return loss + self.coefficient * _mean_square(logits - partner), logits, state


def _partners(mask: Array) -> Array:
    """Indices (B,) half a batch apart, among the examples that count.

    In an even batch each is its partner's partner.
    """
    counted = jnp.argsort(~mask, stable=True)
    count = jnp.maximum(jnp.sum(mask), 1)
    rank = jnp.cumsum(mask) - 1
    return counted[(rank - count // 2) % count]


@dataclass
class SmallLogits:
    """Outer loss of ``logit_squeezing``."""

    coefficient: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the noisy images, and the new state."""
        del x
        logits, state = forward(state, x_adv)
        square = jnp.sum(jnp.square(logits.astype(jnp.float32)), axis=1)
        # The norm has no gradient at zero, where some networks begin.
        norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        loss = losses.cross_entropy(logits, y)
        return loss + self.coefficient * norm, logits, state


def adversarial_logit_pairing(
    ball: Ball | float,
    coefficient: float | Array = 0.5,
    steps: int = 10,
    rate: float | Array | None = None,
) -> Method:
    r"""ALP: mixed-minibatch PGD, and a penalty on the change of the logits.

    .. math:: \tfrac12 J(x, y) + \tfrac12 J(x', y)
        + \lambda\, \tfrac1K \|z(x) - z(x')\|_2^2

    The paper leaves the distance of the logits z open; that of the authors' code is the
    mean squared error, over the batch *and over the K classes*, and so is this. Clean
    and adversarial images pass as one batch, whose statistics batch normalisation sees;
    the outer gradient flows through both logits.

    Gradient evaluations per step: ``steps``, and 2 of the outer loss.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      coefficient: lambda (0.5 in the authors' ImageNet command); 0 is mixed-minibatch
        PGD.
      steps: attack steps, from a uniform start; the last iterate is trained on.
      rate: step size in radii; 2.5 / steps by default.

    Raises:
      ValueError: if the coefficient is no finite number >= 0.

    Reference: Kannan, Kurakin and Goodfellow 2018, arXiv 1803.06373. Their ImageNet
    attack is targeted at the least likely class; here, as on their smaller sets, it is
    untargeted. ``method.replace(inner=attack)`` takes any other.
    """
    inner = attacks.pgd(ball, steps, rate, keep_best=False)
    return method(inner, AdversarialPairs(check_weight('coefficient', coefficient)))


def clean_logit_pairing(
    sigma: float | Array = 0.5, coefficient: float | Array = 0.5
) -> Method:
    r"""CLP: the logits of random pairs of noisy images shall agree. No adversary.

    .. math:: J(\tilde x_i, y_i) + \lambda\, \tfrac1K
        \|z(\tilde x_i) - z(\tilde x_{i'})\|_2^2, \qquad \tilde x = x + N(0, \sigma^2 I)

    Partners i and i' are half a batch apart, so the pairs are as random as the order of
    the examples, and unrelated to their classes. In a batch of even size the mean of
    the loss is that over B / 2 pairs; in an odd one pairs form one cycle. It is the one
    loss here by which the examples of a batch depend on each other.

    Gradient evaluations per step: 1.

    Args:
      sigma: standard deviation of the noise in pixels, not clipped to the range.
      coefficient: lambda; 0 is training on Gaussian noise.

    Raises:
      ValueError: if sigma or the coefficient is no finite number >= 0.

    Reference: Kannan, Kurakin and Goodfellow 2018, arXiv 1803.06373; the
    squared error is averaged over the classes as in ``adversarial_logit_pairing`` and
    in the evaluation of Mosbach et al. 2018, arXiv 1810.12042. The default noise and
    weight are ours, for MNIST.
    """
    noise = GaussianNoise(check_weight('sigma', sigma))
    outer = CleanPairs(check_weight('coefficient', coefficient))
    return method(noise, outer, adversarial=False)


def logit_squeezing(
    sigma: float | Array = 0.5, coefficient: float | Array = 0.5
) -> Method:
    r"""LSQ: small logits of noisy images. No adversary.

    .. math:: J(\tilde x, y) + \lambda\, \|z(\tilde x)\|_2, \qquad
        \tilde x = x + N(0, \sigma^2 I)

    Gradient evaluations per step: 1.

    Args:
      sigma: standard deviation of the noise in pixels, not clipped to the range.
      coefficient: lambda; 0 is training on Gaussian noise.

    Raises:
      ValueError: if sigma or the coefficient is no finite number >= 0.

    Reference: Kannan, Kurakin and Goodfellow 2018, arXiv 1803.06373; the norm, not
    squared, as in Mosbach et al. 2018, arXiv 1810.12042. The default noise and weight
    are ours, for MNIST.
    """
    noise = GaussianNoise(check_weight('sigma', sigma))
    outer = SmallLogits(check_weight('coefficient', coefficient))
    return method(noise, outer, adversarial=False)
