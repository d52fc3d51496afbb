"""The nine defences, what is wrong with their gradients, and the paper's figures."""

from collections.abc import Callable
from typing import Any, NamedTuple

from advjax import defenses
from advjax.defenses import Defended
from advjax.types import LogitsFn
from experiments.frame.datasets import Sets
from experiments.frame.findings import Tag
from experiments.frame.work import Work
from experiments.studies.athalye2018 import networks


class Planted(NamedTuple):
    """A defence of the study.

    Attributes:
      name: its name.
      hides: what is wrong with its gradients, in the paper's terms.
      by: the adaptive attack.
      paper: the paper's figure for its kind, claimed and after the attack.
      limit: the largest accuracy in % that counts as broken.
      tag: how sure ``limit`` is.
      build: the defence of a natural network.
    """

    name: str
    hides: str
    by: str
    paper: str
    limit: float
    tag: Tag
    build: Callable[[], Defended]


def planted(config: Any, work: Work, sets: Sets, f: LogitsFn) -> list[Planted]:
    """All defences; networks are trained when they are built."""
    random = {'answers': config.answers, 'draws': config.draws}

    def on_codes():
        return defenses.thermometer(
            networks.on_codes(config, work, sets), config.levels
        )

    def projected():
        found = networks.decoder(config, work, sets)
        return defenses.projection(f, found, steps=config.search_steps)

    zero = 10.0
    every = [
        Planted(
            'thermometer', 'shattered', 'BPDA, ramp', '0 (CIFAR-10)', zero, 'R',
            on_codes,
        ),
        Planted(
            'bit depth', 'shattered', 'BPDA', '70 to 0 (ImageNet, L2)', zero, 'R',
            lambda: defenses.bit_depth(f, 3),
        ),
        Planted(
            'JPEG', 'shattered', 'BPDA', '70 to 0 (ImageNet, L2)', zero, 'R',
            lambda: defenses.jpeg(f, 50),
        ),
        Planted(
            'total variation', 'shattered', 'BPDA and EOT', '70 to 0 (ImageNet, L2)',
            zero, 'R', lambda: defenses.total_variation(
                f, steps=15, answers=config.answers, draws=config.solver_draws
            ),
        ),
        Planted(
            'resize and pad', 'stochastic', 'EOT', '86 to 0 (ImageNet)', zero, 'R',
            lambda: defenses.resize_pad(f, 0.6, **random),
        ),
        Planted(
            'activation pruning', 'stochastic', 'EOT', '51 to 0 (CIFAR-10)', zero, 'R',
            lambda: defenses.activation_pruning(f, 0.15, **random),
        ),
        Planted(
            'dropout', 'stochastic', 'EOT', '', zero, 'D',
            lambda: defenses.dropout(f, 0.5, **random),
        ),
        Planted(
            'saturated logits', 'vanishing', 'rescaled logits', '', zero, 'D',
            lambda: defenses.saturated(f, 100.0),
        ),
        Planted(
            'projection', 'vanishing', 'reparameterisation', '92 to 55 (MNIST, L2)',
            55.0, 'R', projected,
        ),
    ]  # fmt: skip
    known = [one.name for one in every]
    if not set(config.defences) <= set(known):
        raise ValueError(f'defences must be among {known}, got {config.defences}')
    return [one for one in every if one.name in (config.defences or known)]
