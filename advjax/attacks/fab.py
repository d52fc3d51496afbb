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

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, halfspaces, keys, losses
from advjax.attacks import minimum
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import jacobian
from advjax.balls import Ball, confine, inside
from advjax.rows import choose, flat, total, wide
from advjax.types import Array, Key, LogitsFn, check_images, dataclass

DUAL = {'linf': 'l1', 'l2': 'l2', 'l1': 'linf'}


def length(kind: str, x: Array) -> Array:
    """The norm of every example, (B,)."""
    size = flat(jnp.abs(x))
    if kind == 'l1':
        return jnp.sum(size, axis=1)
    top = jnp.max(size, axis=1)
    if kind == 'linf':
        return top
    scale = jnp.where(top > 0, top, 1)
    return jnp.sqrt(jnp.sum((size / scale[:, None]) ** 2, axis=1)) * scale


def linearise(goal: Goal, candidates: Array, x: Array) -> tuple[Array, Array]:
    """The boundaries towards candidate classes, to first order.

    Args:
      goal: what counts as success, and the model.
      candidates: (M, B) classes to consider.
      x: (B, ...) where to linearise.

    Returns:
      f = z_class - z_y (M, B), or against the strongest rival of a target to be
      reached, and its gradients (M, B, ...). Non-finite ones are infinitely far.
    """
    classes = jax.eval_shape(goal.logits_fn, x).shape[1]
    leave = _rival(goal, goal.logits_fn(x)) if _reaches(goal) else goal.y
    vectors = jax.nn.one_hot(candidates, classes) - jax.nn.one_hot(leave, classes)[None]
    logits, gradients = jacobian(goal.logits_fn, x, vectors)
    values = jnp.sum(vectors * logits.astype(jnp.float32)[None], axis=2)
    return values, jnp.nan_to_num(gradients)


def boundary(
    ball: Ball, goal: Goal, candidates: Array, x: Array
) -> tuple[Array, Array]:
    """The candidate boundary whose hyperplane is the nearest, range left aside.

    Returns:
      Its f (B,) and gradient (B, ...).
    """
    values, gradients = linearise(goal, candidates, x)
    gradients = jax.vmap(lambda g: confine(ball, g))(gradients)
    kind = balls.kind(ball)
    steep = jax.vmap(lambda gradient: length(DUAL[kind], gradient))(gradients)
    far = jnp.abs(values) / (1e-12 + steep)
    # A class's own boundary with itself is no boundary, nor is one without slope.
    far = jnp.where((steep > 0) & jnp.isfinite(values), far, jnp.inf)
    index = jnp.argmin(far, axis=0)
    rows = jnp.arange(x.shape[0])
    return values[index, rows], gradients[index, rows]


def _reaches(goal: Goal) -> bool:
    """Whether a certain class must be reached, not any other than the label."""
    return goal.target is not None and goal.towards is goal.target


def _rival(goal: Goal, logits: Array) -> Array:
    """The strongest class that is not the target."""
    target = jax.nn.one_hot(goal.towards, logits.shape[1], dtype=bool)
    return jnp.argmax(jnp.where(target, -jnp.inf, logits), axis=1)


def candidate_classes(goal: Goal, x: Array, most: int | None) -> Array:
    """The (M, B) classes whose boundary may be the nearest.

    The target if there is one, else the ``most`` likeliest wrong ones, or all.
    """
    if goal.target is not None:
        return jnp.asarray(goal.towards)[None]
    logits = jnp.nan_to_num(goal.logits_fn(x).astype(jnp.float32))
    wrong = logits.shape[1] - 1
    own = jax.nn.one_hot(goal.y, logits.shape[1], dtype=bool)
    likely = jnp.where(own, -jnp.inf, logits)
    return jax.lax.top_k(likely, min(wrong, most or wrong))[1].T


@dataclass
class Fab:
    """The FAB attack; build it with ``fab``."""

    ball: Any
    alpha_max: Array
    eta: Array
    beta: Array
    steps: int = struct.field(pytree_node=False)
    refine: int = struct.field(pytree_node=False)
    random_start: bool = struct.field(pytree_node=False)
    classes: int | None = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Model calls per example; one with its gradients counts once."""
        return 2 + 2 * self.steps + self.refine

    def _start(self, key: Key, x0: Array) -> Array:
        """Half a radius away; the clean image without ``random_start``."""
        if not self.random_start:
            return x0
        kind = balls.kind(self.ball)

        def draw(k):
            if kind == 'linf':
                t = jax.random.uniform(k, x0.shape[1:], x0.dtype, -1, 1)
            else:
                t = jax.random.normal(k, x0.shape[1:], x0.dtype)
            return t / length(kind, t[None])[0]

        radius = wide(balls.radius(self.ball, x0), x0)
        return inside(self.ball, x0 + radius / 2 * keys.draw(draw, key), x0)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Returns the closest adversarial example found, else ``x``."""
        check_images(x)
        kind, bounds = balls.kind(self.ball), self.ball.bounds
        each = keys.per_example(key, x.shape[0])
        goal, best = minimum.begin(x, logits_fn, losses.margin, y, target)
        candidates = candidate_classes(goal, x, self.classes)

        def body(carry, _):
            point, best = carry
            value, w = boundary(self.ball, goal, candidates, point)
            offset = total(w * point) - value
            d1 = halfspaces.nearest(kind, point, w, offset, bounds) - point
            d2 = halfspaces.nearest(kind, x, w, offset, bounds) - x
            a1 = jnp.maximum(length(kind, d1), 1e-8)
            a2 = jnp.maximum(length(kind, d2), 1e-8)
            alpha = wide(jnp.minimum(a1 / (a1 + a2), self.alpha_max), x)
            mixed = (1 - alpha) * (point + self.eta * d1) + alpha * (x + self.eta * d2)
            mixed = inside(self.ball, jnp.where(jnp.isfinite(mixed), mixed, point), x)
            won = minimum.succeeds(goal, goal.logits_fn(mixed))
            best = minimum.update(best, self.ball, mixed, x, won)
            back = x + self.beta * (mixed - x)
            return (choose(won, back, mixed), best), None

        carry = self._start(keys.fold(each, 0), x), best
        (_, best), _ = jax.lax.scan(body, carry, length=self.steps)
        best = minimum.refine(best, goal, self.ball, x, self.refine)
        return minimum.result(best, self.ball, x)


def fab(
    ball: Ball | float,
    steps: int = 100,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    refine: int = 0,
    random_start: bool = False,
    classes: int | None = None,
) -> Fab:
    """The fast adaptive boundary attack; ``targeted(fab(ball), 9)`` is FAB-T.

    Args:
      ball: an Linf, L2 or L1 ball: the norm to minimise, the range, and the radius
        beyond which an adversarial example is not returned (may be infinite).
      steps: number of linearisations.
      alpha_max: largest weight of the clean image.
      eta: overshoot.
      beta: how far a success is pulled back towards the clean image.
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
        ball=check_ball(ball, 'fab', ('linf', 'l2', 'l1')),
        alpha_max=jnp.float32(check_positive('alpha_max', alpha_max)),
        eta=jnp.float32(check_positive('eta', eta)),
        beta=jnp.float32(check_positive('beta', beta)),
        steps=check_count('steps', steps),
        refine=check_count('refine', refine, 0),
        random_start=random_start,
        classes=classes,
    )
