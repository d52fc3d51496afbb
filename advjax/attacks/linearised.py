r"""The decision boundary to first order: hyperplanes towards other classes.

FAB, DeepFool and JSMA look at the boundary between the label and another class as the
hyperplane :math:`\{z : f(x) + \langle \nabla f(x), z - x \rangle = 0\}` with
:math:`f = z_t - z_y`.
"""

import functools

import jax
import jax.numpy as jnp

from advjax.attacks.goal import Goal
from advjax.attacks.gradients import jacobian
from advjax.rows import flat
from advjax.types import Array, Ball

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
    leave = goal.y
    if goal.target is not None and not goal.any_error:
        logits = goal.logits_fn(x)
        target = jax.nn.one_hot(goal.target, logits.shape[1], dtype=bool)
        leave = jnp.argmax(jnp.where(target, -jnp.inf, logits), axis=1)
    one_hot = functools.partial(jax.nn.one_hot, num_classes=classes, dtype=jnp.float32)
    vectors = one_hot(candidates) - one_hot(leave)[None]
    logits, gradients = jacobian(goal.logits_fn, x, vectors)
    values = jnp.sum(vectors * logits.astype(jnp.float32)[None], axis=2)
    return values, jnp.nan_to_num(gradients)


def boundary(
    ball: Ball, goal: Goal, candidates: Array, x: Array
) -> tuple[Array, Array]:
    """The candidate boundary whose hyperplane is the nearest, the range ignored.

    Returns:
      Its f (B,) and gradient (B, ...).
    """
    values, gradients = linearise(goal, candidates, x)
    gradients = jax.vmap(lambda g: ball.confine(g))(gradients)
    kind = ball.norm_name
    steep = jax.vmap(lambda gradient: length(DUAL[kind], gradient))(gradients)
    far = jnp.abs(values) / (1e-12 + steep)
    # A class's own boundary with itself is no boundary, nor is one without slope.
    far = jnp.where((steep > 0) & jnp.isfinite(values), far, jnp.inf)
    index = jnp.argmin(far, axis=0)
    rows = jnp.arange(x.shape[0])
    return values[index, rows], gradients[index, rows]


def candidate_classes(goal: Goal, x: Array, most: int | None) -> Array:
    """The (M, B) classes whose boundary may be the nearest.

    The target if there is one, else the ``most`` likeliest wrong ones, or all.
    """
    if goal.target is not None:
        return jnp.asarray(goal.target)[None]
    logits = jnp.nan_to_num(goal.logits_fn(x).astype(jnp.float32))
    wrong = logits.shape[1] - 1
    own = jax.nn.one_hot(goal.y, logits.shape[1], dtype=bool)
    likely = jnp.where(own, -jnp.inf, logits)
    return jax.lax.top_k(likely, min(wrong, most or wrong))[1].T
