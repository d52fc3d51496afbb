r"""FAB: the fast adaptive boundary attack, a minimum-norm attack (Linf, L2, L1).

Each step linearises the boundary between the label and another class at the current
point, :math:`\pi = \{z : f(x_i) + \langle \nabla f(x_i), z - x_i \rangle = 0\}` with
:math:`f = z_t - z_y`, projects both the current point and the clean image
on it within the range, :math:`d_1 = P_\pi(x_i) - x_i`, :math:`d_2 = P_\pi(x_0) - x_0`,
and mixes them:

.. math::
    x_{i+1} &= \mathrm{clip}\big((1 - \alpha)(x_i + \eta d_1)
               + \alpha (x_0 + \eta d_2)\big), \qquad
    \alpha = \min\Big(\frac{\|d_1\|}{\|d_1\| + \|d_2\|}, \alpha_{max}\Big)

with overshoot :math:`\eta = 1.05` and :math:`\alpha_{max} = 0.1`. An adversarial point
is recorded, and the search goes back towards the clean image,
:math:`x_0 + \beta (x - x_0)` with :math:`\beta = 0.9`.

Reference: Croce and Hein 2020, arXiv 1907.02044, algorithm 1 (FAB-T: section 2.5).
Deviation: an optional bisection at the end (``refine``), which the paper calls final
search and its code in AutoAttack leaves out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, halfspaces, keys, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_count, check_positive, norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.linearised import boundary, candidate_classes, length
from advjax.attacks.minimum import Nearest
from advjax.attacks.search import call, iterate
from advjax.balls import inside
from advjax.rows import choose, total, wide
from advjax.types import Array, Ball, Found, Key, dataclass


class FabState(NamedTuple):
    """Where the walk stands, and the (M, B) candidate classes."""

    x: Array
    nearest: Nearest
    candidates: Array


@dataclass
class Fab:
    """The FAB attack; build it with ``fab``."""

    ball: Ball
    bias: Array
    overshoot: Array
    back: Array
    steps: int = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    random_start: bool = struct.field(pytree_node=False)
    classes: int | None = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradient counts once."""
        return 2 + 2 * self.steps + self.refine

    def _start(self, key: Key, x0: Array) -> Array:
        """Half a radius away; the clean image without ``random_start``."""
        if not self.random_start:
            return x0
        norm = self.ball.norm_name

        def draw(k):
            if norm == 'linf':
                t = jax.random.uniform(k, x0.shape[1:], x0.dtype, -1, 1)
            else:
                t = jax.random.normal(k, x0.shape[1:], x0.dtype)
            return t / length(norm, t[None])[0]

        radius = wide(balls.radius(self.ball, x0), x0)
        return inside(self.ball, x0 + radius / 2 * keys.draw(draw, key), x0)

    def init(self, goal: Goal, key: Key, x0: Array) -> FabState:
        """Looks at the clean image, and chooses the classes."""
        nearest = minimum.begin(goal, x0)
        candidates = candidate_classes(goal, x0, self.classes)
        return FabState(self._start(keys.fold(key, 0), x0), nearest, candidates)

    def step(self, goal: Goal, x0: Array, state: FabState) -> FabState:
        """Projects on the nearest linearised boundary, with a bias to ``x0``."""
        norm, bounds, point = self.ball.norm_name, self.ball.bounds, state.x
        value, w = boundary(self.ball, goal, state.candidates, point)
        offset = total(w * point) - value
        d1 = halfspaces.nearest(norm, point, w, offset, bounds) - point
        d2 = halfspaces.nearest(norm, x0, w, offset, bounds) - x0
        a1 = jnp.maximum(length(norm, d1), 1e-8)
        a2 = jnp.maximum(length(norm, d2), 1e-8)
        bias = wide(jnp.minimum(a1 / (a1 + a2), self.bias), x0)
        mixed = (1 - bias) * (point + self.overshoot * d1) + bias * (
            x0 + self.overshoot * d2
        )
        mixed = inside(self.ball, jnp.where(jnp.isfinite(mixed), mixed, point), x0)
        seen = state.nearest.judge(goal, goal.logits_fn(mixed))
        return state._replace(
            x=choose(seen.crossed, x0 + self.back * (mixed - x0), mixed),
            nearest=state.nearest.update(self.ball, mixed, x0, seen),
        )

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The closest adversarial example found, else ``x``."""
        goal = goal.with_loss(losses.margin)
        state = iterate(self, goal, key, x)
        return minimum.refined(self, state.nearest, goal, x)

    __call__ = call


def fab(
    ball: Ball | None = None,
    steps: int = 100,
    bias: float = 0.1,
    overshoot: float = 1.05,
    back: float = 0.9,
    refine: int = 0,
    random_start: bool = False,
    classes: int | None = None,
) -> Fab:
    """The fast adaptive boundary attack; ``targeted(fab(ball), 9)`` is FAB-T.

    Args:
      ball: an Linf (default), L2 or L1 ball: the norm to minimise, the range, and the
        radius beyond which nothing is returned; ``linf(inf)`` by default.
      steps: number of linearisations.
      bias: largest weight of the clean image, the paper's alpha_max.
      overshoot: factor of every move, its eta.
      back: its beta, how far a success is pulled back towards the clean image.
      refine: bisection steps at the end.
      random_start: start half a radius away instead of at the clean image.
      classes: consider this many likeliest wrong classes; all by default.

    Raises:
      ValueError: for another ball or steps < 1.

    Reference: Croce and Hein 2020, arXiv 1907.02044.
    """
    if classes is not None:
        check_count('classes', classes)
    return Fab(
        ball=norm_ball(ball, 'fab', ('linf', 'l2', 'l1')),
        bias=jnp.float32(check_positive('bias', bias)),
        overshoot=jnp.float32(check_positive('overshoot', overshoot)),
        back=jnp.float32(check_positive('back', back)),
        steps=check_count('steps', steps),
        refine=check_count('refine', refine, 0),
        random_start=random_start,
        classes=classes,
    )
