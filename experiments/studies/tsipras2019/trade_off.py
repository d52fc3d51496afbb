r"""A distribution on which accuracy costs robustness, with everything in closed form.

.. math:: y \sim U\{-1, +1\}, \qquad
    x_1 = \begin{cases} +y & \text{w.p. } p \\ -y & \text{w.p. } 1 - p \end{cases},
    \qquad x_2, \ldots, x_{d+1} \sim N(\eta y, 1)

One feature is robust and agrees with the label with probability p. Each of the d others
says little about the label; together they determine it almost surely, until an
adversary of :math:`\epsilon = 2\eta` in Linf turns them against it.

Reference: Tsipras et al. 2019, arXiv 1805.12152, section 2.
"""

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys
from advjax.attacks.checks import check_count
from advjax.types import Array, Key, dataclass


@dataclass
class TradeOff:
    """The distribution; build it with ``trade_off``.

    Attributes:
      p: probability that the robust feature agrees with the label.
      eta: mean of each weak feature times the label.
      weak: d, their number.
    """

    p: Array
    eta: Array
    weak: int = struct.field(pytree_node=False)

    def sample(self, key: Key, size: int) -> tuple[Array, Array]:
        """Draws x (size, d + 1) and y (size,) in {-1, +1}; each from its own key."""
        check_count('size', size)

        def one(own):
            for_label, for_robust, for_weak = jax.random.split(own, 3)
            y = jax.random.rademacher(for_label, (), jnp.float32)
            agrees = jax.random.bernoulli(for_robust, self.p)
            robust = jnp.where(agrees, y, -y)
            noise = jax.random.normal(for_weak, (self.weak,))
            return jnp.concatenate([robust[None], noise + self.eta * y]), y

        x, y = keys.draw(one, keys.per_example(key, size))
        return x, y.astype(jnp.int32)

    def accuracy(
        self, w: Array, bias: float | Array = 0.0, eps: float | Array = 0.0
    ) -> Array:
        r"""The exact accuracy of sign(w^T x + b) under Linf perturbations.

        .. math:: E_{s, y}\,\Phi\left(\frac{s w_1 + \eta\sum_{i>1} w_i + y b
                  - \epsilon\|w\|_1}{\|w_{2..}\|_2}\right), \quad s = x_1 y

        For weights :math:`[0, 1/d, \ldots, 1/d]` it is :math:`\Phi((\eta - \epsilon)
        \sqrt d)` (the paper prints the variance of one feature, 1, for that of their
        mean, 1/d).

        Args:
          w: (..., d + 1) weights.
          bias: (...) b.
          eps: Linf radius, no pixel range.

        Returns:
          (...), between 0 and 1. A margin of 0 is an error.
        """
        first, rest = w[..., 0], w[..., 1:]
        spread = jnp.linalg.norm(rest, axis=-1)
        mean = self.eta * jnp.sum(rest, axis=-1) - eps * jnp.sum(jnp.abs(w), axis=-1)

        def share(agreement, label):
            margin = agreement * first + mean + label * bias
            noisy = jax.scipy.stats.norm.cdf(margin / jnp.where(spread > 0, spread, 1))
            return jnp.where(spread > 0, noisy, (margin > 0).astype(noisy.dtype))

        agree = (share(1, 1) + share(1, -1)) / 2
        differ = (share(-1, 1) + share(-1, -1)) / 2
        return self.p * agree + (1 - self.p) * differ

    def bound(self, accuracy: float | Array) -> Array:
        r"""Theorem 2.1: no classifier of this accuracy is more robust than this.

        .. math:: \text{accuracy} \ge 1 - \delta \;\Rightarrow\;
            \text{robust accuracy} \le \frac{p}{1 - p}\delta
            \quad \text{for } \epsilon \ge 2\eta
        """
        return self.p / (1 - self.p) * (1 - jnp.asarray(accuracy))

    @property
    def averaging(self) -> Array:
        """The classifier that ignores the robust feature: [0, 1/d, ..., 1/d]."""
        return jnp.full((self.weak + 1,), 1 / self.weak).at[0].set(0)

    @property
    def robust(self) -> Array:
        """The classifier that uses nothing else: [1, 0, ..., 0], right with p."""
        return jnp.zeros((self.weak + 1,)).at[0].set(1)


def trade_off(p: float = 0.95, strength: float = 3.0, weak: int = 100) -> TradeOff:
    r"""The distribution of "Robustness may be at odds with accuracy".

    Args:
      p: probability that the robust feature agrees with the label.
      strength: :math:`\eta\sqrt d`: the averaging classifier has the accuracy
        :math:`\Phi` of it, .9987 at 3.
      weak: d, the number of weak features.

    Raises:
      ValueError: if p is not in [0.5, 1), or another number is not positive.
    """
    if not 0.5 <= p < 1:
        raise ValueError(f'p must lie in [0.5, 1), got {p}')
    if not 0 < strength < float('inf'):
        raise ValueError(f'strength must be positive and finite, got {strength}')
    check_count('weak', weak)
    return TradeOff(jnp.float32(p), jnp.float32(strength / weak**0.5), weak)
