r"""The fourteen operations of RandAugment, at a common magnitude.

| operation | at magnitude m, with g = m / 10 |
|---|---|
| identity, auto-contrast, equalize | have none |
| rotate | :math:`\pm 30g` degrees about the centre |
| shear x, shear y | by :math:`\pm 0.3g`, about the first pixel |
| translate x, translate y | by :math:`\pm 10g/32` of the side |
| color, contrast, brightness, sharpness | blended by :math:`1 \pm 0.9g`, as below |
| posterize | :math:`8 - 4g` bits are kept, rounded |
| solarize | pixels from :math:`256(1 - g)/255` up are inverted |

A blend is :math:`d + f (x - d)`, clipped to [0, 1], with the grey image, its mean,
black, or a smoothed image for d.

Deviations from the authors' code: there, a larger magnitude weakens posterize (4g
bits kept) and solarize (threshold 256g), and blends are by :math:`0.1 + 1.8g`, which
changes nothing at g = 1/2; here all three grow with the magnitude, as they do in
most later versions. Pixels are real numbers, not rounded after each operation
(equalize and posterize look at them rounded to 1/255); geometry is bilinear instead
of nearest neighbour. Translations are 10 pixels of 32, as AutoAugment takes them on
CIFAR-10; on ImageNet the authors' are up to 100 pixels.

One warp serves all five geometric operations and one blend all four that enhance, so
the cost is that of a few operations, not of fourteen.

Reference: Cubuk et al. 2020, arXiv 1909.13719; ranges: the authors' code for
EfficientNet, ``autoaugment.py`` in tensorflow/tpu.
"""

import jax
import jax.numpy as jnp
import numpy as np

from advjax.types import Array

NAMES = (
    'identity',
    'auto_contrast',
    'equalize',
    'solarize',
    'posterize',
    'color',
    'contrast',
    'brightness',
    'sharpness',
    'rotate',
    'shear_x',
    'shear_y',
    'translate_x',
    'translate_y',
)

_LUMA = (0.299, 0.587, 0.114)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def colour(fill: float | tuple[float, ...]) -> np.ndarray:
    """One number or one per channel, as an array (1,) or (C,).

    Raises:
      ValueError: if a number is outside [0, 1].
    """
    values = np.atleast_1d(np.asarray(fill, np.float32))
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f'fill must be a number in [0, 1] or one per channel, got {fill!r}'
        )
    return values


def distort(
    x: Array, which: Array, magnitude: float, sign: Array, fill: np.ndarray
) -> Array:
    """Applies one operation to each image.

    Args:
      x: (B, H, W, C) in [0, 1].
      which: (B,) positions in ``NAMES``.
      magnitude: from 0 to 10.
      sign: (B,) 1 or -1, for operations with a direction.
      fill: from ``colour``; what comes in from outside.

    Returns:
      (B, H, W, C) in [0, 1].

    Raises:
      ValueError: if ``fill`` has another number of channels than the images.
    """
    if len(fill) not in (1, x.shape[3]):
        raise ValueError(
            f'fill must hold 1 or {x.shape[3]} numbers for images {x.shape}, got '
            f'{fill.tolist()}'
        )
    strength = magnitude / 10
    groups = (NAMES[1:2], NAMES[2:3], NAMES[3:4], NAMES[4:5], NAMES[5:9], NAMES[9:])

    def one(image: Array, op: Array, sign: Array) -> tuple[Array, ...]:
        return (
            auto_contrast(image),
            equalize(image),
            solarize(image, strength),
            posterize(image, strength),
            _enhance(image, op, 1 + sign * 0.9 * strength),
            _move(image, op, sign * strength, fill),
        )

    made = jax.vmap(one)(x, which, sign.astype(x.dtype))
    # Fused with the choice, XLA on CPU computes tables once per pixel.
    made = jax.lax.optimization_barrier(made)
    for names, candidate in zip(groups, made, strict=True):
        first, last = NAMES.index(names[0]), NAMES.index(names[-1])
        chosen = (which >= first) & (which <= last)
        x = jnp.where(chosen[:, None, None, None], candidate, x)
    return x


def auto_contrast(image: Array) -> Array:
    """Stretches each channel to [0, 1]; a channel of one value stays."""
    low = jnp.min(image, axis=(0, 1), keepdims=True)
    span = jnp.max(image, axis=(0, 1), keepdims=True) - low
    stretched = jnp.clip((image - low) / jnp.where(span > 0, span, 1), 0, 1)
    return jnp.where(span > 0, stretched, image)


