"""Batches of a data set that lives on the device.

A batch is a row of indices and a mask, and an epoch is a stack of them made from
a key. Its order depends on that key only (not on hosts, devices or what was drawn
before), so training resumes with the step number and nothing else:

    epoch = epoch_indices(jax.random.fold_in(key, epoch_number), n, 256)
    batch = take(on_device, jax.tree.map(lambda rows: rows[step], epoch))

Every batch has the same size, for one compiled program. The last one is filled up
with real examples, whose mask is False: batch statistics never see blank images, and
sums and means are weighted by the mask.
"""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.data.sources import Dataset, to_float
from advjax.types import Array, Key


class Batch(NamedTuple):
    """Which examples; with a leading axis of steps, a whole epoch of them.

    Attributes:
      index: int32 (B,), positions in the data set.
      mask: bool (B,), False where an example only fills the batch up.
    """

    index: Array
    mask: Array


class DeviceData(NamedTuple):
    """A whole data set in device memory; pass it to a jitted function as argument.

    Captured by a closure it would become a constant of the program.

    Attributes:
      images: uint8 (N, H, W, C).
      labels: int32 (N,).
    """

    images: Array
    labels: Array


def epoch_indices(key: Key, n: int, batch_size: int) -> Batch:
    r"""Shuffles a data set and cuts it into batches.

    .. math::
        \text{index}[s, b] = \pi[(sB + b) \bmod n], \qquad
        \text{mask}[s, b] = [sB + b < n]

    with a permutation :math:`\pi` drawn from the key. May be jitted, with ``n``
    and ``batch_size`` static.

    Args:
      key: one key; fold the number of the epoch into it.
      n: number of examples.
      batch_size: B; may exceed n.

    Returns:
      A ``Batch`` of shape (ceil(n / B), B), with each index once under the mask.

    Raises:
      ValueError: if n or B is not a positive integer, or ``key`` is not one key.
    """
    n, batch_size = check_integer('n', n), check_integer('batch_size', batch_size)
    key = keys.typed(key)
    if key.shape:
        raise ValueError(f'key must be one key, got an array of shape {key.shape}')
    return _cut(jax.random.permutation(key, n), batch_size)


def sequential_indices(n: int, batch_size: int) -> Batch:
    """Cuts a data set into batches as ``epoch_indices`` does, but in its own order."""
    n, batch_size = check_integer('n', n), check_integer('batch_size', batch_size)
    return _cut(jnp.arange(n), batch_size)


def device_data(dataset: Dataset, *, max_bytes: int = 2 * 2**30) -> DeviceData:
    """Copies a data set to the default device, as uint8.

    Args:
      dataset: from ``load``.
      max_bytes: the memory it may take there (2 GiB; MNIST takes 47 MB).

    Returns:
      A ``DeviceData``, a copy on CPU as well.

    Raises:
      ValueError: if the set is empty, malformed or larger than ``max_bytes``.
    """
    images, labels = dataset.images, dataset.labels
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(
            'dataset must hold uint8 images (N, H, W, C), N > 0, got '
            f'{images.dtype} of shape {images.shape}'
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f'dataset must hold one label per image, got labels of shape '
            f'{labels.shape} for {len(images)} images'
        )
    size = images.nbytes + labels.nbytes
    if size > max_bytes:
        raise ValueError(
            f'dataset must fit into max_bytes={max_bytes}, got {size} bytes of '
            f'{dataset.name!r}; raise the limit if the device has room, or load a '
            "part of it, such as 'train[:10000]'"
        )
    # Not device_put: on CPU it shares memory with NumPy, even with may_alias=False.
    return DeviceData(jnp.array(images), jnp.array(labels.astype(np.int32)))


def take(data: DeviceData, batch: Batch) -> dict[str, Array]:
    """Gathers a batch: a pure function of arrays, to be jitted by its caller.

    Indices must be below N; others are not detected.

    Returns:
      'image', float32 (B, H, W, C) in [0, 1], 'label', int32 (B,), and 'index' and
      'mask' of the batch.
    """
    return {
        'image': to_float(data.images[batch.index]),
        'label': data.labels[batch.index],
        'index': batch.index,
        'mask': batch.mask,
    }


def split_held_out(dataset: Dataset, n: int, seed: int) -> tuple[Dataset, Dataset]:
    """Holds out n random examples of a training set, for model selection.

    Args:
      dataset: usually a training set; the test set must not be used for selection.
      n: how many examples to hold out, from 1 to one less than there are.
      seed: of the choice, which it and the size of the set determine on every machine.

    Returns:
      (rest, held_out): disjoint, each in the order of ``dataset``. Their ``split``
      says how they were made.

    Raises:
      ValueError: if ``n`` or ``seed`` is out of range.
    """
    total = len(dataset.labels)
    n = check_integer('n', n)
    if n >= total:
        raise ValueError(f'n must be below the {total} examples there are, got {n}')
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f'seed must be an integer from 0 to 2**32 - 1, got {seed!r}')
    # RandomState, because NumPy promises that its stream will not change.
    chosen = np.random.RandomState(seed).permutation(total)[:n]
    held_out = np.zeros(total, bool)
    held_out[chosen] = True
    return (
        _part(dataset, ~held_out, f'{dataset.split} without {n} of seed {seed}'),
        _part(dataset, held_out, f'{dataset.split}, {n} of seed {seed}'),
    )


def _part(dataset: Dataset, which: np.ndarray, split: str) -> Dataset:
    images, labels = dataset.images[which], dataset.labels[which]
    return dataset._replace(images=images, labels=labels, split=split)


def _cut(order: Array, batch_size: int) -> Batch:
    n = len(order)
    shape = (-(-n // batch_size), batch_size)
    mask = jnp.arange(shape[0] * shape[1]) < n
    # jnp.resize fills up from the beginning of the epoch.
    return Batch(jnp.resize(order, shape).astype(jnp.int32), mask.reshape(shape))


def check_integer(name: str, value: int, least: int = 1) -> int:
    """Validates an integer, also one of NumPy's."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f'{name} must be an integer >= {least}, got {value!r}')
    return number
