r"""Training on the worst of k random rotations and translations.

.. math:: \min_\theta E \max_{i \le k} J(\theta, T_{\phi_i, t_i}(x), y), \qquad
    \phi_i \sim U(-\phi_{max}, \phi_{max}), \; t_i \sim U(-t_{max}, t_{max})^2
"""

from advjax import attacks
from advjax.attacks.checks import check_count
from advjax.training.methods import Method, method
from advjax.training.named import on_adversarial


def spatial_at(degrees: float = 30.0, pixels: float = 3.0, k: int = 10) -> Method:
    """Worst-of-k training: ``attacks.spatial`` with random draws as the adversary.

    Every image is turned and shifted k times, with draws of its own, and the result of
    largest margin is trained on. A moved image is no member of a norm ball, so ``fit``
    needs to be given the attack of its held-out accuracy.

    Gradient evaluations per step: 1, and k forward passes.

    Args:
      degrees: largest rotation to either side.
      pixels: largest translation to each side, about a tenth of the image (3 on MNIST
        and CIFAR-10, 24 on ImageNet).
      k: draws; 1 is data augmentation.

    Raises:
      ValueError: for negative ranges, or a k that is not a positive integer.

    Reference: Engstrom et al. 2019, arXiv 1712.02779. Deviations: the worst
    draw is the one of largest margin, where the authors take the largest cross entropy
    among those misclassified, or else among all; both prefer a misclassified one. Their
    CIFAR-10 training also flips and crops, which is left to the data.
    """
    check_count('k', k)
    search = attacks.spatial(degrees, pixels, 'random', k)
    return method(search, on_adversarial)
