"""Adversarial training: methods, the pure min-max step, and the loop.

method = training.fast(linf(0.3))
state, metrics = jax.jit(training.step)(method, state, batch, key)     # pure
fit = training.fit(method, model, optax.adam(1e-3), train, held_out, key, epochs=10)
"""

from advjax.training.diagnosis import (
    catastrophic_overfitting,
    collapse,
    diagnose,
)
from advjax.training.loop import Fit, NonFiniteLossError, fit, restore
from advjax.training.methods import (
    Method,
    Mixed,
    Trades,
    fast,
    fgsm_at,
    method,
    on_adversarial,
    pgd_at,
    standard,
    trades,
    unperturbed,
)
from advjax.training.schedules import triangular
from advjax.training.step import TrainState, create, step

__all__ = [
    'Fit',
    'Method',
    'Mixed',
    'NonFiniteLossError',
    'Trades',
    'TrainState',
    'catastrophic_overfitting',
    'collapse',
    'create',
    'diagnose',
    'fast',
    'fgsm_at',
    'fit',
    'method',
    'on_adversarial',
    'pgd_at',
    'restore',
    'standard',
    'step',
    'trades',
    'triangular',
    'unperturbed',
]
