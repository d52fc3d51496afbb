"""Every training method of the library: adversary, losses, needs, cost, paper.

>>> from advjax import training
>>> for entry in training.catalogue()[:4]:
...     print(entry.name, '|', entry.adversary, '|', entry.gradients())
standard | none | 1
gaussian | random | 1
noise | random | 1
fgsm_at | inner maximum | 3

The command line, ``experiments.commands.compare_methods``, the table of the README and
contract test are made from it.
"""

import dataclasses

import jax.numpy as jnp

from advjax import attacks
from advjax.training.branches import advprop, joint
from advjax.training.ensemble import ensemble_at
from advjax.training.entry import Entry, Limit, Setting
from advjax.training.gaussian import gaussian_augmentation
from advjax.training.gradient_alignment import grad_align
from advjax.training.local_linearity import llr
from advjax.training.logit_pairing import (
    adversarial_logit_pairing,
    clean_logit_pairing,
    logit_squeezing,
)
from advjax.training.methods import Method, method, unperturbed
from advjax.training.misclassification import boosted_cross_entropy, mart
from advjax.training.named import (
    Mixed,
    fast,
    fgsm_at,
    noise,
    pgd_at,
    standard,
    trades,
    with_own_loss,
)
from advjax.training.simultaneous import free
from advjax.training.smoothing import smooth_labels
from advjax.training.spatial import spatial_at
from advjax.training.teachers import (
    adversarially_robust_distillation,
    at_temperature,
    distillation,
    rslad,
)
from advjax.training.virtual import virtual_adversarial
from advjax.training.weight_perturbation import awp
from advjax.types import as_pytree


def _standard(setting: Setting) -> Method:
    del setting
    return standard()


def _wrapped(setting: Setting) -> Method:
    return setting.method


def _noisy(setting: Setting) -> Method:
    del setting
    return gaussian_augmentation(0.5)


def _mixed(setting: Setting) -> Method:
    search = attacks.pgd(setting.ball, setting.steps or 10, keep_best=False)
    return method(search, Mixed(jnp.float32(0.5)))


def _clean(built: Method) -> Method:
    return dataclasses.replace(built, inner=as_pytree(unperturbed))


_STILL = Limit({'ball': 0.0}, _standard)
_NO_ADVERSARY = 'no adversary in training'
_HARD_TO_SEARCH = (
    f'{_NO_ADVERSARY}: small logits make the loss hard to search, not flat'
)

