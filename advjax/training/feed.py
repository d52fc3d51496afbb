"""Where the batches of a training come from: device memory, or a stream.

A feed says how many batches an epoch has, and gives them in order, starting at any of
them. Its pure function ``take`` makes the images of a batch inside the compiled step.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from advjax import data, identity
from advjax.sharding import Placement
from advjax.types import Array, Key


@runtime_checkable
class Source(Protocol):
    """Images that are read while training goes on; ``data.stream`` makes one.

    Attributes:
      batch_size: examples per batch, over all processes.
      batches_per_epoch: batches of one pass.
      shape: (H, W, C) of one image.
    """

    batch_size: int
    batches_per_epoch: int
    shape: tuple[int, ...]

    def batches(self, epoch: int, first: int) -> Iterator[dict[str, np.ndarray]]:
        """The batches of an epoch from number ``first`` on: this process's rows."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state``."""
        ...

    def fingerprint(self) -> str:
        """Identifies the data."""
        ...

    def close(self) -> None:
        """Stops reading ahead."""
        ...


class InMemory:
    """A set or a mixture in the memory of every device; batches are rows of indices."""

    def __init__(
        self, dataset: data.Dataset | data.Mixture, batch_size: int, place: Placement
    ):
        self._dataset, self._batch_size, self._place = dataset, batch_size, place
        # A mixture stands where a set can: it has images and labels of both.
        whole: Any = dataset
        on_device = data.device_data(whole)
        self._on_device = place.put(on_device) if place.several else on_device
        self.batches_per_epoch = data.batches_per_epoch(dataset, batch_size)
        self.shape = tuple(on_device.images.shape[1:])

    @staticmethod
    def take(source: tuple[data.DeviceData, data.Batch], item: Array):
        """The batch of one row of indices; pure, for jit."""
        on_device, epoch = source
        return data.take(on_device, jax.tree.map(lambda rows: rows[item], epoch))

    def epoch(self, number: int, key: Key, first: int) -> tuple[Any, Iterator[Any]]:
        """A source and the items that ``take`` makes batches of.

        The shuffle is made from the key and the number alone.
        """
        rows = data.epoch_of(self._dataset, key, number, self._batch_size)
        shards = jax.tree.map(lambda _: self._place.rows(axis=1), rows)
        items = (np.int32(i) for i in range(first, self.batches_per_epoch))
        return (self._on_device, self._place.put(rows, shards)), items

    def state(self) -> dict[str, Any]:
        """Nothing: the step says all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def fingerprint(self) -> str:
        """Of all images and labels."""
        images, labels = self._dataset.images, self._dataset.labels.astype(np.int32)
        train = self._dataset
        fraction = train.fraction if isinstance(train, data.Mixture) else 0.0
        return identity.of((images, labels, fraction))

    def close(self) -> None:
        """Nothing to close."""


class Streamed:
    """A ``data.stream``; every process reads its own rows."""

    def __init__(self, stream: Source, batch_size: int, place: Placement):
        if stream.batch_size != batch_size:
            raise ValueError(
                f'batch_size must be that of the stream, {stream.batch_size}, got '
                f'{batch_size}'
            )
        self._stream, self._place = stream, place
        self.batches_per_epoch = stream.batches_per_epoch
        self.shape = tuple(stream.shape)

    @staticmethod
    def take(source: tuple[()], item: dict[str, Array]) -> dict[str, Array]:
        """The batch with float images; pure, for jit."""
        del source
        return {**item, 'image': data.to_float(item['image'])}

    def epoch(self, number: int, key: Key, first: int) -> tuple[Any, Iterator[Any]]:
        """The stream's own order: its seed decides, not the key."""
        del key
        return (), map(self._place.put_rows, self._stream.batches(number, first))

    def state(self) -> dict[str, Any]:
        """The stream's."""
        return self._stream.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Sets the stream back."""
        self._stream.restore(state)

    def fingerprint(self) -> str:
        """Of the stream's description; its images are not read for it."""
        return self._stream.fingerprint()

    def close(self) -> None:
        """Stops reading ahead."""
        self._stream.close()


Feed = InMemory | Streamed


def in_memory(train: Any) -> bool:
    """Whether a training set is all in memory, labels included."""
    return isinstance(train, data.Dataset | data.Mixture)


def of(train: Any, batch_size: int, place: Placement) -> Feed:
    """The feed of a ``data.Dataset``, a mixture, or a ``Source``.

    Raises:
      ValueError: if it is none of these, or a source of other batches.
    """
    if in_memory(train):
        return InMemory(train, batch_size, place)
    if isinstance(train, Source):
        return Streamed(train, batch_size, place)
    raise ValueError(
        'train must be a data.Dataset, a data.mixture or a data.stream, got '
        f'{type(train).__name__}'
    )
