"""What sections 4 and 6 to 8 and the appendix say, beside what was measured.

The bands were set before anything was measured: where the paper gives a figure for a
network like ours, a few points around what short trainings are known to reach;
otherwise the order of two figures, as a difference of at least zero.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from advjax.evaluation import Evaluation
from experiments.frame.findings import Claim, Table, Tag, claim, table
from experiments.studies.goodfellow2015.deep import L1_STRONG, L1_WEAK, Judged
from experiments.studies.goodfellow2015.rubbish import Rubbish

TITLES = {
    'softmax': 'shallow softmax',
    'rbf': 'shallow RBF',
    'maxout': 'maxout',
    'adversarial': 'maxout, adversarially trained',
    'signs': 'maxout, random signs',
    'uniform': 'maxout, uniform noise',
    'sigmoids': 'maxout, independent sigmoids',
    'l1': f'maxout, L1 {L1_STRONG:g} on the first layer',
    'l1_weak': f'maxout, L1 {L1_WEAK:g} on the first layer',
}
HIGHER = (0, None)


class Measured(NamedTuple):
    """All that was measured on the networks, in per cent.

    Attributes:
      clean: error and mean confidence on clean images, by network.
      own: each network on FGSM examples made for it.
      clipped: its error where these are clipped to [0, 1].
      still: share of images on which the maxout network's gradient is zero.
      transfer: error, by (made on, judged by).
      ensemble: error of the ensemble under 'all' and 'one' of its members.
      agreement: see ``deep.both_wrong``, by pair.
      noise: what the networks see in noise.
      fooled: (K,) shares of single steps from noise that fool, in [0, 1].
      straightness: least R^2 of a line through a logit of figure 4.
      thin: share of [-15, 15] where the answer is right.
      decayed: training errors with L1 decay on the first layer, by network.
      later: the adversarially trained network under PGD.
    """

    clean: Mapping[str, tuple[float, float]]
    own: Mapping[str, Judged]
    clipped: Mapping[str, float]
    still: float
    transfer: Mapping[tuple[str, str], float]
    ensemble: Mapping[str, float]
    agreement: Mapping[str, tuple[float, float]]
    noise: Mapping[str, Rubbish]
    fooled: np.ndarray
    straightness: float
    thin: float
    decayed: Mapping[str, float]
    later: Evaluation


def claims(m: Measured, members: int) -> list[Claim]:
    """The scoreboard of the networks."""
    softmax, maxout, rbf = (m.own[n] for n in ('softmax', 'maxout', 'rbf'))
    trained, signs, uniform = (m.own[n] for n in ('adversarial', 'signs', 'uniform'))
    there = m.transfer['maxout', 'adversarial']
    back = m.transfer['adversarial', 'maxout']
    same = {name: pair[1] for name, pair in m.agreement.items()}
    over_rbf = same['softmax names maxout'] - same['RBF names maxout']
    cost = m.clean['adversarial'][0] - m.clean['maxout'][0]
    nets = f'ensemble of {members}'
    rubbish = {name: 100 * seen.error for name, seen in m.noise.items()}
    sure = {name: 100 * seen.confidence for name, seen in m.noise.items()}
    counts = m.noise['maxout'].classes
    rows: list[tuple[str, float, str, Tag, Any]] = [
        ('shallow softmax: FGSM error', softmax.error, '99.9', 'R', (99, 100)),
        ('shallow softmax: confidence', softmax.confidence, '79.3', 'R', (70, 88)),
        ('maxout: FGSM error', maxout.error, '89.4', 'R', (85, 95)),
        ('maxout: confidence', maxout.confidence, '97.6', 'R', None),
        ('maxout: images whose gradient is zero in float32, so that FGSM does nothing',
         m.still, '', 'D', None),
        ('adversarially trained: FGSM error', trained.error, '17.9', 'R', (0, 30)),
        ('adversarially trained: confidence', trained.confidence, '81.4', 'R', None),
        ('adversarial training: clean error, minus that without it',
         cost, '0.84 - 0.94', 'R', (None, 0.3)),
        ('trained on random signs: FGSM error', signs.error, '86.2', 'R', (80, 100)),
        ('trained on random signs: confidence', signs.confidence, '97.3', 'R', None),
        ('trained on uniform noise: FGSM error', uniform.error, '90.4', 'R', (80, 100)),
        ('trained on uniform noise: confidence', uniform.confidence, '97.8', 'R', None),
        ('transfer, original to adversarially trained', there, '19.6', 'R', None),
        ('transfer, adversarially trained to original', back, '40.9', 'R', None),
        ('transfer to the original, minus transfer from it',
         back - there, '40.9 - 19.6', 'D', HIGHER),
        ('RBF: FGSM error', rbf.error, '55.4', 'R', None),
        ('RBF: confidence on its mistakes', rbf.confidence, '1.2', 'R', None),
        ('RBF: confidence on clean images', m.clean['rbf'][1], '60.6', 'R', None),
        ('RBF: confidence on clean images, minus that on its mistakes',
         m.clean['rbf'][1] - rbf.confidence, '60.6 - 1.2', 'D', HIGHER),
        ('confidence on mistakes, maxout minus RBF',
         maxout.confidence - rbf.confidence, '97.6 - 1.2', 'D', HIGHER),
        (f'{nets}: error under FGSM on all', m.ensemble['all'], '91.1 (12)', 'R',
         (80, 100)),
        (f'{nets}: error under FGSM on one', m.ensemble['one'], '87.9 (12)', 'R', None),
        (f'{nets}: FGSM on all, minus FGSM on one',
         m.ensemble['all'] - m.ensemble['one'], '91.1 - 87.9', 'D', HIGHER),
        ("softmax names maxout's wrong class, both wrong",
         same['softmax names maxout'], '84.6', 'R', None),
        ("RBF names maxout's wrong class, both wrong",
         same['RBF names maxout'], '54.3', 'R', None),
        ("RBF names softmax's wrong class, both wrong",
         same['RBF names softmax'], '53.6', 'R', None),
        ("maxout's wrong class, both wrong: softmax agrees, minus RBF agrees",
         over_rbf, '84.6 - 54.3', 'D', HIGHER),
        ('rubbish, shallow softmax', rubbish['softmax'], '59.8', 'R', (40, 90)),
        ('rubbish, shallow softmax: confidence', sure['softmax'], '70.8', 'R', None),
        ('rubbish, maxout', rubbish['maxout'], '98.35', 'R', None),
        ('rubbish, maxout: confidence', sure['maxout'], '92.8', 'R', None),
        ('rubbish, maxout with independent sigmoids', rubbish['sigmoids'], '68', 'R',
         None),
        ('rubbish, maxout: softmax minus independent sigmoids',
         rubbish['maxout'] - rubbish['sigmoids'], '98.35 - 68', 'D', HIGHER),
        ('rubbish, RBF', rubbish['rbf'], '0', 'R', (0, 1)),
        ('rubbish, maxout: share of its favourite class',
         100 * counts.max() / max(counts.sum(), 1), '45.3', 'R', None),
        ('fooling images: one step from noise is enough, mean over the classes',
         100 * m.fooled.mean(), '75.3 (CIFAR-10)', 'R', None),
        (f'L1 decay {L1_STRONG:g} on the first maxout layer: training error',
         m.decayed['l1'], 'above 5', 'R', (5, None)),
        (f'L1 decay {L1_WEAK:g} on the first maxout layer: training error',
         m.decayed['l1_weak'], 'trains', 'R', (None, 5)),
        (f'L1 decay {L1_WEAK:g} on the first maxout layer: FGSM error',
         m.own['l1_weak'].error, 'no benefit', 'R', None),
        ('figure 4: share of eps in [-15, 15] with the right answer',
         m.thin, 'a thin band', 'D', None),
        (f'adversarially trained, in hindsight: error under PGD-40 in [0, 1], '
         f'{len(m.later.clean_correct)} images',
         100 * (1 - m.later.robust_accuracy), '', 'D', None),
    ]  # fmt: skip
    return [
        *(
            claim(what, measured, paper=paper, tag=tag, band=band, unit='%')
            for what, measured, paper, tag, band in rows
            # Without mistakes there is no confidence in them.
            if math.isfinite(measured)
        ),
        claim(
            'figure 4: least R^2 of a line through a logit, |eps| from 5 to 15',
            m.straightness,
            paper='piecewise linear',
            band=(0.95, 1),
        ),
    ]


def _short(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def tables(m: Measured) -> list[Table]:
    """The networks side by side, and where they agree."""
    rows = [
        [
            title, *map(_short, m.clean[name]), _short(m.own[name].error),
            _short(m.own[name].confidence), _short(m.clipped[name]),
            _short(100 * m.noise[name].error) if name in m.noise else None,
        ]
        for name, title in TITLES.items()
    ]  # fmt: skip
    return [
        table(
            'The networks',
            ['network', 'clean error %', 'clean confidence %', 'FGSM error %',
             'confidence on mistakes %', 'FGSM error, clipped %', 'rubbish %'],
            rows,
            'FGSM on the cost that the network was trained with. As in the paper '
            'nothing is clipped to [0, 1], except in the last column but one.',
        ),
        table(
            'Agreement on wrong classes (section 8)',
            ['on examples made for maxout', 'of all mistakes of the one named last %',
             'where both are wrong %'],
            [[name, *map(_short, pair)] for name, pair in m.agreement.items()],
            'The paper: softmax names maxout 54.6 and 84.6, RBF names maxout 16.0 and '
            '54.3, RBF names softmax 53.6 where both are wrong.',
        ),
    ]  # fmt: skip