def equalize(image: Array) -> Array:
    """Flattens the histogram of each channel of 256 values, by the rule of Pillow.

    A pixel of value v becomes (number of pixels below v + s // 2) // s, where s is
    the number of pixels below the largest value, // 255. With s = 0 the channel
    stays.
    """
    height, width, channels = image.shape
    value = _grey_levels(image).reshape(height * width, channels)
    plane = jnp.arange(channels)[None]
    histogram = jnp.zeros((256, channels), jnp.int32).at[value, plane].add(1)
    below = jnp.cumsum(histogram, axis=0) - histogram
    brightest = jnp.max(value, axis=0)
    step = jnp.take_along_axis(below, brightest[None], axis=0) // 255
    table = (below + step // 2) // jnp.maximum(step, 1)
    table = jnp.clip(table, 0, 255).astype(image.dtype) / 255
    flat = jnp.take_along_axis(table, value, axis=0, mode='clip').reshape(image.shape)
    return jnp.where(step[None] > 0, flat, image)


def solarize(image: Array, strength: float) -> Array:
    """Inverts pixels from a threshold up."""
    return jnp.where(image < 256 * (1 - strength) / 255, image, 1 - image)


def posterize(image: Array, strength: float) -> Array:
    """Keeps the first bits of each value of 256."""
    lost = 2 ** round(4 * strength)
    rest = (_grey_levels(image) % lost).astype(image.dtype) / 255
    return jnp.clip(image - rest, 0, 1)


def _enhance(image: Array, op: Array, factor: Array) -> Array:
    """Blends with the image that ``op`` makes meaningless."""
    channels = image.shape[2]
    weights = _LUMA if channels == 3 else np.full(channels, 1 / channels)
    grey = jnp.sum(
        image * jnp.asarray(weights, image.dtype)[None, None], 2, keepdims=True
    )
    dull = jnp.select(
        [op == NAMES.index(name) for name in ('color', 'contrast', 'sharpness')],
        [
            jnp.broadcast_to(grey, image.shape),
            jnp.broadcast_to(jnp.mean(grey, keepdims=True), image.shape),
            _smooth(image),
        ],
        jnp.zeros_like(image),
    )
    return jnp.clip(dull + factor * (image - dull), 0, 1)


def _smooth(image: Array) -> Array:
    """A 3x3 mean with a heavy centre; the border stays as it is."""
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return image
    total = sum(
        weight * image[i : height - 2 + i, j : width - 2 + j]
        for (i, j), weight in np.ndenumerate(_SMOOTH.astype(image.dtype))
    )
    return image.at[1:-1, 1:-1].set(total)


def _move(image: Array, op: Array, amount: Array, fill: np.ndarray) -> Array:
    """Rotates, shears or shifts: one affine map, bilinear."""

    def of(name: str, value: Array | float) -> Array:
        return jnp.where(op == NAMES.index(name), amount * value, 0)

    height, width = image.shape[:2]
    angle = of('rotate', np.deg2rad(30))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    middle = (height - 1) / 2, (width - 1) / 2
    down = jnp.arange(height, dtype=image.dtype)[:, None]
    right = jnp.arange(width, dtype=image.dtype)[None]
    # Where each pixel of the result comes from. At most one of the terms is at work.
    row = middle[0] + cos * (down - middle[0]) + sin * (right - middle[1])
    column = middle[1] - sin * (down - middle[0]) + cos * (right - middle[1])
    row = row + of('shear_y', 0.3) * right - of('translate_y', height * 10 / 32)
    column = column + of('shear_x', 0.3) * down - of('translate_x', width * 10 / 32)
    return _sample(image, row, column, fill)


def _sample(image: Array, row: Array, column: Array, fill: np.ndarray) -> Array:
    """Bilinear interpolation at (H, W) places, with ``fill`` all around."""
    height, width, channels = image.shape
    # Two rings: beyond the first all four neighbours are outside.
    framed = jnp.broadcast_to(
        jnp.asarray(fill, image.dtype)[None, None], (height + 4, width + 4, channels)
    )
    framed = framed.at[2:-2, 2:-2].set(image).reshape(-1, channels)
    row = jnp.clip(row, -2, height) + 2
    column = jnp.clip(column, -2, width) + 2
    top, left = jnp.floor(row), jnp.floor(column)
    low, near = (row - top)[..., None], (column - left)[..., None]
    place = top.astype(jnp.int32) * (width + 4) + left.astype(jnp.int32)

    def at(offset: int) -> Array:
        return jnp.take(framed, place + offset, axis=0, mode='clip')

    upper = at(0) * (1 - near) + at(1) * near
    lower = at(width + 4) * (1 - near) + at(width + 5) * near
    return jnp.clip(upper * (1 - low) + lower * low, 0, 1)


def _grey_levels(image: Array) -> Array:
    return jnp.floor(image * 255 + 0.5).astype(jnp.int32)
