"""Fully connected networks: the multilayer perceptron and maxout."""

import functools
import math

import jax.numpy as jnp
from flax import nnx

from advjax import models

# The largest slope of a sigmoid is a quarter of that of a ReLU, hence its gain of 4.
_ACTIVATIONS = {
    'relu': (nnx.relu, nnx.initializers.he_normal()),
    'sigmoid': (
        nnx.sigmoid,
        nnx.initializers.variance_scaling(16, 'fan_avg', 'uniform'),
    ),
    'tanh': (nnx.tanh, nnx.initializers.glorot_uniform()),
}


class _Mlp(nnx.Module):
    def __init__(self, size, widths, num_classes, activation, rngs):
        sizes = (size, *widths)
        self.activation, init = _ACTIVATIONS[activation]
        self.hidden = nnx.List(
            nnx.Linear(a, b, kernel_init=init, rngs=rngs)
            for a, b in zip(sizes, widths, strict=False)
        )
        self.out = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def features(self, x):
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for layer in self.hidden:
            x = self.activation(layer(x))
        return x

    def __call__(self, x):
        return self.out(self.features(x))


@functools.cache
def mlp(
    shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    widths: tuple[int, ...] = (256, 256),
    activation: str = 'relu',
) -> models.Model:
    """Multilayer perceptron.

    Szegedy et al. 2014 name theirs by its widths: FC100-100-10 is
    ``widths=(100, 100), activation='sigmoid'``.

    The activation is 'relu' (with He's normal initialisation), 'sigmoid' or 'tanh'
    (with that of Glorot and Bengio 2010, uniform, four times as large for a sigmoid).
    """
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f'activation must be one of {list(_ACTIVATIONS)}, got {activation!r}'
        )
    return models.from_nnx(
        functools.partial(_Mlp, math.prod(shape), widths, num_classes, activation)
    )


class _Maxout(nnx.Module):
    def __init__(self, size, layers, units, pieces, num_classes, dropout, rngs):
        # pylearn2's mnist_pi.yaml: uniform +-0.005, zero biases.
        init = nnx.initializers.uniform(0.01)

        def small(key, shape, dtype=jnp.float32):
            return init(key, shape, dtype) - 0.005

        sizes = (size,) + (units,) * layers
        self.pieces = pieces
        self.hidden = nnx.List(
            nnx.Linear(a, units * pieces, kernel_init=small, rngs=rngs)
            for a in sizes[:-1]
        )
        self.out = nnx.Linear(sizes[-1], num_classes, kernel_init=small, rngs=rngs)
        self.drop_input = nnx.Dropout(0.2 if dropout else 0.0, rngs=rngs)
        self.drop_hidden = nnx.Dropout(0.5 if dropout else 0.0, rngs=rngs)

    def features(self, x):
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        # flax scales what it keeps by 1 / 0.8; the recipe does not scale inputs.
        kept = self.drop_input(x)
        x = kept if self.drop_input.deterministic else kept * (1 - self.drop_input.rate)
        for layer in self.hidden:
            x = layer(x).reshape(x.shape[0], -1, self.pieces).max(axis=2)
            x = self.drop_hidden(x)
        return x

    def __call__(self, x):
        return self.out(self.features(x))


@functools.cache
def maxout(
    shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    layers: int = 2,
    units: int = 240,
    pieces: int = 5,
    dropout: bool = True,
) -> models.Model:
    r"""Maxout network, :math:`h_i = \max_j (x W_{ij} + b_{ij})`.

    The defaults are the permutation-invariant MNIST net of Goodfellow et al. 2013
    and 2015: input dropout keeps 0.8 without rescaling, hidden dropout keeps 0.5
    (doubled). Their bound on column norms belongs to the optimizer and is not here.
    Each of the ``units`` of a layer is the maximum of ``pieces`` linear functions.

    Reference: Goodfellow et al. 2013, arXiv 1302.4389; settings from pylearn2.
    """
    return models.from_nnx(
        functools.partial(
            _Maxout, math.prod(shape), layers, units, pieces, num_classes, dropout
        )
    )
