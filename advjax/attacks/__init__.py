"""Attacks: searches for the worst input in a ball, as pure functions.

    attack = pgd(linf(0.3), steps=40)
    x_adv = attack(logits_fn, key, x, y)        # pure: call it inside your jit

An attack is a pytree: pass it to ``jit`` as an argument, ``vmap`` over its eps,
``replace`` its fields. A plain function of the same signature is one as well.
"""

from advjax.attacks.adaptive import bpda, rescaled
from advjax.attacks.apgd import Apgd, apgd, checkpoints
from advjax.attacks.ascent import Ascent, AscentState
from advjax.attacks.autoattack import autoattack
from advjax.attacks.boundary import boundary
from advjax.attacks.carlini_wagner import carlini_wagner
from advjax.attacks.catalogue import Entry, catalogue
from advjax.attacks.combine import from_prediction, restarts, targeted, worst_of
from advjax.attacks.ddn import ddn
from advjax.attacks.deepfool import deepfool
from advjax.attacks.ead import ead
from advjax.attacks.estimation import nes, spsa
from advjax.attacks.fab import fab
from advjax.attacks.fmn import fmn
from advjax.attacks.found import Found
from advjax.attacks.frank_wolfe import frank_wolfe
from advjax.attacks.goal import Aim, Goal
from advjax.attacks.hop_skip_jump import hop_skip_jump
from advjax.attacks.jsma import jsma
from advjax.attacks.lbfgs import lbfgs
from advjax.attacks.logits import Ensemble, Eot, ensemble, eot
from advjax.attacks.named import (
    adam_pgd,
    bim,
    fgm,
    fgsm,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pgd_l0,
    pgd_l1,
    rand_fgsm,
    vmi_fgsm,
)
from advjax.attacks.quantised import quantised
from advjax.attacks.random_search import random_search
from advjax.attacks.spatial import spatial
from advjax.attacks.square import square
from advjax.attacks.starts import (
    clean,
    constant,
    corner,
    gaussian,
    normalised,
    sparse,
    steepest,
    unclipped,
    uniform,
    within,
)
from advjax.attacks.surrogate import Surrogate, surrogate
from advjax.attacks.threat import Capability, ThreatModel
from advjax.attacks.transfer import diverse, scales, views
from advjax.attacks.transforms import adam, chain, momentum, translation
from advjax.attacks.tree import perturb
from advjax.attacks.universal import universal

__all__ = [
    'Aim',
    'Apgd',
    'Ascent',
    'AscentState',
    'Capability',
    'Ensemble',
    'Entry',
    'Eot',
    'Found',
    'Goal',
    'Surrogate',
    'ThreatModel',
    'adam',
    'adam_pgd',
    'apgd',
    'autoattack',
    'bim',
    'boundary',
    'bpda',
    'carlini_wagner',
    'catalogue',
    'chain',
    'checkpoints',
    'clean',
    'constant',
    'corner',
    'ddn',
    'deepfool',
    'diverse',
    'ead',
    'ensemble',
    'eot',
    'fab',
    'fgm',
    'fgsm',
    'fmn',
    'frank_wolfe',
    'from_prediction',
    'gaussian',
    'hop_skip_jump',
    'jsma',
    'lbfgs',
    'mi_fgsm',
    'momentum',
    'nes',
    'ni_fgsm',
    'normalised',
    'perturb',
    'pgd',
    'pgd_l0',
    'pgd_l1',
    'quantised',
    'rand_fgsm',
    'random_search',
    'rescaled',
    'restarts',
    'scales',
    'sparse',
    'spatial',
    'spsa',
    'square',
    'steepest',
    'surrogate',
    'targeted',
    'translation',
    'unclipped',
    'uniform',
    'universal',
    'views',
    'vmi_fgsm',
    'within',
    'worst_of',
]
