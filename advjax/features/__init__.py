"""Features: how useful they are, how robustly, and data sets that hold only some.

    linear = features.standardise(features.linear(directions), x)
    rho = features.rho(linear, x, y)                            # (F,)
    gamma = jnp.mean(linear.worst(linf(0.1), x, y), axis=0)     # (F,), exact

    d_r = features.restricted(features_fn, dataset, key)        # D_R or D_NR
    d_det = features.relabelled(logits_fn, attack, dataset, key, 'next')

Two models whose answers are known in closed form belong to it: ``gaussian`` (Ilyas et
al. 2019, section 4) and ``trade_off`` (Tsipras et al. 2019, section 2).
"""

from advjax.features import gaussian, saliency
from advjax.features.datasets import invert, relabelled, restricted
from advjax.features.linear import Linear, linear
from advjax.features.trade_off import TradeOff, trade_off
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
    'TradeOff',
    'gamma',
    'gaussian',
    'invert',
    'linear',
    'relabelled',
    'restricted',
    'rho',
    'saliency',
    'signs',
    'standardise',
    'trade_off',
    'worst',
]
