"""The result of a training: the network, its history, and the files they are in."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from advjax import files, models
from advjax.models import Model
from advjax.training.checkpoint import Checkpoints, filled, numbered
from advjax.training.steps import TrainState
from advjax.types import LogitsFn, Params, State


class NonFiniteLossError(FloatingPointError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
      step: the update that could not be made.
      fit: the last good state.
    """

    def __init__(self, step: int, fit: 'Fit'):
        super().__init__(
            f'the loss or its gradient is not finite at step {step}; training stopped '
            'and the last good state is kept. Lower the learning rate, or look for a '
            'division or logarithm in the model'
        )
        self.step = step
        self.fit = fit


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained network.

    Attributes:
      model: the network.
      params: parameters of the best epoch on held-out images.
      model_state: its statistics, or {}.
      last: the state training ended with.
      history: one row per epoch, those of failed attempts included.
      events: failures and what followed, in words.
      seconds: wall time spent training, including what was spent before a resume.
      adversarial: whether the method trains against an adversary.
    """

    model: Model
    params: Params
    model_state: State
    last: TrainState
    history: tuple[Mapping[str, Any], ...]
    events: tuple[str, ...]
    seconds: float
    adversarial: bool = False

    @property
    def logits_fn(self) -> LogitsFn:
        """The trained network as attacks and evaluations take it."""
        return models.logits_fn(self.model, self.params, self.model_state)


def restore(directory: str | Path, model: Model) -> models.LogitsFn:
    """The best epoch of a run that ``fit`` kept in a directory, ready to be attacked.

    Args:
      directory: of the ``checkpoints`` given to ``fit``.
      model: the architecture that was trained.

    Returns:
      A logits function in eval mode, a pytree.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if the checkpoint belongs to another architecture.
    """
    folder = Path(directory) / 'checkpoints'
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    best = {'params': shapes[0], 'model_state': shapes[1]}
    found = None
    if folder.is_dir():
        checkpoints = Checkpoints(folder)
        found = checkpoints.restore({'best': numbered(best)})
        checkpoints.close()
    if found is None:
        raise FileNotFoundError(f'no checkpoint in {folder}')
    tree = filled(best, found[0]['best'])
    return models.logits_fn(model, tree['params'], tree['model_state'])


def write_log(directory: Path, rows: list[Mapping[str, Any]]) -> None:
    """Writes ``metrics.jsonl`` anew: all rows, or the old file if it is interrupted."""
    directory.mkdir(parents=True, exist_ok=True)
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    files.write_text(directory / 'metrics.jsonl', text)
