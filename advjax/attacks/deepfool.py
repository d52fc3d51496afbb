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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import halfspaces, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.linearised import DUAL, candidate_classes, length, linearise
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call, iterate_while
from advjax.balls import clip
from advjax.rows import choose, total
from advjax.types import Array, Ball, Found, Key, dataclass


class DeepFoolState(NamedTuple):
    """Where the walk stands, and the (M, B) candidate classes."""

    x: Array
    nearest: Nearest
    candidates: Array
    time: Array


@dataclass
class DeepFool:
    """DeepFool in L2, Linf or L1; build it with ``deepfool``."""

    ball: Ball
    overshoot: Array
    steps: int = struct.field(pytree_node=False)
    classes: int | None = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradients counts once."""
        return 2 + 2 * self.steps + self.refine

    def init(self, goal: Goal, key: Key, x0: Array) -> DeepFoolState:
        """Looks at the clean image, and chooses the classes."""
        del key
        nearest = minimum.begin(goal, x0)
        candidates = candidate_classes(goal, x0, self.classes)
        return DeepFoolState(x0, nearest, candidates, jnp.zeros((), jnp.int32))

    def step(self, goal: Goal, x0: Array, state: DeepFoolState) -> DeepFoolState:
        """Walks to the nearest linearised boundary; an example found stays."""
        point, nearest = state.x, state.nearest
        values, gradients = linearise(goal, state.candidates, point)
        gradients = jax.vmap(lambda g: self.ball.confine(g))(gradients)
        rows = jnp.arange(x0.shape[0])

        def to_boundary(k):
            return self._move(values[k, rows], gradients[k, rows], point)

        few = _nearest(self.ball.norm_name, values, gradients)
        moves, far = jax.vmap(to_boundary)(few)
        move = moves[jnp.argmin(far, axis=0), rows]
        # From the clean image, so that earlier overshoots do not add up.
        walked = (point - x0) / (1 + self.overshoot) + move
        new = clip(self.ball, x0 + (1 + self.overshoot) * walked)
        new = choose(nearest.found, point, new)
        seen = nearest.judge(goal, goal.logits_fn(new))
        return state._replace(
            x=new,
            nearest=nearest.update(self.ball, new, x0, seen),
            time=state.time + 1,
        )

    def _move(self, value: Array, w: Array, point: Array) -> tuple[Array, Array]:
        """The move to one boundary, and its length, infinite without a slope."""
        norm, bounds = self.ball.norm_name, self.ball.bounds
        offset = total(w * point) - value
        move = halfspaces.nearest(norm, point, w, offset, bounds) - point
        move = jnp.where(jnp.isfinite(move), move, 0)
        # Beyond the range there is only the point closest to the boundary.
        short = total(w * move) < 0.999 * jnp.abs(value)
        far = length(norm, move) + jnp.where(short, 1e6, 0)
        useless = (length('linf', w) == 0) | ~jnp.isfinite(value)
        return move, jnp.where(useless, jnp.inf, far)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        goal = goal.with_loss(losses.margin)
        state = iterate_while(
            self, lambda s: ~s.nearest.found, goal, key, x, self.steps
        )
        return minimum.refined(self, state.nearest, goal, x)

    __call__ = call


def _nearest(kind: str, values: Array, gradients: Array) -> Array:
    """Indices (up to 3, B) of the nearest boundaries, the range ignored.

    The range only makes a boundary farther, so the nearest one within the range is
    nearly always among these.
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
    return DeepFool(
        ball=norm_ball(ball, 'deepfool', ('l2', 'linf', 'l1')),
        overshoot=jnp.float32(overshoot),
        steps=check_count('steps', steps),
        classes=classes,
        refine=check_count('refine', refine, 0),
    )
