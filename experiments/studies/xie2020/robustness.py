"""How robust each branch is, and what comes of attacking the wrong one."""

import dataclasses
from typing import Any

import jax
import numpy as np

from advjax import attacks, training
from advjax.attacks import pgd
from advjax.balls import linf
from advjax.training.branches import clean_and_branches
from experiments.studies.xie2020.networks import Bench, methods


@dataclasses.dataclass(frozen=True)
class Crafted:
    """The mistake: the images for the auxiliary branch, made through the main one."""

    attack: Any

    def __call__(self, logits_fn, key, x, y):
        """Returns the images for branch 1."""
        return (self.attack(logits_fn, key, x, y),)


def robust(bench: Bench, size: int) -> dict[str, float]:
    """Robust accuracy through each branch, by where the training's attack looked."""
    config, work = bench.config, bench.work
    ball = linf(config.eps)
    inner = pgd(ball, config.steps, 1 / max(config.steps - 1, 1), keep_best=False)
    wrong = training.method(jax.tree_util.Partial(Crafted(inner)), clean_and_branches)
    trainings = {'own': methods(config, config.eps)['advprop'], 'main': wrong}
    some = np.random.default_rng(0).permutation(len(bench.y))[: config.attacked]
    x, y = np.asarray(bench.x)[some], np.asarray(bench.y)[some]
    found = {}
    for name, method in trainings.items():
        trained = bench.fit(method, size, 0)
        for branch in (0, 1):
            f = bench.logits_fn(trained, branch)
            result = work.evaluate(f, x, y, {'pgd-20': attacks.pgd(ball, 20)})
            found[f'{name}{branch}'] = 100 * result.robust_accuracy
    return found
