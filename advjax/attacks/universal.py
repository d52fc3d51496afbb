r"""Universal perturbation: one delta that fools the model on a whole data set.

.. math:: \max_{\|\delta\|_p \le \epsilon} \mathbb{E}_{(x, y)}
          \big[\min(L(f(\mathrm{clip}(x + \delta)), y), \beta)\big]

by projected ascent on mini-batches; the loss is cut at beta so that a few images cannot
dominate.

Reference: Shafahi et al. 2020, arXiv 1811.11304, algorithm 2; the problem is that of
Moosavi-Dezfooli et al. 2017, arXiv 1610.08401, who add up DeepFool steps instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys
from advjax.attacks.ascent import Ascent
from advjax.attacks.checks import check_count, check_positive
from advjax.attacks.goal import Goal
from advjax.attacks.named import pgd
from advjax.balls import Ball, as_ball
from advjax.types import Array, Key, LogitsFn, check_images, dataclass


@dataclass
class Universal:
    """A universal perturbation; build it with ``universal``."""

    ascent: Ascent
    ball: Any
    most: Array
    batch: int = struct.field(pytree_node=False)

    @property
    def calls(self) -> int:
        """Gradients of one mini-batch: not per example, the work is shared."""
        return self.ascent.steps

    def fit(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """The perturbation (1, ...) learned from images (N, ...) and labels (N,).

        A single key decides everything; of one key per image, the first is taken.
        """
        check_images(x)
        key = keys.typed(key).reshape(-1)[0]
        size = min(self.batch, x.shape[0])
        centre = jnp.zeros_like(x[:1])

        def step(state, i):
            chosen = jax.random.choice(
                jax.random.fold_in(key, i), x.shape[0], (size,), replace=False
            )
            aim = None if target is None else jnp.take(target, chosen)
            goal = Goal(logits_fn, self.ascent.loss, jnp.take(y, chosen), aim)
            images = jnp.take(x, chosen, axis=0)

            def mean(delta):
                value = goal(self.apply(images, delta))
                return jnp.mean(jnp.minimum(value, self.most))[None]

            return self.ascent.step(mean, centre, state), None

        state = self.ascent.init(key, centre)
        state, _ = jax.lax.scan(step, state, jnp.arange(self.ascent.steps))
        return state.x

    def apply(self, x: Array, delta: Array) -> Array:
        """The perturbed images, inside the range."""
        moved = x + delta
        if self.ball.bounds is not None:
            moved = jnp.clip(moved, *self.ball.bounds)
        return moved

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Fits on ``x`` and perturbs it: the one attack whose examples share a fate."""
        delta = self.fit(logits_fn, key, x, y, target)
        return self.ball.project(self.apply(x, delta), x)


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
    ball = as_ball(ball)
    free: Any = ball.replace(bounds=None) if hasattr(ball, 'replace') else ball
    return Universal(
        ascent=pgd(free, steps, rate, keep_best=False, **options),
        ball=ball,
        most=jnp.float32(check_positive('most', most)),
        batch=check_count('batch', batch),
    )
