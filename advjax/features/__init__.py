"""Features: their usefulness and robust usefulness, and data sets of some of them.

linear = features.standardise(features.linear(directions), x)
rho = features.rho(linear, x, y)                            # (F,)
gamma = jnp.mean(linear.worst(linf(0.1), x, y), axis=0)     # (F,), exact

d_r = features.restricted(features_fn, dataset, key=key)    # D_R or D_NR
d_det = features.relabelled(logits_fn, attack, dataset, key, 'next')
"""

from advjax.features.datasets import invert, relabelled, restricted
from advjax.features.linear import Linear, linear
from advjax.features.usefulness import (
    Standardised,
    gamma,
    rho,
    signs,
    standardise,
    worst,
)

__all__ = [
    'Linear',
    'Standardised',
    'gamma',
    'invert',
    'linear',
    'relabelled',
    'restricted',
    'rho',
    'signs',
    'standardise',
    'worst',
]
