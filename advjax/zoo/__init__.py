"""Networks of the literature, as ``advjax.models.Model`` values.

Each factory takes the ``shape`` of one input, (H, W, C) for an image, and the number of
classes K. It is cached: two calls give the same functions, hence one compiled program.
Networks for images raise a ValueError for a value out of range.
"""

from advjax.zoo.cnn import fast_mnist, load_fast_mnist, madry_mnist
from advjax.zoo.dense import maxout, mlp
from advjax.zoo.linear import logistic, softmax_regression
from advjax.zoo.options import Common
from advjax.zoo.published import load_published
from advjax.zoo.residual import CIFAR10_MEAN, CIFAR10_STD
from advjax.zoo.resnet import preact_resnet18, resnet18, resnet50
from advjax.zoo.robustbench import robustbench
from advjax.zoo.split_norm import SplitBatchNorm, split_norm_cnn
from advjax.zoo.vgg import vgg11, vgg16
from advjax.zoo.vit import SplitLayerNorm, vit_small
from advjax.zoo.weight_files import read_state_dict
from advjax.zoo.wide_resnet import (
    wide_resnet,
    wide_resnet_28_10,
    wide_resnet_34_10,
    wide_resnet_70_16,
)

__all__ = [
    'CIFAR10_MEAN',
    'CIFAR10_STD',
    'Common',
    'SplitBatchNorm',
    'SplitLayerNorm',
    'fast_mnist',
    'load_fast_mnist',
    'load_published',
    'logistic',
    'madry_mnist',
    'maxout',
    'mlp',
    'preact_resnet18',
    'read_state_dict',
    'resnet18',
    'resnet50',
    'robustbench',
    'softmax_regression',
    'split_norm_cnn',
    'vgg11',
    'vgg16',
    'vit_small',
    'wide_resnet',
    'wide_resnet_28_10',
    'wide_resnet_34_10',
    'wide_resnet_70_16',
]
