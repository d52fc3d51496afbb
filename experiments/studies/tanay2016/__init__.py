"""Is linearity the cause of adversarial examples, or the angle of the boundary?

    python -m experiments tanay2016                    # --preset cpu
    python -m experiments tanay2016 --preset smoke     # seconds, on digits

The paper's answer: the angle. A linear classifier is as weak as its normal deviates
from the line of the class means: strength = 1 / cos(deviation angle). Regularisation
decides the angle, and tilting the boundary along directions in which images hardly vary
makes it as weak as one likes at the same accuracy.

Measured on 3 against 7 of MNIST. The paper's own tables were not read; (C) are figures
of an earlier run on the same data, (D) derivations.

                                                           expected        here
    strength less the secant, relative                     0 D             1e-14
    test error at the best cost of errors, C = 0.01        1.42 % C        1.42 %
    deviation angle there                                  53.5 C          53.5 degrees
    strength there; at C = 10                              1.68; 7.89 C    1.68; 7.86
    test error at C = 1e-6; at C = 10                      3.68; 2.21 % C  3.68; 2.31 %
    tilted 80 degrees along components >= 400: strength    5.76 C          5.76
    ... and the test error it adds                         < 0.4 C         0.1 points

Is local linearity necessary? No. ``bent`` is the nearest-centroid classifier and two
ReLU units that are off on images. At Linf 0.05 on 500 test images:

                                    clean     FGSM      PGD, 10 restarts
    linear (closed form: 90.4 %)    96.4 %    90.4 %    90.4 %
    the same and two ReLU units     96.4 %    90.0 %     0.0 %

FGSM's linear guess sees no difference; the boundary lies 4.4 away along its step and
0.037 along z (medians, L2). Is it enough? No: a linear classifier of images with a
bright half keeps 100 % at Linf 0.2, in closed form and under PGD.

Trained networks, margin over the Linf ball of 0.3, 200 test images: gradient alignment,
worst error of the tangent plane in logits, and over the change it predicts

    natural                             0.61    64     0.97
    robust (FGSM, random starts)        0.38     3.6   0.91
    FGSM without random starts          0.41     8.3   0.79

The robust network is flatter, not more linear: its error is 18 times smaller, but so is
the predicted change, and its gradient keeps its direction less. The last network
(91.5 % clean, 20.5 % under FGSM, 0 % under PGD) depends much on seed and epochs.

Wall time 62 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.
"""

import dataclasses

from advjax import balls, training, zoo
from advjax.types import LogitsFn
from experiments.frame import nets, two_classes
from experiments.frame.datasets import Sets
from experiments.frame.findings import Findings, together
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.tanay2016 import necessary, networks, path, tilting


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """Data set; 3 against 7 of it."""
    costs: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """Costs of an error in the support vector machine, strong regularisation first."""
    iterations: int = 10_000
    """Most iterations of its solver."""
    components: tuple[int, ...] = (0, 10, 50, 100, 200, 300, 400, 500)
    """Principal components to tilt along, the last ones of little variance."""
    eps: float = 0.05
    """Linf radius of the comparison of linear and bent, without a range of pixels."""
    level: float = 0.01
    """The bent network bends where images vary by less than this."""
    images: int = 500
    """Test images that linear and bent are attacked on."""
    network_images: int = 200
    """Test images that convolutional networks are measured on."""
    train_images: int = 12_000
    """Training images of the network trained on clean and FGSM images."""
    epochs: int = 5
    """Its epochs."""


def run(config: Config, work: Work) -> Findings:
    """Runs the study."""
    sets = work.sets(config.dataset)
    task = two_classes.pair(work, sets)
    known = sets.train.name == 'mnist'
    along = path.regularisation_path(work, task, config.costs, config.iterations)
    x, y = (some[: config.network_images] for some in work.images(sets.test))
    eps = nets.EPS[sets.train.name]
    parts = [
        path.findings(along, task, known),
        tilting.findings(work, task, config.components, known),
        path.mirrors(along, task),
        necessary.findings(work, task, config.eps, config.level, config.images),
        networks.findings(work, trained(config, work, sets), x, y, eps, task),
    ]
    return together(parts)


def trained(config: Config, work: Work, sets: Sets) -> dict[str, LogitsFn]:
    """The two networks of all studies, and one trained by FGSM without random start."""
    few = work.sets(config.dataset, train_images=config.train_images, held_out=100)
    one_step = work.fit(
        'fgsm-trained',
        training.fgsm_at(balls.linf(nets.EPS[sets.train.name])),
        zoo.fast_mnist(sets.shape, sets.classes),
        few,
        epochs=config.epochs,
    )
    return {
        'natural': nets.natural(work, sets).logits_fn,
        'robust': nets.robust(work, sets).logits_fn,
        'FGSM-trained': one_step.logits_fn,
    }


STUDY = define(
    'tanay2016',
    title='Tanay and Griffin 2016: A boundary tilting perspective on the phenomenon of '
    'adversarial examples',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            iterations=200_000, images=2000, network_images=2000, train_images=59_000
        ),
        'smoke': Config(
            dataset='digits',
            costs=(1e-2, 1e-1, 1.0, 10.0),
            iterations=1000,
            components=(0, 10, 30, 50),
            eps=0.1,
            level=0.1,
            images=64,
            network_images=32,
            train_images=256,
            epochs=2,
        ),
    },
)
