"""Adversarial training: methods, the pure min-max step, and the loop.

method = training.fast(linf(0.3))
state, metrics = jax.jit(training.step)(method, state, batch, key)     # pure
fit = training.fit(method, model, optax.adam(1e-3), train, held_out, key, epochs=10)
"""

from advjax.training.advprop import (
    Augmented,
    EachBranch,
    RandomTarget,
    advprop,
    augmented,
    clean_and_branches,
    joint,
    random_target,
    together,
)
from advjax.training.averaging import Ema, Swa, ema, swa
from advjax.training.awp import WeightPerturbation, awp
from advjax.training.diagnosis import (
    catastrophic_overfitting,
    collapse,
    diagnose,
)
from advjax.training.distillation import (
    AtTemperature,
    Distilled,
    adversarially_robust_distillation,
    at_temperature,
    distillation,
    rslad,
)
from advjax.training.ensemble import OneOf, OwnLabels, ensemble_at
from advjax.training.free import Free, free
from advjax.training.gaussian import GaussianNoise, gaussian_augmentation
from advjax.training.grad_align import (
    Aligned,
    WithRandomPoint,
    grad_align,
    published_coefficient,
)
from advjax.training.local_linearity import LeastLinear, Linearised, llr
from advjax.training.logit_pairing import (
    AdversarialPairs,
    CleanPairs,
    SmallLogits,
    adversarial_logit_pairing,
    clean_logit_pairing,
    logit_squeezing,
)
from advjax.training.loop import fit
from advjax.training.mart import Mart, boosted_cross_entropy, mart
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
    scaled,
    standard,
    trades,
    unperturbed,
    with_own_loss,
)
from advjax.training.preemption import Preempted
from advjax.training.result import Fit, NonFiniteLossError, restore
from advjax.training.schedules import piecewise, scheduled, triangular
from advjax.training.settings import Checkpointing, Recovery
from advjax.training.smoothing import WithSmoothLabels, smooth_labels
from advjax.training.spatial import spatial_at
from advjax.training.step import TrainState, create, step
from advjax.training.virtual import (
    Virtual,
    VirtualAdversary,
    virtual_adversarial,
)
from advjax.training.weights import (
    is_kernel,
    l1_decay,
    layer_decay,
    max_column_norm,
    weight_decay,
)

__all__ = [
    'AdversarialPairs',
    'Aligned',
    'AtTemperature',
    'Augmented',
    'Checkpointing',
    'CleanPairs',
    'Distilled',
    'EachBranch',
    'Ema',
    'Fit',
    'Free',
    'GaussianNoise',
    'LeastLinear',
    'Linearised',
    'Mart',
    'Method',
    'Mixed',
    'NonFiniteLossError',
    'OnAdversarial',
    'OneOf',
    'OwnLabels',
    'Preempted',
    'RandomTarget',
    'Recovery',
    'SmallLogits',
    'Swa',
    'Trades',
    'TrainState',
    'Virtual',
    'VirtualAdversary',
    'WeightPerturbation',
    'WithOwnLoss',
    'WithRandomPoint',
    'WithSmoothLabels',
    'adversarial_logit_pairing',
    'adversarially_robust_distillation',
    'advprop',
    'at_temperature',
    'augmented',
    'awp',
    'boosted_cross_entropy',
    'catastrophic_overfitting',
    'clean_and_branches',
    'clean_logit_pairing',
    'collapse',
    'create',
    'diagnose',
    'distillation',
    'ema',
    'ensemble_at',
    'fast',
    'fgsm_at',
    'fit',
    'free',
    'gaussian_augmentation',
    'grad_align',
    'is_kernel',
    'joint',
    'l1_decay',
    'layer_decay',
    'llr',
    'logit_squeezing',
    'mart',
    'max_column_norm',
    'method',
    'noise',
    'on_adversarial',
    'pgd_at',
    'piecewise',
    'published_coefficient',
    'random_target',
    'restore',
    'rslad',
    'scaled',
    'scheduled',
    'smooth_labels',
    'spatial_at',
    'standard',
    'step',
    'swa',
    'together',
    'trades',
    'triangular',
    'unperturbed',
    'virtual_adversarial',
    'weight_decay',
    'with_own_loss',
]
