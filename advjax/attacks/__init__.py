"""Attacks: searches for the worst input in a ball, as pure functions.

    attack = pgd(linf(0.3), steps=40)
    x_adv = attack(logits_fn, key, x, y)        # pure: call it inside your jit

An attack is a pytree: pass it to ``jit`` as an argument, ``vmap`` over its eps,
``replace`` its fields. A plain function of the same signature is one as well.

What an ascent is made of has rooms of its own: ``starts``, ``directions``,
``schedules``, ``transforms`` (of gradients) and ``gradients`` (where they come from).
"""

from advjax.attacks import directions as directions
from advjax.attacks import gradients as gradients
from advjax.attacks import schedules as schedules
from advjax.attacks import starts as starts
from advjax.attacks import transforms as transforms
from advjax.attacks.adaptive import bpda, rescaled
from advjax.attacks.apgd import apgd
from advjax.attacks.ascent import Ascent
from advjax.attacks.autoattack import autoattack
from advjax.attacks.boundary import boundary
from advjax.attacks.carlini_wagner import carlini_wagner
from advjax.attacks.combine import from_prediction, restarts, targeted, worst_of
from advjax.attacks.ddn import ddn
from advjax.attacks.deepfool import deepfool
from advjax.attacks.ead import ead
from advjax.attacks.entry import Entry
from advjax.attacks.estimation import nes, spsa
from advjax.attacks.fab import fab
from advjax.attacks.fmn import fmn
from advjax.attacks.frank_wolfe import frank_wolfe
from advjax.attacks.goal import Goal, goal
from advjax.attacks.hop_skip_jump import hop_skip_jump
from advjax.attacks.jsma import jsma
from advjax.attacks.lbfgs import lbfgs
from advjax.attacks.logits import ensemble, eot
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
from advjax.attacks.surrogate import surrogate
from advjax.attacks.table import catalogue
from advjax.attacks.threat import Capability, ThreatModel
from advjax.attacks.transfer import diverse, scales, views
from advjax.attacks.tree import perturb
from advjax.attacks.universal import universal
from advjax.types import Attack, Composite, Found, Search

__all__ = [
    'Ascent',
    'Attack',
    'Capability',
    'Composite',
    'Entry',
    'Found',
    'Goal',
    'Search',
    'ThreatModel',
    'adam_pgd',
    'apgd',
    'autoattack',
    'bim',
    'boundary',
    'bpda',
    'carlini_wagner',
    'catalogue',
    'ddn',
    'deepfool',
    'directions',
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
    'goal',
    'gradients',
    'hop_skip_jump',
    'jsma',
    'lbfgs',
    'mi_fgsm',
    'nes',
    'ni_fgsm',
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
    'schedules',
    'spatial',
    'spsa',
    'square',
    'starts',
    'surrogate',
    'targeted',
    'transforms',
    'universal',
    'views',
    'vmi_fgsm',
    'worst_of',
]
