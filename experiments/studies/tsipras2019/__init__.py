"""Does robustness cost accuracy?

    python -m experiments tsipras2019                     # minutes, two CPU cores
    python -m experiments tsipras2019 --preset paper      # more seeds, an accelerator

Figures of the paper (tags as in experiments/README.md) and ours, preset cpu, seed 0:

                                             paper            here
    SVM on samples: accuracy, at eps 2 eta   > 99, < 1 (R)    99.997, 0.005 %
    the same, trained adversarially          p, p (R)         95.0, 95.0 %
    theorem 2.1 on 4002 classifiers          holds (R)        never violated; tight at
                                                              accuracy p
    MNIST, few images: training against an   helps (R)        300 images: +3.4 at eps
      adversary minus natural, clean                          .1, +4.6 at eps .3
    the same, all images                     hurts (R)        -1.0 (99.0 -> 98.0)
    loss gradients and edges of the image,   aligned (R)      natural .18, Linf .30,
      correlation                                             L2 .60
    L2 PGD at 5: the five nearest training   look like the    natural 21 %, L2 60 %,
      images agree with the net's mistake    other class (R)  Linf 7 %
    linear, pixels of |correlation| > tau:   rises (D)        42.3 % at tau 0, 90.1 % at
      robust accuracy, Linf .1                                .5; clean 98.4 -> 97.4

The curves cross at about 3000 images with eps .1. Networks of the sweep make 360
updates each; at eps .3 and 3000 images all three seeds collapsed to one answer. The
network trained in Linf is the one that does not fit: large L2 perturbations fool it by
noise. Trained in L2 (eps 2.5) it is as the paper says.

Wall time 254 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.
"""

import dataclasses

import numpy as np

from experiments.frame import nets
from experiments.frame.findings import Claim, Findings, Table, claim, table
from experiments.frame.measures import rank_correlation
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.tsipras2019 import digits, pictures, toy


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """mnist or digits."""
    p: float = 0.95
    """Probability that the robust feature agrees with the label."""
    weak: int = 100
    """Weak features of the distribution on which classifiers are trained."""
    samples: int = 20_000
    """Samples of the distribution."""
    svm_steps: int = 1000
    """Subgradient steps of the support vector machines."""
    classifiers: int = 2000
    """Random classifiers to hold against theorem 2.1, and as many mixtures."""
    sizes: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    """Training images of the sweep, besides all of them."""
    eps: tuple[float, ...] = (0.1, 0.3)
    """Linf radii of adversarial training in the sweep."""
    seeds: int = 1
    """Trainings per size and method."""
    epochs: int = 6
    """Of the sweep, each of ``epoch_images`` images or of all there are."""
    epoch_images: int = 6000
    """Few images are repeated up to this many."""
    l2_eps: float = 2.5
    """L2 radius of a third network, trained by PGD in that norm."""
    l2_steps: int = 3
    """Attack steps of its training."""
    l2_images: int = 20_000
    """Images that it is trained on."""
    l2_epochs: int = 4
    """Passes over them."""
    attacked: int = 500
    """Random test images to attack."""
    shown: int = 10
    """Images in the figures."""
    large_eps: float = 5.0
    """L2 radius of the large perturbations."""
    large_steps: int = 40
    """Steps to get there."""
    neighbours: int = 10_000
    """Training images of the nearest-neighbour judge."""
    pixel_images: int = 4000
    """Training images of 3 against 7."""
    pixel_eps: float = 0.1
    """Linf radius of the linear experiment."""
    taus: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    """Least correlations of a pixel with the label."""
    seed: int = 0
    """Of everything random but the shared networks."""


def run(config: Config, work: Work) -> Findings:
    """Does the theory by numbers, and section 3 on digits."""
    distribution = toy.run(config, work)
    sets = work.sets(config.dataset)
    trained = {
        'natural': nets.natural(work, sets).logits_fn,
        'Linf': nets.robust(work, sets).logits_fn,
        'L2': digits.robust_in_l2(config, work, sets),
    }
    swept = work.keep('sizes', lambda: digits.sizes(config, work, sets))
    seen = work.keep('gradients', lambda: digits.gradients(config, work, sets, trained))
    far = work.keep('large', lambda: digits.large(config, work, sets, trained))
    chosen = work.keep('pixels', lambda: digits.chosen_pixels(config, work, sets))
    eps = nets.EPS[sets.train.name]
    return Findings(
        claims=[
            *toy.claims(config, distribution),
            *_size_claims(config, swept, f'eps {eps:g}'),
            *_picture_claims(config, seen, far),
            *_pixel_claims(config, chosen),
        ],
        pictures=[
            pictures.bound(distribution, config.p),
            pictures.weights(distribution),
            pictures.sizes(swept, list(digits.methods(config)), eps),
            pictures.saliency(seen),
            pictures.large(seen['images'], seen['labels'], far, config.large_eps),
            pictures.ways(seen['images'], seen['labels'], far),
            pictures.pixels(chosen, config.pixel_eps),
        ],
        tables=[
            toy.closed_forms(distribution),
            _sizes(swept, list(digits.methods(config)), eps),
            _pixels(config, chosen),
        ],
    )


