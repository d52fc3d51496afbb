"""Batches of a data set that does not fit into memory, read ahead by grain.

    stream = data.stream('imagenet2012', 'train', batch_size=1024, transform=crop)
    for batch in stream.batches(epoch=0):
        ...                                # 'image' uint8 (B_local, H, W, C), ...

A batch is a function of the seed and the step: ``stream.batch(k)`` is that of step k,
counted over all epochs. Its examples and their order depend neither on the number of
processes nor on what was read before, so training resumes with the step alone.
Process p of P reads rows p B / P to (p + 1) B / P of each batch, which
``jax.make_array_from_process_local_data`` puts together.

Pixels stay uint8 on their way to the device, where ``data.to_float`` converts them.
"""

import dataclasses
import hashlib
import json
import operator
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from advjax.data import prepared
from advjax.data.sources import Dataset

_THREADS = 8
_READ_AHEAD = 8
"""Batches that are read before they are asked for, by each process or worker."""

_ENDLESS = 2**62


class Stream:
    """A source of batches; build it with ``stream``.

    Attributes:
      size: examples in the data set.
      batch_size: B, over all processes.
      batches_per_epoch: ceil(size / B).
      shape: (H, W, C) of an image.
      class_names: one per class, or () where they are not known.
      seed: what the order is made from.
    """

    def __init__(self, reader: '_Reader', workers: int, origin: dict[str, Any]):
        self._reader, self._workers, self._origin = reader, workers, origin
        self.size = reader.size
        self.batch_size = reader.batch_size
        self.batches_per_epoch = -(-reader.size // reader.batch_size)
        self.seed = reader.seed
        self.class_names: tuple[str, ...] = tuple(origin['class_names'])
        with prepared.without_advice():
            self.shape: tuple[int, ...] = reader.read(0)[0].shape
        reader.shape = self.shape
        self._open: Any = None
        self._open_at = -1
        self._next = 0

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of the batch of a step, counted over all epochs."""
        return self._reader.batch(operator.index(step))

    def batches(
        self, epoch: int | None = None, first: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of an epoch, with the next ones read ahead.

        Args:
          epoch: which one, from 0. None continues from the position of the stream: the
            beginning, after the last batch given, or where ``restore`` put it.
          first: the batch to begin with; None is 0, or the position of the stream if
            ``epoch`` is None too.

        Yields:
          'image' uint8 (B_local, H, W, C), 'label' int32, 'index' int32 (the
          position in the data set) and 'mask' bool, each (B_local,). Each example
          comes once an epoch under the mask. The last batch is filled up with examples
          from the beginning of the epoch, whose mask is False.

        Raises:
          ValueError: if there is no such batch, or for a damaged example.
        """
        count = self.batches_per_epoch
        if epoch is None:
            if first is not None:
                raise ValueError(f'epoch must be given with first, got first={first}')
            epoch, first = divmod(self._next, count)
        first = 0 if first is None else first
        if epoch < 0 or not 0 <= first <= count:
            raise ValueError(
                f'epoch must be >= 0 and first from 0 to {count}, got {epoch} and '
                f'{first}'
            )
        return self._from(epoch * count + first, (epoch + 1) * count)

    def _from(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(start, stop):
            if self._open_at != step:
                self.close()
                self._open, self._open_at = self._reading(step), step
            batch = next(self._open)
            self._open_at = self._next = step + 1
            yield batch

    def _reading(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        from absl import flags

        grain = _grain()
        steps = grain.MapDataset.range(step, _ENDLESS)
        options = grain.ReadOptions(
            num_threads=_THREADS, prefetch_buffer_size=_READ_AHEAD
        )
        ahead = steps.map(self._reader.batch).to_iter_dataset(options)
        if self._workers:
            # grain reads flags of absl, which only absl's own main parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            ahead = ahead.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers)
            )
        return iter(ahead)

    def close(self) -> None:
        """Stops reading ahead; ``batches`` begins anew."""
        if self._open is not None:
            self._open.close()
        self._open, self._open_at = None, -1

    def state(self) -> dict[str, Any]:
        """The position of the stream, after the last batch given, as JSON values."""
        epoch, batch = divmod(self._next, self.batches_per_epoch)
        return {'epoch': epoch, 'batch': batch, **self._identity()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the position of another stream of the same data.

        The number of processes and of workers may have changed.

        Raises:
          ValueError: if the state is of another set, seed or batch size.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f'state must be of a stream with {name} {value!r}, got '
                    f'{state.get(name)!r}'
                )
        self._next = state['epoch'] * self.batches_per_epoch + state['batch']

    def fingerprint(self) -> str:
        """Identifies what the stream gives, by the description and the first image."""
        first = hashlib.sha256(self._reader.read(0)[0].tobytes()).hexdigest()
        described = {**self._origin, **self._identity(), 'first': first}
        text = json.dumps(described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _identity(self) -> dict[str, int]:
        return {'seed': self.seed, 'size': self.size, 'batch_size': self.batch_size}


def stream(
    source: Any,
    split: str = 'train',
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Stream:
    """Opens a data set for reading batch by batch.

    Args:
      source: the tfds name of a prepared image classification set, a
        ``data.Dataset``, or any object with ``len(source)`` and ``source[i]`` giving
        {'image': uint8 (H, W, C), 'label': int}.
      split: of a named set, in any of tfds' forms.
      batch_size: B, over all processes.
      seed: of the order, which differs between epochs.
      workers: processes that read and decode, which need ``source`` and ``transform``
        to be picklable; 0 uses threads of this process.
      data_dir: where tfds keeps its sets; by default ``$TFDS_DATA_DIR``, then
        ``~/tensorflow_datasets``.
      process_index: which of the processes this is; by default JAX's.
      process_count: how many there are; by default JAX's.
      transform: maps an image, uint8 (H, W, C), to one of a common size, which sets
        like ImageNet need. It draws nothing: random augmentation belongs on the device,
        by the key of the example (``data.augment``).

    Raises:
      ValueError: for arguments out of range, or images of different sizes without a
        transform.
      DatasetNotFound: if a named set is not prepared.
      ImportError: naming the package to install.
    """
    _grain()
    index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if process_count is None else process_count
    _check(batch_size, seed, workers, index, count)
    if transform is not None and not callable(transform):
        raise ValueError(f'transform must be a function or None, got {transform!r}')
    keys = ('image', 'label')
    if isinstance(source, str):
        examples, keys, origin = _named(source, split, data_dir, transform is None)
    elif isinstance(source, Dataset):
        examples = _Rows(source.images, source.labels)
        origin = {
            'name': source.name,
            'split': source.split,
            'class_names': source.class_names,
        }
    else:
        examples = source
        origin = {'name': type(source).__name__, 'split': '', 'class_names': ()}
    if not len(examples):
        raise ValueError('source must hold examples, got none')
    reader = _Reader(
        examples, keys, len(examples), batch_size, seed, index, count, transform
    )
    return Stream(reader, workers, origin)


def _check(batch_size: int, seed: int, workers: int, index: int, count: int) -> None:
    for name, value, least in (
        ('batch_size', batch_size, 1),
        ('seed', seed, 0),
        ('workers', workers, 0),
        ('process_count', count, 1),
        ('process_index', index, 0),
    ):
        if not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f'{name} must be an integer >= {least}, got {value!r}')
    if seed >= 2**32:
        raise ValueError(f'seed must be below 2**32, got {seed}')
    if index >= count:
        raise ValueError(
            f'process_index must be below process_count={count}, got {index}'
        )
    if batch_size % count:
        raise ValueError(
            f'batch_size must be a multiple of the {count} processes, got {batch_size}'
        )


def _grain() -> Any:
    try:
        import grain
    except ModuleNotFoundError as error:
        raise ImportError(
            'advjax.data.stream needs grain: pip install grain'
        ) from error
    return grain


def _named(
    name: str, split: str, data_dir: Any, fixed: bool
) -> tuple[Any, tuple[str, str], dict[str, Any]]:
    """A prepared set of tfds: its source, its keys and its description."""
    builder = prepared.open_set(name, data_dir)
    keys = prepared.image_and_label(name, builder.info, one_size=fixed)
    prepared.prepare(name, builder)
    prepared.files_of(name, split, builder)
    origin = {
        'name': name,
        'split': split,
        'version': str(builder.version),
        'class_names': tuple(builder.info.features[keys[1]].names),
    }
    return builder.as_data_source(split), keys, origin


@dataclasses.dataclass
class _Rows:
    """Arrays as a source."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {'image': self.images[i], 'label': self.labels[i]}


@dataclasses.dataclass
class _Reader:
    """Makes the batch of a step. It is sent to the workers, so it holds no grain."""

    examples: Any
    keys: tuple[str, str]
    size: int
    batch_size: int
    seed: int
    process_index: int
    process_count: int
    transform: Callable[[np.ndarray], np.ndarray] | None
    shape: tuple[int, ...] | None = None

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of a batch."""
        steps = -(-self.size // self.batch_size)
        epoch, row = divmod(int(step), steps)
        local = self.batch_size // self.process_count
        start = row * self.batch_size + self.process_index * local
        places = range(start, start + local)
        order = _grain().MapDataset.range(self.size).seed(int(self.seed)).shuffle()
        index = [int(order[epoch * self.size + q % self.size]) for q in places]
        found = self._examples(index)
        read = [self.checked(i, e) for i, e in zip(index, found, strict=True)]
        return {
            'image': np.stack([image for image, _ in read]),
            'label': np.array([label for _, label in read], np.int32),
            'index': np.array(index, np.int32),
            'mask': np.array([q < self.size for q in places]),
        }

    def _examples(self, index: list[int]) -> list[Any]:
        # tfds decodes many together 2.5 times as fast as one by one, by a method that
        # sources of torch and grain may have.
        together = getattr(self.examples, '__getitems__', None)
        return together(index) if together else [self.examples[i] for i in index]

    def read(self, i: int) -> tuple[np.ndarray, int]:
        """One image and its label."""
        return self.checked(i, self.examples[i])

    def checked(self, i: int, example: Any) -> tuple[np.ndarray, int]:
        """The image and the label of an example, transformed."""
        image, label = np.asarray(example[self.keys[0]]), example[self.keys[1]]
        if self.transform is not None:
            image = np.asarray(self.transform(image))
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                f'source must give uint8 images (H, W, C), got {image.dtype} of shape '
                f'{image.shape} for example {i}'
            )
        if self.shape is not None and image.shape != self.shape:
            raise ValueError(
                f'transform must bring all images to one size: example {i} is of shape '
                f'{image.shape}, the first of {self.shape}'
            )
        return image, int(label)
