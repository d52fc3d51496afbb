r"""JPEG compression without the bit stream: quantised cosine coefficients of blocks.

.. math:: g(x) = D^\top \big(Q \odot \mathrm{round}(D x D^\top / Q)\big) D

on blocks of 8 x 8 pixels, with the orthonormal cosine matrix D and the table Q of the
standard, scaled to a quality as the reference implementation scales it. Every channel
is treated as luminance: there is no change of colours and no subsampling. Rounding has
no gradient (shattered). Broken by BPDA with the identity.

Reference: Guo et al. 2018, arXiv 1711.00117; ITU-T T.81, annexes A.3.3 and K.1.
"""

import jax.numpy as jnp
import numpy as np

from advjax.defenses.defended import Defended, check_pictures, preprocessed
from advjax.types import Array, LogitsFn, dataclass

_SIDE = 8

# ITU-T T.81, table K.1: luminance, for quality 50.
_LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip


def cosines() -> np.ndarray:
    """The orthonormal cosine transform of 8 values as a matrix, float32."""
    k, n = np.mgrid[:_SIDE, :_SIDE]
    matrix = np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def table(quality: int) -> np.ndarray:
    """The steps of the 64 coefficients at a quality from 1 to 100, (8, 8) float32."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * scale + 50) // 100, 1, 255).astype(np.float32)


@dataclass
class Compressed:
    """Images in [0, 1] after their blocks' coefficients were rounded."""

    steps: Array

    def __call__(self, x: Array) -> Array:
        """An array like ``x``, (B, H, W, C)."""
        check_pictures(x)
        batch, height, width, channels = x.shape
        down, across = -height % _SIDE, -width % _SIDE
        padded = jnp.pad(x, ((0, 0), (0, down), (0, across), (0, 0)), mode='edge')
        rows, columns = (height + down) // _SIDE, (width + across) // _SIDE
        shape = (batch, rows, _SIDE, columns, _SIDE, channels)
        levels = jnp.round(padded * 255).reshape(shape) - 128
        d = cosines().astype(x.dtype)
        found = jnp.einsum('ki,briqjc,lj->brkqlc', d, levels, d)
        steps = self.steps.astype(x.dtype)[None, None, :, None, :, None]
        kept = jnp.round(found / steps) * steps
        levels = jnp.einsum('ki,brkqlc,lj->briqjc', d, kept, d) + 128
        levels = jnp.clip(jnp.round(levels), 0, 255).reshape(padded.shape)
        return levels[:, :height, :width] / 255


def jpeg(logits_fn: LogitsFn, quality: int = 50) -> Defended:
    """A network that sees compressed images (B, H, W, C) in [0, 1].

    Raises:
      ValueError: if the quality is not an integer from 1 to 100.
    """
    if not (isinstance(quality, int) and 1 <= quality <= 100):
        raise ValueError(f'quality must be an integer from 1 to 100, got {quality!r}')
    return preprocessed(logits_fn, Compressed(jnp.asarray(table(quality))))
