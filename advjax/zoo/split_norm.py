"""Split batch normalisation: one set of statistics for every kind of image.

Clean and adversarial images have different activations. Normalised together, each is
given the statistics of the mixture; with a branch of its own each keeps its own, while
all other weights are shared. Branch 0 is the main one, the network as it is used.
"""

import functools
import operator
from typing import Any

from flax import nnx

from advjax import convolutions, models
from advjax.types import Array


class SplitBatchNorm(nnx.Module):
    """Batch normalisation with a main and several auxiliary branches.

    Every branch is an ``nnx.BatchNorm`` with its own statistics, scale and bias; with
    one branch it is that layer. A forward pass in train mode changes the statistics
    of the branch it runs through and of no other.

    Args:
      features: size of the last axis of the input.
      branches: how many, at least 1.
      momentum: what the running statistics keep at every step.
      epsilon: added to the variance.
      dtype: of the result, float32 by default. Whatever it is, statistics are computed
        in float32.
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
        """Normalises through one branch, whose number is not traced."""
        count = len(self.branches)
        if not 0 <= operator.index(branch) < count:
            raise ValueError(f'branch must be in 0..{count - 1}, got {branch}')
        # nnx's own dtype would round the running statistics as well.
        y = self.branches[branch](x)
        return y if self.dtype is None else y.astype(self.dtype)


def check_branches(branches: int) -> None:
    """Validates a number of branches."""
    if not isinstance(branches, int) or isinstance(branches, bool) or branches < 1:
        raise ValueError(f'branches must be an integer >= 1, got {branches!r}')


class _SplitNormCnn(nnx.Module):
    def __init__(self, shape, num_classes, widths, hidden, branches, rngs):
        height, width, channels = shape
        sizes = (channels, *widths)
        # Normalisation takes a bias away again.
        options = {
            'kernel_init': nnx.initializers.he_normal(),
            'use_bias': False,
            'rngs': rngs,
        }
        self.convs = nnx.List(
            nnx.Conv(
                a,
                b,
                (4, 4),
                strides=2,
                padding=1,
                conv_general_dilated=convolutions.conv_general_dilated,
                **options,
            )
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
    2, one dense layer, K logits. Its view is ``branch``: ``models.logits_fn(model,
    params, state, branch=1)`` is the first auxiliary branch.

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
    least = 2 ** len(widths)
    if len(shape) != 3 or min(shape[:2]) < least:
        raise ValueError(
            f'shape must be (height, width, channels) with sides of at least {least}, '
            f'got {shape}'
        )
    return models.from_nnx(
        functools.partial(_SplitNormCnn, shape, num_classes, widths, hidden, branches)
    )
