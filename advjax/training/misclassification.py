"""MART: adversarial training that weighs misclassified examples more.

The less probable its label is in the clean prediction, the more an example counts in
the divergence of its two predictions.
"""

import jax
import jax.numpy as jnp

from advjax import attacks, losses
from advjax.attacks.checks import check_weight
from advjax.balls import Ball
from advjax.training.methods import Method, method
from advjax.types import Array, dataclass


def boosted_cross_entropy(logits: Array, y: Array) -> Array:
    r"""Cross entropy that also pushes down the likeliest wrong class.

    .. math:: \mathrm{BCE}(p, y) = -\log p_y - \log(1 - \max_{k \ne y} p_k)

    The second term is :math:`-\log(1.0001 - \max_{k \ne y} p_k + 10^{-12})`, as in the
    authors' code, so that it stays below 9.3.

    Args:
      logits: (B, K).
      y: (B,) labels, or (B, K) probabilities, whose likeliest class is then the label
        of the second term.

    Returns:
      (B,) nats.

    Reference: Wang et al. 2020, "Improving adversarial robustness requires revisiting
    misclassified examples", ICLR.
    """
    p = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    own = jax.nn.one_hot(losses.hard(y), logits.shape[1], dtype=bool)
    wrong = jnp.max(jnp.where(own, 0, p), axis=1)
    return losses.cross_entropy(logits, y) - jnp.log(1.0001 - wrong + 1e-12)


@dataclass
class Mart:
    r"""Outer loss of MART; build it with ``mart``."""

    beta: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv, draw=1)
        doubt = 1 - losses.probability(clean, y)
        loss = boosted_cross_entropy(logits, y)
        return loss + self.beta * losses.kl(logits, clean) * doubt, logits, state


def mart(
    ball: Ball | float,
    beta: float | Array = 5.0,
    steps: int = 10,
    rate: float | Array | None = None,
) -> Method:
    r"""MART: misclassification-aware adversarial training.

    .. math:: \mathrm{BCE}(p(x'), y)
        + \lambda\, D_{KL}(p(x) \,\|\, p(x'))\,(1 - p_y(x)), \qquad
        x' = \arg\max_{x' \in B(x)} J(x', y)

    with ``boosted_cross_entropy`` as BCE. The search climbs the plain cross entropy
    from x + 0.001 N(0, 1) and returns its last iterate, with the model in eval mode;
    the outer gradient flows through both predictions, the weight 1 - p_y(x) included.

    Gradient evaluations per step: ``steps``, and 2 of the outer loss.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      beta: lambda (5 for ResNet-18, 6 for WideResNet-34-10 on CIFAR-10).
      steps: attack steps.
      rate: step size in radii; 2.5 / steps by default (the paper's 0.007 is 0.226 of
        its eps of 0.031).

    Raises:
      ValueError: if beta is no finite number >= 0.

    Reference: Wang et al. 2020, ICLR. The authors' code takes
    :math:`\log(q + 10^{-12})` in the divergence and 1.0000001 - p_y as its weight; here
    both are the plain formulas, the first from log-softmax.
    """
    search = attacks.pgd(
        ball, steps, rate, start=attacks.starts.gaussian, keep_best=False
    )
    return method(search, Mart(check_weight('beta', beta)))
