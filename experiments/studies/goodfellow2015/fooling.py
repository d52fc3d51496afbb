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

from advjax import keys
from advjax.rows import choose
from advjax.types import Array, Key, LogitsFn


class Fooling(NamedTuple):
    """Images made from noise.

    Attributes:
      x: (B, ...) the image that fooled the model, or the last try.
      success: (B,) whether the target has a probability of one half or more.
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
    tries: int,
) -> Fooling:
    """Turns Gaussian noise into images of given classes.

    Args:
      logits_fn: the model; its confidence is the softmax of the logits.
      target: (B,) the classes to be seen, with a probability of at least one half.
      shape: shape of one image.
      attack: takes a target, such as ``fgsm(linf(0.25, bounds=None))``; without bounds,
        as noise is.
      key: one key, or one per image.
      tries: draws of noise at most.
    """
    size = target.shape[0]
    each = keys.per_example(key, size)

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
        reached = jnp.take_along_axis(p, target[:, None], axis=1)[:, 0] >= 0.5
        new = ~found.success
        return tried + 1, Fooling(
            choose(new, x, found.x), found.success | reached, found.tries + new
        )

    nothing = Fooling(
        jnp.zeros((size, *shape)),
        jnp.zeros((size,), bool),
        jnp.zeros((size,), jnp.int32),
    )
    start = (jnp.zeros((), jnp.int32), nothing)
    return jax.lax.while_loop(unfinished, again, start)[1]
