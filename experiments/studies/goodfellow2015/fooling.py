r"""Fooling images: noise that a model is sure to recognise.

.. math:: x' = x + \epsilon\,\mathrm{sign}(\nabla_x\, p(y = i \mid x)),
    \qquad x \sim N(0, I)

One gradient step from Gaussian noise towards a class, with new noise until it works.
The step is any targeted attack; ``fgsm`` takes the one above, because the gradients of
p and of log p have the same sign.

Reference: Goodfellow et al. 2015, arXiv 1412.6572, appendix A, figure 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax import balls, keys
from advjax.attacks.checks import check_count
from advjax.rows import choose
from advjax.types import Array, Key, LogitsFn


class Fooling(NamedTuple):
    """Images made from noise.

    Attributes:
      x: (B, ...) the image that fooled the model, or the last try.
      success: (B,) whether the model gives the target at least the confidence.
      tries: (B,) draws of noise that were needed; the share with ``success`` and 1 try
        is the success rate of a single step.
    """

    x: Array
    success: Array
    tries: Array


def fooling_images(
    logits_fn: LogitsFn,
    target: Array,
    shape: tuple[int, ...],
    attack: Any,
    *,
    key: Key,
    confidence: float = 0.5,
    tries: int = 10,
) -> Fooling:
    """Turns Gaussian noise into images of given classes.

    Args:
      logits_fn: the model; its confidence is the softmax of the logits.
      key: one key, or one per image.
      target: (B,) the classes to be seen.
      shape: shape of one image.
      attack: takes a target, such as ``fgsm(linf(0.25, bounds=None))``; the ball must
        be without bounds, as noise is.
      confidence: the least probability of the target that counts as success.
      tries: draws of noise at most.

    Raises:
      ValueError: if ``confidence`` is not in [0, 1], ``tries`` is no positive integer,
        ``target`` is not a vector, or the attack's ball has bounds.
    """
    check_count('tries', tries)
    if not 0 <= confidence <= 1:
        raise ValueError(f'confidence must lie in [0, 1], got {confidence}')
    target = jnp.asarray(target)
    if target.ndim != 1:
        raise ValueError(f'target must have shape (B,), got {target.shape}')
    bounded = [ball for ball in balls.of(attack) if ball.bounds is not None]
    if bounded:
        raise ValueError(
            f'attack must search a ball without bounds, as noise is, got {bounded[0]}'
        )
    each = keys.per_example(key, target.shape[0])

    def unfinished(carry):
        tried, found = carry
        return (tried < tries) & ~jnp.all(found.success)

    def again(carry):
        tried, found = carry
        own = keys.fold(each, tried)
        noise = keys.draw(lambda k: jax.random.normal(k, shape), keys.fold(own, 0))
        answer = jnp.argmax(logits_fn(noise), axis=1)
        x = attack(logits_fn, keys.fold(own, 1), noise, answer, target)
        p = jax.nn.softmax(logits_fn(x).astype(jnp.float32))
        reached = jnp.take_along_axis(p, target[:, None], axis=1)[:, 0] >= confidence
        new = ~found.success
        return tried + 1, Fooling(
            choose(new, x, found.x), found.success | reached, found.tries + new
        )

    size = target.shape[0]
    nothing = Fooling(
        jnp.zeros((size, *shape)),
        jnp.zeros((size,), bool),
        jnp.zeros((size,), jnp.int32),
    )
    start = (jnp.zeros((), jnp.int32), nothing)
    return jax.lax.while_loop(unfinished, again, start)[1]
