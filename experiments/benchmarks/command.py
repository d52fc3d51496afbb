"""How fast an attack is, against the bare gradient and against PyTorch.

    python -m experiments benchmark
    python -m experiments benchmark --suite attacks

Question: does the library's loop cost anything beyond the gradients it needs, for our
networks and for the user's own, and how does that compare with PyTorch?

Every figure is the median of interleaved repetitions in one process, and the claims
are ratios within it: these machines are noisy, absolute times are not to be compared.
What each suite measures, and its goals, stand in ``loop`` (``--suite loop``),
``attack_cost`` (``attacks``, ``autoattack``) and ``training_cost`` (``training``,
``scaling``).
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from experiments.benchmarks import attack_cost, loop, training_cost
from experiments.frame import flags, folders, record


@dataclasses.dataclass(frozen=True)
class Config:
    """How fast an attack is, against the bare gradient and against PyTorch."""

    batch: int = 256
    """Images per step."""
    steps: int = 40
    """Attack steps."""
    unrolled_steps: int = 10
    """Attack steps where the loop is unrolled, whose compile time grows with them."""
    repeats: int = 5
    """Interleaved repetitions of every measurement."""
    torch: bool = True
    """Compare with PyTorch where it is installed."""
    suite: Literal['loop', 'attacks', 'autoattack', 'training', 'scaling', 'all'] = (
        'all'
    )
    """The loop against the bare gradient, each attack, AutoAttack as a whole, a step of
    adversarial training, or its communication between devices."""
    weights: Path | None = None
    """Weights of Wong et al. 2020 (.npz) for the attacks; random ones without."""
    images: int = 1000
    """Images for AutoAttack."""
    deep_batch: int = 32
    """Images per training step of PreActResNet-18."""
    attack_steps: int = 7
    """Attack steps in a step of adversarial training."""
    networks: tuple[Literal['madry_mnist', 'preact_resnet18'], ...] = (
        training_cost.NETWORKS
    )
    """What the suites 'training' and 'scaling' train."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices that the training step is compiled for."""
    short: bool = False
    """AutoAttack with 5 steps and 20 queries, training of tiny networks: to try the
    benchmark out."""
    output: Path | None = None
    """Write the figures as JSON."""


def main(config: Config) -> dict[str, Any]:
    """Measures what the configuration asks for and returns the figures."""
    figures: dict[str, Any] = {'environment': record.environment()}
    if config.suite in ('loop', 'all'):
        figures['loop'] = loop.measure(config)
    f = attack_cost.network(config.weights)
    if config.suite in ('attacks', 'all'):
        x, y = map(jnp.asarray, attack_cost.images(config.batch))
        figures['attacks'] = {
            'efficiency': attack_cost.efficiency(
                f, x, y, 5 * config.steps, config.repeats
            ),
            'sweep': attack_cost.sweep(f, x[:64], y[:64], config.repeats),
            'memory': attack_cost.memory(f, x.shape[1:]),
        }
    if config.suite in ('autoattack', 'all'):
        figures['autoattack'] = attack_cost.autoattack(
            f, config.weights, config.images, config.torch, config.short
        )
    if config.suite in ('training', 'all'):
        figures['training'] = training_cost.speed(
            training_cost.cases(
                config.batch, config.deep_batch, config.short, config.networks
            ),
            config.attack_steps,
            config.repeats,
            config.torch,
        )
    if config.suite in ('scaling', 'all'):
        figures['scaling'] = training_cost.scaling(
            config.devices, config.attack_steps, config.short, config.networks
        )
    return figures


TABLES = {
    'loop': loop.table,
    'attacks': attack_cost.attacks_table,
    'autoattack': attack_cost.autoattack_table,
    'training': training_cost.training_table,
    'scaling': training_cost.scaling_table,
}


def cli(arguments: Sequence[str]) -> None:
    """Runs the command line."""
    config = flags.parse(Config, arguments, name='benchmark', text=__doc__)
    figures = main(config)
    print('\n\n'.join(show(figures[k]) for k, show in TABLES.items() if k in figures))
    if config.torch and importlib.util.find_spec('torch') is None:
        print('PyTorch is not installed: not compared.', file=sys.stderr)
    if config.output is not None:
        folders.write_json(config.output, figures)
