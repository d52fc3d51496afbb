"""Networks that ``experiments train`` has trained, found again in its folders."""

import dataclasses
import json
from pathlib import Path

from advjax import training
from advjax.types import LogitsFn
from experiments.commands import choices
from experiments.commands.configuration import Config, complete


def settings_of(run: Path) -> Config:
    """The configuration of a run.

    Raises:
      ValueError: if the folder is not of a run of ``experiments train``.
    """
    record = run / 'config.json'
    if not record.exists():
        raise ValueError(
            f'checkpoint must be a folder of experiments train or an .npz file, got '
            f'{run}, which holds no config.json'
        )
    known = {field.name for field in dataclasses.fields(Config)}
    found = {k: v for k, v in json.loads(record.read_text()).items() if k in known}
    return complete(Config(**found))


def trained(
    run: Path, shape: tuple[int, ...], num_classes: int, net: str | None = None
) -> tuple[LogitsFn, str]:
    """A network of a run, and its name there.

    Args:
      run: the folder.
      shape: (H, W, C) of one image.
      num_classes: K.
      net: name of its folder; by default the network that is most robust on held-out
        images.

    Raises:
      ValueError: if there is no such network.
    """
    config = settings_of(run)
    names = [p.parent.name for p in sorted(run.glob('*/checkpoints'))]
    if not names:
        raise ValueError(f'checkpoint {run} holds no trained network yet')
    if net is not None and net not in names:
        raise ValueError(f'net must be one of {names}, got {net!r}')
    name = net or max(names, key=lambda n: _held_out(run / n))
    model = choices.network(config, shape, num_classes)
    return training.restore(run / name, model), name


def adversarial(run: Path, net: str) -> bool | None:
    """Whether a network of a run was trained against an adversary.

    The results of the run say it; None where there are none. The published weights
    (.npz) are those of adversarial training.
    """
    if run.suffix == '.npz':
        return True
    record = run / 'results.json'
    nets = json.loads(record.read_text())['nets'] if record.exists() else []
    known = {each['method']: each.get('adversarial') for each in nets}
    return known.get(net.rsplit('-', 1)[0], known.get(net))


def _held_out(folder: Path) -> float:
    """The best robust accuracy on held-out images, by which networks are chosen."""
    log = folder / 'metrics.jsonl'
    lines = log.read_text().splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines]
    return max((row['held_out_robust'] or 0.0 for row in rows), default=-1.0)
