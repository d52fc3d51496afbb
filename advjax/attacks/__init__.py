"""Attacks: searches for the worst input in a ball, as pure functions.

    attack = pgd(linf(0.3), steps=40)
    x_adv = attack(logits_fn, key, x, y)        # pure: call it inside your jit

An attack is a pytree: pass it to ``jit`` as an argument, ``vmap`` over its eps,
``replace`` its fields. A plain function of the same signature is one as well.
"""

from advjax.attacks.ascent import (
    Ascent,
    AscentState,
    adam,
    adam_pgd,
    bim,
    clean,
    constant,
    fgm,
    fgsm,
    gaussian,
    mi_fgsm,
    momentum,
    ni_fgsm,
    pgd,
    unclipped,
    uniform,
)
from advjax.attacks.combine import (
    from_prediction,
    restarts,
    targeted,
    worst_of,
)
from advjax.attacks.goal import Goal
from advjax.attacks.logits import Ensemble, Eot, ensemble, eot

__all__ = [
    'Ascent',
    'AscentState',
    'Ensemble',
    'Eot',
    'Goal',
    'adam',
    'adam_pgd',
    'bim',
    'clean',
    'constant',
    'ensemble',
    'eot',
    'fgm',
    'fgsm',
    'from_prediction',
    'gaussian',
    'mi_fgsm',
    'momentum',
    'ni_fgsm',
    'pgd',
    'restarts',
    'targeted',
    'unclipped',
    'uniform',
    'worst_of',
]
