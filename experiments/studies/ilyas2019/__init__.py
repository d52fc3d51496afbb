"""Are adversarial examples features?

    python -m experiments ilyas2019                     # minutes, two CPU cores
    python -m experiments ilyas2019 --preset paper      # all of MNIST, an accelerator

Figures of the paper, on CIFAR-10 (tags as in experiments/README.md), and ours on MNIST,
preset cpu, seed 0, test accuracy in %; sets of 10,000 relabelled (L2 eps 2) and 4000
rebuilt images:

                                          paper (R)         here
    D_rand                                63.3              87.8
    D_det                                 43.7              1.6; 19.2 at eps 4
    D_rand, D_det by a robust net         25.2, 5.8         77.0, 2.3
    D_R: clean, at eps / 2, at eps        85.4, 48.2, 21.9  93.9, 65.6, 11.8
    D_NR, the same                        87.7, .8, 0       90.3, 11.8, .2
    as many original images, the same                       95.4, 69.4, 14.4
    rank correlation of transfer and      positive          .8 (D_det, eps 4),
      learning, five networks                               -.3 (D_rand, eps 2)
    theorems 1 to 3                       exact             to rounding

D_det does not work on MNIST at this radius: the label y + 1 can be read off the digits
as well as off the perturbations, digits are easy, and 93 % of clean test images are
answered y + 1. The larger the perturbation, the more is learnt from it. In D_rand the
digits say nothing of the label, and the network learns from perturbations alone. Normal
training on MNIST is robust to small L2 changes as it is, so D_R keeps that robustness
rather than making it, and D_NR loses it. Transfer rates at eps 2 lie within 2.5 points
of each other, with a standard error of .8: too close to rank.

Wall time 373 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.
"""

import dataclasses
from collections.abc import Mapping

from experiments.frame.findings import Claim, Findings, Table, Tag, claim, table
from experiments.frame.measures import rank_correlation
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.ilyas2019 import learning, pictures, theory
from experiments.studies.ilyas2019.learning import Score, det


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """mnist or digits."""
    eps: float = 2.0
    """L2 radius of the relabelled sets, of the robust network and of attacks."""
    factors: tuple[float, ...] = (1.0, 1.5, 2.0)
    """D_det is also made with these multiples of eps."""
    images: int = 10_000
    """Training images to relabel."""
    attack_steps: int = 20
    """Steps of the targeted attack that relabelled images are made with."""
    inverted_images: int = 4000
    """Training images to rebuild for D_R and D_NR."""
    inversion_steps: int = 60
    """Steps of the inversion."""
    step: float = 1.0
    """First step of the inversion, L2; the steps shrink linearly to 0."""
    robust_images: int = 20_000
    """Images that the robust network is trained on."""
    robust_steps: int = 3
    """Steps of the attack it is trained on."""
    robust_epochs: int = 4
    """Passes over them."""
    epochs: int = 8
    """Of networks trained on relabelled images."""
    few_epochs: int = 15
    """Of networks trained on rebuilt images, which are fewer."""
    batch: int = 500
    """Images per call while data sets are made."""
    attacked: int = 500
    """Random test images to attack."""
    transferred: int = 2000
    """Random test images whose adversarial images are transferred."""
    measured: int = 200
    """Test images on which features are measured."""
    feature_eps: float = 0.5
    """L2 radius for gamma."""
    feature_steps: int = 10
    """Attack steps for gamma of learnt features."""
    architectures: tuple[str, ...] = tuple(learning.RATES)
    """Networks that learn from the features of the standard one."""
    components: int = 100
    """Principal components."""
    units: int = 24
    """Units of each network."""
    samples: int = 100_000
    """Samples of the Gaussian model."""
    seed: int = 0
    """Of everything random but the shared network."""


