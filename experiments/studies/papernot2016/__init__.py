"""Does defensive distillation defend, or does it hide the temperature?

    python -m experiments papernot2016

Papernot et al. 2016 train a teacher with its softmax at temperature T, a student on
the teacher's soft answers at T, and use the student at temperature 1. Its logits are
then about T times too large: the softmax is saturated and its gradient, with which
the attacks of the time worked, is nothing. Carlini and Wagner showed that only the
gradient had been removed: an attack on the logits, or the old attack on logits divided
by T, does not notice.

The papers, on MNIST: the saliency attack on the softmax reaches its target in 91 % (T =
1), 24 % (T = 5) and 0.5 % (T = 100) of the images, on logits divided by T again in
96.4 % (R). Carlini and Wagner's L2 attack reaches it in 100 % at 2.2 instead of 1.76 on
average over targets, and its distance does not depend on T (correlation -0.05) (R). The
logits grow from 5.8 to 482 (R), gradients shrink by 1e30 (M), accuracy goes from 99.51
(R) to 99.05 % (M). With confidence kappa adversarial examples transfer, to a distilled
net from kappa 40 on (R).

Measured (``--preset cpu``):

                                     undistilled   T = 1   T = 5   T = 20   T = 100
    saliency, softmax (%)                            100      14        0         0
    saliency, logits / T (%)                         100     100       96        94
    FGSM at 0.3, softmax (%)                  97      99      91       12         1
    PGD-40 at 0.3, softmax (%)               100     100      99       31        14
    PGD-40 at 0.3, logits / T (%)            100     100     100      100       100
    Carlini-Wagner L2, targeted (%)          100     100     100      100       100
    its mean distance                       1.97    1.98    2.03     2.05      1.95
    gradient exactly zero (%)                  0       0       1       86        95
    accuracy (%)                            98.6    98.5    98.3     97.7      96.7

Examples of the undistilled net fool one of other images in 10, 82, 99 and 100 % and the
one distilled at T = 100 in 10, 41, 82 and 97 % at kappa 0, 5, 10 and 20.
Correlation of the distance with T -0.03; logits 83 times as large at T = 100; median
gradient 10^-272 of that at T = 1.

Wall time 249 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.

Deviations: the small network of "Fast is better than free" and Adam instead of the
papers' larger one and momentum; targets are random, one per image.
"""

import dataclasses

import numpy as np

from experiments.frame.findings import Findings
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.papernot2016 import transfer
from experiments.studies.papernot2016.claims import claims_of
from experiments.studies.papernot2016.measures import measure
from experiments.studies.papernot2016.networks import Nets
from experiments.studies.papernot2016.pictures import pictures_of
from experiments.studies.papernot2016.tables import result_table, threat_table


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """Data set; digits stand in for a missing MNIST."""
    temperatures: tuple[float, ...] = (1.0, 5.0, 20.0, 100.0)
    """Temperatures of the distillation; the first must be 1."""
    train_images: int = 29_000
    """Training images; as many others train the net that examples transfer to."""
    epochs: int = 3
    """Passes over them, for every teacher and student."""
    batch_size: int = 200
    """Images per step."""
    learning_rate: float = 1e-2
    """Peak of Adam's triangular schedule."""
    eps: float = 0.3
    """Linf radius of FGSM and PGD."""
    steps: int = 40
    """Steps of PGD."""
    images: int = 300
    """Test images for FGSM, PGD and gradients."""
    saliency_images: int = 50
    """Test images for the saliency attack."""
    aimed_images: int = 100
    """Test images for Carlini and Wagner."""
    cw_steps: int = 200
    """Steps of Adam per constant."""
    cw_searches: int = 6
    """Constants tried."""
    kappas: tuple[float, ...] = (0.0, 5.0, 10.0, 20.0, 40.0)
    """Confidences of the transfer curve."""


def run(config: Config, work: Work) -> Findings:
    """Trains, attacks and compares."""
    nets = Nets(config, work)
    x, y = work.images(nets.sets.test)
    order = np.random.default_rng(0).permutation(len(y))
    test = x[order], y[order]
    plain = work.keep(
        'undistilled',
        lambda: measure(config, work, nets.teacher(1.0), 1.0, test, old=False),
    )
    rows = {
        t: work.keep(
            f'distilled-{t:g}',
            lambda t=t: measure(config, work, nets.student(t), t, test, old=True),
        )
        for t in config.temperatures
    }
    moved = work.keep('transfer', lambda: transfer.by_kappa(config, work, nets, test))
    curve = moved['rows']
    return Findings(
        claims_of(config, plain, rows, curve),
        pictures_of(config, rows, curve),
        [result_table(config, plain, rows), threat_table(config)],
    )


STUDY = define(
    'papernot2016',
    title='Papernot et al. 2016: Distillation as a defense (defensive distillation)',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            temperatures=(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0),
            epochs=50,
            batch_size=128,
            learning_rate=5e-3,
            images=10_000,
            saliency_images=1000,
            aimed_images=1000,
            cw_steps=1000,
            cw_searches=9,
            kappas=(0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0),
        ),
        'smoke': Config(
            dataset='digits',
            temperatures=(1.0, 100.0),
            train_images=700,
            epochs=6,
            batch_size=32,
            images=40,
            steps=5,
            saliency_images=8,
            aimed_images=8,
            cw_steps=40,
            cw_searches=4,
            kappas=(0.0, 10.0),
        ),
    },
)
