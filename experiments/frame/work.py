"""What a study works with: data, trained networks, results that outlive a kill."""

import functools
import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import data, evaluation, files, identity, training
from advjax.data import Dataset
from advjax.models import Model
from advjax.training.checkpoint import filled, numbered
from advjax.types import LogitsFn
from experiments.frame import datasets, folders
from experiments.frame.datasets import Sets

MADE_OF = 'identity of what it was made from'


@functools.cache
def found(dataset: str, parts: tuple[tuple[str, Any], ...]) -> tuple[Sets, dict]:
    """A data set in three parts, and what it is; digits where MNIST is missing."""
    try:
        name, sets = dataset, datasets.load(dataset, **dict(parts))
    except data.DatasetNotFound as error:
        if dataset != 'mnist':
            raise
        warnings.warn(f'digits stand in for MNIST: {error}', stacklevel=3)
        name, sets = 'digits', datasets.load('digits', **dict(parts))
    known = {'asked': dataset, 'parts': dict(parts), 'dataset': name}
    return sets, {**known, 'identity': identity.of(sets)}


class Work:
    """The folder of one run of a study, and what is done in it.

    Attributes:
      folder: the run's own folder.
      shared: the folder of networks that several studies use.
      key: one JAX key; all randomness of evaluations.
      seconds_before: wall time that earlier, interrupted runs have spent.
      data: the data sets that were loaded: what was asked for and by which parts, what
        it was, and its identity.
    """

    def __init__(self, folder: Path, shared: Path, progress: bool = False):
        self.folder, self.shared, self.progress = folder, shared, progress
        self.key = jax.random.key(0)
        self.data: list[dict[str, Any]] = []
        self._clock = folder / 'seconds.json'
        try:
            self.seconds_before = float(json.loads(self._clock.read_text())['seconds'])
        except (OSError, ValueError, KeyError, TypeError):
            self.seconds_before = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing that results depend on, for ``advjax.identity``."""
        return {}

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._note_time()

    def _note_time(self) -> None:
        spent = self.seconds_before + time.monotonic() - self._began
        folders.write_json(self._clock, {'seconds': spent})

    def say(self, text: str) -> None:
        """Says what is being done, with the time since the beginning."""
        if self.progress:
            print(f'[{time.monotonic() - self._began:6.1f} s] {text}', flush=True)

    def sets(self, dataset: str, **parts: int | None) -> Sets:
        """Loads a data set in three parts; digits where MNIST is missing.

        Args:
          dataset: as in ``advjax.data.load``.
          **parts: ``train_images``, ``test_images``, ``held_out``; see
            ``datasets.load``.
        """
        sets, known = found(dataset, tuple(sorted(parts.items())))
        if known not in self.data:
            self.data.append(known)
        return sets

    def images(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """The images as float32 in [0, 1], and their labels."""
        return np.asarray(data.to_float(dataset.images)), dataset.labels

    def keep(
        self, name: str, compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, np.ndarray]:
        """Computes something once; a run that was killed reads it again.

        It is computed again where the code, the data or the networks that ``compute``
        uses are no longer those that the stored result came from.

        Args:
          name: of this part of the study, a valid file name.
          compute: returns arrays and numbers by name.

        Returns:
          The same as NumPy arrays.
        """
        path, made_of = self.folder / f'{name}.npz', identity.of(compute)
        try:
            found: dict[str, Any] = files.load_npz(path)
            if str(found.pop(MADE_OF, '')) == made_of:
                return found
            self.say(f'{name}: made from other code or data, done again')
        except FileNotFoundError:
            self.say(name)
        except files.DamagedError as error:
            warnings.warn(f'{path} cannot be read, done again: {error}', stacklevel=2)
        found = {key: np.asarray(value) for key, value in compute().items()}
        for key, value in found.items():
            if value.dtype == object:
                raise ValueError(f'{name}: {key} must be an array, got {value!r}')
        with files.replaced(path) as unfinished, open(unfinished, 'wb') as file:
            whole: dict[str, Any] = {**found, MADE_OF: np.array(made_of)}
            np.savez(file, **whole)
        self._note_time()
        return found

    def keep_tree(self, name: str, compute: Callable[[], Any], like: Any) -> Any:
        """``keep`` for a pytree of arrays, such as parameters.

        Args:
          name: of this part of the study, a valid file name.
          compute: returns the pytree.
          like: of the same structure.
        """
        found = self.keep(name, lambda: numbered(compute()))
        return filled(like, jax.tree.map(jnp.asarray, found))

    def fit(
        self,
        name: str,
        method: training.Method,
        model: Model,
        sets: Sets,
        *,
        epochs: int,
        batch_size: int = 100,
        learning_rate: float = 5e-3,
        optimizer: optax.GradientTransformation | None = None,
        seed: int = 0,
        shared: bool = False,
        **options: Any,
    ) -> training.Fit:
        """Trains a network once, and goes on with it where it was interrupted.

        Checkpoints of other code, data or settings are deleted.

        Args:
          name: folder of the network within the run.
          method: from ``advjax.training``.
          model: the network.
          sets: its ``train`` and ``held_out`` are used.
          epochs: passes over the training images.
          batch_size: images per step.
          learning_rate: peak of Adam's triangular schedule.
          optimizer: instead of that Adam.
          seed: of initialisation, order and attack.
          shared: keep it where other studies find it; ``name`` must then tell its
            settings apart from all others.
          **options: see ``training.fit``.
        """
        if optimizer is None:
            steps = epochs * -(-len(sets.train.labels) // batch_size)
            optimizer = optax.adam(training.triangular(learning_rate, steps))
        self.say(f'training {name}')
        directory = self.shared / name if shared else self.folder / 'nets' / name

        def train() -> training.Fit:
            return training.fit(
                method,
                model,
                optimizer,
                sets.train,
                sets.held_out,
                key=jax.random.key(seed),
                epochs=epochs,
                batch_size=batch_size,
                checkpoints=directory,
                **options,
            )

        try:
            fit = train()
        except training.OtherTrainingError:
            self.say(f'{name}: made from other code or data, trained again')
            shutil.rmtree(directory)
            fit = train()
        self._note_time()
        return fit

    def evaluate(
        self, logits_fn: LogitsFn, x: Any, y: Any, attacks: Any, **options: Any
    ) -> evaluation.Evaluation:
        """Attacks a network and verifies; see ``evaluation.evaluate``."""
        options = {'batch_size': min(500, len(y)), **options}
        return evaluation.evaluate(logits_fn, x, y, attacks, key=self.key, **options)
