"""Is PGD the strongest first-order adversary, and does robustness need capacity?

    python -m experiments madry2018                  # MNIST, minutes on two cores
    python -m experiments madry2018 --preset paper   # its own scale, on a GPU

Adversarial training solves min over the weights of the max over the ball. That is
worth something only if PGD finds that maximum, if a net has the capacity for it, and if
no other attack does better. Tags of the paper's figures: R, read in the paper.

| MNIST, Linf 0.3 | paper | measured |
|---|---|---|
| mean loss where 100 steps end: natural; robust net | 50-150; 1-5 (R) | 50.0; 0.76 |
| restarts that end beyond the outer fence | none (R) | none of 2 x 1000 |
| angle between maxima, degrees | about 90 (R) | 61 natural, 58 robust |
| robust net: clean, FGSM | 98.8, 95.6 (R) | 97.6, 91.6 |
| ... PGD-40, PGD-100 | 93.2, 91.8 (R) | 86.4, 84.6 |
| ... PGD-100 with restarts | 89.3, 20 restarts (R) | 79.6, 10 restarts |
| ... PGD-40 on the CW loss | 94.0 (R) | 87.4 |
| all this on weights of Wong et al. | | 98.4, 92.8, 90.0, 86.6, 83.2, 89.6 |
| PGD training at scales 1; 2: clean | about 11, constant (R) | 11.4; 50.2 |
| PGD loss at scales 1, 2, 4, 8 | falls (R) | 2.31, 2.26, 2.08, 2.06 |
| FGSM training at scale 8: under FGSM; PGD | high; about 0 (R) | 61.2; 0.0 |
| PGD-40 from a natural copy: natural net | 26.0 (R) | 4.0 |
| PGD-40 from a PGD-trained copy: robust net | 96.0 (R) | 97.2 |
| FGSM-trained net: under FGSM; PGD-40 | 99.9; 0 (R) | 75.0; 2.0 |
| robust net in L2 at 3: PGD; decisions; Square | masked (R) | 58.5; 36.5; 1.0 |
| largest weight's share of a first-layer filter | 100 (R) | 67 (natural net 14) |

Measured on 500 random test images (curves: 200); percentages are right answers, each
attack verified from outside. The robust net is trained by FGSM from random starts in
ten epochs, not by PGD-40 in 83, and is weaker than the paper's. What the preset does
not show: angles near 90 degrees (random points of the box have them, maxima share a
part of their direction), the collapse of scale 2, and how badly adversarial images of
one natural net move to another: ours move better. The capacity study makes 700 updates
of 50 images, so its robust accuracies are far from converged.

Wall time 864 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.

Reference: Madry, Makelov, Schmidt, Tsipras and Vladu 2018, arXiv 1706.06083, and its
mnist_challenge code.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Literal

import numpy as np
import optax

from advjax import balls, models, training, zoo
from advjax.types import LogitsFn
from experiments.frame import nets
from experiments.frame.datasets import Sets
from experiments.frame.findings import Findings, together
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.madry2018 import (
    beyond,
    capacity,
    filters,
    landscape,
    transfer,
    white_box,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """mnist or digits."""
    robust: Literal['fast', 'pgd'] = 'fast'
    """The nets: those all studies share, or the paper's own, trained on PGD-40."""
    epochs: int = 83
    """Epochs of the paper's own nets."""
    images: int = 500
    """Random test images of the tables."""
    restarts: int = 10
    """Restarts of PGD-100 in the white-box table."""
    climbed: int = 5
    """Images whose maxima are looked at."""
    starts: int = 200
    """Random starts on each of them."""
    climb_steps: int = 100
    """Steps of eps / 30 from each start."""
    segments: int = 100
    """Segments between maxima of each image."""
    scales: tuple[int, ...] = (1, 2, 4, 8)
    """Widths of the capacity study; 1 is 2 and 4 filters and 64 units."""
    capacity_steps: int = 700
    """Updates of each of its networks."""
    capacity_attack_steps: int = 5
    """Steps of PGD that they are trained on."""
    training_images: int = 20_000
    """Random training images for them and for the copies of the transfer table."""
    capacity_batch: int = 50
    """Images per update."""
    capacity_rate: float = 2e-3
    """Peak of Adam's triangular schedule."""
    copy_steps: int = 1200
    """Updates of the copies of the transfer table."""
    curve_images: int = 200
    """Random test images of the robustness curves."""
    curve_steps: int = 60
    """Steps of PGD at every radius."""
    queries: int = 1000
    """Budget of the decision-based attack, and of Square at each radius."""


LINF = np.arange(13) / 8
"""Radii of the Linf curve, in units of the radius of training."""

