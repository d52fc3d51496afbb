"""Trains a network normally and adversarially, attacks both, and shows it.

    python -m experiments train
    python -m experiments train --dataset mnist --method fast --epochs 10
    python -m experiments train --recipe fast_cifar10
    python -m experiments train --recipe fast_cifar10 --width 0.25 --epochs 2

Question: what does an adversary do to a network, and what does adversarial training
change? The same network is trained on clean images and against an attack; both are
then attacked with everything at hand, each adversarial image is verified from
outside, and ``runs/<name>/`` receives

    report.html     one self-contained page
    results.json    the figures on it
    metrics.jsonl   one row per epoch of either training
    */checkpoints   from which a killed run goes on when the command is repeated

A recipe is the settings of a paper (``python -m experiments recipes`` lists them);
flags beside it change some. The command uses every device there is; started in several
processes with ``--distributed``, those of all of them.

Settings for MNIST are those of Wong et al. 2020 (arXiv 2001.03994): 98.5 % clean and
88.8 % under PGD-50 with 10 restarts at eps 0.3, the best of a wide spread of seeds.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, data, evaluation, losses, report, training
from advjax.balls import Ball
from advjax.training.result import write_log
from advjax.types import LogitsFn
from experiments.commands import choices, fitting, recipes
from experiments.commands.configuration import Config, complete
from experiments.commands.fitting import Trained
from experiments.frame import datasets, flags, folders, measures, process, record


def build_attacks(
    config: Config, ball: Ball, classes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The attacks on every network, and a sentence for each."""
    steps, restarts = config.strong_steps, config.restarts
    strong = attacks.pgd(ball, steps, rate=config.strong_rate)
    aimed = attacks.pgd(ball, 20, loss=losses.dlr)
    every = {
        'fgsm': (attacks.fgm(ball), 'one full step along the gradient'),
        'pgd': (attacks.pgd(ball, 20), '20 gradient steps from a random start'),
        f'pgd-{steps} x {restarts}': (
            attacks.restarts(strong, restarts),
            f'{steps} steps of {config.strong_rate:.3g} radii, from {restarts} random '
            'starts',
        ),
        'margin pgd': (
            attacks.pgd(ball, 50, loss=losses.margin),
            '50 steps against the margin between the two best answers',
        ),
        'targeted': (
            attacks.targeted(aimed, min(3, classes - 1)),
            '20 steps towards each of the likeliest wrong answers',
        ),
    }
    return {k: v[0] for k, v in every.items()}, {k: v[1] for k, v in every.items()}


def examine(
    net: LogitsFn,
    test: data.Dataset,
    named: dict[str, Any],
    ball: Ball,
    key: jax.Array,
    progress: bool,
) -> tuple[evaluation.Evaluation, evaluation.Curve]:
    """Attacks a network with everything, and at 16 radii."""
    x, y = np.asarray(data.to_float(test.images)), test.labels
    found = evaluation.evaluate(
        net, x, y, named, key=key, batch_size=min(500, len(y)), progress=progress
    )
    some = slice(0, 500)
    radii = np.float32(ball.eps) * np.arange(16, dtype=np.float32) / 5
    curve = evaluation.robustness_curve(
        net, x[some], y[some], attacks.pgd(ball, 20), radii, key=key
    )
    return found, curve


def outside_checks(
    net: LogitsFn,
    found: evaluation.Evaluation,
    test: data.Dataset,
    named: dict[str, Any],
    key: jax.Array,
) -> list[dict]:
    """Two things an attack must satisfy that its own results cannot show."""
    some = np.arange(min(16, len(test.labels)))[::-1].copy()
    x, y = np.asarray(data.to_float(test.images[some])), test.labels[some]
    moved = 0
    for attack in named.values():
        unable = balls.with_eps(attack, jnp.float32(0))
        still = measures.run_attack(unable, net, key, x, y) == x
        moved += int(jnp.sum(jnp.any(~still, axis=tuple(range(1, x.ndim)))))
    size = min(500, len(test.labels))
    again = evaluation.evaluate(net, x, y, named, key=key, ids=some, batch_size=size)
    return [
        {
            'claim': 'An attack that may change nothing changes nothing',
            'checked': len(named) * len(some),
            'failed': moved,
            'detail': 'every attack at radius 0, compared bit for bit',
        },
        {
            'claim': 'The verdict on an image does not depend on its batch',
            'checked': int(again.success.size),
            'failed': int((again.success != found.success[:, some]).sum()),
            'detail': 'attacked again in other company and reverse order',
        },
    ]


def described(
    net: Trained,
    found: evaluation.Evaluation,
    curve: evaluation.Curve,
    words: dict[str, str],
) -> report.Net:
    """One network as it is reported."""
    return report.Net(
        found,
        net.logits_fn,
        method=net.method,
        adversarial=net.fit.adversarial,
        description=choices.METHODS[net.method].words,
        attacks=words,
        curve=curve,
        history=net.fit.history,
        train_seconds=net.fit.seconds,
        events=net.fit.events,
    )


