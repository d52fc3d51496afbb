r"""Binary logistic regression against an Linf adversary: the worst case in closed form.

The model is :math:`P(y = 1 \mid x) = \sigma(w^\top x + b)` with labels y in {-1, +1},
the parameters are those of ``zoo.logistic``, and :math:`\zeta(z) = \log(1 + e^z)`.

Why its loss is a softplus: both labels have :math:`P(y \mid x) = \sigma(y s)`, s the
score, because :math:`1 - \sigma(s) = \sigma(-s)`; and

.. math:: -\log \sigma(y s) = \log(1 + e^{-y s}) = \zeta(-y s).

The sigmoid is the model, the softplus its negative log likelihood: the same loss
written twice. The gradient in x is :math:`-y\,\sigma(-y s)\,w`, so over the ball
:math:`\|\eta\|_\infty \le \epsilon` the worst case is

.. math::
    \eta = -\epsilon\, y\, \mathrm{sign}(w), \qquad
    \max_\eta \zeta(-y\, s(x + \eta)) = \zeta(\epsilon \|w\|_1 - y\, s(x)).

The paper drops the y from the sign of that gradient. What it prints then,
``printed_loss``, is right for y = +1 and a best case for y = -1; and because it takes
:math:`\epsilon\|w\|_1` from every score alike, it is the plain loss of the same model
with another bias: it regularises nothing.

Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 5.
"""

import jax.numpy as jnp

from advjax import losses
from advjax.types import Array, Params


def score(params: Params, x: Array) -> Array:
    r"""The score :math:`s = w^\top x + b` of inputs (B, ...), (B,).

    Parameters are {'w': (n, 1), 'b': (1, 1)}; labels below are (B,) in {-1, +1}.
    """
    return (x.reshape(x.shape[0], -1) @ params['w'] + params['b'])[:, 0]


def worst_case(params: Params, x: Array, y: Array, eps: float) -> Array:
    r"""The worst input of the ball, :math:`x - \epsilon\, y\, \mathrm{sign}(w)`.

    There are no bounds: pixels may leave [0, 1], as in the paper.
    """
    direction = jnp.sign(params['w']).reshape(1, *x.shape[1:])
    wide = y.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
    return x - eps * wide * direction


def adversarial_loss(params: Params, x: Array, y: Array, eps: float) -> Array:
    r"""The largest loss in the ball, :math:`\zeta(\epsilon\|w\|_1 - y(w^\top x + b))`.

    (B,) losses in nats, never below the clean loss, and convex in the parameters.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 5, with the sign put
    right.
    """
    s, sign = score(params, x), y.astype(x.dtype)
    return losses.softplus(s - sign * eps * jnp.sum(jnp.abs(params['w'])), y)


def printed_loss(params: Params, x: Array, y: Array, eps: float) -> Array:
    r"""The objective as the paper prints it, :math:`\zeta(y(\epsilon\|w\|_1 - s))`.

    No upper bound of anything: for y = -1 it is the *smallest* loss in the ball. It
    equals the plain loss with the bias :math:`b - \epsilon\|w\|_1`, so its minimiser
    is plain logistic regression with a bias that is too high by
    :math:`\epsilon\|w\|_1`: it answers +1 to nearly everything. Kept to show that;
    train with ``adversarial_loss``.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 5, as printed.
    """
    return losses.softplus(score(params, x) - eps * jnp.sum(jnp.abs(params['w'])), y)
