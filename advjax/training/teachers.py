r"""Distillation: the predictions of one network as the labels of another.

.. math:: \min_\theta E\big[ \alpha \, D\big(T^t(x), S^t_\theta(x')\big)
    + (1 - \alpha) \, R(\theta) \big], \qquad S^t(x) = \mathrm{softmax}(z(x) / t)

for a teacher T and a student S, whose softmax is taken at a temperature t, with a
divergence D and something R besides. The rows of the table:

method                  x'        D            R                       t
distillation            x         H            J(S(x'), y)             20
ARD                     attacked  t^2 D_KL     J(S(x), y)              30
RSLAD                   attacked  t^2 D_KL     D(T^t(x), S^t(x))       1

H is the cross entropy of two predictions. With alpha = 1 the first is defensive
distillation:

    teacher = training.fit(training.at_temperature(20.0), model, ...)
    student = training.fit(training.distillation(teacher.logits_fn, 20.0), model, ...)

Both are used at t = 1, as ever. The teacher is any logits function, an
``attacks.ensemble`` too; its parameters are leaves of the method.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from advjax import attacks, losses
from advjax.attacks.checks import check_fraction
from advjax.balls import Ball
from advjax.training.methods import Method, method, unperturbed
from advjax.types import Array, Attack, LogitsFn, as_pytree, dataclass

Besides = Literal['labels', 'clean labels', 'clean answers']
Divergence = Callable[[Array, Array, Array], Array]


def cross_entropy_at(logits: Array, answers: Array, temperature: Array) -> Array:
    r"""Cross entropy :math:`H(T^t, S^t) = -\sum_k T^t_k \log S^t_k`, (B,) nats.

    Args:
      logits: (B, K) of the student.
      answers: (B, K) logits of the teacher.
      temperature: t, of both.
    """
    labels = jax.nn.softmax(answers.astype(jnp.float32) / temperature)
    return losses.cross_entropy(logits / temperature, labels)


def kl_at(logits: Array, answers: Array, temperature: Array) -> Array:
    r""":math:`t^2 D_{KL}(T^t \,\|\, S^t)`, (B,); see ``cross_entropy_at``.

    Its gradient is t^2 times that of ``cross_entropy_at``, which makes up for gradients
    that fall as 1 / t^2.
    """
    return temperature**2 * losses.kl(logits / temperature, answers / temperature)


@dataclass
class AtTemperature:
    r"""Outer loss :math:`J(z(x') / T, y)`."""

    temperature: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits as they are, and the new state."""
        del x
        logits, state = forward(state, x_adv)
        return losses.cross_entropy(logits / self.temperature, y), logits, state


@dataclass
class Distilled:
    """Outer loss of a student; build it with one of the factories below.

    Attributes:
      teacher: logits function.
      temperature: t.
      weight: alpha, of D.
      divergence: D, of the student's adversarial and the teacher's clean logits.
      besides: R: the true labels of the adversarial images, those of the clean images,
        or D of the student's answers to the clean images.
    """

    teacher: Any
    temperature: Array
    weight: Array
    divergence: Divergence = struct.field(pytree_node=False)
    besides: Besides = struct.field(pytree_node=False)

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        answers = jax.lax.stop_gradient(self.teacher(x))
        logits, state = forward(state, x_adv)
        soft = self.divergence(logits, answers, self.temperature)
        clean = logits
        if self.besides != 'labels':
            clean, state = forward(state, x, draw=1)
        if self.besides == 'clean answers':
            other = self.divergence(clean, answers, self.temperature)
        else:
            other = losses.cross_entropy(clean, y)
        return self.weight * soft + (1 - self.weight) * other, logits, state


def _temperature(value: float | Array) -> Array:
    if not isinstance(value, jax.core.Tracer) and not 0 < value < float('inf'):
        raise ValueError(f'temperature must be positive and finite, got {value}')
    return jnp.asarray(value, jnp.float32)


def at_temperature(temperature: float = 20.0, inner: Attack = unperturbed) -> Method:
    r"""Training with the softmax at a temperature: :math:`E\,J(z(x) / T, y)`.

    The teacher of defensive distillation; at 1 it is ``standard``. The network learns
    logits about T times as large, so used at temperature 1 its softmax is saturated.

    Gradient evaluations per step: 1, and those of the attack.

    Args:
      temperature: T.
      inner: the attack whose result is trained on; none by default.

    Raises:
      ValueError: if the temperature is not positive and finite.

    Reference: Papernot et al. 2016, arXiv 1511.04508, section IV.
    """
    return method(inner, AtTemperature(_temperature(temperature)))


