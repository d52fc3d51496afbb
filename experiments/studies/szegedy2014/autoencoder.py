r"""A softmax classifier on the code of a sparse autoencoder.

The first layer learns to reconstruct images, and no label reaches it: the classifier's
gradient stops before it. So a network whose features no label has shaped can be
compared with networks that were trained end to end.
"""

import functools
import math

import jax
import jax.numpy as jnp

from advjax import models
from advjax.types import Array

_glorot = jax.nn.initializers.glorot_uniform()


def _layer(key, rows, columns):
    return {'kernel': _glorot(key, (rows, columns)), 'bias': jnp.zeros((1, columns))}


def _affine(layer, x):
    return x @ layer['kernel'] + layer['bias']


def _divergence(wanted: float, active: Array) -> Array:
    """The sum over units of KL(Bernoulli(wanted) || Bernoulli(active))."""
    active = jnp.clip(active, 1e-6, 1 - 1e-6)
    return jnp.sum(
        wanted * jnp.log(wanted / active)
        + (1 - wanted) * jnp.log((1 - wanted) / (1 - active))
    )


@functools.cache
def sparse_autoencoder(
    shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    units: int = 400,
    sparsity: float = 0.1,
    weight: float = 3.0,
) -> models.Model:
    r"""Softmax regression on the hidden layer of a sparse autoencoder.

    .. math::
        h = \sigma(x W + b), \quad \hat x = \sigma(h V + c), \quad z = h U + d

        J = \frac{1}{2B} \sum_i \|x_i - \hat x_i\|^2
            + \beta \sum_j D_{KL}\Big(\rho \,\Big\|\, \frac{1}{B} \sum_i h_{ij}\Big)

    The defaults are AE400-10 of Szegedy et al. 2014, as far as they tell: one layer of
    400 sigmoid units that the classifier does not tune. They print neither rho nor
    beta; these are customary. Both parts are trained at once: in train mode J is left
    in the state under 'loss', for ``training.with_own_loss``, and the classifier's
    gradient ends at h.

    Args:
      shape: shape of one input, values in [0, 1].
      num_classes: K.
      units: of the hidden layer.
      sparsity: rho, the wanted mean activation of a unit, in (0, 1).
      weight: beta.

    Raises:
      ValueError: for a value out of range.

    Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.2; the loss is that of
    Ng's lecture notes on sparse autoencoders (CS294A).
    """
    if not (isinstance(units, int) and units >= 1):
        raise ValueError(f'units must be an integer >= 1, got {units!r}')
    if not 0 < sparsity < 1:
        raise ValueError(f'sparsity must lie in (0, 1), got {sparsity}')
    if not 0 <= weight < math.inf:
        raise ValueError(f'weight must be a number >= 0, got {weight}')
    size = math.prod(shape)

    def init(key):
        encoder, decoder, out = jax.random.split(key, 3)
        params = {
            'encoder': _layer(encoder, size, units),
            'decoder': _layer(decoder, units, size),
            'out': _layer(out, units, num_classes),
        }
        return params, {'loss': jnp.zeros(())}

    def encode(params, x):
        return jax.nn.sigmoid(_affine(params['encoder'], x))

    def apply(params, state, x, train=False, key=None):
        del key
        x = x.reshape(x.shape[0], size)
        code = encode(params, x)
        if not train:
            return _affine(params['out'], code), state
        again = jax.nn.sigmoid(_affine(params['decoder'], code))
        error = jnp.sum(jnp.square(x - again)) / (2 * x.shape[0])
        active = jnp.mean(code, axis=0)
        state = {'loss': error + weight * _divergence(sparsity, active)}
        return _affine(params['out'], jax.lax.stop_gradient(code)), state

    def features(params, state, x):
        del state
        return encode(params, x.reshape(x.shape[0], size))

    return models.Model(init=init, apply=apply, features=features)