_ENTRIES = (
    Entry(
        'standard', standard, 'standard', 'trained on clean images',
        'none', (), '', 'J(x)', (0, 1), 'a baseline', weakness=_NO_ADVERSARY,
    ),
    Entry(
        'gaussian', gaussian_augmentation, 'Gaussian noise',
        'trained on Gaussian noise', 'random', (), 'Gaussian noise', "J(x')", (0, 1),
        'Cohen 2019, 1902.02918',
        weakness='random noise is no adversary',
        limits=(Limit({'sigma': 0.0}, _standard),),
    ),
    Entry(
        'noise', noise, 'random points', 'trained on random points of the ball',
        'random', ('ball',), 'random points of the ball', "J(x')", (0, 1),
        'Goodfellow 2015, 1412.6572', weakness='random noise is no adversary',
        limits=(_STILL,),
    ),
    Entry(
        'fgsm_at', fgsm_at, 'FGSM-AT',
        'trained on clean and one-step adversarial images',
        'inner maximum', ('ball',), 'FGSM', "alpha J(x) + (1 - alpha) J(x')", (0, 3),
        'Goodfellow 2015, 1412.6572',
        weakness='one step from the image itself, which the network learns to mislead',
        limits=(_STILL, Limit({'clean_weight': 1.0}, _standard)),
    ),
    Entry(
        'pgd_at', pgd_at, 'PGD-AT', 'trained on adversarial images',
        'inner maximum', ('ball',), 'PGD', "J(x')", (1, 1), 'Madry 2018, 1706.06083',
        long_search=True, limits=(_STILL,),
    ),
    Entry(
        'fast', fast, 'Fast (FGSM-RS)',
        'trained on one-step adversarial images from random starts',
        'inner maximum', ('ball',), 'FGSM from a random start', "J(x')", (0, 2),
        'Wong 2020, 2001.03994', limits=(_STILL,),
    ),
    Entry(
        'grad_align', grad_align, 'GradAlign',
        'trained on one-step adversarial images, gradients aligned',
        'inner maximum', ('ball',), 'FGSM, or that of any method',
        "J(x') + lambda (1 - cos of two input gradients)", (0, 5),
        'Andriushchenko 2020, 2007.02617', weight='coefficient',
        limits=(_STILL, Limit({'coefficient': 0.0}, lambda s: fgsm_at(s.ball, 0.0))),
    ),
    Entry(
        'free', free, 'Free', 'trained by one backward pass for weights and noise',
        'simultaneous', ('ball',), 'the same backward pass, m replays', "J(x')", (0, 1),
        'Shafahi 2019, 1904.12843', limits=(_STILL,),
    ),
    Entry(
        'trades', trades, 'TRADES',
        'trained to answer alike on clean and adversarial images',
        'inner maximum', ('ball',), 'PGD on the KL', "J(x) + beta KL(x, x')", (1, 2),
        'Zhang 2019, 1901.08573', weight='beta', long_search=True,
        limits=(_STILL, Limit({'beta': 0.0}, _standard)),
    ),
    Entry(
        'mart', mart, 'MART',
        'trained on adversarial images, more on misclassified ones',
        'inner maximum', ('ball',), 'PGD',
        "boosted J(x') + lambda KL(x, x') (1 - p_y(x))", (1, 2), 'Wang 2020, ICLR',
        weight='beta', long_search=True,
        limits=(Limit({'ball': 0.0}, lambda s: standard(boosted_cross_entropy)),),
    ),
    Entry(
        'alp', adversarial_logit_pairing, 'ALP',
        'trained to pair logits of clean and adversarial images',
        'inner maximum', ('ball',), 'PGD',
        "J(x)/2 + J(x')/2 + lambda squared distance of the logits", (1, 2),
        'Kannan 2018, 1803.06373', weight='coefficient', long_search=True,
        limits=(_STILL, Limit({'coefficient': 0.0}, _mixed)),
    ),
    Entry(
        'clp', clean_logit_pairing, 'CLP',
        'trained on noise to pair logits of random images',
        'random', (), 'Gaussian noise',
        "J(x') + lambda squared distance of the logits of pairs", (0, 1),
        'Kannan 2018, 1803.06373', weight='coefficient', weakness=_HARD_TO_SEARCH,
        limits=(Limit({'coefficient': 0.0}, _noisy),),
    ),
    Entry(
        'squeezing', logit_squeezing, 'logit squeezing',
        'trained on noise to have small logits',
        'random', (), 'Gaussian noise', "J(x') + lambda norm of the logits", (0, 1),
        'Kannan 2018, 1803.06373', weight='coefficient', weakness=_HARD_TO_SEARCH,
        limits=(Limit({'coefficient': 0.0}, _noisy),),
    ),
    Entry(
        'llr', llr, 'LLR', 'trained to have a locally linear loss',
        'inner maximum', ('ball',), 'PGD on the linearisation error',
        'J(x) + lambda error + mu slope', (1, 4), 'Qin 2019, 1907.02610',
        weight='error_weight',
        limits=(
            _STILL,
            Limit({'error_weight': 0.0, 'slope_weight': 0.0}, _standard),
        ),
    ),
    Entry(
        'awp', awp, 'AWP on PGD-AT',
        'trained on adversarial images at adversarial weights',
        'of the method', ('method',), "the method's, and one step on the weights",
        "the method's, at the worst weights of size gamma", (1, 2),
        'Wu 2020, 2004.05884', long_search=True,
        limits=(
            Limit({'gamma': 0.0}, _wrapped),
            Limit({'ball': 0.0}, lambda s: awp(standard())),
        ),
    ),
    Entry(
        'advprop', advprop, 'AdvProp',
        'trained on clean images, and on adversarial ones by another normalisation',
        'inner maximum', ('ball',), 'PGD through an auxiliary BatchNorm',
        "J(x) + J(x') of that branch", (1, 2), 'Xie 2020, 1911.09665',
        network='branches', weakness='the main branch is trained on clean images',
        limits=(Limit({'ball': 0.0}, lambda s: advprop(unperturbed)),),
    ),
    Entry(
        'joint', joint, 'joint training',
        'trained on clean and adversarial images in one batch',
        'inner maximum', ('ball',), 'PGD', "J(x) + J(x') in one batch", (1, 2),
        'Xie 2020, 1911.09665',
        limits=(Limit({'ball': 0.0}, lambda s: joint(unperturbed)),),
    ),
    Entry(
        'ensemble_at', ensemble_at, 'ensemble AT',
        'trained on images that are adversarial to other networks',
        'inner maximum', ('ball', 'sources'), 'FGSM on a static model, drawn per batch',
        "alpha J(x) + (1 - alpha) J(x')", (0, 3), 'Tramer 2018, 1705.07204',
        weakness='single steps on static sources: against transfer, not white boxes',
        limits=(_STILL, Limit({'clean_weight': 1.0}, _standard)),
    ),
    Entry(
        'vat', virtual_adversarial, 'VAT',
        'trained to be smooth where its answer is least so',
        'inner maximum', ('ball',), 'power iteration on the KL; no labels needed',
        "J(x) + alpha KL(x, x')", (0, 3), 'Miyato 2017, 1704.03976', weight='weight',
        weakness='one power iteration in an L2 ball, for unlabelled images',
        radius=2.0, limits=(_STILL, Limit({'weight': 0.0}, _standard)),
    ),
    Entry(
        'spatial', spatial_at, 'worst-of-10 spatial',
        'trained on the worst of ten rotations and shifts',
        'inner maximum', (), 'worst of k rotations and shifts', "J(x')", (0, 1),
        'Engstrom 2019, 1712.02779',
        weakness='another threat model: rotations and shifts',
        limits=(Limit({'degrees': 0.0, 'pixels': 0.0}, _standard),),
    ),
    Entry(
        'at_temperature', at_temperature, 'softmax at T = 20',
        'trained on clean images at a high temperature',
        'none', (), 'none, or any', 'J at temperature T', (0, 1),
        'Papernot 2016, 1511.04508', weakness=_NO_ADVERSARY,
        limits=(Limit({'temperature': 1.0}, _standard),),
    ),
    Entry(
        'distillation', distillation, 'defensive distillation',
        "trained on a teacher's answers at a high temperature",
        'none', ('teacher',), 'none, or any',
        "cross entropy with a teacher's answers at temperature T", (0, 1),
        'Papernot 2016, 1511.04508',
        weakness='hides the gradient of cross entropy; AutoAttack takes another loss',
        limits=(Limit({'hard': 1.0}, _standard),),
    ),
    Entry(
        'ard', adversarially_robust_distillation, 'ARD',
        'trained to keep the answers of a robust teacher under attack',
        'inner maximum', ('teacher', 'ball'), 'PGD',
        "alpha KL of x' to the teacher at T + (1 - alpha) J(x)", (1, 2),
        'Goldblum 2020, 1905.09747', long_search=True,
        limits=(
            Limit({'weight': 0.0}, _standard),
            Limit(
                {'ball': 0.0},
                lambda s: _clean(adversarially_robust_distillation(s.teacher, 0.1)),
            ),
        ),
    ),
    Entry(
        'rslad', rslad, 'RSLAD',
        'trained on the soft labels of a robust teacher under attack',
        'inner maximum', ('teacher', 'ball'), 'PGD on the KL to the teacher',
        "alpha KL of x' to the teacher + (1 - alpha) KL of x", (1, 2),
        'Zi 2021, 2108.07969', long_search=True,
        limits=(Limit({'ball': 0.0}, lambda s: _clean(rslad(s.teacher, 0.1))),),
    ),
    Entry(
        'smooth_labels', smooth_labels, 'PGD-AT, smooth labels',
        'trained on adversarial images with smoothed labels',
        'of the method', ('method',), "the method's",
        "the method's, with smoothed labels", (1, 1), 'Szegedy 2016, 1512.00567',
        long_search=True, limits=(Limit({'amount': 0.0}, _wrapped),),
    ),
    Entry(
        'with_own_loss', with_own_loss, 'PGD-AT, own loss',
        'trained on adversarial images and a loss of its own',
        'of the method', ('method',), "the method's",
        "the method's, plus the network's own", (1, 1), 'ours', network='own loss',
        long_search=True,
    ),
)  # fmt: skip


def catalogue() -> tuple[Entry, ...]:
    """All methods, those that others need first.

    >>> from advjax import training
    >>> [entry.name for entry in training.catalogue() if 'teacher' in entry.needs]
    ['distillation', 'ard', 'rslad']
    """
    return _ENTRIES


def table() -> str:
    """The catalogue in Markdown."""
    lines = [
        '| method | `--method` | inner | outer loss | gradients per step | paper |',
        '|---|---|---|---|---|---|',
    ]
    for entry in catalogue():
        named = [*entry.needs, *filter(None, [entry.network])]
        shown = ', '.join(need for need in named if need != 'ball')
        call = f'`{entry.factory.__name__}`' + (f' ({shown})' if shown else '')
        each, besides = entry.cost
        cost = ' + '.join(
            [('steps' if each == 1 else f'{each} steps')] * (each > 0) + [str(besides)]
        )
        lines.append(
            f'| {call} | `{entry.name}` | {entry.inner or "none"} | {entry.outer} | '
            f'{cost} | {entry.paper} |'
        )
    return '\n'.join(lines)
