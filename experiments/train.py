"""Trains a network normally and adversarially, attacks both, and shows it.

    python -m experiments.train
    python -m experiments.train --dataset mnist --method fast --epochs 10

Question: what does an adversary do to a network, and what does adversarial training
change? The same network is trained on clean images and against an attack; both are
then attacked with everything at hand, each adversarial image is verified from
outside, and ``runs/<name>/`` receives

    report.html     one self-contained page
    results.json    the figures on it
    metrics.jsonl   one row per epoch of either training
    */checkpoints   from which a killed run goes on when the command is repeated

Settings for MNIST are those of Wong et al. 2020 (arXiv 2001.03994): 98.5 % clean and
88.8 % under PGD-50 with 10 restarts at eps 0.3, the best of a wide spread of seeds.
"""

import dataclasses
import datetime
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

from advjax import attacks, balls, data, evaluation, losses, training
from advjax.balls import Ball
from advjax.evaluation import page
from advjax.training.loop import write_log
from experiments import common
from experiments.reporting import examples_of, proofs, table

Name = Literal['standard', 'fgsm_at', 'pgd_at', 'fast', 'trades']


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run; those left at None depend on the data set."""

    dataset: str = 'digits'
    """digits, or any image-classification set of tensorflow-datasets."""
    method: Name = 'pgd_at'
    """How the second network is trained."""
    model: Literal[
        'fast_mnist', 'madry_mnist', 'mlp', 'maxout', 'softmax_regression'
    ] = 'fast_mnist'
    """The network, from advjax.zoo."""
    norm: Literal['linf', 'l2', 'l1'] = 'linf'
    """Norm of the perturbation."""
    eps: float | None = None
    """Radius of the perturbation, pixels in [0, 1]."""
    epochs: int | None = None
    """Passes over the training images."""
    batch_size: int | None = None
    """Images per step."""
    learning_rate: float = 5e-3
    """Peak of Adam's triangular schedule."""
    attack_steps: int | None = None
    """Attack steps in training, for pgd_at and trades."""
    beta: float = 6.0
    """Weight of the TRADES divergence."""
    seed: int = 0
    """Of everything random."""
    seeds: int = 1
    """Adversarial trainings to choose from by robust accuracy on held-out images."""
    held_out: int | None = None
    """Training images kept apart to choose and to watch by."""
    test_images: int | None = None
    """Attack only this many random test images."""
    restarts: int = 3
    """Restarts of the strongest attack."""
    on_failure: Literal['restart', 'rollback'] = 'restart'
    """After catastrophic overfitting or collapse: next seed, or back to the best."""


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What depends on the data set."""

    eps: float = 8 / 255
    epochs: int = 15
    batch_size: int = 128
    attack_steps: int = 7
    held_out: int = 1000


DEFAULTS = {
    'digits': Defaults(eps=0.15, epochs=30, batch_size=64, held_out=200),
    'mnist': Defaults(eps=0.3, epochs=10, batch_size=100, attack_steps=10),
    'fashion_mnist': Defaults(eps=0.1, batch_size=100),
}
L2_EPS = {'digits': 0.75, 'mnist': 2.0}


def complete(config: Config) -> Config:
    """Fills in what the data set decides."""
    known = dataclasses.asdict(DEFAULTS.get(config.dataset, Defaults()))
    if config.norm == 'l2':
        known['eps'] = L2_EPS.get(config.dataset, 0.5)
    if config.norm == 'l1' and config.eps is None:
        raise ValueError('eps must be given for norm l1: no radius is customary')
    for name, value, least in (
        ('eps', config.eps, 0),
        ('learning_rate', config.learning_rate, 0),
        ('seeds', config.seeds, 1),
        ('test_images', config.test_images, 1),
        ('held_out', config.held_out, 1),
    ):
        # Zero is no radius and no rate to train with; 0 < inf < inf is false.
        if value is not None and not (least <= value < float('inf') and value > 0):
            allowed = f'at least {least}' if least else 'positive and finite'
            raise ValueError(f'{name} must be {allowed}, got {value}')
    left = {k: v for k, v in known.items() if getattr(config, k) is None}
    return dataclasses.replace(config, **left)


def build_method(config: Config, ball: Ball) -> training.Method:
    """Returns the training method that a configuration names."""
    return {
        'standard': lambda: training.standard(),
        'fgsm_at': lambda: training.fgsm_at(ball),
        'pgd_at': lambda: training.pgd_at(ball, config.attack_steps),
        'fast': lambda: training.fast(ball),
        'trades': lambda: training.trades(ball, config.beta, config.attack_steps),
    }[config.method]()


def build_attacks(ball: Ball, classes: int, restarts: int) -> dict[str, Any]:
    """The attacks that both networks are put to, with a sentence each."""
    strong = attacks.pgd(ball, 50, rate=1 / 30)
    aimed = attacks.pgd(ball, 20, loss=losses.dlr)
    return {
        'fgsm': (attacks.fgm(ball), 'one full step along the gradient'),
        'pgd': (attacks.pgd(ball, 20), '20 gradient steps from a random start'),
        f'pgd-50 x {restarts}': (
            attacks.restarts(strong, restarts),
            f'50 smaller steps, from {restarts} random starts',
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


def train(
    config: Config,
    method: training.Method,
    parts: tuple[data.Dataset, data.Dataset],
    ball: Ball,
    folder: Path,
    seed: int,
    progress: bool,
) -> training.Fit:
    """Trains one network in its own folder."""
    rest, held_out = parts
    shape, classes = rest.images.shape[1:], len(rest.class_names)
    model = common.build_model(config.model, shape, classes)
    steps = config.epochs * -(-len(rest.labels) // config.batch_size)
    optimizer = optax.adam(training.triangular(config.learning_rate, steps))
    return training.fit(
        method,
        model,
        optimizer,
        rest,
        held_out,
        jax.random.key(seed),
        epochs=config.epochs,
        batch_size=config.batch_size,
        attack=attacks.pgd(ball, 20),
        directory=folder,
        on_failure=config.on_failure,
        progress=progress,
    )


def best_of(fits: list[training.Fit]) -> training.Fit:
    """The training whose best epoch is most robust on held-out images."""
    return max(fits, key=lambda f: max(row['held_out_robust'] for row in f.history))


def examine(
    fit: training.Fit,
    test: data.Dataset,
    named: dict[str, Any],
    ball: Ball,
    key: jax.Array,
    progress: bool,
) -> tuple[evaluation.Evaluation, evaluation.Curve]:
    """Attacks a network with everything, and at 16 radii."""
    x, y = np.asarray(data.to_float(test.images)), test.labels
    only = {name: attack for name, (attack, _) in named.items()}
    found = evaluation.evaluate(
        fit.logits_fn, x, y, only, key, batch_size=min(500, len(y)), progress=progress
    )
    some = slice(0, 500)
    radii = np.float32(ball.eps) * np.arange(16, dtype=np.float32) / 5
    curve = evaluation.robustness_curve(
        fit.logits_fn, x[some], y[some], attacks.pgd(ball, 20), radii, key
    )
    return found, curve


def outside_checks(
    fit: training.Fit,
    found: evaluation.Evaluation,
    test: data.Dataset,
    named: dict[str, Any],
    key: jax.Array,
) -> list[dict]:
    """Two things an attack must satisfy that its own results cannot show."""
    some = np.arange(min(16, len(test.labels)))[::-1].copy()
    x, y = np.asarray(data.to_float(test.images[some])), test.labels[some]
    still = sum(
        common.unchanged_at_zero(attack, fit.logits_fn, key, x, y)
        for attack, _ in named.values()
    )
    only = {name: attack for name, (attack, _) in named.items()}
    again = evaluation.evaluate(
        fit.logits_fn,
        x,
        y,
        only,
        key,
        ids=some,
        batch_size=min(500, len(test.labels)),
    )
    return [
        {
            'claim': 'An attack that may change nothing changes nothing',
            'checked': len(named) * len(some),
            'failed': len(named) * len(some) - still,
            'detail': 'every attack at radius 0, compared bit for bit',
        },
        {
            'claim': 'The verdict on an image does not depend on its batch',
            'checked': int(again.success.size),
            'failed': int((again.success != found.success[:, some]).sum()),
            'detail': 'attacked again in other company and reverse order',
        },
    ]


def describe(
    name: str,
    fit: training.Fit,
    found: evaluation.Evaluation,
    curve: evaluation.Curve,
    named: dict[str, Any],
) -> dict[str, Any]:
    """One network's part of ``results.json``."""
    summary = found.summary()
    for row in summary['attacks']:
        row['description'] = named[row['name']][1]
    words = {
        'standard': 'trained on clean images',
        'fgsm_at': 'trained on clean and one-step adversarial images',
        'pgd_at': 'trained on adversarial images',
        'fast': 'trained on one-step adversarial images from random starts',
        'trades': 'trained to answer alike on clean and adversarial images',
    }
    return {
        'name': name,
        'method': name,
        'description': words[name],
        **summary,
        'curve': {'eps': curve.eps.tolist(), 'accuracy': curve.accuracy.tolist()},
        'history': list(fit.history),
        'train_seconds': fit.seconds,
        'events': list(fit.events),
    }


