"""Training on Gaussian noise: the base classifier of randomized smoothing.

``noise`` trains on random points of a ball instead, a control of adversarial training.
"""

import jax

from advjax import keys
from advjax.attacks.checks import check_weight
from advjax.training.methods import Method, method
from advjax.training.named import on_adversarial
from advjax.types import Array, Key, LogitsFn, dataclass


@dataclass
class GaussianNoise:
    """Adds noise that no model is asked about; see ``gaussian_augmentation``."""

    sigma: Array

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Returns noisy images, which may leave the valid range."""
        del logits_fn, y
        each = keys.per_example(key, x.shape[0])
        drawn = keys.draw(lambda k: jax.random.normal(k, x.shape[1:], x.dtype), each)
        return x + self.sigma.astype(x.dtype) * drawn


def gaussian_augmentation(sigma: float = 0.25) -> Method:
    r"""Training on images with Gaussian noise, anew at every step.

    .. math:: E\,J(\theta, x + \delta, y), \qquad \delta \sim N(0, \sigma^2 I)

    The noise is not clipped to the pixel range, or else it would not be the one whose
    certificate is computed. A smoothed classifier is certified at the same sigma.

    Gradient evaluations per step: 1.

    Args:
      sigma: standard deviation in pixels (0.12, 0.25, 0.5 and 1 in the paper); 0 is
        standard training.

    Raises:
      ValueError: if sigma is negative or not finite.

    Reference: Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918, section 3.3.
    """
    noise = GaussianNoise(check_weight('sigma', sigma))
    return method(noise, on_adversarial, adversarial=False)
