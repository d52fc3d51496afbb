"""Split batch normalisation: separate statistics for clean and adversarial images.

Clean and adversarial images have different activations. Normalised together, both get
the statistics of the mixture; with a branch each, both have their own, while all other
weights are shared. Branch 0 is the main one, used in evaluation.
"""

import functools
import operator
from typing import Any

from flax import nnx

from advjax import models
from advjax.types import Array
from advjax.zoo.layers import Conv, check_shape


class SplitBatchNorm(nnx.Module):
    """Batch normalisation with a main and several auxiliary branches.

    Every branch is an ``nnx.BatchNorm`` with its own statistics, scale and bias; with
    one branch it is that layer. A forward pass in train mode changes the statistics
    of the branch it runs through and of no other.

    Args:
      features: size of the last axis of the input.
      branches: how many, at least 1.
      momentum: the share of the running statistics that is kept at every step.
      epsilon: added to the variance.
      dtype: of the result, float32 by default. Statistics are always float32.
      rngs: as in every nnx module.

    Raises:
      ValueError: if ``branches`` is not a positive integer.

    Reference: Xie et al. 2020, arXiv 1911.09665, section 4.2.
    """

    def __init__(
        self,
        features: int,
        branches: int = 2,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        check_branches(branches)
        options = {'momentum': momentum, 'epsilon': epsilon, 'rngs': rngs}
        self.dtype = dtype
        self.branches = nnx.List(
            nnx.BatchNorm(features, **options) for _ in range(branches)
        )

    def __call__(self, x: Array, branch: int = 0) -> Array:
        """Normalises through one branch, a static number."""
        branch = checked_branch(branch, len(self.branches))
        # nnx's own dtype would round the running statistics as well.
        y = self.branches[branch](x)
        return y if self.dtype is None else y.astype(self.dtype)


def check_branches(branches: int) -> None:
    """Validates a number of branches."""
    if not isinstance(branches, int) or isinstance(branches, bool) or branches < 1:
        raise ValueError(f'branches must be an integer >= 1, got {branches!r}')


def checked_branch(branch: int, count: int) -> int:
    """The number of a branch, if it is one of ``count``."""
    if not 0 <= operator.index(branch) < count:
        raise ValueError(f'branch must be in 0..{count - 1}, got {branch}')
    return branch


class _SplitNormCnn(nnx.Module):
    def __init__(self, shape, num_classes, widths, hidden, branches, rngs):
        height, width, channels = shape
        sizes = (channels, *widths)
        # A bias would be removed by the normalisation.
        options = {
            'kernel_init': nnx.initializers.he_normal(),
            'use_bias': False,
            'rngs': rngs,
        }
        self.convs = nnx.List(
            Conv(a, b, (4, 4), strides=2, padding=1, **options)
            for a, b in zip(sizes, widths, strict=False)
        )
        for _ in widths:
            height, width = height // 2, width // 2
        self.full = nnx.Linear(height * width * sizes[-1], hidden, **options)
        self.norms = nnx.List(
            SplitBatchNorm(size, branches, rngs=rngs) for size in (*widths, hidden)
        )
        self.out = nnx.Linear(hidden, num_classes, rngs=rngs)

    def features(self, x, branch=0):
        *norms, last = self.norms
        for conv, norm in zip(self.convs, norms, strict=True):
            x = nnx.relu(norm(conv(x), branch))
        return nnx.relu(last(self.full(x.reshape(x.shape[0], -1)), branch))

    def __call__(self, x, branch=0):
        return self.out(self.features(x, branch))


@functools.cache
def split_norm_cnn(
    shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    widths: tuple[int, ...] = (16, 32),
    hidden: int = 100,
    branches: int = 2,
) -> models.Model:
    """A small convolutional network with split batch normalisation.

    ``fast_mnist`` with a normalisation before every ReLU: 4x4 convolutions of stride
    2, one dense layer, K logits. ``models.logits_fn(model, params, state, branch=1)``
    is the view of the first auxiliary branch.

    Args:
      shape: (H, W, C) of one image.
      num_classes: K.
      widths: channels of each convolution, which halves the image.
      hidden: units of the dense layer.
      branches: normalisations per layer; 1 is an ordinary network.

    Raises:
      ValueError: if ``branches`` is below 1 or the image too small to be halved.

    Reference: Xie et al. 2020, arXiv 1911.09665, section 4.2.
    """
    check_branches(branches)
    check_shape(shape, 2 ** len(widths))
    return models.from_nnx(
        functools.partial(_SplitNormCnn, shape, num_classes, widths, hidden, branches)
    )
