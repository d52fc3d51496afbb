"""Shallow radial basis function networks: sure only near what they have seen."""

import functools
import math

import jax
import jax.numpy as jnp

from advjax import models
from advjax.types import Array, Params

_LARGEST = 1e-6
"""No exponent is closer to 0: at p = 1 the logit would be infinite."""


@functools.cache
def rbf(shape: tuple[int, ...] = (28, 28, 1), num_classes: int = 10) -> models.Model:
    r"""One radial basis function per class; away from all of them the answer is "no".

    .. math:: p(y = k \mid x) = e^{q_k(x)}, \qquad
        q_k(x) = (x - \mu_k)^\top \beta_k (x - \mu_k)

    with :math:`\beta_k = -\mathrm{diag}(e^{s_k})` negative definite for every value of
    the parameters (the paper prints no minus sign and leaves :math:`\beta` open). The
    classes do not compete, and the K probabilities need not sum to one. The logits are
    the log odds,

    .. math:: z_k = \log\frac{p_k}{1 - p_k} = q_k - \log(1 - e^{q_k}),
        \qquad \sigma(z_k) = p_k,

    computed from :math:`q_k` without ever forming :math:`p_k`: far from all templates
    :math:`z_k = q_k`, whose gradient does not vanish where :math:`p_k` underflows.
    Train it with ``losses.one_vs_rest``, and read its confidence as
    :math:`\sigma(\max_k z_k)`; a softmax over these logits would make it sure of
    something everywhere. Exponents are kept below -1e-6, so logits stay below 14.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 7.
    """
    size = math.prod(shape)

    def init(key):
        centre, _ = jax.random.split(key)
        # Templates between black and white, so wide that at first all is near.
        return {
            'mu': jax.random.uniform(centre, (num_classes, size)) * 0.5,
            'log_precision': jnp.full((num_classes, size), -math.log(size)),
        }

    return models.from_function(init, _log_odds)


def _log_odds(params: Params, x: Array) -> Array:
    x = x.reshape(x.shape[0], 1, math.prod(x.shape[1:]))
    delta = x - params['mu'][None]
    distance = jnp.sum(jnp.exp(params['log_precision'])[None] * delta**2, axis=2)
    distance += _LARGEST
    return -distance - jax.nn.log1mexp(distance)
