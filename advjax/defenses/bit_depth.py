r"""Bit-depth reduction: pixels rounded to a few levels.

.. math:: g(x) = \mathrm{round}(x (2^b - 1)) / (2^b - 1)

Its gradient is zero almost everywhere (shattered). Broken by BPDA with the identity.

Reference: Xu et al. 2018, arXiv 1704.01155; Guo et al. 2018, arXiv 1711.00117.
"""

import jax.numpy as jnp

from advjax.attacks.checks import check_count
from advjax.defenses.defended import Defended, preprocessed
from advjax.types import Array, LogitsFn, dataclass


@dataclass
class Rounded:
    """Pixels in [0, 1] rounded to multiples of ``1 / steps``."""

    steps: Array

    def __call__(self, x: Array) -> Array:
        """An array like ``x``."""
        return jnp.round(x * self.steps) / self.steps


def bit_depth(logits_fn: LogitsFn, bits: int = 3) -> Defended:
    """A network that sees pixels of few bits.

    Images are in [0, 1]. On black and white images one bit obfuscates nothing: only a
    real change, across the middle, changes a pixel.

    Raises:
      ValueError: if ``bits`` is not an integer >= 1.
    """
    steps = 2 ** check_count('bits', bits) - 1
    return preprocessed(logits_fn, Rounded(jnp.float32(steps)))