def main(
    config: Config, folder: Path, fresh: bool, progress: bool, command: str = ''
) -> dict[str, Any]:
    """Runs the experiment and returns what ``results.json`` holds.

    Of several processes each attacks all test images, on its own devices; the first
    one writes.
    """
    began = time.monotonic()
    config = complete(config)
    assert config.eps is not None
    ball = balls.of_norm(config.norm, config.eps)
    sets = fitting.load(config)
    folder = folders.opened_by_all(folder, config, fresh)
    key = jax.random.key(config.seed)
    named, words = build_attacks(config, ball, len(sets.test.class_names))
    first = jax.process_index() == 0
    trained = fitting.networks(config, sets, ball, folder, progress)

    nets, extra = {}, []
    for net in trained:
        e, curve = examine(
            net.logits_fn, sets.test, named, ball, key, progress and first
        )
        nets[net.name] = described(net, e, curve, words)
        extra.append(outside_checks(net.logits_fn, e, sets.test, named, key))
    merged = [
        {**a, **{k: sum(part[i][k] for part in extra) for k in ('checked', 'failed')}}
        for i, a in enumerate(extra[0])
    ]
    images = datasets.about_images(config.dataset)
    title = config.dataset + (f' ({images})' if images else '')
    about = record.envelope(
        f'{title}: {" and ".join(nets)}',
        config,
        command,
        time.monotonic() - began,
        {'dataset': config.dataset, 'images': images, 'seed': config.seed},
    )
    comparison = report.Comparison(
        nets,
        np.asarray(data.to_float(sets.test.images)),
        sets.test.labels,
        sets.test.class_names,
        about=about,
        checks=merged,
    )
    if not first:
        return comparison.results()
    log = {net.method: net.fit.history for net in trained}
    write_log(folder, [{'net': name, **row} for name, h in log.items() for row in h])
    return report.write(comparison, folder)


@dataclasses.dataclass(frozen=True)
class Command(Config):
    """Trains a network normally and adversarially, attacks both, and shows it."""

    recipe: recipes.Name | None = None
    """Begin with the settings of this recipe; the other flags change some."""
    name: str | None = None
    """Folder of the run; the recipe, or <dataset>-<method>, by default."""
    directory: Path = Path('runs')
    """Where runs are kept."""
    fresh: bool = False
    """Delete an earlier run of that name instead of going on with it."""
    quiet: bool = False
    """No progress bars."""
    distributed: bool = False
    """This is one of several processes that were started with the same command."""


def parse(arguments: Sequence[str]) -> Command:
    """Reads a command line, whose recipe decides what the other flags default to."""
    published = {name: recipe.config for name, recipe in recipes.RECIPES.items()}
    return flags.parse(
        Command, arguments, name='train', text=__doc__, chooser='recipe',
        presets=published,
    )  # fmt: skip


def cli(arguments: Sequence[str]) -> None:
    """Runs the command line."""
    args = parse(arguments)
    name = args.name or args.recipe or f'{args.dataset}-{args.method}'
    folder = args.directory / name
    try:
        if args.distributed:
            process.join_processes()
        process.use_compilation_cache()
        results = main(
            flags.part(Config, args),
            folder,
            args.fresh,
            sys.stderr.isatty() and not args.quiet,
            record.command_line('train', arguments),
        )
    except training.Preempted as stopped:
        print(
            f'Told to stop after {stopped.step} updates; all of them are in {folder}.'
        )
        print('The same command goes on.')
        raise
    except training.NonFiniteLossError as error:
        sys.exit(f'error: {error}')
    if jax.process_index() == 0:
        say(results, folder, recipes.RECIPES.get(args.recipe or ''))


def say(results: dict[str, Any], folder: Path, recipe: recipes.Recipe | None) -> None:
    """Prints what was found."""
    threat = results['threat_model']
    images = f' ({results["images"]})' if results['images'] else ''
    print(
        f'\nAccuracy on {results["nets"][0]["examples"]} test images of '
        f'{results["dataset"]}{images}, {threat["norm"]} perturbations of at most '
        f'{threat["eps"]:.4g}:\n\n{report.table(results)}\n'
    )
    if recipe is not None:
        print(f'{recipe.source}, in per cent: {recipes.figures(recipe)}.\n')
    events = [(net['method'], e) for net in results['nets'] for e in net['events']]
    for name, event in dict.fromkeys(events):
        print(f'{name}: {event}')
    failed = [p for p in results['proofs'] if p['failed']]
    for proof in failed:
        print(f'NOT TRUE: {proof["claim"]} ({proof["failed"]} of {proof["checked"]})')
    checked = sum(p['checked'] for p in results['proofs'])
    print(f'{checked} checks from outside, {sum(p["failed"] for p in failed)} failed.')
    print(f'Report: {folder / "report.html"}  ({results["wall_seconds"]} s)')