def distillation(
    teacher: LogitsFn,
    temperature: float = 20.0,
    *,
    hard: float = 0.0,
    inner: Attack = unperturbed,
) -> Method:
    r"""Training on the soft labels of a teacher, both at a temperature.

    .. math:: (1 - w) \, H\big(T^t(x), S^t(x')\big) + w \, J(S(x'), y)

    By default defensive distillation. With ``inner`` an attack the student is to
    answer on adversarial images what the teacher answers on clean ones.

    Gradient evaluations per step: 1, and those of the attack; one forward pass of the
    teacher.

    Args:
      teacher: x -> logits; asked in eval mode about clean images.
      temperature: t of the teacher's labels and of the student's softmax.
      hard: weight w in [0, 1] of the cross entropy with the true labels at t = 1. The
        soft term is not multiplied by t^2.
      inner: the attack whose result is trained on; none by default.

    Raises:
      ValueError: for a temperature that is not positive and finite, a weight outside
        [0, 1], or a teacher that is no function.

    Reference: Papernot et al. 2016, arXiv 1511.04508, section IV; the soft and hard
    terms as in Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    outer = Distilled(
        as_pytree(teacher),
        _temperature(temperature),
        1 - check_fraction('hard', hard),
        cross_entropy_at,
        'labels',
    )
    return method(inner, outer)


def adversarially_robust_distillation(
    teacher: LogitsFn,
    ball: Ball | float,
    temperature: float = 30.0,
    weight: float = 1.0,
    steps: int = 10,
    rate: float | Array | None = None,
) -> Method:
    r"""ARD: distils a robust teacher's clean predictions into a student under attack.

    .. math:: \alpha t^2 D_{KL}\big(T^t(x) \,\|\, S^t(x')\big)
              + (1 - \alpha) J(S(x), y), \qquad
              x' = \arg\max_{B(x)} J(S(x'), y)

    The attack is PGD on the student, against the true labels.

    Gradient evaluations per step: ``steps``, and 2 of the outer loss; one forward pass
    of the teacher.

    Args:
      teacher: x -> logits of a robust network; asked in eval mode.
      ball: a ball, or a number as the radius of ``linf``.
      temperature: t (30 in the paper).
      weight: alpha, of the distillation.
      steps: attack steps.
      rate: step size in radii; 2.5 / steps by default, the authors' 2/255 in a ball
        of 8/255.

    Raises:
      ValueError: for a temperature that is not positive and finite, a weight outside
        [0, 1], fewer than one step, or a teacher that is no function.

    Reference: Goldblum et al. 2020, arXiv 1905.09747, and the authors' code, which
    takes J at t = 1, both in the attack and in the loss. Deviations: their code
    averages the divergence over the K classes, so there it counts 1 / K as much; and it
    attacks the student in train mode.
    """
    outer = Distilled(
        as_pytree(teacher),
        _temperature(temperature),
        check_fraction('weight', weight),
        kl_at,
        'clean labels',
    )
    return method(attacks.pgd(ball, steps, rate, keep_best=False), outer)


def rslad(
    teacher: LogitsFn,
    ball: Ball | float,
    weight: float = 5 / 6,
    steps: int = 10,
    rate: float | Array | None = None,
) -> Method:
    r"""RSLAD: robust distillation by the teacher's soft labels alone.

    .. math:: \alpha D_{KL}\big(T(x) \,\|\, S(x')\big)
              + (1 - \alpha) D_{KL}\big(T(x) \,\|\, S(x)\big), \qquad
              x' = \arg\max_{B(x)} D_{KL}\big(T(x) \,\|\, S(x')\big)

    With the student as its own teacher the attack would be that of TRADES; like there
    it starts at x + 0.001 N(0, 1).

    Gradient evaluations per step: ``steps``, and 2 of the outer loss; one forward pass
    of the teacher, whose answers to the clean images serve both.

    Args:
      teacher: x -> logits of a robust network; asked in eval mode.
      ball: a ball, or a number as the radius of ``linf``.
      weight: alpha, of the adversarial term.
      steps: attack steps.
      rate: step size in radii; 2.5 / steps by default, the authors' 2/255 in a ball
        of 8/255.

    Raises:
      ValueError: for a weight outside [0, 1], fewer than one step, or a teacher that is
        no function.

    Reference: Zi et al. 2021, arXiv 2108.07969, and the authors' code, which takes the
    divergence as a mean over the K classes: 1 / K as much.
    """
    search = attacks.pgd(
        ball, steps, rate, losses.kl, start=attacks.starts.gaussian, keep_best=False
    )
    outer = Distilled(
        as_pytree(teacher),
        jnp.float32(1),
        check_fraction('weight', weight),
        kl_at,
        'clean answers',
    )
    return method(attacks.from_prediction(search, teacher), outer)
