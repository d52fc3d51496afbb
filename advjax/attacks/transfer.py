r"""Views and gradient smoothing: what makes adversarial examples transfer.

A surrogate's gradient is averaged over views of the image, so that the example fools
what the views have in common:

    f = views(ensemble([a, b]), diverse(), scales(5))
    attack = mi_fgsm(ball).replace(transform=chain(translation(), momentum()))
    x_adv = attack(f, key, x, y)           # SI-DI-TI-MI on two models, one program

``views`` is a combinator on the logits function; ``translation`` one on the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import keys
from advjax.attacks.checks import check_count
from advjax.types import Array, Key, LogitsFn, Sampled, as_pytree, dataclass


@dataclass
class Views:
    """A model seen through views of its input; build it with ``views``."""

    logits_fn: LogitsFn
    transforms: tuple[Any, ...]

    def sample(self, key: Key, x: Array) -> Array:
        """Logits (S, B, K) of all views; ``key`` is one key or one per example."""
        each = keys.per_example(key, x.shape[0])
        images = x[None]
        for number, transform in enumerate(self.transforms):
            own = keys.fold(each, number)
            made = [
                transform(keys.fold(own, i), image) for i, image in enumerate(images)
            ]
            images = jnp.concatenate(made)
        logits = self.logits_fn(images.reshape(-1, *x.shape[1:]))
        return logits.reshape(len(images), x.shape[0], -1)

    def __call__(self, x: Array) -> Array:
        """The logits (B, K) of the image itself."""
        return self.logits_fn(x)


def views(logits_fn: LogitsFn, *transforms: Any) -> Views:
    """Shows attacks the mean loss over views of the image.

    Args:
      logits_fn: the model, or an ``ensemble`` of them.
      *transforms: each maps ((B,) keys, (B, ...) images) to (S, B, ...) views; they
        are applied one after the other, and S multiplies.

    Raises:
      ValueError: if there is none, or one is not callable.
    """
    if not transforms or not all(callable(t) for t in transforms):
        raise ValueError(
            f'transforms must be functions, at least one, got {transforms}'
        )
    if isinstance(logits_fn, Sampled):
        raise ValueError(
            'logits_fn must be deterministic: take the expectation outside'
        )
    return Views(
        logits_fn=as_pytree(logits_fn),
        transforms=tuple(as_pytree(t) for t in transforms),
    )


@dataclass
class Diverse:
    """Random resizing and padding; build it with ``diverse``."""

    probability: Array
    low: Array
    copies: int = struct.field(pytree_node=False)

    def __call__(self, key: Key, x: Array) -> Array:
        """Views (S, B, ...)."""
        return jnp.stack([self._once(keys.fold(key, i), x) for i in range(self.copies)])

    def _once(self, key: Key, x: Array) -> Array:
        size = jnp.asarray(x.shape[1:3], x.dtype)

        def one(k, image):
            scale, place, keep = jax.random.split(k, 3)
            factor = jax.random.uniform(scale, (), x.dtype, self.low, 1)
            shift = jax.random.uniform(place, (2,), x.dtype) * (1 - factor) * size
            small = jax.image.scale_and_translate(
                image, image.shape, (0, 1), jnp.stack([factor, factor]), shift, 'linear'
            )
            return jnp.where(jax.random.uniform(keep) < self.probability, small, image)

        return jax.vmap(one)(key, x)


def diverse(low: float = 0.9, probability: float = 0.5, copies: int = 1) -> Diverse:
    """Input diversity: the image shrunk by a random factor and put at a random place.

    Args:
      low: smallest factor, in (0, 1].
      probability: of doing anything at all.
      copies: views per image.

    Raises:
      ValueError: if a number is out of range.

    Reference: Xie et al. 2019, arXiv 1803.06978, equation 3. Deviation: the paper
    enlarges 299 pixels to at most 330 and pads; here the size of the input stays.
    """
    if not 0 < low <= 1 or not 0 <= probability <= 1:
        raise ValueError(
            'low must lie in (0, 1] and probability in [0, 1], got '
            f'{low} and {probability}'
        )
    return Diverse(
        probability=jnp.float32(probability),
        low=jnp.float32(low),
        copies=check_count('copies', copies),
    )


@dataclass
class Scales:
    """Copies at falling brightness; build it with ``scales``."""

    copies: int = struct.field(pytree_node=False)

    def __call__(self, key: Key, x: Array) -> Array:
        """Views (S, B, ...): x, x / 2, x / 4, ..."""
        del key
        factors = jnp.asarray(0.5 ** np.arange(self.copies), x.dtype)
        return factors.reshape((-1,) + (1,) * x.ndim) * x[None]


def scales(copies: int = 5) -> Scales:
    r"""Scale invariance: :math:`\frac1m \sum_{i<m} L(x / 2^i)`.

    Raises:
      ValueError: if ``copies`` is not a positive integer.

    Reference: Lin et al. 2020, arXiv 1908.06281, equation 6 (SI).
    """
    return Scales(copies=check_count('copies', copies))
