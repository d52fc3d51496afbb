"""Do defences that hide gradients defend? Nine, and the attacks that see through them.

    python -m experiments athalye2018

A network trained on clean images stands behind nine defences of the kind that Athalye
et al. broke. Each is attacked twice at the same radius: by PGD along whatever gradient
the deployed model has (of randomised ones: along the gradient of one frozen draw), and
by PGD adapted to the defence: BPDA, EOT, reparameterisation or rescaled logits. All
results are judged on the deployed model. A masking report (``evaluation.masking``) then
looks for the signs of section 3.1, on the defences and on networks without one.

The paper's case study (R: its code, README and robust-ml): thermometer codes 0 % (30 %
if trained adversarially), input transformations 0 %, stochastic activation pruning 0 %,
randomised resizing 0 %, Defense-GAN 55 % ("0 in theory"), each at its own threat model
on CIFAR-10, ImageNet or MNIST. Here all is on MNIST in Linf: figures are not compared,
the pattern is: what a naive attack leaves falls to about the undefended value.

Measured with the defaults on 200 random test images at eps 0.2, where the undefended
network keeps 0.5 %; accuracy in %, and the signs that fire:

    defence             clean  naive  adaptive   signs
    thermometer          97.0   96.5     0.0     black-box, unbounded, zero gradients,
                                                 square
    bit depth            98.0   98.0     5.0     the same and radius
    JPEG                 99.0   99.0     0.5     the same
    total variation      97.5   96.0     0.0     as thermometer, and randomness
    resize and pad       99.0   65.0    12.5     black-box, randomness, square
    activation pruning   95.5   58.5    11.0     black-box, randomness
    dropout              98.0   47.0     0.0     black-box, randomness
    saturated logits     98.5   98.0     1.0     as bit depth
    projection           96.0   95.0    28.5     as bit depth

Outside their bands: the naive attack on dropout (it was to leave 50 %), and the
adaptive ones on resizing and pruning (10 %). Resizing falls to 1 % at eps 0.3; more
steps are not what is missing (40 leave 15 % of the first 100 images). Pruning falls to
1.5 % under PGD on the network alone, whose gradient is a better guide than 30 draws of
the pruned one. Of the networks without a defence, the natural and the PGD-trained one
fire nothing; on the one trained by FGSM-RS Square breaks 1 % of the images that
gradients have left.

The strengths of resizing (0.6) and pruning (0.15) were chosen after trial runs in which
one frozen draw broke milder ones.

Wall time 366 s on 2 CPU cores, shared with a test run, without the networks that
all studies share.
"""

import dataclasses
import functools

from experiments.frame import nets
from experiments.frame.findings import Findings
from experiments.frame.study import define
from experiments.frame.work import Work
from experiments.studies.athalye2018 import (
    claims,
    defences,
    measured,
    networks,
    pictures,
    tables,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """Data set; digits where MNIST is missing."""
    defences: tuple[str, ...] = ()
    """Names of the defences to look at, as in the table; all by default."""
    images: int = 200
    """Random test images to attack."""
    eps: float = 0.2
    """Linf radius of all attacks."""
    steps: int = 20
    """Steps of PGD, naive and adaptive alike, and in the reports."""
    answers: int = 5
    """Draws that a randomised model averages over when it answers."""
    draws: int = 30
    """Draws per gradient of EOT, as in the paper's code for random resizing."""
    solver_draws: int = 10
    """The same for total variation, each of whose draws is an inner optimisation."""
    report_images: int = 100
    """Images that a masking report looks at."""
    queries: int = 200
    """Queries of the Square attack in a masking report."""
    samples: int = 50
    """Random points per image in a masking report."""
    code_epochs: int = 2
    """Epochs of the network on thermometer codes."""
    levels: int = 16
    """Levels of a thermometer code, as in the paper."""
    decoder_steps: int = 2000
    """Updates of the generator of the projection."""
    search_steps: int = 60
    """Gradient steps of the projection for one image."""
    honest_eps: float = 0.1
    """Linf radius that the honest network is trained and reported at."""
    honest_images: int | None = 20_000
    """Training images of the honest network."""
    honest_epochs: int = 4
    """Epochs of the honest network."""


def run(config: Config, work: Work) -> Findings:
    """Attacks every defence, and reports on every model."""
    sets = work.sets(config.dataset, test_images=config.images)
    x, y = work.images(sets.test)
    natural = nets.natural(work, sets).logits_fn

    undefended = work.keep(
        'undefended', lambda: measured.undefended(config, work, natural, x, y)
    )
    figures, reports = {}, {}

    def keep_report(name, build, eps, substitute):
        reports[name] = work.keep(
            f'report-{name.replace(" ", "-")}',
            lambda: measured.report(config, work, build(), x, y, eps, substitute),
        )

    planted = defences.planted(config, work, sets, natural)
    for one in planted:
        built = functools.cache(one.build)
        figures[one.name] = work.keep(
            f'attacks-{one.name.replace(" ", "-")}',
            lambda built=built: measured.attacked(config, work, built(), natural, x, y),
        )
        keep_report(one.name, lambda built=built: built().deployed, config.eps, natural)
    honest = networks.honest(config, work, sets)
    fast = nets.robust(work, sets).logits_fn
    keep_report('natural net', lambda: natural, config.eps, None)
    keep_report('PGD net', lambda: honest, config.honest_eps, natural)
    keep_report('FGSM-RS net', lambda: fast, nets.EPS[sets.train.name], natural)
    return Findings(
        claims=claims.claims(config, undefended, planted, figures, reports),
        pictures=[
            pictures.bars(config, undefended, figures),
            pictures.curves(config, figures),
            pictures.signs(reports),
        ],
        tables=[
            tables.accuracies(config, undefended, planted, figures, reports),
            tables.signs(reports),
        ],
    )


STUDY = define(
    'athalye2018',
    title='Athalye, Carlini and Wagner 2018: Obfuscated gradients give a false sense '
    'of security',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            images=1000,
            steps=100,
            answers=10,
            solver_draws=30,
            report_images=500,
            queries=5000,
            samples=1000,
            code_epochs=10,
            decoder_steps=20_000,
            search_steps=200,
            honest_images=None,
            honest_epochs=20,
        ),
        'smoke': Config(
            dataset='digits',
            defences=('bit depth', 'dropout', 'saturated logits'),
            images=20,
            steps=5,
            answers=2,
            draws=2,
            solver_draws=2,
            report_images=10,
            queries=10,
            samples=5,
            code_epochs=1,
            levels=4,
            decoder_steps=100,
            search_steps=5,
            honest_images=300,
            honest_epochs=1,
        ),
    },
)
