"""Where the batches of a training come from: device memory, or a stream.

A feed says how many batches an epoch has, gives them one after another from any of
them on, and knows a pure function that makes images of what it gives.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from advjax import data
from advjax.fingerprint import of_arrays
from advjax.sharding import Placement
from advjax.types import Array, Key


class Feed(Protocol):
    """What the loop asks of a source of batches."""

    batches_per_epoch: int
    shape: tuple[int, ...]
    take: Callable[[Any, Any], dict[str, Array]]

    def epoch(self, number: int, key: Key, first: int) -> tuple[Any, Iterator[Any]]:
        """Returns the source and items; ``take(source, item)`` is a batch, in jit."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state``."""
        ...

    def fingerprint(self) -> str:
        """What tells whether it is the same data."""
        ...

    def close(self) -> None:
        """Lets go of what it reads from."""
        ...


def _take_row(source: tuple[data.DeviceData, data.Batch], item: Array):
    on_device, epoch = source
    return data.take(on_device, jax.tree.map(lambda rows: rows[item], epoch))


class InMemory:
    """A set or a mixture in the memory of every device; batches are rows of indices."""

    take = staticmethod(_take_row)

    def __init__(self, dataset: Any, batch_size: int, place: Placement):
        self._dataset, self._batch_size, self._place = dataset, batch_size, place
        on_device = data.device_data(dataset)
        self._on_device = place.put(on_device) if place.several else on_device
        self.batches_per_epoch = data.batches_per_epoch(dataset, batch_size)
        self.shape = tuple(on_device.images.shape[1:])

    def epoch(self, number: int, key: Key, first: int) -> tuple[Any, Iterator[Any]]:
        """A shuffle made from the key and the number alone."""
        rows = data.epoch_of(self._dataset, key, number, self._batch_size)
        sharded = jax.tree.map(lambda _: self._place.rows(axis=1), rows)
        items = (np.int32(i) for i in range(first, self.batches_per_epoch))
        return (self._on_device, self._place.put(rows, sharded)), items

    def state(self) -> dict[str, Any]:
        """Nothing: the step says all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def fingerprint(self) -> str:
        """Of all images and labels."""
        images, labels = self._dataset.images, self._dataset.labels.astype(np.int32)
        mixed = isinstance(self._dataset, data.Mixture)
        return of_arrays((images, labels, self._dataset.fraction if mixed else 0.0))

    def close(self) -> None:
        """Nothing to close."""


def _as_float(source: tuple[()], item: dict[str, Array]) -> dict[str, Array]:
    del source
    return {**item, 'image': data.to_float(item['image'])}


class Streamed:
    """A ``data.stream``; every process reads its own rows."""

    take = staticmethod(_as_float)

    def __init__(self, stream: Any, batch_size: int, place: Placement):
        if stream.batch_size != batch_size:
            raise ValueError(
                f'batch_size must be that of the stream, {stream.batch_size}, got '
                f'{batch_size}'
            )
        self._stream, self._place = stream, place
        self.batches_per_epoch = stream.batches_per_epoch
        self.shape = tuple(stream.shape)

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
        return str(self._stream.fingerprint())

    def close(self) -> None:
        """Stops reading ahead."""
        self._stream.close()


def of(train: Any, batch_size: int, place: Placement) -> Feed:
    """The feed of a ``data.Dataset``, a mixture, or a stream."""
    # Any object with the methods of a stream is one, not only ours.
    kind: Any = Streamed if hasattr(train, 'batches') else InMemory
    return kind(train, batch_size, place)
