"""The classical methods, and the outer losses that they share."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from advjax import attacks, losses
from advjax.attacks.checks import check_fraction
from advjax.attacks.starts import Start
from advjax.balls import Ball, as_ball
from advjax.training.methods import Method, method, unperturbed
from advjax.types import Array, Loss, dataclass


def on_adversarial(forward, state, x, x_adv, y):
    """Outer loss: cross entropy of the adversarial images alone."""
    del x
    logits, state = forward(state, x_adv)
    return losses.cross_entropy(logits, y), logits, state


@dataclass
class OnAdversarial:
    """Outer loss: any loss of the adversarial images alone."""

    loss: Loss = struct.field(pytree_node=False)

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        del x
        logits, state = forward(state, x_adv)
        return self.loss(logits, y), logits, state


@dataclass
class Mixed:
    r"""Outer loss :math:`w J(x, y) + (1 - w) J(x', y)`, w the clean weight."""

    clean_weight: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv, draw=1)
        loss = self.clean_weight * losses.cross_entropy(clean, y)
        loss += (1 - self.clean_weight) * losses.cross_entropy(logits, y)
        return loss, logits, state


@dataclass
class Trades:
    r"""Outer loss :math:`J(x, y) + \beta\, D_{KL}(f(x) \,\|\, f(x'))`."""

    beta: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv, draw=1)
        loss = losses.cross_entropy(clean, y) + self.beta * losses.kl(logits, clean)
        return loss, logits, state


@dataclass
class WithOwnLoss:
    """Outer loss plus the one that the network leaves in its state under 'loss'."""

    outer: Any

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        loss, logits, state = self.outer(forward, state, x, x_adv, y)
        return loss + state['loss'], logits, state


def with_own_loss(method: Method) -> Method:
    """The method, plus a loss that the network leaves in its state.

    For networks with a part that labels do not train, such as
    ``zoo.sparse_autoencoder``: in train mode they leave a number in their state under
    'loss'.

    Args:
      method: what to train for besides.
    """
    return method.around(WithOwnLoss)


def standard(loss: Loss = losses.cross_entropy) -> Method:
    r"""Empirical risk minimisation: :math:`E\,J(\theta, x, y)`.

    Args:
      loss: J, such as ``losses.one_vs_rest`` for classes that do not compete.
    """
    plain = loss is losses.cross_entropy
    return method(unperturbed, on_adversarial if plain else OnAdversarial(loss))


def noise(ball: Ball | float, start: Start = attacks.starts.uniform) -> Method:
    r"""Training on random points of the ball: the control of adversarial training.

    .. math:: E\,J(\theta, x + \eta, y), \qquad
        \eta \sim U(-\epsilon, \epsilon)^n \;\text{or}\; \epsilon\, U(\{-1, +1\})^n

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      start: the noise, a start of an attack: ``attacks.starts.uniform``, or
        ``attacks.starts.corner`` for random signs.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 6 (no clipping there:
    ``bounds=None``).
    """
    if not callable(start):
        raise ValueError(f'start must be a function, got {start!r}')
    still = attacks.Ascent(as_ball(ball), jnp.float32(0), steps=0, start=start)
    return method(still, on_adversarial, adversarial=False)


def fgsm_at(ball: Ball | float, clean_weight: float = 0.5) -> Method:
    r"""Adversarial training on the fast gradient sign method, mixed with clean images.

    .. math:: \tilde J = \alpha J(\theta, x, y)
              + (1 - \alpha) J(\theta, x + \epsilon\,\mathrm{sign}(\nabla_x J), y)

    The perturbation is made anew at every step and held constant in the outer
    gradient.

    Args:
      ball: a ball, or a number as the radius of ``linf``; other balls take their
        steepest direction.
      clean_weight: alpha.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 6 (no clipping there:
    ``bounds=None``).
    """
    weight = check_fraction('clean_weight', clean_weight)
    return method(attacks.fgm(ball), Mixed(weight))


def pgd_at(
    ball: Ball | float, steps: int = 7, rate: float | Array | None = None
) -> Method:
    r"""Adversarial training on projected gradient descent alone.

    .. math:: \min_\theta E \max_{x' \in B(x)} J(\theta, x', y)

    The last iterate is trained on, as in the authors' code; unlike there the attack
    sees the model in eval mode.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: attack steps (40 on MNIST, 7 on CIFAR-10).
      rate: step size in radii; 2.5 / steps by default.

    Reference: Madry et al. 2018, arXiv 1706.06083.
    """
    inner = attacks.pgd(ball, steps, rate, keep_best=False)
    return method(inner, on_adversarial)


def fast(ball: Ball | float, rate: float = 1.25) -> Method:
    r"""FGSM from a random start, "Fast is better than free".

    .. math:: \delta \sim U(-\epsilon, \epsilon), \qquad
        \delta \leftarrow \Pi(\delta + \alpha\,\mathrm{sign}(\nabla_\delta J))

    As in the authors' MNIST code the gradient is taken at x + delta before it is
    clipped to the pixel range; unlike there the attack sees the model in eval mode,
    which changes nothing for networks without BatchNorm.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      rate: step size alpha in radii; the paper's is 1.25.

    Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994, algorithm 3.
    """
    inner = attacks.pgd(
        ball, 1, rate, start=attacks.starts.unclipped, keep_best=False
    )  # fmt: skip
    return method(inner, on_adversarial)


def trades(
    ball: Ball | float,
    beta: float = 6.0,
    steps: int = 10,
    rate: float | Array | None = None,
) -> Method:
    r"""TRADES: clean loss plus the worst change of prediction.

    .. math:: J(f(x), y) + \beta \max_{x' \in B(x)} D_{KL}(f(x) \,\|\, f(x'))

    The search starts at x + 0.001 N(0, 1), because the divergence has no gradient
    at x; the outer gradient flows through both predictions.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      beta: weight of the divergence (1 on MNIST, 6 on CIFAR-10).
      steps: attack steps.
      rate: step size in radii; 2.5 / steps by default.

    Reference: Zhang et al. 2019, arXiv 1901.08573, equation 5. Its L2 variant takes
    SGD steps; here every ball takes its steepest step.
    """
    if not beta >= 0:
        raise ValueError(f'beta must be >= 0, got {beta}')
    search = attacks.pgd(
        ball, steps, rate, losses.kl, start=attacks.starts.gaussian, keep_best=False
    )
    return method(attacks.from_prediction(search), Trades(jnp.float32(beta)))
