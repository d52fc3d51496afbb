"""A feed-forward network as a sequence of layers.

An attack sees a network as one function; a proof goes layer by layer. A layer here maps
a batch and knows its Lipschitz constant in the Euclidean norm:

    layers = certify.of_fast_mnist(fit.params)
    logits = certify.run(layers, x)                 # those of the network itself
    bound = certify.lipschitz_bound(layers, (28, 28, 1))

Layers are pytrees, so a sequence of them passes through ``jit`` and ``grad``.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct

from advjax import convolutions
from advjax.certify.lipschitz import (
    Layer,
    Padding,
    conv_norm,
    pads_of,
    pair_of,
    spectral_norm,
)
from advjax.types import Array, Params, dataclass

ACTIVATIONS: Mapping[str, tuple[Callable[[Array], Array], float]] = {
    'relu': (jax.nn.relu, 1.0),
    'sigmoid': (jax.nn.sigmoid, 0.25),
    'softplus': (jax.nn.softplus, 1.0),
    'tanh': (jnp.tanh, 1.0),
}
"""Functions of one number and the steepest slope of each."""


@dataclass
class Dense:
    """The layer x W + b; build it with ``dense``."""

    kernel: Array
    bias: Array

    def linear(self, x: Array) -> Array:
        """The layer without its bias: (B, ...) -> (B, m)."""
        return x.reshape(x.shape[0], math.prod(x.shape[1:])) @ self.kernel

    def __call__(self, x: Array) -> Array:
        """Maps a batch."""
        return self.linear(x) + self.bias[None]

    def lipschitz(self, shape: tuple[int, ...]) -> Array:
        """The largest singular value of W."""
        del shape
        return spectral_norm(self.kernel)


@dataclass
class Conv:
    """A convolution with a bias; build it with ``conv``."""

    kernel: Array
    bias: Array
    strides: tuple[int, int] = struct.field(pytree_node=False)
    padding: Padding = struct.field(pytree_node=False)

    def linear(self, x: Array) -> Array:
        """The layer without its bias: (B, H, W, C_in) -> (B, H', W', C_out)."""
        sides = self.kernel.shape[:2]
        pads = pads_of(sides, x.shape[1:3], self.strides, self.padding)
        if pads is None:
            around = [((n - 1) // 2, n // 2) for n in sides]
            x = jnp.pad(x, [(0, 0), *around, (0, 0)], mode='wrap')
            pads = ((0, 0), (0, 0))
        return convolutions.conv_general_dilated(
            x,
            self.kernel,
            self.strides,
            pads,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )

    def __call__(self, x: Array) -> Array:
        """Maps a batch."""
        return self.linear(x) + self.bias[None, None, None]

    def lipschitz(self, shape: tuple[int, ...]) -> Array:
        """``certify.conv_norm`` of the kernel."""
        height, width, _ = shape
        return conv_norm(self.kernel, (height, width), self.strides, self.padding)


@dataclass
class Activation:
    """An elementwise function; build it with ``activation``."""

    name: str = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """Maps a batch."""
        return ACTIVATIONS[self.name][0](x)

    def lipschitz(self, shape: tuple[int, ...]) -> Array:
        """Its steepest slope."""
        del shape
        return jnp.float32(ACTIVATIONS[self.name][1])


@dataclass
class MaxPool:
    """The largest of every window; build it with ``max_pool``."""

    window: tuple[int, int] = struct.field(pytree_node=False)
    strides: tuple[int, int] = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """Maps a batch."""
        return convolutions.max_pool(x, self.window, self.strides)

    def lipschitz(self, shape: tuple[int, ...]) -> Array:
        """The square root of the number of windows that share a pixel."""
        del shape
        sharing = map(lambda w, s: -(-w // s), self.window, self.strides)
        return jnp.float32(math.sqrt(math.prod(sharing)))


def _bias(bias: Array | None, kernel: Array) -> Array:
    units = kernel.shape[-1]
    bias = jnp.zeros((units,), kernel.dtype) if bias is None else jnp.asarray(bias)
    if bias.size != units:
        raise ValueError(
            f'bias must hold {units} numbers, one per unit, got shape {bias.shape}'
        )
    return bias.reshape(units)


def dense(kernel: Array, bias: Array | None = None) -> Dense:
    """A dense layer x W + b with W (n, m); it flattens its input.

    Raises:
      ValueError: for another shape.
    """
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f'kernel must be (n, m), not empty, got shape {kernel.shape}')
    return Dense(kernel, _bias(bias, kernel))


def conv(
    kernel: Array,
    bias: Array | None = None,
    strides: int | Sequence[int] = 1,
    padding: Padding = 'SAME',
) -> Conv:
    """A convolution layer.

    Args:
      kernel: (height, width, C_in, C_out).
      bias: C_out numbers; zeros by default.
      strides: one for both axes, or one for each.
      padding: 'SAME', 'VALID', two pairs (low, high) of zeros, or 'CIRCULAR'.

    Raises:
      ValueError: for another shape, stride or padding.
    """
    if kernel.ndim != 4 or not kernel.size:
        raise ValueError(
            f'kernel must be (height, width, C_in, C_out), got shape {kernel.shape}'
        )
    both = pair_of('strides', strides)
    pads_of(kernel.shape[:2], both, both, padding)  # Refuses an unknown padding.
    if not isinstance(padding, str):
        padding = tuple((low, high) for low, high in padding)
    return Conv(kernel, _bias(bias, kernel), both, padding)


def activation(name: str) -> Activation:
    """An elementwise function, by its name in ``ACTIVATIONS``.

    Raises:
      ValueError: for another name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f'name must be one of {list(ACTIVATIONS)}, got {name!r}')
    return Activation(name)