def _size_claims(config, found: dict[str, np.ndarray], shared: str) -> list[Claim]:
    names = [n for n in digits.methods(config) if n != 'natural']
    clean = {n: (found[n] - found['natural'])[:, :, 0].mean(axis=1) for n in names}
    few = found['sizes'] < 10_000
    last = int(found['sizes'][-1])
    what = 'clean accuracy, adversarial minus natural training'
    return [
        claim(f'{what}: largest gain below 10,000 images, over radii',
              float(np.nanmax([gap[few] for gap in clean.values()])),
              paper='positive with few images (MNIST)', tag='D', band=(0, None),
              unit='%'),
        *(
            claim(f'{what}: {size} images, {name}', float(clean[name][i]), unit='%')
            for name in names for i, size in enumerate(config.sizes)
        ),
        claim(f'{what}: all {last} images, {shared}', float(clean[shared][-1]),
              paper='negative with many', tag='D', band=(None, 0), unit='%'),
        claim(f'robust accuracy, all {last} images, {shared}: adversarial minus '
              'natural training',
              float((found[shared] - found['natural'])[-1, :, 1].mean()),
              band=(0, None), unit='%'),
    ]  # fmt: skip


_NOISE = (
    'the net was trained in Linf and is not robust in L2: what fools it there is '
    'noise, as the figure shows'
)


def _picture_claims(config, seen, far) -> list[Claim]:
    def of(found, what):
        return {
            n: float(np.mean(found[f'{n} {what}'])) for n in ('natural', 'Linf', 'L2')
        }

    edges, image = of(seen, 'edges'), of(seen, 'image')
    agrees, fooled = of(far, 'agrees'), of(far, 'fooled')
    radius = f'L2 PGD at {config.large_eps:g}, {config.attacked} images'
    rows = [
        claim(f'correlation of gradient (its size) and edges of the image: {name} net',
              value)
        for name, value in edges.items()
    ] + [
        claim(f'{radius}: the 5 nearest training images say what the {name} net '
              f'says, of the {fooled[name]:.0f} % that fool it', value, unit='%')
        for name, value in agrees.items()
    ]  # fmt: skip
    for name in ('Linf', 'L2'):
        other = f'{name} minus natural training'
        rows += [
            claim(f'correlation of gradient and edges: {other}',
                  edges[name] - edges['natural'],
                  paper='aligned with edges, against noise', band=(0, None)),
            claim(f'correlation of gradient and image: {other}',
                  image[name] - image['natural'], band=(0, None)),
            claim(f'{radius}: agreement of the nearest images, {other}',
                  agrees[name] - agrees['natural'],
                  paper='they look like the other class', band=(0, None), unit='%',
                  reason=_NOISE if name == 'Linf' else ''),
        ]  # fmt: skip
    return rows


def _pixel_claims(config, found) -> list[Claim]:
    gain = float(found['robust'][-1] - found['robust'][0])
    eps = f'Linf eps {config.pixel_eps:g}'
    return [
        claim(f'linear, 3 against 7, {eps}: robust accuracy with the best pixels (tau '
              f'{found["taus"][-1]:g}) minus all', gain, paper='rises with tau',
              band=(0, None), unit='%'),
        claim('... rank correlation of robust accuracy and tau',
              rank_correlation(found['taus'], found['robust']),
              paper='rises with tau', band=(0, None)),
        claim('... what it costs in clean accuracy',
              float(found['clean'][0] - found['clean'][-1]), unit='%'),
    ]  # fmt: skip


def _sizes(found: dict[str, np.ndarray], names: list[str], eps: float) -> Table:
    rows = []
    for i, size in enumerate(found['sizes'].tolist()):
        row = [found[n][i, :, which].mean() for which in (0, 1) for n in names]
        rows.append([size, *(round(float(v), 2) for v in row)])
    return table(
        'Accuracy by the number of training images',
        ['images', *(f'{n}, clean %' for n in names),
         *(f'{n}, PGD at {eps:g} %' for n in names)],
        rows,
        'Means over seeds; the last row is the pair of nets that all studies share, '
        'trained for longer.',
    )  # fmt: skip


def _pixels(config: Config, found: dict[str, np.ndarray]) -> Table:
    columns = (found[n].tolist() for n in ('taus', 'kept', 'clean', 'robust'))
    return table(
        'Pixels that go with the label: 3 against 7',
        ['tau', 'pixels', 'accuracy %', f'Linf eps {config.pixel_eps:g} %'],
        [
            [f'{tau:g}', int(kept), round(clean, 2), round(robust, 2)]
            for tau, kept, clean, robust in zip(*columns, strict=True)
        ],
        'Robust accuracies are exact.',
    )


STUDY = define(
    'tsipras2019',
    title='Tsipras, Santurkar, Engstrom et al. 2019: Robustness may be at odds with '
    'accuracy',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            samples=200_000, classifiers=20_000, seeds=5, epochs=10,
            epoch_images=59_000, l2_steps=7, l2_images=59_000, l2_epochs=10,
            attacked=10_000, neighbours=59_000, pixel_images=20_000, large_steps=100,
            sizes=(100, 200, 500, 1000, 2000, 5000, 10_000, 20_000),
        ),
        'smoke': Config(
            dataset='digits', eps=(0.15,), l2_eps=0.75, l2_images=300,
            l2_epochs=2, samples=5000, svm_steps=200, classifiers=100,
            sizes=(100,), epochs=1, epoch_images=300, attacked=60, shown=6,
            large_eps=2.0, large_steps=5, neighbours=200, pixel_images=100,
            taus=(0.0, 0.4),
        ),
    },
)  # fmt: skip