def run(config: Config, work: Work) -> Findings:
    """Builds the data sets, learns from each, and measures features."""
    sets = work.sets(config.dataset)
    fits = learning.constructors(config, work, sets)
    made = learning.build(config, work, sets, fits)

    scores = {
        name: learning.score(
            config, work, sets,
            learning.learn(config, work, sets, name, dataset),
            attacked=name in ('D_few', 'D_R', 'D_NR'),
        )
        for name, dataset in made.items()
    }  # fmt: skip
    for which, fit in fits.items():
        scores[which] = learning.score(config, work, sets, fit.logits_fn, attacked=True)
    moved = {
        name: learning.taken(
            fits['robust' if name.endswith('robust') else 'standard'], dataset
        )
        for name, dataset in made.items()
        if name.startswith(('D_rand', 'D_det'))
    }
    errors = {
        name: learning.inversion_error(fits[which], made['D_few'], made[name])
        for name, which in (('D_R', 'robust'), ('D_NR', 'standard'))
    }
    work.say('transfer')
    source = fits['standard'].logits_fn
    transfer = learning.transfer(config, work, sets, source, made)
    useful = theory.useful(config, work, sets, fits)
    of_theorems, gaussians, given = theory.gaussian_study(config.samples)

    swept = {eps: scores[det(eps)] for eps in learning.radii(config)}
    return Findings(
        claims=[
            *_claims(config, sets.classes, scores),
            *_transfer_claims(config, transfer),
            *theory.useful_claims(config, useful),
            *of_theorems,
        ],
        pictures=[
            pictures.examples(made, config.eps),
            pictures.accuracies(scores),
            pictures.sweep(swept, scores['D_rand'], config.eps),
            pictures.usefulness(useful, config.feature_eps),
            pictures.transfer(transfer, learning.learnt_from(config)),
            pictures.metric(given),
        ],
        tables=[
            _sets(made, moved, errors, scores),
            _attacked(config, scores),
            _architectures(transfer),
            gaussians,
        ],
    )


def _claims(config: Config, classes: int, scores: Mapping[str, Score]) -> list[Claim]:
    """Sections 3.1 and 3.2, and tables 1 and 9."""
    chance = 100 / classes
    d_r, d_nr, few = (scores[n].robust for n in ('D_R', 'D_NR', 'D_few'))
    own, largest = scores[det(config.eps)], scores[det(learning.radii(config)[-1])]
    on = f'{config.attacked} images'

    def share(what, measured, paper='', tag: Tag = 'R', band=None, reason=''):
        return claim(what, measured, paper=paper, tag=tag, band=band, unit='%',
                     reason=reason)  # fmt: skip

    rows = [
        share(f'D_rand (eps {config.eps:g}): clean test accuracy; band: twice chance',
              scores['D_rand'].clean, '63.3 (CIFAR-10)', 'D', (2 * chance, None)),
        share(f'D_det (eps {config.eps:g}): clean test accuracy; band: twice chance',
              own.clean, '43.7 (CIFAR-10)', 'D', (2 * chance, None), _reason(own)),
        share(f'D_det (eps {config.eps * config.factors[-1]:g}): clean test accuracy',
              largest.clean, '43.7 (CIFAR-10)'),
        share('D_rand minus D_det, clean test accuracy',
              scores['D_rand'].clean - own.clean,
              '63.3 - 43.7', 'D', (0, None)),
        share('D_rand by a robust constructor', scores['D_rand_robust'].clean,
              '25.2 (CIFAR-10)'),
        share('D_det by a robust constructor', scores['D_det_robust'].clean,
              '5.8 (CIFAR-10)'),
        share('D_det: standard minus robust constructor',
              own.clean - scores['D_det_robust'].clean, '43.7 - 5.8', 'D', (0, None),
              'both learn the digits themselves: see D_det'),
        share('D_rand: standard minus robust constructor',
              scores['D_rand'].clean - scores['D_rand_robust'].clean, '63.3 - 25.2',
              'D', (0, None)),
        share('D_det, robust constructor: the class after the right one minus the '
              'right one', scores['D_det_robust'].next - scores['D_det_robust'].clean,
              '65.5 - 5.8', 'D', (0, None)),
        share('D_R: clean test accuracy', scores['D_R'].clean, '85.4 (CIFAR-10)'),
        share('D_NR: clean test accuracy', scores['D_NR'].clean, '87.7 (CIFAR-10)'),
    ]  # fmt: skip
    papers = {1: '48.2 and 0.8 at half of eps', 3: '21.9 and 0 at eps'}
    for i, eps in enumerate(d_r):
        rows.append(share(
            f'D_R minus D_NR under L2 PGD, eps {eps:g}, {on}', d_r[eps] - d_nr[eps],
            papers.get(i, ''), 'D', (0, None),
        ))  # fmt: skip
    middle = list(d_r)[2]
    rows += [
        share(f'D_R: accuracy under L2 PGD, eps {middle:g}, {on}', d_r[middle]),
        share('D_NR: the same', d_nr[middle]),
        share('as many original images: the same', few[middle]),
        share('robust constructor: the same', scores['robust'].robust[middle]),
        share('standard constructor, on all images: the same',
              scores['standard'].robust[middle]),
    ]  # fmt: skip
    return rows


