"""What can be proved about a network: bounds that no attack can exceed.

layers = certify.of_fast_mnist(params)
bound = certify.lipschitz_bound(layers, (28, 28, 1))
radius = certify.margin_radius(logits, y, bound)    # no attack succeeds within
"""

from advjax.certify.layers import (
    ACTIVATIONS,
    Activation,
    Conv,
    Dense,
    MaxPool,
    activation,
    conv,
    dense,
    max_pool,
    of_fast_mnist,
    of_madry_mnist,
    of_mlp,
    of_softmax_regression,
    run,
)
from advjax.certify.lipschitz import (
    Layer,
    conv_norm,
    lipschitz_bound,
    lipschitz_bounds,
    margin_radius,
    matrix_of,
    power_norm,
    spectral_norm,
)

__all__ = [
    'ACTIVATIONS',
    'Activation',
    'Conv',
    'Dense',
    'Layer',
    'MaxPool',
    'activation',
    'conv',
    'conv_norm',
    'dense',
    'lipschitz_bound',
    'lipschitz_bounds',
    'margin_radius',
    'matrix_of',
    'max_pool',
    'of_fast_mnist',
    'of_madry_mnist',
    'of_mlp',
    'of_softmax_regression',
    'power_norm',
    'run',
    'spectral_norm',
]
