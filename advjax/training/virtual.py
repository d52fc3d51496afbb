"""Virtual adversarial training: the largest change of a prediction, without labels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import balls, keys, losses, rows
from advjax.attacks.checks import check_count, check_positive, check_weight
from advjax.balls import Ball
from advjax.convolutions import canonical
from advjax.training.methods import Method, method
from advjax.types import Array, Key, LogitsFn, dataclass


@dataclass
class VirtualAdversary:
    """Steps to where the prediction changes most; see ``virtual_adversarial``."""

    ball: Ball
    probe: Array
    power_iterations: int = struct.field(pytree_node=False, default=1)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array | None = None
    ) -> Array:
        """Returns x + r_vadv; labels are not looked at."""
        del y
        clean = logits_fn(x)
        each = keys.per_example(key, x.shape[0])
        sphere = balls.l2(1.0)

        def divergence(z):
            return jnp.sum(losses.kl(logits_fn(z), clean))

        slope = canonical(jax.grad(divergence))
        direction: Any = keys.draw(
            lambda k: jax.random.normal(k, x.shape[1:], x.dtype), each
        )
        for _ in range(self.power_iterations):
            near = x + self.probe.astype(x.dtype) * sphere.steepest(direction)
            direction = jnp.nan_to_num(slope(near))
        eps = rows.wide(jnp.asarray(self.ball.eps, x.dtype), x)
        return self.ball.project(x + eps * self.ball.steepest(direction), x)


@dataclass
class Virtual:
    """Outer loss of virtual adversarial training."""

    weight: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns losses, logits of the clean images, and the new state."""
        clean, after = forward(state, x)
        moved = forward(state, x_adv, draw=1)[0]
        if y.ndim == 1:
            entropy = losses.cross_entropy(clean, jnp.maximum(y, 0))
            entropy = jnp.where(y >= 0, entropy, 0)
        else:
            entropy = losses.cross_entropy(clean, y)
        smooth = losses.kl(moved, jax.lax.stop_gradient(clean))
        return entropy + self.weight * smooth, clean, after


def virtual_adversarial(
    ball: Ball | float,
    weight: float | Array = 1.0,
    probe: float = 1e-2,
    power_iterations: int = 1,
) -> Method:
    r"""VAT: penalises the worst change of the prediction in a small ball.

    .. math:: J(x, y) + \alpha\, D_{KL}(p(\cdot \mid x, \hat\theta) \,\|\,
        p(\cdot \mid x + r_{vadv}, \theta)), \qquad
        r_{vadv} = \epsilon\, \frac{g}{\|g\|_2}, \quad
        g = \nabla_r D_{KL}(p(x) \,\|\, p(x + r)) \big|_{r = \xi d}

    an estimate of the r of length :math:`\epsilon` at which the divergence is largest.

    At r = 0 the divergence has no slope, but its curvature times a unit vector d is
    :math:`g / \xi`: one such gradient is one iteration of the power method for the
    direction in which the divergence grows fastest, begun at a random d.

    :math:`\hat\theta` says that the clean prediction is held constant in the outer
    gradient, as in the authors' code (in TRADES it is not). Examples without a label
    have y = -1, or a row of zeros where labels are (B, K) probabilities: they count in
    the second term alone. Both terms are averaged over the whole batch; the paper
    averages each over its own set, so with a fraction f of labelled examples its alpha
    is our weight over f. Running statistics of batch normalisation are those of the
    clean images. A network with dropout draws anew for each of the two passes.

    Gradient evaluations per step: ``power_iterations``, and 2 of the outer loss; one
    forward pass of the adversary.

    Args:
      ball: a ball, or a number as the radius of ``l2`` without a valid range, as in the
        paper. In other balls the last step is the steepest one.
      weight: alpha, of the divergence; 1 in the paper. With 0 it is ``standard``.
      probe: xi, the L2 length of r in g, in pixels. The paper's 1e-6 is below the
        rounding of float32 pixels: on a small net for 28 x 28 images the cosine of g to
        the exact curvature was 0.39 with 1e-6, and 0.99999 with the default.
      power_iterations: K; 1 in the paper.

    Raises:
      ValueError: for a weight below 0, a probe not above 0, or less than one iteration.

    Reference: Miyato et al. 2017, arXiv 1704.03976, equations 5 to 8 and algorithm 1.
    The adversary sees the model in eval mode, in the authors' code in train mode.
    """
    check_positive('probe', probe)
    check_count('power_iterations', power_iterations)
    if isinstance(ball, int | float | np.number | np.ndarray | jax.Array):
        ball = balls.l2(ball, bounds=None)
    adversary = VirtualAdversary(ball, jnp.float32(probe), power_iterations)
    outer = Virtual(check_weight('weight', weight))
    return method(adversary, outer, unlabelled=True)
