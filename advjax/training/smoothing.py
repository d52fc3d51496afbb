"""Label smoothing: a share of the probability is spread over all classes."""

from typing import Any

import jax
import jax.numpy as jnp

from advjax.attacks.checks import check_fraction
from advjax.training.methods import Method
from advjax.types import Array, dataclass


@dataclass
class WithSmoothLabels:
    """An outer loss of smoothed labels; build it with ``smooth_labels``."""

    outer: Any
    amount: Array

    def __call__(self, forward, state, x, x_adv, y):
        """Returns what the outer loss returns."""
        if y.ndim == 1:
            y = jax.nn.one_hot(y, forward.classes)
        # An example without a label has no probability to share.
        share = jnp.sum(y, axis=1, keepdims=True) / y.shape[1]
        y = (1 - self.amount) * y + self.amount * share
        return self.outer(forward, state, x, x_adv, y)


def smooth_labels(method: Method, amount: float = 0.1) -> Method:
    r"""Any method, trained on smoothed labels.

    .. math:: \tilde y_k = (1 - a)\,[k = y] + a / K

    The label itself keeps 1 - a + a / K: the convention of PyTorch and Keras. (Another
    one shares a among the K - 1 other classes; its a is (K - 1) / K times ours.) Only
    the outer loss sees them: the attack is against the labels as they are. Labels that
    are (B, K) probabilities already, as CutMix makes them, are smoothed in the same
    way; an example without a label (y = -1, or a row of zeros) stays without.

    It adds no gradient evaluation. With amount 0 the loss is that of the method.

    Args:
      method: what to train for, its outer loss one that takes probabilities as labels,
        as all of this package do.
      amount: a in [0, 1].

    Raises:
      ValueError: if the amount is outside [0, 1].

    Reference: Szegedy et al. 2016, arXiv 1512.00567, section 7; with adversarial
    training Gowal et al. 2020, arXiv 2010.03593, and Pang et al. 2021, arXiv
    2010.00467.
    """
    share = check_fraction('amount', amount)
    return method.around(lambda outer: WithSmoothLabels(outer, share))
