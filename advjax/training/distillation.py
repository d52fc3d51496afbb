r"""Distillation: the answers of one network as the labels of another.

.. math:: F^T(x) = \mathrm{softmax}(z(x) / T), \qquad
    \min_\theta E\Big[ (1 - w) \, H\big(F^T_{teacher}(x),\, F^T_\theta(x')\big)
    + w \, J(\theta, x', y) \Big]

with H the cross entropy of two predictions. Without an adversary x' = x and, with
w = 0, it is defensive distillation:

    teacher = training.fit(training.at_temperature(20.0), model, ...)
    student = training.fit(training.distillation(teacher.logits_fn, 20.0), model, ...)

Both are used at T = 1, as ever. The teacher is any logits function, an
``attacks.ensemble`` too; its parameters are leaves of the method.
"""

from typing import Any

import jax
import jax.numpy as jnp

from advjax import losses
from advjax.training.methods import Method, method, unperturbed
from advjax.types import Array, Attack, LogitsFn, as_pytree, dataclass


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
    """Outer loss of a student; build it with ``distillation``."""

    teacher: Any
    temperature: Array
    hard: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the adversarial images, and the new state."""
        answers = jax.lax.stop_gradient(self.teacher(x))
        logits, state = forward(state, x_adv)
        soft = soft_cross_entropy(
            logits / self.temperature, jax.nn.softmax(answers / self.temperature)
        )
        loss = (1 - self.hard) * soft + self.hard * losses.cross_entropy(logits, y)
        return loss, logits, state


def soft_cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Cross entropy with soft labels, :math:`-\sum_k p_k \log \mathrm{softmax}(z)_k`.

    Args:
      logits: (B, K).
      labels: (B, K) probabilities.

    Returns:
      (B,) nats.
    """
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A class that is out of the question on both sides counts nothing.
    return -jnp.sum(jnp.where(labels > 0, labels * log_q, 0), axis=1)


def _temperature(value: float) -> Array:
    if not 0 < value < float('inf'):
        raise ValueError(f'temperature must be positive and finite, got {value}')
    return jnp.float32(value)


def at_temperature(temperature: float, inner: Attack = unperturbed) -> Method:
    r"""Training with the softmax at a temperature: :math:`E\,J(z(x) / T, y)`.

    The teacher of defensive distillation; at 1 it is ``standard``. The network learns
    logits about T times as large, so used at temperature 1 its softmax is saturated.

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

    By default defensive distillation. With ``inner`` an attack the student is to
    answer on adversarial images what the teacher answers on clean ones.

    Args:
      teacher: x -> logits; asked in eval mode about clean images.
      temperature: T of the teacher's labels and of the student's softmax.
      hard: weight w in [0, 1] of the cross entropy with the true labels at T = 1. The
        soft term is not multiplied by T^2.
      inner: the attack whose result is trained on; none by default.

    Raises:
      ValueError: for a temperature that is not positive and finite, a weight outside
        [0, 1], or a teacher that is no function.

    Reference: Papernot et al. 2016, arXiv 1511.04508, section IV; the soft and hard
    terms as in Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    if not 0 <= hard <= 1:
        raise ValueError(f'hard must lie in [0, 1], got {hard}')
    outer = Distilled(as_pytree(teacher), _temperature(temperature), jnp.float32(hard))
    return method(inner, outer)
