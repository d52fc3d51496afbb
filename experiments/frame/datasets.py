"""A data set in the three parts that experiments need."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from advjax import data
from advjax.data import Dataset, prepared


class Sets(NamedTuple):
    """Images to train on, to choose the best epoch by, and to attack."""

    train: Dataset
    held_out: Dataset
    test: Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return self.train.images.shape[1:]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.class_names)


def load(
    dataset: str,
    *,
    train_images: int | None = None,
    test_images: int | None = None,
    held_out: int | None = None,
) -> Sets:
    """Loads a data set in three parts.

    Args:
      dataset: as in ``advjax.data.load``.
      train_images: only this many random images to train on.
      test_images: only this many random images to test on.
      held_out: training images kept apart; a tenth, at most 1000, by default.

    Raises:
      ValueError: for a number of images that is not positive.
    """
    asked = {'train_images': train_images, 'test_images': test_images}
    for name, count in {**asked, 'held_out': held_out}.items():
        if count is not None and count < 1:
            raise ValueError(f'{name} must be an integer >= 1, got {count!r}')
    train, test = (data.load(dataset, split) for split in ('train', 'test'))
    kept = held_out or min(1000, len(train.labels) // 10)
    rest, held = data.split_held_out(train, kept, seed=0)
    return Sets(_some(rest, train_images), held, _some(test, test_images))


def _some(dataset: Dataset, count: int | None) -> Dataset:
    if count is None or count >= len(dataset.labels):
        return dataset
    return data.split_held_out(dataset, count, seed=0)[1]


def first(dataset: Dataset, count: int) -> Dataset:
    """The first images of a set."""
    return dataset._replace(
        images=dataset.images[:count], labels=dataset.labels[:count]
    )


def about_images(dataset: str) -> str:
    """'re-encoded JPEGs' if a prepared data set says so of itself, or ''."""
    if dataset == 'digits':
        return ''
    try:
        folder = Path(prepared.open_set(dataset, None).data_path)
        said = json.loads((folder / 'dataset_info.json').read_text())['description']
    except (data.DatasetNotFound, OSError, ValueError, KeyError):
        return ''
    return 're-encoded JPEGs' if re.search('JPEG re-?encod', said) else ''
