r"""DeepFool: straight to the nearest linearised boundary, again and again.

.. math::
    \hat l = \arg\min_{k \ne y} \frac{|f_k|}{\|w_k\|_q}, \qquad
    f_k = z_k - z_y, \quad w_k = \nabla f_k(x_i), \qquad
    r_i = \frac{|f_{\hat l}|}{\|w_{\hat l}\|_2^2}\, w_{\hat l}

(q dual to the norm; for Linf :math:`r_i = |f| / \|w\|_1\, \mathrm{sign}(w)`), until the
model errs at :math:`x_0 + (1 + \textit{overshoot}) \sum_i r_i`.

Reference: Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithms 1 and 2, Linf and
other norms by equation 11. Deviations: within a range, the step goes to the nearest
point of the nearest boundary *inside the range*, where the paper ignores it
(``bounds=None`` is the paper's); classes are left from the label, which is the
prediction wherever there is something to do; and a bisection (``refine``) takes the
overshoot back.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, halfspaces, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count
from advjax.attacks.fab import DUAL, candidate_classes, length, linearise
from advjax.balls import Ball, clip, confine, l2
from advjax.rows import choose, total
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


@dataclass
class DeepFool:
    """DeepFool in L2, Linf or L1; build it with ``deepfool``."""

    ball: Any
    overshoot: Array
    steps: int = struct.field(pytree_node=False)
    classes: int | None = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradients counts once."""
        return 2 + 2 * self.steps + self.refine

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        del key
        check_images(x)
        kind, bounds = balls.kind(self.ball), self.ball.bounds
        goal, best = minimum.begin(x, logits_fn, losses.margin, y, target)
        candidates = candidate_classes(goal, x, self.classes)

        def step_to(value, w, point):
            """The move to one boundary, and its length: infinite if it is no use."""
            offset = total(w * point) - value
            move = halfspaces.nearest(kind, point, w, offset, bounds) - point
            move = jnp.where(jnp.isfinite(move), move, 0)
            # Beyond the range there is only the point closest to the boundary.
            short = total(w * move) < 0.999 * jnp.abs(value)
            far = length(kind, move) + jnp.where(short, 1e6, 0)
            useless = (length('linf', w) == 0) | ~jnp.isfinite(value)
            return move, jnp.where(useless, jnp.inf, far)

        def unfinished(carry):
            i, _, best = carry
            return (i < self.steps) & ~jnp.all(best.found)

        def body(carry):
            i, point, best = carry
            values, gradients = linearise(goal, candidates, point)
            gradients = jax.vmap(lambda g: confine(self.ball, g))(gradients)
            rows = jnp.arange(x.shape[0])
            nearest = _nearest(kind, values, gradients)
            steps = jax.vmap(
                lambda k: step_to(values[k, rows], gradients[k, rows], point)
            )
            moves, far = steps(nearest)
            step = moves[jnp.argmin(far, axis=0), rows]
            # From the clean image, so that earlier overshoots do not add up.
            walked = (point - x) / (1 + self.overshoot) + step
            new = x + (1 + self.overshoot) * walked
            new = clip(self.ball, new)
            new = choose(best.found, point, new)
            won = minimum.succeeds(goal, goal.logits_fn(new))
            return i + 1, new, minimum.update(best, self.ball, new, x, won)

        carry = jnp.zeros((), jnp.int32), x, best
        best = jax.lax.while_loop(unfinished, body, carry)[2]
        best = minimum.refine(best, goal, self.ball, x, self.refine)
        return minimum.result(best, self.ball, x)


def _nearest(kind: str, values: Array, gradients: Array) -> Array:
    """The three nearest boundaries, range left aside: (up to 3, B) places.

    The range only makes a boundary farther, so the nearest inside it is nearly always
    among them.
    """
    steep = jax.vmap(lambda gradient: length(DUAL[kind], gradient))(gradients)
    far = jnp.abs(values) / jnp.where(steep > 0, steep, 1)
    far = jnp.where((steep > 0) & jnp.isfinite(values), far, jnp.inf)
    return jax.lax.top_k(-far.T, min(3, len(values)))[1].T


def deepfool(
    ball: Ball | None = None,
    steps: int = 50,
    overshoot: float = 0.02,
    classes: int | None = 10,
    refine: int = 10,
) -> DeepFool:
    """DeepFool, untargeted or towards a target.

    Args:
      ball: an L2 (default), Linf or L1 ball: the norm, the range, and the radius
        beyond which nothing is returned; ``l2(inf)`` by default.
      steps: most linearisations.
      overshoot: how far each step goes beyond the boundary.
      classes: consider this many likeliest wrong classes (None: all); the gradient
        of each is taken in every step.
      refine: bisection steps at the end; 0 is the paper's algorithm.

    Raises:
      ValueError: for another ball, steps < 1 or overshoot < 0.

    Reference: Moosavi-Dezfooli et al. 2016, arXiv 1511.04599.
    """
    if not overshoot >= 0:
        raise ValueError(f'overshoot must be >= 0, got {overshoot}')
    if classes is not None:
        check_count('classes', classes)
    ball = l2(float('inf')) if ball is None else ball
    return DeepFool(
        ball=check_ball(ball, 'deepfool', ('l2', 'linf', 'l1')),
        overshoot=jnp.float32(overshoot),
        steps=check_count('steps', steps),
        classes=classes,
        refine=check_count('refine', refine, 0),
    )
