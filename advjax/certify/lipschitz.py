r"""Lipschitz bounds of feed-forward networks: operator norms and their product.

.. math:: \|\phi(x) - \phi(x + r)\|_2 \le L \|r\|_2, \qquad L = \prod_k L_k

for a network :math:`\phi = \phi_K \circ \dots \circ \phi_1` whose layer k has the
Lipschitz constant :math:`L_k`: the largest singular value of a linear layer, 1 for a
ReLU. There are three ways to that value:

    spectral_norm(matrix)         exact, by the singular values of a matrix
    conv_norm(kernel, shape)      a convolution, by its Fourier transform: exact for
                                  circular padding, from above for any other
    power_norm(linear, shape)     any linear map given as a function, from below

A layer is anything that maps a batch and has ``lipschitz(shape)``; ``certify.layers``
makes them. A small bound proves robustness. A large one proves nothing: only an attack
shows that a network can be fooled.

Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.3.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys, losses
from advjax.types import Array, Key

Padding = str | Sequence[tuple[int, int]]


class Layer(Protocol):
    """A layer of a feed-forward network, with its Lipschitz constant."""

    def __call__(self, x: Array) -> Array:
        """Maps a batch."""
        ...

    def lipschitz(self, shape: tuple[int, ...]) -> Array:
        """A Lipschitz constant for inputs of a shape, ()."""
        ...


def spectral_norm(matrix: Array) -> Array:
    """The largest singular value of a matrix (m, n), (), exact up to rounding.

    Raises:
      ValueError: for anything but a matrix with at least one entry.
    """
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f'matrix must be (m, n), not empty, got shape {matrix.shape}')
    return jnp.linalg.svd(matrix, compute_uv=False)[0]


def pair_of(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """A positive integer for each of two axes."""
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(both) != 2 or not all(isinstance(n, int) and n >= 1 for n in both):
        raise ValueError(f'{name} must be one or two integers >= 1, got {value!r}')
    return both


def pads_of(
    kernel: Sequence[int],
    shape: Sequence[int],
    strides: Sequence[int],
    padding: Padding,
) -> tuple[tuple[int, int], ...] | None:
    """(low, high) zeros on either axis, or None for circular padding."""
    if not isinstance(padding, str):
        pads = tuple(tuple(pair) for pair in padding)
        if len(pads) != 2 or not all(len(p) == 2 and min(p) >= 0 for p in pads):
            raise ValueError(
                f'padding must be two pairs (low, high) >= 0, got {padding!r}'
            )
        return pads
    if padding == 'CIRCULAR':
        if any(n % s for n, s in zip(shape, strides, strict=True)):
            raise ValueError(
                f'strides must divide shape under circular padding, got {strides} and '
                f'{tuple(shape)}'
            )
        return None
    if padding not in ('SAME', 'VALID'):
        raise ValueError(
            "padding must be 'SAME', 'VALID', 'CIRCULAR' or two pairs (low, high), "
            f'got {padding!r}'
        )
    return tuple(jax.lax.padtype_to_pads(shape, kernel, strides, padding))


def _period(kernel: int, size: int, stride: int, pads: tuple[int, int]) -> int:
    """The smallest circular image on which a zero-padded convolution is unchanged.

    What a kernel reads beyond the image must be zero, hence the room for the padding,
    and no two outputs may fall on one position.
    """
    out = (size + sum(pads) - kernel) // stride + 1
    if out < 1:
        raise ValueError(
            f'shape must leave room for the kernel: {size} and padding {pads} are '
            f'less than {kernel}'
        )
    return -(-max(size + max(pads), stride * out) // stride) * stride


def conv_norm(
    kernel: Array,
    shape: tuple[int, int],
    strides: int | Sequence[int] = 1,
    padding: Padding = 'SAME',
) -> Array:
    r"""The operator norm of a convolution layer from its kernel's Fourier transform.

    .. math:: \|W\| \le \sup_\xi \|A(\xi)\|, \qquad
              A(\xi)_{o, i} = \sum_k W_{k, i, o}\, e^{2 \pi i \langle k, \xi \rangle}

    A circular convolution acts on every frequency by itself, as the C_out x C_in matrix
    A. With stride s it adds up the s^2 frequencies that alias: their blocks stand side
    by side, here as the s^2 interleaved parts of the image. A zero-padded convolution
    is a circular one on a larger image, restricted to images that vanish outside, so
    its norm is no larger.

    Args:
      kernel: (height, width, C_in, C_out).
      shape: (H, W) of the images.
      strides: one for both axes, or one for each.
      padding: 'SAME', 'VALID', two pairs (low, high) of zeros, or 'CIRCULAR'.

    Returns:
      (); the norm for circular padding, otherwise an upper bound of it.

    Raises:
      ValueError: for another kernel, shape, stride or padding.

    Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.3; Sedghi et al. 2019,
    arXiv 1805.10408, for the circular case.
    """
    if kernel.ndim != 4 or not kernel.size:
        raise ValueError(
            f'kernel must be (height, width, C_in, C_out), got shape {kernel.shape}'
        )
    shape, strides = pair_of('shape', shape), pair_of('strides', strides)
    sides = kernel.shape[:2]
    pads = pads_of(sides, shape, strides, padding)
    period = shape if pads is None else tuple(map(_period, sides, shape, strides, pads))

    config = [(0, -n % s) for n, s in zip(sides, strides, strict=True)]
    full = jnp.pad(kernel, [*config, (0, 0), (0, 0)])
    taps = [n // s for n, s in zip(full.shape, strides, strict=False)]
    parts = full.reshape(taps[0], strides[0], taps[1], strides[1], *kernel.shape[2:])
    # A real kernel at -xi is the conjugate of that at xi: half of one axis is enough.
    circles = [p // s for p, s in zip(period, strides, strict=True)]
    rows = _waves(circles[0], taps[0])[: circles[0] // 2 + 1]
    columns = _waves(circles[1], taps[1])
    blocks = jnp.einsum('aj,bl,jplqio->abpqio', rows, columns, parts)
    blocks = blocks.reshape(-1, math.prod(strides) * kernel.shape[2], kernel.shape[3])
    return jnp.max(jnp.linalg.svd(blocks, compute_uv=False))


def _waves(period: int, taps: int) -> np.ndarray:
    """The discrete Fourier transform of ``taps`` numbers on a circle."""
    angle = 2 * np.pi * np.outer(np.arange(period), np.arange(taps)) / period
    return np.exp(1j * angle).astype(np.complex64)


def power_norm(
    linear: Callable[[Array], Array],
    shape: tuple[int, ...],
    key: Key,
    steps: int = 100,
    vectors: int = 8,
) -> Array:
    r"""The operator norm of any linear map, by power iteration.

    .. math:: V_{t+1} R = A^T A V_t, \qquad \|A V_T\| \nearrow \|A\|

    from a random start, with columns V orthonormalised by a QR decomposition. The
    transpose comes from reverse-mode differentiation, so the map needs no matrix. One
    column is the classical iteration; a few more speed it up where the largest singular
    values nearly coincide, as those of convolutions do.

    Args:
      linear: maps a batch, without a constant part.
      shape: shape of one input.
      key: of the start.
      steps: iterations.
      vectors: columns of V. The error falls with the (4 * steps)-th power of the ratio
        of the singular value after them to the largest.

    Returns:
      (), never above the norm by more than rounding.

    Raises:
      ValueError: if ``steps`` or ``vectors`` is not a positive integer.
    """
    for name, value in (('steps', steps), ('vectors', vectors)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f'{name} must be an integer >= 1, got {value!r}')
    size = math.prod(shape)
    count = min(vectors, size)

    def images(v):
        return linear(v.T.reshape(count, *shape))

    def iterate(_, v):
        image, transpose = jax.vjp(images, v)
        return jnp.linalg.qr(transpose(image)[0])[0]

    start = jax.random.normal(keys.typed(key), (size, count))
    v = jax.lax.fori_loop(0, steps, iterate, jnp.linalg.qr(start)[0])
    return spectral_norm(images(v).reshape(count, -1))


def matrix_of(linear: Callable[[Array], Array], shape: tuple[int, ...]) -> Array:
    """The matrix (m, n) of a linear map of batches, for inputs of a shape."""
    size = math.prod(shape)
    images = linear(jnp.eye(size).reshape(size, *shape))
    return images.reshape(size, -1).T


def lipschitz_bounds(layers: Sequence[Layer], shape: tuple[int, ...]) -> Array:
    """The Lipschitz constants of all layers, (K,); see ``lipschitz_bound``.

    Raises:
      ValueError: if there is no layer.
    """
    if not layers:
        raise ValueError('layers must hold at least one layer, got none')
    bounds = []
    for layer in layers:
        bounds.append(layer.lipschitz(shape))
        like = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        shape = jax.eval_shape(layer, like).shape[1:]
    return jnp.stack(bounds)


def lipschitz_bound(layers: Sequence[Layer], shape: tuple[int, ...]) -> Array:
    r"""A Lipschitz constant of a feed-forward network, :math:`L = \prod_k L_k`.

    Args:
      layers: the network, first layer first.
      shape: shape of one input.

    Returns:
      (), in logits per unit of Euclidean distance in pixels.

    Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.3.
    """
    return jnp.prod(lipschitz_bounds(layers, shape))


def margin_radius(logits: Array, y: Array, bound: Array | float) -> Array:
    r"""The L2 radius within which the prediction provably does not change.

    .. math:: \frac{z_y - \max_{j \ne y} z_j}{\sqrt 2\, L}

    because the difference of two logits changes by at most :math:`\sqrt 2` times the
    length of the change of all.

    Args:
      logits: (B, K).
      y: (B,) labels.
      bound: L, from ``lipschitz_bound``.

    Returns:
      (B,) in pixels, 0 where the prediction is wrong.

    Raises:
      ValueError: if ``bound`` is a number that is not positive, or for other shapes.

    Reference: Tsuzuku et al. 2018, arXiv 1802.04034, proposition 1.
    """
    if isinstance(bound, int | float) and not bound > 0:
        raise ValueError(f'bound must be a number > 0, got {bound!r}')
    if jnp.ndim(logits) != 2 or logits.shape[1] < 2 or jnp.shape(y) != logits.shape[:1]:
        raise ValueError(
            'logits and y must have shapes (B, K), K >= 2, and (B,), got '
            f'{jnp.shape(logits)} and {jnp.shape(y)}'
        )
    room = jnp.maximum(-losses.margin(logits, y), 0)
    return room / (math.sqrt(2) * jnp.asarray(bound))
