"""Adversarial training: methods, the pure min-max step, and the loop.

method = training.fast(linf(0.3))
state, metrics = jax.jit(training.step)(method, state, batch, key)     # pure
fit = training.fit(method, model, optax.adam(1e-3), train, held_out, key, epochs=10)
"""

from advjax.training.advprop import (
    EachBranch,
    advprop,
    clean_and_branches,
    joint,
    together,
)
from advjax.training.diagnosis import (
    catastrophic_overfitting,
    collapse,
    diagnose,
)
from advjax.training.distillation import (
    AtTemperature,
    Distilled,
    at_temperature,
    distillation,
    soft_cross_entropy,
)
from advjax.training.loop import Fit, NonFiniteLossError, fit, restore
from advjax.training.methods import (
    Method,
    Mixed,
    OnAdversarial,
    Trades,
    WithOwnLoss,
    fast,
    fgsm_at,
    method,
    noise,
    on_adversarial,
    pgd_at,
    standard,
    trades,
    unperturbed,
    with_own_loss,
)
from advjax.training.schedules import triangular
from advjax.training.step import TrainState, create, step
from advjax.training.weights import l1_decay, layer_decay, max_column_norm

__all__ = [
    'AtTemperature',
    'Distilled',
    'EachBranch',
    'Fit',
    'Method',
    'Mixed',
    'NonFiniteLossError',
    'OnAdversarial',
    'Trades',
    'TrainState',
    'WithOwnLoss',
    'advprop',
    'at_temperature',
    'catastrophic_overfitting',
    'clean_and_branches',
    'collapse',
    'create',
    'diagnose',
    'distillation',
    'fast',
    'fgsm_at',
    'fit',
    'joint',
    'l1_decay',
    'layer_decay',
    'max_column_norm',
    'method',
    'noise',
    'on_adversarial',
    'pgd_at',
    'restore',
    'soft_cross_entropy',
    'standard',
    'step',
    'together',
    'trades',
    'triangular',
    'unperturbed',
    'with_own_loss',
]