def main(config: Config, folder: Path, fresh: bool, progress: bool) -> dict[str, Any]:
    """Runs the experiment and returns what ``results.json`` holds."""
    began = time.monotonic()
    config = complete(config)
    ball = balls.of_norm(config.norm, config.eps)
    test = data.load(config.dataset, 'test')
    parts = data.split_held_out(
        data.load(config.dataset, 'train'), config.held_out, seed=0
    )
    if config.test_images is not None and config.test_images < len(test.labels):
        test = data.split_held_out(test, config.test_images, seed=0)[1]
    folder = common.run_folder(folder, config, fresh)
    key = jax.random.key(config.seed)
    named = build_attacks(ball, len(test.class_names), config.restarts)

    fits = []
    normally = training.standard()
    fits.append(
        ('standard', train(config, normally, parts, ball, folder / 'standard',
                           config.seed, progress))
    )  # fmt: skip
    if config.method != 'standard':
        robustly = build_method(config, ball)
        tried = [
            train(config, robustly, parts, ball, folder / f'{config.method}-{seed}',
                  seed, progress)
            for seed in range(config.seed, config.seed + config.seeds)
        ]  # fmt: skip
        fits.append((config.method, best_of(tried)))

    found, nets, extra = [], [], []
    for name, fit in fits:
        e, curve = examine(fit, test, named, ball, key, progress)
        found.append(e)
        nets.append(describe(name, fit, e, curve, named))
        extra.append(outside_checks(fit, e, test, named, key))
    merged = [
        {**a, **{k: sum(part[i][k] for part in extra) for k in ('checked', 'failed')}}
        for i, a in enumerate(extra[0])
    ]
    results = {
        'title': f'{config.dataset}: {" and ".join(name for name, _ in fits)}',
        'dataset': config.dataset,
        'class_names': list(test.class_names),
        'threat_model': {
            'norm': type(ball).__name__,
            'eps': config.eps,
            'bounds': list(ball.bounds),
        },
        'config': dataclasses.asdict(config),
        'command': common.command('experiments.train'),
        'seed': config.seed,
        'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'wall_seconds': round(time.monotonic() - began, 1),
        'environment': common.environment(),
        'nets': nets,
        'proofs': proofs(found, ball, merged),
    }
    common.write_json(folder / 'results.json', results)
    rows = [{'net': net['name'], **row} for net in nets for row in net['history']]
    write_log(folder, rows)
    page.write(
        folder / 'report.html',
        results,
        examples_of([(n, fit.logits_fn) for n, fit in fits], found, test),
    )
    return results


