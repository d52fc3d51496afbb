r"""Universal perturbation: one delta that fools the model on a whole data set.

.. math:: \max_{\|\delta\|_p \le \epsilon} \mathbb{E}_{(x, y)}
          \big[\min(L(f(\mathrm{clip}(x + \delta)), y), \beta)\big]

by projected ascent on mini-batches; the loss is cut at beta so that a few images cannot
dominate.

Reference: Shafahi et al. 2020, arXiv 1811.11304, algorithm 2; the problem is that of
Moosavi-Dezfooli et al. 2017, arXiv 1610.08401, who add up DeepFool steps instead.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys
from advjax.attacks.ascent import Ascent
from advjax.attacks.checks import check_count, check_positive
from advjax.attacks.goal import Goal, Maximum, goal
from advjax.attacks.named import pgd
from advjax.attacks.search import call, spent
from advjax.balls import clip
from advjax.types import Array, Ball, Found, Key, LogitsFn, check_images, dataclass


@dataclass
class Universal:
    """A universal perturbation; build it with ``universal``."""

    ascent: Ascent
    most: Array
    batch: int = struct.field(pytree_node=False)
    ranked = False

    @property
    def calls(self) -> int:
        """Gradients of one mini-batch: not per example, the work is shared."""
        return self.ascent.steps

    @property
    def ball(self) -> Ball:
        """Where the perturbed images lie."""
        return self.ascent.ball

    def fit(
        self,
        logits_fn: LogitsFn,
        x: Array,
        y: Array,
        target: Array | None = None,
        *,
        key: Key,
    ) -> Array:
        """The perturbation (1, ...) learned from images (N, ...) and labels (N,).

        The key of the first image decides everything.
        """
        check_images(x)
        first = keys.per_example(key, x.shape[0])[0]
        return self._fit(goal(logits_fn, y, target), first, x)

    def _fit(self, goal: Goal, key: Key, x: Array) -> Array:
        goal = goal.with_loss(self.ascent.loss)
        size = min(self.batch, x.shape[0])
        # The perturbation itself is no image.
        ascent = dataclasses.replace(self.ascent, ball=self.ball.unbounded())
        centre = jnp.zeros_like(x[:1])

        def step(state, i):
            own = jax.random.fold_in(key, i)
            chosen = jax.random.choice(own, x.shape[0], (size,), replace=False)
            some = goal.take(chosen)
            images = jnp.take(x, chosen, axis=0)

            def mean(delta):
                each = keys.per_example(own, size)
                value = some.value(self.apply(images, delta), each)
                return jnp.mean(jnp.minimum(value, self.most))[None]

            return ascent.step(Maximum(mean), centre, state), None

        begun = ascent.init(goal, keys.per_example(key, 1), centre)
        state, _ = jax.lax.scan(step, begun, jnp.arange(self.ascent.steps))
        return state.x

    def apply(self, x: Array, delta: Array) -> Array:
        """The perturbed images, inside the range."""
        return clip(self.ball, x + delta)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Fits on ``x`` and perturbs it: its examples depend on each other."""
        moved = self.apply(x, self._fit(goal, key[0], x))
        return Found(self.ball.project(moved, x), None, spent(self, x))

    __call__ = call


def universal(
    ball: Ball | float,
    steps: int = 200,
    rate: float = 0.05,
    batch: int = 256,
    most: float = 9.0,
    **options: Any,
) -> Universal:
    """One perturbation for all images.

    ``attack.fit(...)`` returns the perturbation, ``attack.apply(x, delta)`` adds it to
    other images; called as an attack it fits on the images it is given.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: mini-batches.
      rate: step size in radii.
      batch: images per step.
      most: beta, where the loss of an image is cut; infinite for none.
      **options: of ``pgd``, such as ``loss``.

    Raises:
      ValueError: if a number is out of range.

    Reference: Shafahi et al. 2020, arXiv 1811.11304.
    """
    return Universal(
        ascent=pgd(ball, steps, rate, keep_best=False, **options),
        most=jnp.float32(check_positive('most', most)),
        batch=check_count('batch', batch),
    )
