"""Attacks a trained network with any attack of the library, and shows what was found.

    python -m experiments attack --checkpoint runs/digits-pgd_at --attack autoattack
    python -m experiments attack --checkpoint runs/x --attack apgd --eps 0.3

The network is that of a run of ``experiments train`` (the adversarially trained one,
unless ``--net`` names another of its folders), or the published MNIST network of Wong
et al. 2020 from its ``.npz`` (then the run is ``runs/<weights>``).
``<run>/attacks/<name>/`` receives

    report.html      one self-contained page
    results.json     the figures on it
    verdicts.csv     one row per image: what broke it, at which distance, at what cost
    evaluation.npz   the adversarial images, from which a killed command goes on

AutoAttack and all attacks with restarts or targets run as a cascade: each part sees
only what the ones before it left standing. A minimum-norm attack searches without a
radius; the accuracy at eps, and the curve over all radii, follow from its distances.
"""

import csv
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from advjax import attacks, balls, data, evaluation, losses, report, zoo
from advjax.attacks import Entry
from advjax.evaluation import CLEAN_ERROR, ROBUST
from advjax.models import logits_fn
from experiments.commands import runs
from experiments.frame import datasets, flags, process, record


@dataclasses.dataclass(frozen=True)
class Config:
    """Attacks a trained network with any attack, and shows what was found."""

    checkpoint: Path
    """Folder of a run of experiments train, or weights of Wong et al. (.npz)."""
    attack: str = 'autoattack'
    """Name of the attack: see attacks.catalogue()."""
    net: str | None = None
    """Folder within the run; the best adversarially trained network by default."""
    dataset: str | None = None
    """Data set; the one the run was trained on by default."""
    norm: Literal['linf', 'l2', 'l1', 'l0'] | None = None
    """Norm of the perturbation; the run's by default."""
    eps: float | None = None
    """Radius, pixels in [0, 1] (L0: coordinates); the run's by default."""
    loss: Literal['cross_entropy', 'margin', 'dlr'] | None = None
    """What the attack maximises, if it has a choice."""
    version: Literal['standard', 'plus', 'rand'] | None = None
    """Of AutoAttack."""
    steps: int | None = None
    """Steps, if the attack has a number of them."""
    queries: int | None = None
    """Budget of queries, if the attack has one."""
    restarts: int = 1
    """Random restarts."""
    targets: int = 0
    """Aim at this many of the likeliest wrong classes in turn."""
    images: int | None = None
    """Attack only the first this many test images."""
    batch_size: int = 250
    """Images per compiled call."""
    seed: int = 0
    """Of everything random."""


def entry_of(name: str) -> Entry:
    """The catalogue's entry of that name.

    Raises:
      ValueError: listing the names there are.
    """
    known = {entry.name: entry for entry in attacks.catalogue()}
    if name not in known:
        raise ValueError(f'attack must be one of {list(known)}, got {name!r}')
    return known[name]


def load(config: Config) -> tuple[Any, dict[str, Any], str, data.Dataset]:
    """The network, the settings of its run, its name, and the test images.

    Raises:
      ValueError: if there is no such network.
    """
    if config.checkpoint.suffix == '.npz':
        if not config.checkpoint.exists():
            raise ValueError(f'checkpoint {config.checkpoint} does not exist')
        settings = {'dataset': 'mnist', 'norm': 'linf', 'eps': 0.3}
        weights = zoo.load_fast_mnist(config.checkpoint)
        model = logits_fn(zoo.fast_mnist(), weights)
        test = data.load(config.dataset or 'mnist', 'test')
        return model, settings, config.checkpoint.stem, test
    settings = dataclasses.asdict(runs.settings_of(config.checkpoint))
    test = data.load(config.dataset or settings['dataset'], 'test')
    shape, classes = test.images.shape[1:], len(test.class_names)
    model, name = runs.trained(config.checkpoint, shape, classes, config.net)
    return model, settings, name, test


OPTIONS = ('loss', 'version', 'steps', 'queries')
"""Flags that are handed to the attack, if it has them."""


def build(config: Config, entry: Entry, norm: str, eps: float, classes: int) -> Any:
    """The attack with the settings of the command line.

    Raises:
      ValueError: for a setting that the attack does not have.
    """
    given = {name: getattr(config, name) for name in OPTIONS}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    if 'loss' in options:
        options['loss'] = getattr(losses, options['loss'])
    if entry.name == 'autoattack':
        options['classes'] = classes
    radius = None if entry.looks_for == 'minimum norm' else eps
    attack = entry.build(norm, radius, **options)
    if config.targets:
        attack = attacks.targeted(attack, config.targets)
    if config.restarts != 1:
        attack = attacks.restarts(attack, config.restarts)
    return attack


def _options(config: Config) -> str:
    """What differs from the default, for the name of the folder."""
    apart = ('checkpoint', 'attack', 'net', 'norm', 'eps')
    return ''.join(
        f'-{field.name}={getattr(config, field.name)}'
        for field in dataclasses.fields(config)
        if field.name not in apart and getattr(config, field.name) != field.default
    )


