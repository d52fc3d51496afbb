r"""Augmentation under jit: each example is changed by its own key.

    augmentation = augment.chain(augment.pad_crop(4), augment.flip())
    x, y = augmentation(keys, x, y)

An augmentation is any function ``(keys (B,), x (B, H, W, C), y) -> (x, y)``, with
pixels float32 in [0, 1] before and after. The factories here are cached: the same
arguments give the same function, hence one compiled program.

The result for an example depends on its key and not on its batch, except with
``cutmix`` and ``mixup``, which take a partner from the batch: they couple its examples,
and on several devices images are exchanged. All raise a ValueError for an argument out
of range.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from advjax import keys as keys_of
from advjax.data import distortions
from advjax.data.batches import check_integer
from advjax.types import Array, Key, check_images

Augment = Callable[[Key, Array, Array], tuple[Array, Array]]


@functools.cache
def pad_crop(
    padding: int, mode: Literal['constant', 'reflect'] = 'constant'
) -> Augment:
    r"""Pads each side, then cuts out a window of the old size at a random place.

    The offsets down and right are independent and uniform over :math:`0 \ldots 2p`,
    as in He et al. 2016, arXiv 1512.03385, section 4.2 (p = 4 for CIFAR-10).

    Args:
      padding: p, pixels added to each side; 0 changes nothing.
      mode: 'constant' pads with zeros (black), 'reflect' mirrors the image without
        repeating its edge, and needs images larger than p.
    """
    padding = check_integer('padding', padding, 0)
    if mode not in ('constant', 'reflect'):
        raise ValueError(f"mode must be 'constant' or 'reflect', got {mode!r}")

    def one(key: Key, image: Array) -> Array:
        sides = ((padding, padding), (padding, padding), (0, 0))
        down, right = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        padded = jnp.pad(image, sides, mode=mode)
        return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)

    def check(x: Array) -> None:
        if mode == 'reflect' and padding >= min(x.shape[1:3]):
            raise ValueError(
                f'padding must be below the sides of the images to reflect them, got '
                f'{padding} for {x.shape}'
            )

    return _each(one, check)


@functools.cache
def flip(probability: float = 0.5) -> Augment:
    """Mirrors an image left to right with a probability."""
    if not 0 <= probability <= 1:
        raise ValueError(f'probability must be from 0 to 1, got {probability!r}')

    def one(key: Key, image: Array) -> Array:
        chosen = jax.random.bernoulli(key, float(probability))
        return jnp.where(chosen, image[:, ::-1], image)

    return _each(one)


@functools.cache
def cutout(size: int, fill: float | tuple[float, ...] = 0.5) -> Augment:
    r"""Covers a square of an image.

    The centre is uniform over all pixels, so near the border a part of the square
    lies outside and less than :math:`s^2` pixels are covered. Rows
    :math:`c - \lfloor s/2 \rfloor \ldots c - \lfloor s/2 \rfloor + s - 1` are.

    Args:
      size: s, the side of the square in pixels; the authors take 16 on CIFAR-10 and 8
        on CIFAR-100.
      fill: the colour, one number or one per channel. The authors put zeros into
        normalised images, which is the mean of the data set; give that for the paper's
        rule. Medium grey by default.

    Reference: DeVries & Taylor 2017, arXiv 1708.04552, section 3.
    """
    size = check_integer('size', size)
    colour = distortions.colour(fill)

    def one(key: Key, image: Array) -> Array:
        shape = image.shape[:2]
        centre = jax.random.randint(key, (2,), 0, jnp.array(shape))
        covered = _box(shape, centre - size // 2, centre - size // 2 + size)
        return jnp.where(covered[..., None], colour[None, None], image)

    def check(x: Array) -> None:
        if len(colour) not in (1, x.shape[3]):
            raise ValueError(
                f'fill must hold 1 or {x.shape[3]} numbers for images {x.shape}, got '
                f'{fill!r}'
            )

    return _each(one, check)


@functools.cache
def cutmix(alpha: float, num_classes: int) -> Augment:
    r"""Pastes a box of another image of the batch, and mixes the labels by its area.

    .. math::
        \tilde x = M \odot x_A + (1 - M) \odot x_B, \qquad
        \tilde y = \lambda y_A + (1 - \lambda) y_B

    The box has sides :math:`\lfloor W \sqrt{1 - \lambda'} \rfloor` and
    :math:`\lfloor H \sqrt{1 - \lambda'} \rfloor`, with
    :math:`\lambda' \sim \text{Beta}(\alpha, \alpha)` and a centre uniform over all
    pixels. It is clipped at the border, and :math:`\lambda` is then the share of
    pixels of :math:`x_A` that are left, as in the authors' code. The authors take
    :math:`\alpha = 1`.

    It takes (B,) labels or (B, K) probabilities, and returns (B, K) probabilities.

    Deviation: the authors draw one box for a batch and permute it; here each example
    draws its box and its partner (perhaps itself) by its own key.

    Reference: Yun et al. 2019, arXiv 1905.04899, eq. 1 and 2.
    """
    alpha = _positive_number('alpha', alpha)
    num_classes = check_integer('num_classes', num_classes, 2)

    def one(key: Key, i: Array, x: Array, y: Array) -> tuple[Array, Array]:
        for_partner, for_ratio, for_centre = jax.random.split(key, 3)
        j = jax.random.randint(for_partner, (), 0, len(x))
        shape = x.shape[1:3]
        side = jnp.sqrt(1 - _beta(for_ratio, alpha))
        cut = jnp.floor(jnp.array(shape, jnp.float32) * side).astype(jnp.int32)
        centre = jax.random.randint(for_centre, (2,), 0, jnp.array(shape))
        pasted = _box(shape, centre - cut // 2, centre + cut // 2)
        # A count is exact in float32, so that whole images get whole labels.
        ratio = 1 - jnp.sum(pasted.astype(jnp.float32)) / math.prod(shape)
        image = jnp.where(pasted[..., None], x[j], x[i])
        return image, ratio * y[i] + (1 - ratio) * y[j]

    return _with_partners(one, num_classes)


@functools.cache
def mixup(alpha: float, num_classes: int) -> Augment:
    r"""Blends each image, and its label, with another one of the batch.

    .. math::
        \tilde x = \lambda x_i + (1 - \lambda) x_j, \qquad
        \tilde y = \lambda y_i + (1 - \lambda) y_j, \qquad
        \lambda \sim \text{Beta}(\alpha, \alpha)

    with :math:`\alpha` = 0.2 on ImageNet and 1 on CIFAR-10. It takes (B,) labels or
    (B, K) probabilities, and returns (B, K) probabilities.

    Deviation: the authors' code draws one :math:`\lambda` for a batch and permutes
    it; here each example draws both by its own key, as the paper's equation reads.

    Reference: Zhang et al. 2018, arXiv 1710.09412, section 2.
    """
    alpha = _positive_number('alpha', alpha)
    num_classes = check_integer('num_classes', num_classes, 2)

    def one(key: Key, i: Array, x: Array, y: Array) -> tuple[Array, Array]:
        for_partner, for_ratio = jax.random.split(key)
        j = jax.random.randint(for_partner, (), 0, len(x))
        ratio = _beta(for_ratio, alpha)
        # Rounding must not leave [0, 1].
        image = jnp.clip(ratio * x[i] + (1 - ratio) * x[j], 0, 1)
        return image, ratio * y[i] + (1 - ratio) * y[j]

    return _with_partners(one, num_classes)


@functools.cache
def rand_augment(
    count: int = 2, magnitude: float = 5.0, fill: float | tuple[float, ...] = 0.5
) -> Augment:
    """Applies random distortions of one strength, one after another.

    Each of ``count`` rounds draws one of the 14 operations of ``distortions.NAMES``
    uniformly, and a direction for those that have one. ``advjax.data.distortions`` says
    what the operations do and how they differ from the authors' code.

    Args:
      count: N, operations per image; 1 to 3 in the paper.
      magnitude: M, from 0 (nothing but auto-contrast and equalize) to 10.
      fill: the colour outside the image, one number or one per channel; medium grey by
        default, as in the authors' code.

    Reference: Cubuk et al. 2020, arXiv 1909.13719, figure 2.
    """
    count = check_integer('count', count)
    if not 0 <= magnitude <= 10:
        raise ValueError(f'magnitude must be from 0 to 10, got {magnitude!r}')
    colour = distortions.colour(fill)

    def pick(key: Key) -> Array:
        return jax.random.randint(key, (), 0, len(distortions.NAMES))

    def apply(keys: Key, x: Array, y: Array) -> tuple[Array, Array]:
        keys = _checked(keys, x)
        for i in range(count):
            drawn = keys_of.draw(jax.random.split, keys_of.fold(keys, i))
            which = keys_of.draw(pick, drawn[:, 0])
            sign = keys_of.draw(jax.random.rademacher, drawn[:, 1])
            x = distortions.distort(x, which, magnitude, sign, colour)
        return x, y

    return apply


@functools.cache
def chain(*augments: Augment) -> Augment:
    """Applies augmentations in order; the i-th one is given ``fold_in(key, i)``."""
    for i, augment in enumerate(augments):
        if not callable(augment):
            raise ValueError(
                'augments must be functions (keys, x, y) -> (x, y), got '
                f'{augment!r} at position {i}'
            )

    def apply(keys: Key, x: Array, y: Array) -> tuple[Array, Array]:
        keys = _checked(keys, x)
        for i, augment in enumerate(augments):
            x, y = augment(keys_of.fold(keys, i), x, y)
        return x, y

    return apply


def _each(
    one: Callable[[Key, Array], Array], check: Callable[[Array], None] | None = None
) -> Augment:
    """Changes each image by itself, after a check of the batch."""

    def apply(keys: Key, x: Array, y: Array) -> tuple[Array, Array]:
        keys = _checked(keys, x)
        if check is not None:
            check(x)
        return jax.vmap(one)(keys, x), y

    return apply


def _with_partners(one: Callable, num_classes: int) -> Augment:
    def apply(keys: Key, x: Array, y: Array) -> tuple[Array, Array]:
        keys = _checked(keys, x)
        if y.ndim == 1:
            y = jax.nn.one_hot(y, num_classes, dtype=x.dtype)
        elif y.shape[1:] != (num_classes,):
            raise ValueError(
                f'num_classes must be that of the probabilities, got {num_classes} for '
                f'y of shape {y.shape}'
            )
        return jax.vmap(one, (0, 0, None, None))(keys, jnp.arange(len(x)), x, y)

    return apply


def _beta(key: Key, alpha: float) -> Array:
    # The uniform distribution needs no rejection sampling.
    return jax.random.uniform(key) if alpha == 1 else jax.random.beta(key, alpha, alpha)


def _box(shape: tuple[int, ...], start: Array, stop: Array) -> Array:
    """Bool (H, W), True inside; start and stop are (row, column)."""
    rows, columns = jnp.arange(shape[0]), jnp.arange(shape[1])
    inside_rows = (rows >= start[0]) & (rows < stop[0])
    inside_columns = (columns >= start[1]) & (columns < stop[1])
    return inside_rows[:, None] & inside_columns[None]


def _checked(keys: Key, x: Array) -> Key:
    check_images(x)
    if x.ndim != 4:
        raise ValueError(f'x must be (B, height, width, channels), got {x.shape}')
    return keys_of.per_example(keys, len(x))


def _positive_number(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f'{name} must be a positive number, got {value!r}')
    return float(value)
