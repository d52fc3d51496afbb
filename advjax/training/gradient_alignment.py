"""GradAlign: single-step training without catastrophic overfitting.

A penalty for input gradients that turn within the ball, added to the loss of any
method. ``geometry.gradient_alignment`` measures their cosine.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import attacks, keys
from advjax.attacks.checks import check_weight
from advjax.balls import Ball, as_ball
from advjax.balls import of as balls_of
from advjax.geometry.linearity import cosine
from advjax.training.local_linearity import loss_and_slope
from advjax.training.methods import Method, method
from advjax.training.named import on_adversarial
from advjax.types import Array, Key, LogitsFn, dataclass

# A draw of its own: no attack takes that many steps.
_ETA = 2**31 - 1


@dataclass
class WithRandomPoint:
    """An inner attack, and a random point of the ball besides its images."""

    attack: Any
    ball: Ball

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array
    ) -> tuple[Any, Array]:
        """Returns what the attack returns, and x + eta."""
        each = keys.per_example(key, x.shape[0])
        point = attacks.starts.unclipped(self.ball, keys.fold(each, _ETA), x)
        return self.attack(logits_fn, each, x, y), point


@dataclass
class Aligned:
    """An outer loss plus the misalignment; build it with ``grad_align``."""

    outer: Any
    coefficient: Array
    through_both: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, and logits and state of the outer loss."""
        found, point = x_adv
        loss, logits, after = self.outer(forward, state, x, found, y)
        here = loss_and_slope(forward, state, x, y, draw=1)[1]
        there = loss_and_slope(forward, state, point, y, draw=2)[1]
        if not self.through_both:
            here = jax.lax.stop_gradient(here)
        value = cosine(here, there)
        apart = jnp.where(jnp.isnan(value), 0, 1 - value)
        return loss + self.coefficient * apart, logits, after


def published_coefficient(ball: Ball) -> Array:
    r"""The authors' weight for CIFAR-10.

    .. math:: \lambda(\epsilon) = 0.02 \cdot 10^{255\,\epsilon / 8}

    0.027 at 1/255, 0.2 at 8/255, 2 at 16/255: the range it was chosen on.

    Raises:
      ValueError: for another ball than ``linf``, or a radius above 16/255.
    """
    eps = ball.eps
    traced = isinstance(eps, jax.core.Tracer)
    most = np.float32(16 / 255)
    if ball.norm_name != 'linf' or not (traced or np.all(np.asarray(eps) <= most)):
        raise ValueError(
            'coefficient must be given outside of linf balls of radius <= 16/255, on '
            f'which the published one was chosen, got {ball}'
        )
    return 0.02 * 10 ** (255 * eps / 8)


def grad_align(
    base: Ball | float | Method,
    coefficient: float | Array | None = None,
    *,
    rate: float | Array = 1.0,
    through_both: bool = False,
) -> Method:
    r"""GradAlign: a penalty on input gradients that turn within the ball.

    .. math:: J(\theta, x', y) + \lambda \Big(1 - \cos\big(\nabla_x L(x, y),
        \nabla_x L(x + \eta, y)\big)\Big), \qquad
        x' = \Pi(x + \alpha \epsilon\, \mathrm{sign}\, \nabla_x L(x, y))

    eta is uniform in the ball, not clipped to the pixel range; L is the cross entropy
    in train mode, and its gradients are differentiated in turn (reverse over reverse).
    An example one of whose gradients is exactly zero has no cosine, and its term is 0;
    the authors' code leaves it out too, but takes the mean over the other examples
    alone. The running statistics of batch normalisation are those of the base method;
    in that code also those of x and x + eta. With a base that starts at random, the
    first gradient is that code's own of FGSM, at the random start; here it is at x, as
    in the paper. With PGD as the base that code differentiates both gradients, which is
    ``through_both`` here.

    Gradient evaluations per step: those of the base method (2 for FGSM), and 3: one at
    x, and at x + eta one that is differentiated and so counts as 2. ``through_both``
    makes it 4.

    Args:
      base: a ball, or a number as the radius of ``linf``, for FGSM from the clean
        image; or a method, such as ``fast(8 / 255)`` or ``pgd_at(8 / 255, 2)``, in its
        first ball.
      coefficient: lambda; that of ``published_coefficient`` by default. With 0 it is
        the base method, bit for bit.
      rate: step size alpha of FGSM in radii; of no other base.
      through_both: let the outer gradient flow through both gradients instead of that
        at x + eta alone, as the authors' code does for FGSM.

    Raises:
      ValueError: for a base without a ball or with a schedule, a weight that is no
        finite number >= 0, or none on another ball than linf of radius <= 16/255.

    Reference: Andriushchenko and Flammarion 2020, arXiv 2007.02617, equation 4.
    """
    if isinstance(base, Method):
        found = balls_of(base)
        if not found:
            raise ValueError('base must be a ball, or a method that holds one')
        if base.update is not None:
            raise ValueError('base must not be free: its noise is no inner maximum')
        if base.plan:
            raise ValueError(
                'base must not be scheduled: schedule the whole, with '
                'scheduled(grad_align(...), ...)'
            )
        ball = found[0]
    else:
        ball = as_ball(base)
        inner = attacks.pgd(ball, 1, rate, start=attacks.starts.clean, keep_best=False)
        base = method(inner, on_adversarial)
    if coefficient is None:
        coefficient = published_coefficient(ball)
    else:
        coefficient = check_weight('coefficient', coefficient)
    return dataclasses.replace(
        base,
        inner=WithRandomPoint(base.inner, ball),
        outer=Aligned(base.outer, coefficient, through_both),
    )