@dataclasses.dataclass(frozen=True)
class Command(Config):
    """Trains a network normally and adversarially, attacks both, and shows it."""

    name: str | None = None
    """Folder of the run; <dataset>-<method> by default."""
    directory: Path = Path('runs')
    """Where runs are kept."""
    fresh: bool = False
    """Delete an earlier run of that name instead of going on with it."""
    quiet: bool = False
    """No progress bars."""


def cli() -> None:
    """Entry point of ``python -m experiments.train``."""
    import tyro

    args = tyro.cli(Command, description=__doc__)
    common.use_compilation_cache()
    config = Config(
        **{f.name: getattr(args, f.name) for f in dataclasses.fields(Config)}
    )
    name = args.name or f'{config.dataset}-{config.method}'
    folder = args.directory / name
    try:
        progress = sys.stderr.isatty() and not args.quiet
        results = main(config, folder, args.fresh, progress)
    except (ValueError, OSError, training.NonFiniteLossError) as error:
        sys.exit(f'error: {error}')
    threat = results['threat_model']
    print(
        f'\nAccuracy on {results["nets"][0]["examples"]} test images of '
        f'{results["dataset"]}, {threat["norm"]} perturbations of at most '
        f'{threat["eps"]:.4g}:\n\n{table(results)}\n'
    )
    for net in results['nets']:
        for event in net['events']:
            print(f'{net["name"]}: {event}')
    failed = [p for p in results['proofs'] if p['failed']]
    for proof in failed:
        print(f'NOT TRUE: {proof["claim"]} ({proof["failed"]} of {proof["checked"]})')
    checked = sum(p['checked'] for p in results['proofs'])
    print(f'{checked} checks from outside, {sum(p["failed"] for p in failed)} failed.')
    print(f'Report: {folder / "report.html"}  ({results["wall_seconds"]} s)')


if __name__ == '__main__':
    cli()
