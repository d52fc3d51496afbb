"""Every training method of the library, on one network and one budget.

    python -m experiments compare_methods --dataset mnist     # 37 minutes, two cores
    python -m experiments compare_methods --methods pgd_at,trades --name two

All methods train the same small network (``zoo.fast_mnist`` at half its widths; AdvProp
the same with split batch normalisation) with the same Adam, the same triangular
learning rate, and the same number of gradient evaluations, which are counted in
the compiled program: a method that needs six per update makes a sixth of the updates of
standard training. The radius grows from 0 over the first part of every training against
an adversary. PGD-50 and all of AutoAttack then attack each network, and the row of a
method that withstands neither says why.

Radius and budget were chosen by the held-out accuracy of PGD-AT alone (87 % under
PGD-10 at 0.3 after five epochs); no method was compared with another, and no test
image looked at, before the run. The folder of a run receives

    report.html     the page
    results.json    the figures on it
    table.md        the table of the README
    rows/           each row as it is found; a killed run goes on from them
"""

import dataclasses

from advjax import files
from experiments.commands.compare_methods import job, tables, workers
from experiments.commands.compare_methods.methods import chosen
from experiments.frame.findings import Findings
from experiments.frame.study import define
from experiments.frame.work import Work


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    dataset: str = 'mnist'
    """mnist or digits."""
    methods: str = 'all'
    """Names of rows with commas between; standard and what they need are added."""
    budget: float = 18.0
    """Gradient evaluations for each training image."""
    eps: float | None = None
    """Radius of Linf; 0.3 on MNIST, else 0.15."""
    attack_steps: int = 5
    """Attack steps of PGD-AT, whose update costs one gradient evaluation more."""
    scale: float = 0.5
    """Factor of the widths of the network."""
    batch_size: int = 100
    """Images per update."""
    learning_rate: float = 5e-3
    """Peak of Adam's triangular schedule."""
    warm_up: float = 0.4
    """Part of the training in which the radius grows from 0."""
    train_images: int | None = None
    """Train on this many random images only."""
    held_out: int | None = 500
    """Training images kept apart to choose the best epoch by."""
    test_images: int = 1000
    """Random test images that are attacked."""
    pgd_steps: int = 50
    """Steps of eps / 30 of the PGD column."""
    restarts: int = 2
    """Its restarts."""
    iterations: int = 100
    """Iterations of APGD and FAB within AutoAttack."""
    queries: int = 5000
    """Queries of Square within AutoAttack."""
    targets: int = 9
    """Targets of APGD and FAB within AutoAttack."""
    seed: int = 0
    """Of everything random."""
    workers: int | None = None
    """Processes; one for each core by default, one on an accelerator."""


def run(config: Config, work: Work) -> Findings:
    """Trains and attacks every row and returns the table."""
    rows = chosen(config.methods)
    _check(config)
    many = config.workers or workers.number()
    found = {}
    for name, one in workers.run(config, rows, work.folder, many):
        found[name] = one
        for network in one['networks']:
            shown = ', '.join(
                f'{kind} {network[kind]:.1f}' for kind in ('clean', 'pgd', 'autoattack')
            )
            work.say(f'{len(found)} of {len(rows)}  {network["title"]}: {shown}')
    entries = tables.networks(rows, found)
    eps = float(job.setting_of(config).ball.eps)
    table = tables.of(entries, config, eps, many)
    text = tables.markdown(table)
    files.write_text(work.folder / 'table.md', text)
    if work.progress:
        print(f'\n{text}', flush=True)
    return Findings(tables.claims(entries), [tables.chart(entries)], [table])


def _check(config: Config) -> None:
    for name in (
        'budget', 'attack_steps', 'scale', 'batch_size', 'learning_rate', 'test_images',
        'pgd_steps', 'restarts', 'iterations', 'queries', 'targets',
    ):  # fmt: skip
        value = getattr(config, name)
        if not 0 < value < float('inf'):
            raise ValueError(f'{name} must be positive and finite, got {value}')
    if config.eps is not None and not 0 < config.eps < float('inf'):
        raise ValueError(f'eps must be positive and finite, got {config.eps}')
    if not 0 <= config.warm_up <= 1:
        raise ValueError(f'warm_up must lie in [0, 1], got {config.warm_up}')
    if config.workers is not None and config.workers < 1:
        raise ValueError(f'workers must be an integer >= 1, got {config.workers}')


STUDY = define(
    'compare_methods',
    title='Every training method',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(budget=180.0, scale=1.0, test_images=10_000, restarts=10),
        'smoke': Config(
            dataset='digits',
            methods='ard',
            budget=12.0,
            scale=0.25,
            batch_size=64,
            train_images=640,
            held_out=40,
            test_images=20,
            pgd_steps=2,
            restarts=1,
            iterations=2,
            queries=8,
            targets=2,
            workers=1,
        ),
    },
)
