"""LLR: training for a loss that is locally linear, and flat towards its worst point.

``geometry.linearisation`` measures how linear the loss of a network is.
"""

from typing import Any

import jax
import jax.numpy as jnp

from advjax import attacks, losses
from advjax.attacks.checks import check_weight
from advjax.balls import Ball
from advjax.geometry.linearity import tangent_error
from advjax.rows import total
from advjax.training.methods import Method, method
from advjax.types import Array, Key, LogitsFn, dataclass


@dataclass
class LeastLinear:
    """Searches for the point of largest linearisation error; see ``llr``."""

    search: attacks.Ascent

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Returns x + delta, like ``x``."""
        error = tangent_error(lambda z: losses.cross_entropy(logits_fn(z), y), x)
        return self.search.maximize(error, key, x)


def loss_and_slope(
    forward: Any, state: Any, x: Array, y: Array, draw: int = 0
) -> tuple[tuple[Array, Array, Any], Array]:
    """Cross entropy of a training pass and its gradient in the images.

    Both can be differentiated in the parameters (reverse over reverse).

    Returns:
      ((losses (B,), logits, new state), gradient like ``x``).
    """

    def summed(images):
        logits, after = forward(state, images, draw=draw)
        values = losses.cross_entropy(logits, y)
        return jnp.sum(values), (values, logits, after)

    gradient, passed = jax.grad(summed, has_aux=True)(x)
    return passed, gradient


@dataclass
class Linearised:
    """Outer loss of LLR; build it with ``llr``."""

    error_weight: Array
    slope_weight: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the clean images, and the new state."""
        (clean, logits, after), gradient = loss_and_slope(forward, state, x, y)
        moved = losses.cross_entropy(forward(state, x_adv, draw=1)[0], y)
        predicted = total((x_adv - x) * gradient)
        error = jnp.abs(moved - clean - predicted)
        loss = clean + self.error_weight * error
        return loss + self.slope_weight * jnp.abs(predicted), logits, after


def llr(
    ball: Ball | float,
    error_weight: float | Array = 4.0,
    slope_weight: float | Array = 3.0,
    steps: int = 2,
    rate: float | Array | None = None,
) -> Method:
    r"""LLR: local linearity regularisation.

    .. math:: L(x) + \lambda\, g(\delta_{LLR}; x)
        + \mu\, |\delta_{LLR}^\top \nabla_x L(x)|, \qquad
        \delta_{LLR} = \arg\max_{\delta \in B_\epsilon} g(\delta; x), \qquad
        g(\delta; x) = |L(x + \delta) - L(x) - \delta^\top \nabla_x L(x)|

    L is the cross entropy, and g the error of its tangent plane at x. With lambda = mu
    = 1 the two terms bound :math:`|L(x + \delta) - L(x)|` from above, by the triangle
    inequality. The search starts at a uniform draw, because g has no gradient at x, and
    takes steepest steps of the ball; its last iterate is held constant in the outer
    gradient, which passes the gradient at x (reverse over reverse).

    Every pass of the network in the outer loss is one in train mode: batch
    normalisation normalises x and x + delta each by its own batch, and its running
    statistics are those of the clean images. A network with dropout draws anew for
    each, which g then measures too: such networks are not what this is for.

    Gradient evaluations per step: ``steps`` + 1 of the search (one at x), and 3 of the
    outer loss (the gradient at x counts as 2, as it is differentiated again).

    Args:
      ball: a ball, or a number as the radius of ``linf``. The paper grows eps from 0
        over the first epochs: ``training.scheduled``.
      error_weight: lambda, of g.
      slope_weight: mu, of the predicted change. With both 0 it is ``standard``.
      steps: steps of the search (2 on CIFAR-10).
      rate: step size in radii; 2.5 / steps by default.

    Raises:
      ValueError: if a weight is no finite number >= 0.

    Reference: Qin et al. 2019, arXiv 1907.02610, section 4. There the search
    takes steps of Adam (rate 0.1 on pixels in [0, 1]), which find up to a sixth more
    in 10 steps and no more in 2. The authors' later code, whose defaults differ (10
    steps, weights 2, 4 and 1.2 of the three terms), normalises x + delta by the
    statistics of x and holds the delta of the linear term constant while searching: its
    search climbs another function and finds less.
    """
    error = check_weight('error_weight', error_weight)
    slope = check_weight('slope_weight', slope_weight)
    search = attacks.pgd(ball, steps, rate, keep_best=False)
    return method(LeastLinear(search), Linearised(error, slope))
