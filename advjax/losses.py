r"""What an attack maximises and a training method minimises, per example.

Every classification loss here takes ``(logits (B, K), y (B,), target=None)`` and
returns (B,) float32 values that are *larger when the model does worse*. With a
``target`` (B,) it is the targeted form: larger when the model is closer to
answering ``target``. Attacks only ever maximise; there are no sign flags.

Logits of any float type are computed on in float32, so float16 and bfloat16
models neither overflow nor lose the small differences attacks live on.
"""

import jax
import jax.numpy as jnp

from advjax.types import Array


def _float32(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _pick(logits: Array, index: Array) -> Array:
    return jnp.take_along_axis(logits, index[:, None], axis=1)[:, 0]


def _best_other(logits: Array, y: Array) -> Array:
    """The largest logit of a class that is not ``y``."""
    own = jax.nn.one_hot(y, logits.shape[1], dtype=bool)
    return jnp.max(jnp.where(own, -jnp.inf, logits), axis=1)


def cross_entropy(logits: Array, y: Array, target: Array | None = None) -> Array:
    r"""Cross entropy :math:`-\log p_y`; targeted: :math:`\log p_t`.

    With soft labels, as label smoothing and CutMix make them, it is
    :math:`-\sum_k y_k \log p_k`.

    Args:
      logits: (B, K).
      y: (B,) labels, or (B, K) probabilities of the classes.
      target: (B,) classes to be reached, or None.

    Returns:
      (B,) nats.
    """
    log_p = jax.nn.log_softmax(_float32(logits))
    if target is not None:
        return _pick(log_p, target)
    if y.ndim == 1:
        return -_pick(log_p, y)
    # 0 * log 0 counts as 0.
    return -jnp.sum(jnp.where(y > 0, y * log_p, 0), axis=1)


def hard(y: Array) -> Array:
    """The labels (B,): those given, or the likeliest class of (B, K) probabilities."""
    return y if y.ndim == 1 else jnp.argmax(y, axis=1)


def probability(logits: Array, y: Array) -> Array:
    """The probability (B,) of the label; its mean over the classes of soft labels."""
    p = jax.nn.softmax(_float32(logits))
    return _pick(p, y) if y.ndim == 1 else jnp.sum(y * p, axis=1)


def margin(
    logits: Array,
    y: Array,
    target: Array | None = None,
    *,
    kappa: float = float('inf'),
) -> Array:
    r"""How far the model is beyond its decision boundary, in logits.

    .. math:: f_6 = \min(\max_{j \ne y} z_j - z_y,\; \kappa)

    and targeted :math:`\min(z_t - \max_{j \ne t} z_j, \kappa)`. Positive exactly
    where the attack has succeeded, so it also ranks adversarial examples.

    Args:
      logits: (B, K), K >= 2.
      y: (B,) labels.
      target: (B,) classes to be reached, or None.
      kappa: the confidence at which the objective saturates.

    Reference: Carlini and Wagner 2017, arXiv 1608.04644, objective f6, with the
    sign turned so that it is maximised.
    """
    z = _float32(logits)
    if target is None:
        value = _best_other(z, y) - _pick(z, y)
    else:
        value = _pick(z, target) - _best_other(z, target)
    return jnp.minimum(value, kappa)


def dlr(logits: Array, y: Array, target: Array | None = None) -> Array:
    r"""Difference of logits ratio: a margin that does not depend on the scale.

    .. math::
        -\frac{z_y - \max_{j \ne y} z_j}{z_{\pi_1} - z_{\pi_3} + 10^{-12}},
        \qquad \text{targeted}\quad
        -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2 + 10^{-12}}

    where :math:`\pi` sorts the logits in descending order.

    With three classes the targeted denominator does not exist; there it is
    :math:`z_{\pi_1} - z_{\pi_3}` as well. With two classes no quantity is both
    independent of the scale and has a gradient (the ratio is +-1).

    Args:
      logits: (B, K), K >= 3.
      y: (B,) labels.
      target: (B,) classes to be reached, or None.

    Raises:
      ValueError: for a model with two classes, whose loss is the ``margin``.

    Reference: Croce and Hein 2020, arXiv 2003.01690, equations 6 and 7.
    """
    z = _float32(logits)
    classes = z.shape[1]
    if classes < 3:
        raise ValueError(
            f"'dlr' needs at least 3 classes, the model has {classes}: use 'margin'"
        )
    if target is None:
        gap = _best_other(z, y) - _pick(z, y)
    else:
        gap = _pick(z, target) - _pick(z, y)
    top = jax.lax.top_k(z, min(classes, 4))[0]
    third = top[:, 2]
    if target is not None and classes >= 4:
        third = (top[:, 2] + top[:, 3]) / 2
    return gap / (top[:, 0] - third + 1e-12)


def kl(logits: Array, reference: Array) -> Array:
    r"""Kullback-Leibler divergence from a reference prediction.

    .. math:: D_{KL}(\mathrm{softmax}(z_{ref}) \,\|\, \mathrm{softmax}(z))

    Args:
      logits: (B, K).
      reference: (B, K) logits of the reference, such as the clean prediction.

    Reference: Zhang et al. 2019 (TRADES), arXiv 1901.08573, equation 5.
    """
    log_q = jax.nn.log_softmax(_float32(logits))
    log_p = jax.nn.log_softmax(_float32(reference))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def softplus(logits: Array, y: Array) -> Array:
    r"""Binary logistic loss :math:`\zeta(-y s)`, :math:`\zeta(z) = \log(1 + e^z)`.

    Args:
      logits: (B,) or (B, 1) scores s, or (B, 2) logits, whose score is z_1 - z_0.
      y: (B,) labels in {-1, +1} (not {0, 1}).

    Returns:
      (B,), equal to the cross entropy of the two-class softmax.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 5.
    """
    z = _float32(logits)
    if z.ndim == 2:
        z = z[:, 1] - z[:, 0] if z.shape[1] == 2 else z[:, 0]
    return jax.nn.softplus(-y.astype(z.dtype) * z)


def one_vs_rest(logits: Array, y: Array, target: Array | None = None) -> Array:
    r"""K independent yes-or-no losses, :math:`\zeta(-z_y) + \sum_{k \ne y} \zeta(z_k)`.

    The negative log likelihood of a model whose classes do not compete,
    :math:`P(\text{class } k \mid x) = \sigma(z_k)`: it may answer "none of them".
    Targeted it is the negative of the same with the target in place of the label.

    Args:
      logits: (B, K).
      y: (B,) labels.
      target: (B,) classes to be reached, or None.

    Returns:
      (B,) nats.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, appendix A (independent
    sigmoids).
    """
    z = _float32(logits)
    own = jax.nn.one_hot(y if target is None else target, z.shape[1], dtype=bool)
    value = jnp.sum(jax.nn.softplus(jnp.where(own, -z, z)), axis=1)
    return value if target is None else -value