def _reason(score: Score) -> str:
    return (
        f'the digits themselves predict the label y + 1 perfectly, and are easier to '
        f'learn: the network answers y + 1 on {score.next:.0f} % of clean test images'
    )


def _transfer_claims(
    config: Config, found: Mapping[str, Mapping[str, float]]
) -> list[Claim]:
    claims = []
    for name, eps in learning.learnt_from(config).items():
        rate = [row[f'transfer at {eps:g}'] for row in found.values()]
        share = sum(rate) / len(rate) / 100
        error = 100 * (share * (1 - share) / config.transferred) ** 0.5
        reason = (
            f'the rates lie within {max(rate) - min(rate):.1f} points of each other, '
            f'with a standard error of {error:.1f}'
        )
        claims.append(claim(
            f'{len(rate)} architectures: rank correlation of transfer rate (L2 eps '
            f'{eps:g}) and accuracy after {name}',
            rank_correlation([row[name] for row in found.values()], rate),
            paper='positive (figure 3)', band=(0, None), reason=reason,
        ))  # fmt: skip
    return claims


def _sets(made, moved, errors, scores) -> Table:
    rows = []
    for name, dataset in made.items():
        score = scores[name]
        row = [name, len(dataset.labels), moved.get(name), errors.get(name),
               score.clean, score.next]  # fmt: skip
        rows.append([*row[:2], *(None if v is None else round(v, 3) for v in row[2:])])
    return table(
        'The data sets, and a network that learned from each',
        ['data set', 'images', 'constructor gives the label %', 'inversion error',
         'test accuracy %', 'the class after it %'],
        rows,
        'The inversion error is the median distance of representations over their '
        'length. Both are measured on the 8-bit images that networks learn from.',
    )  # fmt: skip


def _attacked(config: Config, scores: Mapping[str, Score]) -> Table:
    titles = {
        'D_few': 'as many original images',
        'D_R': 'D_R',
        'D_NR': 'D_NR',
        'standard': 'the standard constructor',
        'robust': 'the robust constructor',
    }
    radii = list(scores['D_R'].robust)
    return table(
        f'Verified accuracy under L2 PGD-20, {config.attacked} test images',
        ['trained on', *(f'eps {eps:g} %' for eps in radii)],
        [
            [title, *(round(scores[name].robust[eps], 1) for eps in radii)]
            for name, title in titles.items()
        ],
    )


def _architectures(found) -> Table:
    columns = list(next(iter(found.values())))
    return table(
        'Architectures (figure 3)',
        ['network', *(f'{c} %' for c in columns)],
        [[arch, *(round(row[c], 1) for c in columns)] for arch, row in found.items()],
        'clean: trained on as many clean images; transfer: share of test images it '
        'then gets right that adversarial images of the standard network turn; D_: '
        'the clean accuracy after training on that set.',
    )


STUDY = define(
    'ilyas2019',
    title='Ilyas, Santurkar, Tsipras et al. 2019: Adversarial examples are not bugs, '
    'they are features',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            images=59_000, inverted_images=59_000, attack_steps=100, step=0.2,
            inversion_steps=1000, robust_images=59_000, robust_steps=7,
            robust_epochs=15, epochs=30, few_epochs=30, attacked=10_000,
            transferred=10_000, measured=2000, feature_steps=40, units=100,
            samples=1_000_000,
        ),
        'smoke': Config(
            dataset='digits', eps=0.75, factors=(1.0,), images=300, attack_steps=5,
            inverted_images=300, inversion_steps=10, robust_images=300, robust_epochs=2,
            epochs=2, few_epochs=2, batch=300, attacked=60, transferred=60,
            measured=60, components=20, architectures=('fast_mnist', 'softmax'),
            units=4, feature_steps=3, samples=5000,
        ),
    },
)  # fmt: skip
