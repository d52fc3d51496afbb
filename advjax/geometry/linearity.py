r"""How linear a loss is around a point: gradient alignment and linearisation error.

FGSM, and every step of PGD, relies on the tangent plane

.. math:: L(x + \delta) \approx L(x) + \langle \nabla L(x), \delta \rangle

over the whole ball. Two measures say how good it is: the *alignment* of the gradients
at x and at a random point of the ball, and the *error* of the plane, on average over
the ball and at the worst point that an ascent finds. Neither proves linearity: both
look at some points of the ball only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advjax import keys, losses
from advjax.attacks import Ascent, pgd
from advjax.attacks.checks import check_count, check_loss
from advjax.balls import Ball, as_ball
from advjax.convolutions import canonical
from advjax.rows import total, wide, wide_largest
from advjax.types import Array, Key, LogitsFn, Loss, Objective, check_images


class Linearisation(NamedTuple):
    r"""How far the tangent plane is off over a ball; all arrays are (B,).

    Attributes:
      mean: mean of the error over uniform draws from the ball.
      sampled: largest error among those draws.
      worst: largest error found, by draws and by ascent.
      predicted: the largest change of the loss that the plane predicts,
        :math:`\epsilon \|\nabla L(x)\|_*` without bounds.
    """

    mean: Array
    sampled: Array
    worst: Array
    predicted: Array

    @property
    def relative(self) -> Array:
        """The worst error over the predicted change, free of the scale of the loss.

        A linear loss has 0. At 1 the plane is off by as much as it predicts. Infinite
        where the gradient vanishes, so that the plane predicts no change.
        """
        safe = jnp.where(self.predicted > 0, self.predicted, 1)
        return jnp.where(self.predicted > 0, self.worst / safe, jnp.inf)


def _objective(logits_fn: LogitsFn, loss: Loss, y: Array) -> Objective:
    return lambda x: loss(logits_fn(x), y)


def _value_and_gradient(objective: Objective, x: Array) -> tuple[Array, Array]:
    def summed(x):
        values = objective(x)
        return jnp.sum(values), values

    gradient, values = canonical(jax.grad(summed, has_aux=True))(x)
    return values, gradient


def tangent_error(objective: Objective, x: Array) -> Objective:
    r"""How far the tangent plane at x is off, as a function of the point.

    .. math:: g(\delta; x) =
        \big| L(x + \delta) - L(x) - \langle \delta, \nabla L(x) \rangle \big|

    Its gradient at x itself is zero, so a search for its maximum must start elsewhere.
    The gradient of L at x is taken once.

    Args:
      objective: L, (B, ...) -> (B,).
      x: (B, ...) where the plane touches.

    Returns:
      The function x + delta -> g, (B, ...) -> (B,), in units of L.

    Reference: Qin et al. 2019, arXiv 1907.02610, what equation 5 maximises.
    """
    value, gradient = _value_and_gradient(objective, x)
    return lambda z: _error(objective, value, gradient, x, z)


def _error(
    objective: Objective, value: Array, gradient: Array, x: Array, z: Array
) -> Array:
    return jnp.abs(objective(z) - value - total(gradient * (z - x)))


def cosine(first: Array, second: Array) -> Array:
    r"""Cosine of the angle between two arrays of each example, (B,).

    NaN where one of them is zero, since there is no angle.
    """

    def unit(a):
        # Scaled first, so that the square of a tiny gradient does not vanish. The
        # cosine does not depend on the scale, so neither does its gradient.
        scale = jax.lax.stop_gradient(wide_largest(jnp.abs(a)))
        a = a / jnp.where(scale > 0, scale, 1)
        return a, total(jnp.square(a))

    (a, aa), (b, bb) = unit(first), unit(second)
    square = aa * bb
    defined = square > 0
    value = total(a * b) / jnp.sqrt(jnp.where(defined, square, 1))
    return jnp.where(defined, value, jnp.nan)


def gradient_alignment(
    logits_fn: LogitsFn,
    x: Array,
    y: Array,
    ball: Ball | float,
    *,
    key: Key,
    loss: Loss = losses.cross_entropy,
    samples: int = 8,
) -> Array:
    r"""How much the gradient keeps its direction over the ball.

    .. math:: \mathbb{E}_{\eta \sim U(B_\epsilon)} \cos\big(
        \nabla_x L(x), \nabla_x L(x + \eta)\big)

    1 for a linear model with two classes, about 0 where the gradient at x says nothing
    about the ball. Draws with a zero gradient are left out; NaN where the gradient is
    exactly zero at x or at every draw, as it is where a float32 cross entropy has
    saturated. Close to saturation the gradient of the label's own logit is lost to
    rounding, so for confident models ``losses.margin`` is the better loss.

    Args:
      logits_fn: the model.
      x: (B, ...) images.
      y: (B,) labels.
      ball: where eta is drawn; a number is the radius of ``linf``.
      key: one key, or one per example.
      loss: L, per example.
      samples: draws of eta.

    Returns:
      (B,) in [-1, 1].

    Raises:
      ValueError: if ``samples`` is below 1, or ``x`` no float array of images.

    Reference: Andriushchenko and Flammarion 2020, arXiv 2007.02617, equation 4; there
    eta is uniform in the Linf cube without bounds, which ``linf(eps, bounds=None)`` is.
    """
    check_images(x)
    check_count('samples', samples)
    ball, each = as_ball(ball), keys.per_example(key, x.shape[0])
    objective = _objective(logits_fn, check_loss(loss), y)
    here = _value_and_gradient(objective, x)[1]

    def add(carry, i):
        there = _value_and_gradient(objective, ball.sample(keys.fold(each, i), x))[1]
        value = cosine(here, there)
        defined = ~jnp.isnan(value)
        summed, count = carry
        summed += jnp.where(defined, value, 0)
        return (summed, count + defined.astype(summed.dtype)), None

    zero = jnp.zeros_like(x, shape=x.shape[:1])
    (summed, count), _ = jax.lax.scan(add, (zero, zero), jnp.arange(samples))
    return jnp.where(count > 0, summed / jnp.maximum(count, 1), jnp.nan)


def linearisation(
    logits_fn: LogitsFn,
    x: Array,
    y: Array,
    ball: Ball | float,
    *,
    key: Key,
    loss: Loss = losses.cross_entropy,
    samples: int = 32,
    search: Ascent | None = None,
) -> Linearisation:
    r"""How far the loss is from its tangent plane over the ball.

    .. math:: \gamma(\epsilon, x) = \max_{\delta \in B_\epsilon}
        \big| L(x + \delta) - L(x) - \langle \delta, \nabla L(x) \rangle \big|

    and the mean over uniform draws. The maximum is found by a search, so it is a lower
    bound. By the triangle inequality
    :math:`|L(x + \delta) - L(x)| \le |\langle \delta, \nabla L(x)\rangle| + \gamma`.

    Args:
      logits_fn: the model.
      x: (B, ...) images.
      y: (B,) labels.
      ball: the ball; a number is the radius of ``linf``.
      key: one key, or one per example.
      loss: L, per example.
      samples: uniform draws from the ball.
      search: the ascent that looks for the maximum, in its own ball; by default
        ``pgd(ball, 20)``, which keeps its best iterate.

    Returns:
      A ``Linearisation`` of (B,) arrays, in units of the loss.

    Raises:
      ValueError: if ``samples`` is below 1, or ``x`` no float array of images.

    Reference: Qin et al. 2019, arXiv 1907.02610, equation 5.
    """
    check_images(x)
    check_count('samples', samples)
    ball, each = as_ball(ball), keys.per_example(key, x.shape[0])
    search = pgd(ball, 20) if search is None else search
    objective = _objective(logits_fn, check_loss(loss), y)
    value, gradient = _value_and_gradient(objective, x)

    def error(z):
        return _error(objective, value, gradient, x, z)

    def add(carry, i):
        summed, largest = carry
        found = error(ball.sample(keys.fold(each, i), x))
        return (summed + found, jnp.maximum(largest, found)), None

    zero = jnp.zeros_like(value)
    (summed, sampled), _ = jax.lax.scan(add, (zero, zero), jnp.arange(samples))
    found = search.maximize(error, keys.fold(each, samples), x)
    # The plane's own maximum over the ball and its bounds: one full step.
    eps = jnp.broadcast_to(jnp.asarray(ball.eps, x.dtype), x.shape[:1])
    step = ball.project(x + wide(eps, x) * ball.steepest(gradient), x) - x
    return Linearisation(
        mean=summed / samples,
        sampled=sampled,
        worst=jnp.maximum(sampled, error(found)),
        predicted=total(gradient * step),
    )