def sentences(names: Sequence[str], entry: Entry) -> dict[str, str]:
    """What is known of each attack that took part."""
    known = {e.name: e for e in attacks.catalogue()}
    # A member of AutoAttack is a form of an attack of its own.
    own = {name: known.get(name.split('_')[0], entry) for name in names}
    return {name: f'{e.knowledge}; {e.paper}' for name, e in own.items()}


def write_verdicts(
    path: Path, found: evaluation.Evaluation, labels: np.ndarray
) -> None:
    """One row per image, for a spreadsheet or pandas."""
    broken, names = found.broken_by, {CLEAN_ERROR: 'clean error', ROBUST: 'robust'}
    with open(path, 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(
            ['image', 'label', 'clean', 'broken_by', 'prediction', 'norm', 'calls']
        )
        for i, number in enumerate(broken):
            verdict = names.get(int(number)) or found.names[number]
            norm = f'{found.norm[number, i]:.6g}' if number >= 0 else ''
            calls = found.calls[:, i]
            rows.writerow([
                i, labels[i], found.clean_prediction[i], verdict, found.prediction[i],
                norm, calls[calls > 0].sum(),
            ])  # fmt: skip


def main(
    config: Config, folder: Path | None, progress: bool, command: str = ''
) -> dict[str, Any]:
    """Runs the attack and returns what ``results.json`` holds."""
    began = time.monotonic()
    entry = entry_of(config.attack)
    model, settings, name, test = load(config)
    dataset = config.dataset or settings['dataset']
    norm = config.norm or (settings['norm'] if entry.norms else 'linf')
    if entry.norms and config.norm is None and norm not in entry.norms:
        norm = entry.norms[0]
    eps = config.eps
    if eps is None:
        other = entry.norms and norm != settings['norm']
        if other and entry.looks_for != 'minimum norm':
            raise ValueError(
                f'eps must be given for norm {norm}: the run was trained with '
                f'{settings["norm"]}'
            )
        eps = settings['eps']
    if not eps > 0:
        raise ValueError(f'eps must be > 0, got {eps}')
    if config.images is not None:
        if not config.images >= 1:
            raise ValueError(f'images must be >= 1, got {config.images}')
        test = datasets.first(test, config.images)
    attack = build(config, entry, norm, eps, len(test.class_names))
    ball = balls.of_norm(norm, eps)
    if entry.looks_for == 'minimum norm':
        ball = balls.with_eps(ball, np.float32(np.inf))
    elif not entry.norms:
        # A moved image is in no ball; its range and the answer are what is checked.
        ball = balls.of_norm('linf', 1.0)
    home = config.checkpoint
    if folder is None:
        home = Path('runs') / home.stem if home.suffix == '.npz' else home
        folder = home / 'attacks' / f'{name}-{config.attack}-{norm}-{eps:.4g}'
        folder = folder.with_name(folder.name + _options(config))
    named = attack if hasattr(attack, 'members') else {config.attack: attack}
    images = np.asarray(data.to_float(test.images))
    found = evaluation.evaluate(
        model,
        images,
        test.labels,
        named,
        key=jax.random.key(config.seed),
        ball=ball,
        batch_size=min(config.batch_size, len(test.labels)),
        survivors=True,
        folder=folder,
        progress=progress,
    )
    about = record.envelope(
        f'{dataset}: {config.attack} on {name}',
        config,
        command,
        time.monotonic() - began,
        {'dataset': dataset, 'seed': config.seed},
    )
    net = report.Net(
        found,
        model,
        method=name.rsplit('-', 1)[0],
        adversarial=runs.adversarial(config.checkpoint, name),
        attacks=sentences(found.names, entry),
    )
    comparison = report.Comparison(
        {name: net},
        images,
        test.labels,
        test.class_names,
        eps=eps if entry.looks_for == 'minimum norm' else None,
        about=about,
    )
    write_verdicts(folder / 'verdicts.csv', found, test.labels)
    results = report.write(comparison, folder)
    results['folder'] = str(folder)
    return results


@dataclasses.dataclass(frozen=True)
class Command(Config):
    """Attacks a trained network with any attack, and shows what was found."""

    directory: Path | None = None
    """Folder of the results; <run>/attacks/<net>-<attack>-<norm>-<eps> by default."""
    quiet: bool = False
    """No progress bar."""


def cli(arguments: Sequence[str]) -> None:
    """Runs the command line."""
    args = flags.parse(Command, arguments, name='attack', text=__doc__)
    process.use_compilation_cache()
    results = main(
        flags.part(Config, args),
        args.directory,
        sys.stderr.isatty() and not args.quiet,
        record.command_line('attack', arguments),
    )
    net, threat = results['nets'][0], results['threat_model']
    print(
        f'\nAccuracy of {net["name"]} on {net["examples"]} test images of '
        f'{results["dataset"]}, {threat["norm"]} perturbations of at most '
        f'{threat["eps"]:.4g}:\n\n{report.table(results)}\n'
    )
    if 'distance' in net:
        distance = net['distance']
        print(
            f'Distance of the {distance["found"]} adversarial images: median '
            f'{distance["median"]:.4g}, mean {distance["mean"]:.4g}.'
        )
    checked = sum(p['checked'] for p in results['proofs'])
    failed = sum(p['failed'] for p in results['proofs'])
    print(f'{checked} checks from outside, {failed} failed.')
    print(f'Report: {results["folder"]}/report.html  ({results["wall_seconds"]} s)')
