"""The two small convolutional networks of the MNIST literature."""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from advjax import convolutions, models
from advjax.types import Params
from advjax.zoo.layers import Conv, check_shape, torch_uniform


class _MadryMnist(nnx.Module):
    def __init__(self, shape, num_classes, scale, rngs):
        height, width, channels = shape
        one, two, full = (max(1, int(n * scale)) for n in (32, 64, 1024))
        options = {
            'kernel_init': nnx.initializers.truncated_normal(0.1),
            'bias_init': nnx.initializers.constant(0.1),
            'rngs': rngs,
        }
        self.conv1 = Conv(channels, one, (5, 5), **options)
        self.conv2 = Conv(one, two, (5, 5), **options)
        self.full = nnx.Linear((height // 4) * (width // 4) * two, full, **options)
        self.out = nnx.Linear(full, num_classes, **options)

    def features(self, x):
        for conv in (self.conv1, self.conv2):
            x = convolutions.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        return nnx.relu(self.full(x.reshape(x.shape[0], -1)))

    def __call__(self, x):
        return self.out(self.features(x))


@functools.cache
def madry_mnist(
    shape: tuple[int, ...] = (28, 28, 1), num_classes: int = 10, scale: float = 1.0
) -> models.Model:
    """The MNIST network of Madry et al. 2018.

    5x5 convolution to 32, ReLU, 2x2 max pooling, 5x5 convolution to 64, ReLU, 2x2
    max pooling, 1024 units, ReLU, K logits; truncated-normal weights of scale 0.1,
    biases 0.1. 3.3 million parameters at 28x28. ``scale`` multiplies all widths.

    Reference: Madry et al. 2018, arXiv 1706.06083, and its mnist_challenge code.
    """
    check_shape(shape, 4)
    return models.from_nnx(functools.partial(_MadryMnist, shape, num_classes, scale))


def _torch_default(fan_in: int):
    init = torch_uniform(fan_in)
    return {'kernel_init': init, 'bias_init': init}


class _FastMnist(nnx.Module):
    def __init__(self, shape, num_classes, scale, rngs):
        height, width, channels = shape
        one, two, full = (max(1, int(n * scale)) for n in (16, 32, 100))
        size = (height // 4) * (width // 4) * two

        def conv(a, b):
            options = _torch_default(16 * a)
            return Conv(a, b, (4, 4), strides=2, padding=1, rngs=rngs, **options)

        self.conv1 = conv(channels, one)
        self.conv2 = conv(one, two)
        self.full = nnx.Linear(size, full, rngs=rngs, **_torch_default(size))
        self.out = nnx.Linear(full, num_classes, rngs=rngs, **_torch_default(full))

    def features(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return nnx.relu(self.full(x.reshape(x.shape[0], -1)))

    def __call__(self, x):
        return self.out(self.features(x))


@functools.cache
def fast_mnist(
    shape: tuple[int, ...] = (28, 28, 1), num_classes: int = 10, scale: float = 1.0
) -> models.Model:
    """The MNIST network of "Fast is better than free".

    4x4 convolutions of stride 2 and padding 1 to 16 and 32 channels, 100 units, K
    logits, ReLU between, PyTorch's default initialisation. 166,406 parameters at
    28x28. Images need sides of at least 4. ``scale`` multiplies all widths.

    Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994, and its MNIST code.
    """
    check_shape(shape, 4)
    return models.from_nnx(functools.partial(_FastMnist, shape, num_classes, scale))


def load_fast_mnist(path: str | Path) -> Params:
    """Reads PyTorch weights of ``fast_mnist()``, such as those of its authors.

    Args:
      path: an .npz with the names of the authors' state dict, ``0.weight`` (OIHW),
        ``0.bias``, ``2.*``, ``5.*``, ``7.*`` (out, in).

    Raises:
      ValueError: if an array is missing or has another shape.
    """
    with np.load(path) as file:
        arrays = dict(file)
    shapes = {
        '0': (16, 1, 4, 4), '2': (32, 16, 4, 4), '5': (100, 1568), '7': (10, 100)
    }  # fmt: skip
    for name, shape in shapes.items():
        for key, expected in ((f'{name}.weight', shape), (f'{name}.bias', shape[:1])):
            found = arrays[key].shape if key in arrays else None
            if found != expected:
                raise ValueError(f'{path}: {key} must be {expected}, got {found}')

    def kernel(name):
        weight = jnp.asarray(arrays[f'{name}.weight'], jnp.float32)
        if weight.ndim == 4:
            return weight.transpose(2, 3, 1, 0)
        if name == '5':  # PyTorch flattens channels first, we flatten them last.
            weight = weight.reshape(100, 32, 7, 7).transpose(0, 2, 3, 1)
            weight = weight.reshape(100, 1568)
        return weight.T

    names = {'conv1': '0', 'conv2': '2', 'full': '5', 'out': '7'}
    return {
        ours: {
            'kernel': kernel(theirs),
            'bias': jnp.asarray(arrays[f'{theirs}.bias'], jnp.float32),
        }
        for ours, theirs in names.items()
    }
