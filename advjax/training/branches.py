r"""AdvProp: training on adversarial images for clean accuracy, and its baseline.

.. math:: \min_\theta E\Big[ J(\theta, x, y)
          + \sum_{b \ge 1} \max_{x' \in B_b(x)} J(\theta_b, x', y) \Big]

:math:`\theta_b` is the network seen through its auxiliary batch normalisation b: the
adversarial images are *crafted* and trained on through their own branch, the clean ones
through the main branch, which alone is used afterwards. An adversary that attacks the
main branch instead makes images for a network that nobody trains on them.

A network needs to answer ``branch=b`` (see ``models.Model``): one of
``zoo.split_norm_cnn``, or your own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import attacks, keys, losses
from advjax.attacks.checks import check_count
from advjax.balls import Ball, as_ball, stands_for_ball
from advjax.training.methods import Method, method
from advjax.types import Array, Attack, Key, LogitsFn, as_pytree, dataclass


@dataclass
class EachBranch:
    """One attack per auxiliary branch; build it with ``advprop``."""

    attacks: tuple[Any, ...]

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array
    ) -> tuple[Array, ...]:
        """Returns the images for branch 1, 2, ..., each like ``x``."""
        each = keys.per_example(key, x.shape[0])
        through: Any = logits_fn
        return tuple(
            attack(lambda z, b=b: through(z, branch=b), keys.fold(each, b), x, y)
            for b, attack in enumerate(self.attacks, 1)
        )


@dataclass
class RandomTarget:
    """An attack towards a random class; build it with ``random_target``."""

    attack: Any
    classes: int = struct.field(pytree_node=False)

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Attacks ``logits_fn`` at ``x``, towards the target drawn for each example."""
        each = keys.per_example(key, x.shape[0])
        drawn = keys.draw(
            lambda k: jax.random.randint(k, (), 0, self.classes), keys.fold(each, 0)
        )
        return self.attack(logits_fn, keys.fold(each, 1), x, y, target=drawn)


def random_target(attack: Attack, classes: int) -> RandomTarget:
    """Gives an attack a random target for every example, as AdvProp's code does.

    All classes are equally likely, the label too: with few classes a good part of the
    images then becomes easier.

    Args:
      attack: an attack that takes ``target``.
      classes: K, of the model.

    Raises:
      ValueError: if there are fewer than two classes.

    Reference: Xie et al. 2020, arXiv 1911.09665, in its PyTorch implementation (1,000
    classes).
    """
    return RandomTarget(as_pytree(attack), check_count('classes', classes, 2))


@dataclass
class Augmented:
    """Augmented images as a branch of AdvProp; build it with ``augmented``."""

    augment: Any

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Changes each image by its own key; no model is asked."""
        del logits_fn
        images, labels = self.augment(keys.per_example(key, x.shape[0]), x, y)
        if labels is not y:
            raise ValueError(
                'augment must leave the labels as they are, because all branches of '
                'AdvProp share them: mix images before the training step'
            )
        return images


def augmented(augment: Callable[..., Any]) -> Augmented:
    """Makes an augmentation the "attack" of a branch of ``advprop``.

    Args:
      augment: ``(keys, x, y) -> (x, y)``, such as ``data.augment.rand_augment``
        returns, one that leaves the labels as they are.

    Raises:
      ValueError: if it is no function, or (when called) changes labels.
    """
    return Augmented(as_pytree(augment))


def clean_and_branches(forward, state, x, x_adv, y):
    """Outer loss: clean through the main branch, each adversarial through its own."""
    clean, state = forward(state, x)
    loss = losses.cross_entropy(clean, y)
    for branch, images in enumerate(x_adv, 1):
        logits, state = forward(state, images, draw=branch, branch=branch)
        loss += losses.cross_entropy(logits, y)
    return loss, clean, state


def joined(forward, state, x, x_adv, y):
    """Outer loss: clean and adversarial images as one batch of twice the size."""
    logits, state = forward(state, jnp.concatenate([x, x_adv]))
    clean, adversarial = jnp.split(logits, 2)
    loss = losses.cross_entropy(clean, y) + losses.cross_entropy(adversarial, y)
    return loss, clean, state


def _pgd(inner: Any, steps: int, rate: float | None) -> Any:
    """The paper's attack in a ball; an attack stays as it is."""
    if not stands_for_ball(inner):
        return as_pytree(inner)
    rate = 1 / max(steps - 1, 1) if rate is None else rate
    return attacks.pgd(as_ball(inner), steps, rate, keep_best=False)


def advprop(
    *inner: Ball | float | Attack, steps: int = 5, rate: float | None = None
) -> Method:
    """AdvProp, with one auxiliary branch for every attack given.

    A branch may as well be for images that are augmented and not attacked, which is
    the paper's fine-grained AdvProp with AutoAugment:

        advprop(4 / 255, augmented(data.augment.rand_augment(...)))

    Gradient evaluations per step: those of the attacks (``steps`` for each ball), and
    one of the outer loss for every branch and for the main one.

    The best epoch is chosen by clean accuracy through the main branch; the robust
    accuracy on held-out images is that of branch 1.

    Args:
      *inner: for branch 1, 2, ... a ball or radius of ``linf``, which stands for PGD
        from a random start within it, or an attack (``random_target`` of one, as in
        the reference implementation). More than one is the paper's fine-grained
        AdvProp. Its radius is 4/255, for the smallest networks 1/255 with one step.
      steps: attack steps.
      rate: step size in radii; 1 / (steps - 1) by default, as in the paper, which
        takes eps + 1 steps of 1 on the scale of 0 to 255.

    Raises:
      ValueError: if there is no ball or attack, or one is neither.

    Reference: Xie et al. 2020, arXiv 1911.09665, algorithm 1 and section 4.3: the
    losses are added up (the PyTorch implementation takes their mean, as if at half the
    learning rate). As there the attack sees the model in eval mode: running statistics
    of its branch.
    """
    if not inner:
        raise ValueError('inner must hold at least one ball or attack, got none')
    each = tuple(_pgd(one, steps, rate) for one in inner)
    return method(EachBranch(each), clean_and_branches, view={'branch': 1})


def joint(
    inner: Ball | float | Attack, steps: int = 5, rate: float | None = None
) -> Method:
    r"""Clean and adversarial images in one batch, through one branch.

    .. math:: \min_\theta E[ J(\theta, x, y) + \max_{x' \in B(x)} J(\theta, x', y) ]

    Gradient evaluations per step: those of the attack (``steps`` for a ball), and 2 of
    the outer loss, in one pass.

    What AdvProp is compared with: batch normalisation sees the mixture. (``fgsm_at``
    has the same loss, but normalises its two halves apart.)

    Args:
      inner: a ball, a radius of ``linf``, or an attack.
      steps: attack steps.
      rate: step size in radii, as in ``advprop``.

    Reference: Xie et al. 2020, arXiv 1911.09665, equation 3.
    """
    return method(_pgd(inner, steps, rate), joined)
