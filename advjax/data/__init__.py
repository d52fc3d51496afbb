"""Data sets as uint8 arrays, and the batches drawn from them.

    dataset = data.load('mnist', 'train')            # NumPy, decoded once
    on_device = data.device_data(dataset)            # the whole set, as uint8
    epoch = data.epoch_indices(key, len(dataset.labels), 256)
    batch = data.take(on_device, jax.tree.map(lambda a: a[step], epoch))

An epoch is an array of indices made from a key: the order does not depend on
hosts or on what ran before, and to resume is to know the step.

``mixture`` adds extra images at a fixed ratio, ``augment`` changes a batch under jit,
and ``stream`` reads sets that do not fit into memory.
"""

from advjax.data import augment
from advjax.data.batches import (
    Batch,
    DeviceData,
    device_data,
    epoch_indices,
    sequential_indices,
    split_held_out,
    take,
)
from advjax.data.mixture import (
    Mixture,
    batches_per_epoch,
    epoch_of,
    mixture,
    pseudo_labelled,
)
from advjax.data.prepared import DatasetNotFound
from advjax.data.sources import Dataset, load, to_float
from advjax.data.stream import Stream, stream

__all__ = [
    'Batch',
    'Dataset',
    'DatasetNotFound',
    'DeviceData',
    'Mixture',
    'Stream',
    'augment',
    'batches_per_epoch',
    'device_data',
    'epoch_indices',
    'epoch_of',
    'load',
    'mixture',
    'pseudo_labelled',
    'sequential_indices',
    'split_held_out',
    'stream',
    'take',
    'to_float',
]
