"""Is one gradient step from a random start as good as seven, at a third of the time?

    python -m experiments wong2020                   # --preset cpu
    python -m experiments wong2020 --preset smoke    # seconds, on digits

Wong, Rice and Kolter train on FGSM from a random point of the ball (FGSM-RS) and reach
what PGD training does. Without the random start the same step fails completely. Their
MNIST network, eps 0.3, ten epochs each; tags of the paper's figures: R, read in its
code and README; M, not read again.

                        paper                 here: clean, PGD-50 of 3 restarts
    FGSM-RS, best seed  98.50, 88.77 (R)      98.0, 84.5 (two seeds: 84.5, 81.9)
    PGD-7               -                     97.6, 87.4
    FGSM from the image 85.18, 0.00 (M, CIFAR-10)   89.0, 0.0

    per step            FGSM-RS    PGD-7      ratio
    gradients, counted        2        8       0.25
    time                  64 ms   177 ms       0.36

Clean accuracy in % of all test images, robust accuracy of 1,000 random ones. The time
is that of training steps alone, on one core that others used as well. It misses a
third because an update of this network (10.4 ms of CPU time in the gradient of the
weights, 1 ms in Adam) takes as long as two gradients of the attack (5.4 ms each):
(1 + 2) / (7 + 2) = 1/3 is all that there is to be won.

PGD-7 has a lower rate, and one epoch in which its radius grows: at the rate of FGSM-RS
three of three seeds collapsed to a constant class. FGSM from the image answers 99 % of
its own attack and none of PGD after every epoch, so that there never is a fall which
the training loop could note: its rule of 20 points needs a robust epoch before.

Training took 372 and 467 s (FGSM-RS), 428 s and 1,097 s (PGD-7), each on one core that
two to four other jobs used as well; about ten minutes in all on two quiet cores.

Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994.
"""

import dataclasses

from advjax import linf
from experiments.frame import nets
from experiments.frame.counting import gradient_evaluations
from experiments.frame.findings import Findings
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.wong2020.findings import claims_of, pictures_of, tables_of
from experiments.studies.wong2020.networks import (
    FAST,
    PGD,
    ZERO,
    methods,
    seconds_per_step,
    trained,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """mnist or digits; radii are 0.3 and 0.15."""
    epochs: int = 10
    """Epochs of every network."""
    batch_size: int = 100
    """Images per step."""
    learning_rate: float = 5e-3
    """Peak of Adam's triangular schedule for one-step trainings."""
    pgd_learning_rate: float = 1e-3
    """That for PGD-7, which collapses to a constant class at the higher one."""
    pgd_warm_up: int = 1
    """Epochs over which the radius of PGD-7 rises from 0, for the same reason."""
    seeds: int = 2
    """Networks trained by FGSM-RS; the others are trained once."""
    attacked: int = 1000
    """Random test images for robust accuracy; clean accuracy is of all."""
    restarts: int = 3
    """Restarts of PGD-50."""
    timed_rounds: int = 15
    """Rounds in which the methods take turns at being timed."""
    timed_steps: int = 10
    """Training steps of each method in a round."""


def run(config: Config, work: Work) -> Findings:
    """Trains, attacks and times the networks."""
    sets = work.sets(config.dataset)
    ball = linf(nets.EPS[sets.train.name])
    ways = methods(ball)
    both = {name: ways[name] for name in (FAST, PGD)}
    times = work.keep('times', lambda: seconds_per_step(config, sets, both))
    gradients = {
        name: gradient_evaluations(lambda _, method=method: method)
        for name, method in both.items()
    }
    found = {PGD: [trained(config, work, sets, ball, PGD, 0)]}
    found[FAST] = [
        trained(config, work, sets, ball, FAST, seed) for seed in range(config.seeds)
    ]
    found[ZERO] = [trained(config, work, sets, ball, ZERO, 0)]
    steps = config.epochs * -(-len(sets.train.labels) // config.batch_size)
    return Findings(
        claims_of(config, found, times, gradients),
        pictures_of(found, times, steps),
        tables_of(config, found, times, gradients, steps),
    )


STUDY = define(
    'wong2020',
    title='Wong, Rice and Kolter 2020: Fast is better than free: revisiting '
    'adversarial training',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(seeds=10, attacked=10_000, restarts=10),
        'smoke': Config(
            dataset='digits',
            epochs=6,
            batch_size=64,
            seeds=1,
            attacked=60,
            restarts=1,
            timed_rounds=2,
            timed_steps=1,
        ),
    },
)