def max_pool(
    window: int | Sequence[int] = 2, strides: int | Sequence[int] | None = None
) -> MaxPool:
    """Max pooling without padding; the strides are the window by default.

    Raises:
      ValueError: for sides or strides that are no positive integers.
    """
    sides = pair_of('window', window)
    return MaxPool(sides, sides if strides is None else pair_of('strides', strides))


def run(layers: Sequence[Layer], x: Array) -> Array:
    """The outputs of the network for a batch."""
    return functools.reduce(lambda h, layer: layer(h), layers, x)


def of_softmax_regression(params: Params) -> list[Layer]:
    """The one layer of ``zoo.softmax_regression``."""
    return [dense(params['w'], params['b'])]


def of_mlp(params: Params, name: str = 'relu') -> list[Layer]:
    """The layers of ``zoo.mlp`` with the activation ``name``."""
    layers: list[Layer] = []
    for i in sorted(params['hidden']):
        hidden = params['hidden'][i]
        layers += [dense(hidden['kernel'], hidden['bias']), activation(name)]
    return [*layers, dense(params['out']['kernel'], params['out']['bias'])]


def of_fast_mnist(params: Params) -> list[Layer]:
    """The layers of ``zoo.fast_mnist``."""
    return _of_conv_net(params, [activation('relu')], strides=2, padding=((1, 1),) * 2)


def of_madry_mnist(params: Params) -> list[Layer]:
    """The layers of ``zoo.madry_mnist``."""
    return _of_conv_net(params, [activation('relu'), max_pool(2)], 1, 'SAME')


def _of_conv_net(
    params: Params, between: list[Layer], strides: int, padding: Padding
) -> list[Layer]:
    """Two convolutions, each followed by ``between``, and two dense layers."""
    parts = {name: (layer['kernel'], layer['bias']) for name, layer in params.items()}
    return [
        conv(*parts['conv1'], strides, padding),
        *between,
        conv(*parts['conv2'], strides, padding),
        *between,
        dense(*parts['full']),
        activation('relu'),
        dense(*parts['out']),
    ]
