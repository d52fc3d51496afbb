"""Networks of the literature, as ``advjax.models.Model`` values.

Each factory takes the shape of one input and the number of classes and is cached:
two calls give the same functions, hence one compiled program.
"""

from advjax.zoo.autoencoder import sparse_autoencoder
from advjax.zoo.cnn import fast_mnist, load_fast_mnist, madry_mnist
from advjax.zoo.dense import maxout, mlp
from advjax.zoo.linear import logistic, softmax_regression
from advjax.zoo.rbf import rbf
from advjax.zoo.split_norm import SplitBatchNorm, split_norm_cnn

__all__ = [
    'SplitBatchNorm',
    'fast_mnist',
    'load_fast_mnist',
    'logistic',
    'madry_mnist',
    'maxout',
    'mlp',
    'rbf',
    'softmax_regression',
    'sparse_autoencoder',
    'split_norm_cnn',
]
