"""Linear classifiers: the models whose worst case is known in closed form."""

import functools
import math

import jax
import jax.numpy as jnp

from advjax import models
from advjax.types import Array


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@functools.cache
def softmax_regression(
    shape: tuple[int, ...] = (28, 28, 1), num_classes: int = 10
) -> models.Model:
    r"""Multinomial logistic regression :math:`z = xW + b`, zero initialised.

    Goodfellow et al. 2015 call it the shallow softmax.
    """
    size = math.prod(shape)

    def init(key):
        del key  # The loss is convex, so the start does not matter.
        return {'w': jnp.zeros((size, num_classes)), 'b': jnp.zeros((1, num_classes))}

    return models.from_function(init, lambda p, x: _flat(x) @ p['w'] + p['b'])


@functools.cache
def logistic(shape: tuple[int, ...] = (28, 28, 1)) -> models.Model:
    r"""Binary logistic regression as two logits :math:`(0, s)`, :math:`s = xw + b`.

    Its cross entropy with labels {0, 1} is ``losses.softplus`` with {-1, +1}. Over
    an Linf ball without bounds the worst case of s is
    :math:`s - y\,\epsilon \|w\|_1` (Goodfellow et al. 2015, section 5, whose sign is a
    misprint).
    """
    size = math.prod(shape)

    def init(key):
        # Not zero: at w = 0 the input gradient, and with it every attack, vanishes.
        return {'w': 1e-3 * jax.random.normal(key, (size, 1)), 'b': jnp.zeros((1, 1))}

    def apply(params, x):
        score = _flat(x) @ params['w'] + params['b']
        return jnp.concatenate([jnp.zeros_like(score), score], axis=1)

    return models.from_function(init, apply)
