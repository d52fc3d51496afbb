r"""Thermometer encoding: every pixel as bits, which are 1 up to its level.

.. math:: \tau(x)_k = [\,l x \ge k\,], \quad k = 0 \dots l - 1

The network is trained on codes. They are piecewise constant in the pixel, so there is
no gradient (shattered). Broken by BPDA with the ramp
:math:`\min(\max(l x - k, 0), 1)` in the backward pass.

Reference: Buckman et al. 2018, ICLR; Athalye et al. 2018, arXiv 1802.00420, section
5.1.1 and its notebook, for the ramp.
"""

import functools

import jax.numpy as jnp
from flax import struct

from advjax.attacks.checks import check_count
from advjax.defenses.defended import Defended, preprocessed
from advjax.models import Model
from advjax.types import Array, LogitsFn, dataclass


@dataclass
class Code:
    """Pixels in [0, 1] as codes: (B, ..., C) -> (B, ..., C * levels)."""

    levels: int = struct.field(pytree_node=False)

    def filled(self, x: Array) -> Array:
        """How far each pixel is above the start of each level, in levels."""
        feet = jnp.arange(self.levels, dtype=x.dtype)
        above = self.levels * x[..., None] - feet.reshape((1,) * x.ndim + (-1,))
        return above.reshape(*x.shape[:-1], x.shape[-1] * self.levels)

    def __call__(self, x: Array) -> Array:
        """The code, zeros and ones."""
        return (self.filled(x) >= 0).astype(x.dtype)


@dataclass
class Ramp(Code):
    """The differentiable stand-in of a code."""

    def __call__(self, x: Array) -> Array:
        """Between 0 and 1 in the level that the pixel lies in."""
        return jnp.clip(self.filled(x), 0, 1)


@functools.cache
def thermometer_model(model: Model, levels: int = 16) -> Model:
    """A network on codes (B, ..., C * levels) as a network on images, for training.

    Raises:
      ValueError: if there are fewer than 2 levels.
    """
    code = Code(check_count('levels', levels, 2))

    def apply(params, state, x, train=False, key=None):
        return model.apply(params, state, code(x), train=train, key=key)

    return Model(init=model.init, apply=apply)


def thermometer(logits_fn: LogitsFn, levels: int = 16) -> Defended:
    """A network on codes, deployed behind the encoder.

    Args:
      logits_fn: takes codes, (B, ..., C * levels) -> (B, K): the network that was given
        to ``thermometer_model``, with the parameters found by training that.
      levels: of the code, 16 in the paper.

    Raises:
      ValueError: if there are fewer than 2 levels.
    """
    check_count('levels', levels, 2)
    return preprocessed(logits_fn, Code(levels), Ramp(levels))
