"""Adversarial training: methods, the pure min-max step, and the loop.

method = training.fast(linf(0.3))
state, metrics = jax.jit(training.step)(method, state, batch, key)     # pure
fit = training.fit(method, model, optax.adam(1e-3), train, held_out, key=key, epochs=10)

``training.catalogue()`` lists the methods. The dataclasses that they are made of, such
as ``named.Trades``, are in the modules of the methods.
"""

from advjax.training.averaging import ema, swa
from advjax.training.branches import advprop, augmented, joint, random_target
from advjax.training.checkpoint import OtherTrainingError
from advjax.training.diagnosis import catastrophic_overfitting, collapse, diagnose
from advjax.training.ensemble import ensemble_at
from advjax.training.entries import catalogue
from advjax.training.entry import Entry
from advjax.training.gaussian import gaussian_augmentation
from advjax.training.gradient_alignment import grad_align
from advjax.training.local_linearity import llr
from advjax.training.logit_pairing import (
    adversarial_logit_pairing,
    clean_logit_pairing,
    logit_squeezing,
)
from advjax.training.loop import fit
from advjax.training.methods import Method, method, unperturbed
from advjax.training.misclassification import boosted_cross_entropy, mart
from advjax.training.named import (
    fast,
    fgsm_at,
    noise,
    on_adversarial,
    pgd_at,
    standard,
    trades,
    with_own_loss,
)
from advjax.training.preemption import Preempted
from advjax.training.result import Fit, NonFiniteLossError, restore
from advjax.training.schedules import piecewise, scheduled, triangular
from advjax.training.selection import scaled
from advjax.training.settings import Checkpointing, Recovery
from advjax.training.simultaneous import free
from advjax.training.smoothing import smooth_labels
from advjax.training.spatial import spatial_at
from advjax.training.steps import TrainState, create, step
from advjax.training.teachers import (
    adversarially_robust_distillation,
    at_temperature,
    distillation,
    rslad,
)
from advjax.training.virtual import virtual_adversarial
from advjax.training.weight_perturbation import awp
from advjax.training.weights import (
    l1_decay,
    layer_decay,
    max_column_norm,
    weight_decay,
)

__all__ = [
    'Checkpointing',
    'Entry',
    'Fit',
    'Method',
    'NonFiniteLossError',
    'OtherTrainingError',
    'Preempted',
    'Recovery',
    'TrainState',
    'adversarial_logit_pairing',
    'adversarially_robust_distillation',
    'advprop',
    'at_temperature',
    'augmented',
    'awp',
    'boosted_cross_entropy',
    'catalogue',
    'catastrophic_overfitting',
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
    'trades',
    'triangular',
    'unperturbed',
    'virtual_adversarial',
    'weight_decay',
    'with_own_loss',
]