L2 = {'mnist': np.arange(13) / 2, 'digits': np.arange(13) / 8}
"""Radii of the L2 curve."""

SQUARE = (4, 6)
"""Positions in it at which Square is run."""


def _nets(config: Config, work: Work, sets: Sets) -> dict[str, LogitsFn]:
    """The natural and the robust network."""
    if config.robust == 'fast':
        both = nets.natural(work, sets), nets.robust(work, sets)
    else:
        ball = balls.linf(nets.EPS[sets.train.name])
        model = zoo.madry_mnist(sets.shape, sets.classes)
        fit = functools.partial(
            work.fit,
            model=model,
            sets=sets,
            epochs=config.epochs,
            batch_size=50,
            optimizer=optax.adam(1e-4),
        )
        both = (
            fit('natural', training.standard()),
            fit('PGD-40', training.pgd_at(ball, 40, rate=1 / 30)),
        )
    return {'natural': both[0].logits_fn, 'robust': both[1].logits_fn}


def _golden(sets: Sets) -> LogitsFn | None:
    """The published network of Wong et al. 2020, where its weights are at hand."""
    folder = os.environ.get('ADVJAX_GOLDEN')
    path = Path(folder or '.') / 'mnist_fast_fgsm.npz'
    if folder is None or sets.train.name != 'mnist' or not path.exists():
        return None
    return models.logits_fn(zoo.fast_mnist(), zoo.load_fast_mnist(path))


def run(config: Config, work: Work) -> Findings:
    """Does everything and returns what was found."""
    sets = work.sets(config.dataset)
    some = work.sets(config.dataset, test_images=config.images).test
    eps = nets.EPS[sets.train.name]
    ball = balls.linf(eps)
    both = _nets(config, work, sets)
    x, y = work.images(some)
    few = slice(config.curve_images)
    plan = capacity.Plan(
        images=config.training_images,
        steps=config.capacity_steps,
        batch_size=config.capacity_batch,
        learning_rate=config.capacity_rate,
    )
    ways = capacity.methods(ball, config.capacity_attack_steps)

    def width(scale):
        return zoo.madry_mnist(sets.shape, sets.classes, scale * capacity.UNIT)

    def copies(name, methods, seed):
        model = zoo.fast_mnist(sets.shape, sets.classes)
        longer = plan._replace(steps=config.copy_steps)
        return capacity.train_all(
            work, name, methods, model, sets.train, longer, seed=seed
        )

    climbed = work.keep(
        'maxima', lambda: landscape.measure(config, work, both, x, y, ball)
    )
    golden = _golden(sets)
    under = both if golden is None else {**both, 'golden': golden}
    table = white_box.study(work, under, sets.test, x, y, ball, config.restarts)
    by_scale = capacity.grid(
        work, config.scales, width, ways, ball, sets.train, plan, x, y
    )
    sources = copies('copies', ways, 1)
    other = copies('FGSM', {'FGSM': ways['FGSM']}, 2)
    targets = {'natural': both['natural'], **other, 'robust': both['robust']}
    moved = work.keep(
        'transfer', lambda: transfer.measure(work, sources, targets, x, y, ball)
    )
    radii = {'linf': eps * LINF, 'l2': L2[sets.train.name], 'at': SQUARE}
    queries = config.queries
    curves = work.keep(
        'beyond',
        lambda: beyond.measure(
            work, both['robust'], x[few], y[few], **radii, steps=config.curve_steps,
            queries=queries,
        ),
    )  # fmt: skip
    return together([
        landscape.findings(climbed),
        table,
        capacity.findings(by_scale, config.scales, config.capacity_steps),
        transfer.findings(moved, list(sources), list(targets)),
        beyond.findings(curves, **radii, queries=queries, images=len(y[few])),
        filters.findings(filters.measure(both)),
    ])  # fmt: skip


STUDY = define(
    'madry2018',
    title='Madry et al. 2018: Towards deep learning models resistant to adversarial '
    'attacks',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            robust='pgd',
            images=10_000,
            restarts=20,
            starts=10_000,
            scales=(1, 2, 4, 8, 16),
            capacity_steps=100_000,
            capacity_attack_steps=40,
            training_images=60_000,
            capacity_rate=1e-4,
            copy_steps=20_000,
            curve_images=1000,
            curve_steps=200,
            queries=20_000,
        ),
        'smoke': Config(
            dataset='digits',
            images=40,
            restarts=2,
            climbed=2,
            starts=12,
            climb_steps=6,
            segments=4,
            scales=(1, 2),
            capacity_steps=6,
            capacity_attack_steps=2,
            copy_steps=6,
            curve_images=16,
            curve_steps=4,
            queries=80,
        ),
    },
)
