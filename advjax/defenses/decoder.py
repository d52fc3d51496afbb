r"""A small generator of images, trained as the second half of an autoencoder.

.. math:: \min_{E, G}\; \mathrm{mean}_x\, \|G(E(x)) - x\|_2^2 / n
          + \rho\, \mathrm{mean}_x\, \|E(x)\|_2^2 / k

E and G have one hidden layer of ReLUs; G ends in a sigmoid, so that its images lie in
[0, 1]. The penalty keeps the codes near the origin, where a search for them starts.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax.attacks.checks import check_count, check_positive
from advjax.types import Array, HostArray, Key, check_images, dataclass


@dataclass
class Decoder:
    """Codes (B, k) -> images (B, ...); build it with ``train_decoder``."""

    params: Any
    shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def latent(self) -> int:
        """Numbers in a code, k."""
        return self.params['hidden']['kernel'].shape[0]

    def __call__(self, codes: Array) -> Array:
        """Images with values in [0, 1]."""
        flat = jax.nn.sigmoid(_two_layers(self.params, codes))
        return flat.reshape(-1, *self.shape)


def _layer(key: Key, inputs: int, outputs: int) -> dict[str, Array]:
    scale = math.sqrt(2 / inputs)
    kernel = scale * jax.random.normal(key, (inputs, outputs))
    return {'kernel': kernel, 'bias': jnp.zeros((1, outputs))}


def _two_layers(params: Any, x: Array) -> Array:
    for name in ('hidden', 'out'):
        x = x @ params[name]['kernel'] + params[name]['bias']
        x = jax.nn.relu(x) if name == 'hidden' else x
    return x


def train_decoder(
    images: HostArray,
    *,
    key: Key,
    latent: int = 16,
    hidden: int = 128,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    penalty: float = 1e-3,
) -> Decoder:
    """Trains a generator by Adam with a linearly decaying rate, in one program.

    Args:
      images: (N, ...) float32 training images in [0, 1].
      key: one key.
      latent: numbers in a code, k.
      hidden: units of the hidden layers.
      steps: updates.
      batch_size: images per update, drawn with replacement.
      learning_rate: of the first update; it decays to zero.
      penalty: weight of the size of the codes, rho.

    Raises:
      ValueError: for integer images, none at all, values outside of [0, 1] or a
        number that is not positive.
    """
    check_images(images, 'images')
    if not len(images):
        raise ValueError(f'images must be (N, ...), N >= 1, got shape {images.shape}')
    images = jnp.asarray(images)
    if not isinstance(images, jax.core.Tracer):
        low, high = float(jnp.min(images)), float(jnp.max(images))
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f'images must lie in [0, 1], got values in [{low:g}, {high:g}]'
            )
    sizes = {'latent': latent, 'hidden': hidden, 'steps': steps}
    for name, value in {**sizes, 'batch_size': batch_size}.items():
        check_count(name, value)
    check_positive('learning_rate', learning_rate)
    if not penalty >= 0:
        raise ValueError(f'penalty must be >= 0, got {penalty!r}')
    pixels = math.prod(images.shape[1:])
    flat = images.reshape(len(images), pixels)
    one, two, three, four, draws = jax.random.split(key, 5)
    params = {
        'encoder': {
            'hidden': _layer(one, pixels, hidden),
            'out': _layer(two, hidden, latent),
        },
        'decoder': {
            'hidden': _layer(three, latent, hidden),
            'out': _layer(four, hidden, pixels),
        },
    }
    adam = optax.adam(optax.schedules.linear_schedule(learning_rate, 0, steps))

    def loss(params, x):
        codes = _two_layers(params['encoder'], x)
        error = jnp.mean(
            jnp.square(jax.nn.sigmoid(_two_layers(params['decoder'], codes)) - x)
        )
        return error + penalty * jnp.mean(jnp.square(codes))

    def update(carry, step):
        params, state = carry
        chosen = jax.random.randint(
            jax.random.fold_in(draws, step), (batch_size,), 0, len(flat)
        )
        grads = jax.grad(loss)(params, flat[chosen])
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    start = (params, adam.init(params))
    (params, _), _ = jax.lax.scan(update, start, jnp.arange(steps))
    return Decoder(params=params['decoder'], shape=images.shape[1:])
