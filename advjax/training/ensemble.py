"""Ensemble adversarial training: perturbations found on other models.

A model that is trained on its own one-step attack learns to make that attack weak, by
curving its loss around the data; it cannot do so for models that do not change.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from advjax import attacks, keys
from advjax.attacks.checks import check_fraction
from advjax.balls import Ball, stands_for_ball
from advjax.training.methods import Method, method
from advjax.training.named import Mixed
from advjax.types import Array, Attack, Key, LogitsFn, as_pytree, dataclass


@dataclass
class OwnLabels:
    """An attack on the model's own prediction instead of the label."""

    attack: Any

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Attacks ``logits_fn`` at ``x``; ``y`` is not looked at."""
        del y
        return self.attack(logits_fn, key, x, jnp.argmax(logits_fn(x), axis=1))


@dataclass
class OneOf:
    """One of several attacks, drawn for the whole batch; see ``ensemble_at``.

    It is the first example's key that draws, so the batch is one program with one
    attack at a time. Under ``vmap`` over keys all of them run.
    """

    attacks: tuple[Any, ...]

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Runs the one that was drawn."""
        each = keys.per_example(key, x.shape[0])
        first = jax.random.fold_in(each[0], 0)
        number = jax.random.randint(first, (), 0, len(self.attacks))
        runs = [
            lambda own, x, y, attack=attack: attack(logits_fn, own, x, y)
            for attack in self.attacks
        ]
        return jax.lax.switch(number, runs, keys.fold(each, 1), x, y)


def _fast(inner: Any) -> Any:
    """The paper's attack in a ball; an attack stays as it is."""
    return attacks.fgm(inner) if stands_for_ball(inner) else as_pytree(inner)


def ensemble_at(
    inner: Ball | float | Attack,
    sources: Sequence[LogitsFn],
    clean_weight: float = 0.5,
) -> Method:
    r"""Ensemble adversarial training.

    .. math:: \tilde J = \alpha J(\theta, x, y)
              + (1 - \alpha) J(\theta, x + \epsilon\,
              \mathrm{sign}(\nabla_x J(s, x, \hat y_s)), y)

    Every batch draws its source s among the given models and the one in training, all
    equally likely. The attack is against :math:`\hat y_s`, the answer of the source
    itself: a gradient taken at the true label leaks that label into the image.

    Gradient evaluations per step: those of the attack (1 for FGSM, on the source) and 2
    of the outer loss; one more forward pass for the answers of the source.

    Args:
      inner: a ball or a radius of ``linf``, which stands for the fast gradient method,
        or any attack, such as ``attacks.rand_fgsm(ball)``.
      sources: logits functions of models that are trained already; they stay as they
        are. Their parameters are leaves of the method. Without any it is adversarial
        training on the model's own answers.
      clean_weight: alpha.

    Raises:
      ValueError: for an attack or a source that is no function, sources that are no
        list, or a weight outside [0, 1].

    Reference: Tramer et al. 2018, arXiv 1705.07204; loss, draw and labels as in the
    authors' MNIST code. Deviation: there dropout is on while the images are made; here
    the sources are as they are given and the model is in eval mode.
    """
    if callable(sources):
        raise ValueError(f'sources must be a list of logits functions, got {sources}')
    own = OwnLabels(_fast(inner))
    each = (*(attacks.surrogate(own, source) for source in sources), own)
    weight = check_fraction('clean_weight', clean_weight)
    return method(OneOf(each), Mixed(weight))
