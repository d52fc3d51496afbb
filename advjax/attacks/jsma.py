r"""JSMA: the Jacobian saliency map attack, two saturated pixels at a time (L0).

For a target t, with :math:`\alpha_i = \partial Z_t / \partial x_i` and
:math:`\beta_i = \sum_{j \ne t} \partial Z_j / \partial x_i`, every step takes the pair

.. math:: (p, q) = \arg\max -(\alpha_p + \alpha_q)(\beta_p + \beta_q)
          \quad\text{s.t.}\quad \alpha_p + \alpha_q > 0,\; \beta_p + \beta_q < 0

and moves both by :math:`\theta`, until the model answers t or the budget is spent.
Untargeted, the target is the likeliest wrong class of the clean image.

Reference: Papernot et al. 2016, arXiv 1511.07528, algorithms 2 and 3; the pairwise form
on logits ("JSMA-Z") as in Carlini and Wagner 2017, section II-D.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks import minimum
from advjax.attacks.checks import norm_ball
from advjax.attacks.goal import Goal
from advjax.attacks.gradients import jacobian
from advjax.attacks.linearised import candidate_classes
from advjax.attacks.minimum import Nearest, Verdict
from advjax.attacks.search import call, iterate_while
from advjax.rows import choose, flat, ones
from advjax.types import Array, Ball, Found, Key, dataclass


def best_pair(alpha: Array, beta: Array, open_: Array) -> tuple[Array, Array, Array]:
    """The most salient pair of open coordinates of every example.

    Row by row over the first of the pair, so that memory stays linear in n.

    Args:
      alpha: (B, n) gradients of the target.
      beta: (B, n) gradients of all other classes together.
      open_: (B, n) coordinates that may still move.

    Returns:
      p and q (B,), and the saliency (B,), which is 0 where no pair qualifies.
    """
    size = alpha.shape[1]

    def row(best, p):
        saliency, first, second = best
        a = alpha + alpha[:, p][:, None]
        b = beta + beta[:, p][:, None]
        fits = (a > 0) & (b < 0) & open_ & open_[:, p][:, None]
        fits &= (jnp.arange(size) != p)[None]
        value = jnp.where(fits, -a * b, 0)
        q = jnp.argmax(value, axis=1).astype(jnp.int32)
        value = jnp.max(value, axis=1)
        better = value > saliency
        return (
            jnp.where(better, value, saliency),
            jnp.where(better, p, first),
            jnp.where(better, q, second),
        ), None

    none = jnp.zeros(alpha.shape[0], jnp.int32)
    start = jnp.zeros_like(alpha[:, 0]), none, none
    saliency, p, q = jax.lax.scan(row, start, jnp.arange(size, dtype=jnp.int32))[0]
    return p, q, saliency


class JsmaState(NamedTuple):
    """Where the search stands; ``going`` is False for examples that are done."""

    x: Array
    nearest: Nearest
    towards: Array
    going: Array
    queries: Array
    time: Array


@dataclass
class Jsma:
    """The saliency map attack; build it with ``jsma``."""

    ball: Ball
    theta: float = struct.field(pytree_node=False)
    budget: float = struct.field(pytree_node=False)
    probabilities: bool = struct.field(pytree_node=False)
    calls, ranked = None, True  # As many calls as pixels are needed.

    def init(self, goal: Goal, key: Key, x0: Array) -> JsmaState:
        """Looks at the clean image, and chooses the class to go to."""
        del key
        nearest = minimum.begin(goal, x0)
        towards = candidate_classes(goal, x0, 1)[0]
        zero = jnp.zeros((), jnp.int32)
        queries = jnp.full(x0.shape[:1], 2, jnp.int32)
        return JsmaState(x0, nearest, towards, ~nearest.found, queries, zero)

    def step(self, goal: Goal, x0: Array, state: JsmaState) -> JsmaState:
        """Moves the most salient pair of every example that is not done."""

        def scores(x):
            logits = goal.logits_fn(x)
            return jax.nn.softmax(logits) if self.probabilities else logits

        low, high = self.ball.bounds or (-jnp.inf, jnp.inf)
        point, rows = state.x, jnp.arange(x0.shape[0])
        classes = jax.eval_shape(goal.logits_fn, x0).shape[1]
        to = jax.nn.one_hot(state.towards, classes)
        _, gradients = jacobian(scores, point, jnp.stack([to, 1 - to]))
        alpha, beta = (flat(jnp.nan_to_num(g)) for g in gradients)
        open_ = (point < high) if self.theta > 0 else (point > low)
        open_ = self.ball.confine(open_, False)
        # Darkening works by the opposite gradients.
        sign = 1.0 if self.theta > 0 else -1.0
        p, q, saliency = best_pair(sign * alpha, sign * beta, flat(open_))
        found = state.going & (saliency > 0)
        moved = flat(point).at[rows, p].add(self.theta).at[rows, q].add(self.theta)
        moved = jnp.clip(moved, low, high).reshape(x0.shape)
        point = choose(found, moved, point)
        seen = state.nearest.judge(goal, goal.logits_fn(point))
        seen = Verdict(seen.won & found, seen.rank)
        return JsmaState(
            point,
            state.nearest.update(self.ball, point, x0, seen),
            state.towards,
            found & ~seen.won,
            state.queries + 2 * ones(state.going),
            state.time + 1,
        )

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The adversarial example found, else ``x``."""
        goal = goal.with_loss(losses.margin)
        pairs = max(int(self.budget * jnp.size(x[0])) // 2, 1)
        state = iterate_while(self, lambda s: s.going, goal, key, x, pairs)
        return minimum.result(self, state.nearest, x, state.queries)

    __call__ = call


def jsma(
    ball: Ball | None = None,
    theta: float = 1.0,
    budget: float = 0.145,
    probabilities: bool = False,
) -> Jsma:
    """The Jacobian saliency map attack.

    Args:
      ball: an L0 ball: the range, and how many coordinates may differ at most;
        ``l0(inf)`` by default.
      theta: the move of a coordinate; 1 saturates it at once, negative darkens.
      budget: the share of coordinates that may be moved.
      probabilities: saliency of the softmax (the paper's) instead of the logits.

    Raises:
      ValueError: for another ball, theta = 0 or budget outside (0, 1].

    Reference: Papernot et al. 2016, arXiv 1511.07528.
    """
    if theta == 0:
        raise ValueError('theta must not be 0')
    if not 0 < budget <= 1:
        raise ValueError(f'budget must lie in (0, 1], got {budget}')
    return Jsma(
        ball=norm_ball(ball, 'jsma', ('l0',)),
        theta=float(theta),
        budget=float(budget),
        probabilities=probabilities,
    )
