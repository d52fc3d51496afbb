r"""Training methods: an inner maximum and an outer minimum.

.. math:: \min_\theta E\,\mathrm{outer}(\theta, x, \mathrm{inner}(\theta, x, y), y)

``inner`` is an attack, ``outer`` a loss over the parameters. A method is a pytree:
its eps, alpha and beta are leaves that can be swept by ``vmap`` or scheduled. Your
own is ``method(attack, outer)`` with any two functions of these shapes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import attacks, losses
from advjax.attacks.checks import check_fraction
from advjax.attacks.starts import Start
from advjax.balls import Ball, as_ball
from advjax.types import (
    Array,
    Key,
    LogitsFn,
    Loss,
    State,
    as_pytree,
    dataclass,
)

Inner = Callable[[LogitsFn, Key, Array, Array], Any]
Forward = Callable[..., tuple[Array, State]]
Outer = Callable[[Forward, State, Array, Any, Array], tuple[Array, Array, State]]


@dataclass
class Method:
    """A row of the table of training methods; build it with a factory below.

    Attributes:
      inner: the attack whose result is trained on; it may return any pytree of
        images, which the outer loss then gets.
      outer: ``(forward, state, x, x_adv, y) -> (loss (B,), logits, state)``, where
        ``forward(state, x, **view) -> (logits, state)`` runs the model in train mode.
      train_mode: run the model in train mode while attacking. Off by default:
        batch statistics would let the examples of a batch attack each other.
      view: the view of the model that the adversary belongs to, as sorted pairs such
        as (('branch', 1),): attacked in training and in the robust accuracy on
        held-out images. Such a network answers in its plain view, so it is that
        view's clean accuracy that the best epoch is chosen by.
      on_weights: an adversary of the weights, ``(loss, params) -> params`` (see
        ``awp``), or None.
      plan: what changes in the course of training (see ``scheduled``).
    """

    inner: Any
    outer: Any
    train_mode: bool = struct.field(pytree_node=False, default=False)
    view: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False, default=())
    on_weights: Any = None
    plan: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False, default=())

    @property
    def replays(self) -> int:
        """Updates in a row on every batch; more than one for ``free`` alone."""
        return getattr(self.inner, 'replays', 1)

    @property
    def unlabelled(self) -> bool:
        """Whether examples may have the label -1, which is none."""
        outer = self.outer
        while hasattr(outer, 'outer'):
            outer = outer.outer
        return getattr(outer, 'unlabelled', False)

    def at(self, step: Array) -> 'Method':
        """The method as its plan has it at a step."""
        method = self
        for name, factor in self.plan:
            method = scaled(method, name, factor(step))
        return method

    @property
    def adversarial(self) -> bool:
        """Whether there is an inner maximum at all; noise is none."""
        searches = getattr(self.inner, 'steps', 1) != 0
        return searches and getattr(self.inner, 'func', None) is not unperturbed


def method(
    inner: Inner,
    outer: Outer,
    train_mode: bool = False,
    view: Mapping[str, Any] | None = None,
) -> Method:
    """Pairs an attack with an outer loss; see ``Method``.

    Raises:
      ValueError: if the view names what every network is given anyway.
    """
    pairs = tuple(sorted((view or {}).items()))
    taken = {'params', 'state', 'x', 'train', 'key'} & {name for name, _ in pairs}
    if taken:
        raise ValueError(
            f'view must not name {sorted(taken)}, which every model has, got {view}'
        )
    return Method(as_pytree(inner), as_pytree(outer), train_mode, pairs)


def scaled(method: Any, name: str, factor: Array) -> Any:
    """The method with every leaf of a name multiplied, such as 'eps' or 'beta'."""

    def one(path, leaf):
        last = path[-1] if path else None
        if isinstance(last, jax.tree_util.GetAttrKey) and last.name == name:
            return leaf * jnp.asarray(factor, leaf.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(one, method)


def unperturbed(logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
    """The attack that does nothing."""
    del logits_fn, key, y
    return x


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
    r"""Outer loss :math:`\alpha J(x, y) + (1 - \alpha) J(x', y)`."""

    alpha: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv)
        loss = self.alpha * losses.cross_entropy(clean, y)
        loss += (1 - self.alpha) * losses.cross_entropy(logits, y)
        return loss, logits, state


@dataclass
class Trades:
    r"""Outer loss :math:`J(x, y) + \beta\, D_{KL}(f(x) \,\|\, f(x'))`."""

    beta: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        clean, state = forward(state, x)
        logits, state = forward(state, x_adv)
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
    """The method, plus a loss that the network itself states.

    For networks with a part that labels do not train, such as a sparse autoencoder: in
    train mode they leave a number in their state under 'loss'.

    Args:
      method: what to train for besides.
    """
    return dataclasses.replace(method, outer=WithOwnLoss(method.outer))


def _outer(loss: Loss) -> Outer:
    return on_adversarial if loss is losses.cross_entropy else OnAdversarial(loss)


def standard(loss: Loss = losses.cross_entropy) -> Method:
    r"""Empirical risk minimisation: :math:`E\,J(\theta, x, y)`.

    Args:
      loss: J, such as ``losses.one_vs_rest`` for classes that do not compete.
    """
    return method(unperturbed, _outer(loss))


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
    return method(still, on_adversarial)


def fgsm_at(ball: Ball | float, alpha: float = 0.5) -> Method:
    r"""Adversarial training on the fast gradient sign method, mixed with clean images.

    .. math:: \tilde J = \alpha J(\theta, x, y)
              + (1 - \alpha) J(\theta, x + \epsilon\,\mathrm{sign}(\nabla_x J), y)

    The perturbation is made anew at every step and held constant in the outer
    gradient.

    Args:
      ball: a ball, or a number as the radius of ``linf``; other balls take their
        steepest direction.
      alpha: weight of the clean loss.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 6 (no clipping there:
    ``bounds=None``).
    """
    return method(attacks.fgm(ball), Mixed(check_fraction('alpha', alpha)))


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
