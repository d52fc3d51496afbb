"""Two data sets at a fixed ratio in every batch: real images, and extra ones.

    train = data.mixture(cifar10, generated, fraction=0.7)
    fit(method, model, optimizer, train, held_out, key, ...)

The extra images may be generated, or real ones that a standard network has labelled.
Both kinds have been found to help adversarial training, which needs more data.

Reference: Carmon et al. 2019, arXiv 1905.13736, section 5 (pseudo-labels); Rebuffi et
al. 2021, arXiv 2103.01946, and Gowal et al. 2021, arXiv 2110.09468 (generated).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.data.batches import Batch, epoch_indices
from advjax.data.sources import Dataset, to_float
from advjax.types import Array, Key, LogitsFn


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Real and extra images; build it with ``mixture``.

    It can replace a ``Dataset``: ``images`` and ``labels`` are those of ``train``, then
    those of ``extra``.

    Attributes:
      train: the set that an epoch passes over.
      extra: the set that batches are filled up from.
      fraction: the share of each batch that is from ``extra``.
    """

    train: Dataset
    extra: Dataset
    fraction: float

    @functools.cached_property
    def images(self) -> np.ndarray:
        """uint8 (N + M, H, W, C)."""
        return np.concatenate([self.train.images, self.extra.images])

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 (N + M,)."""
        return np.concatenate([self.train.labels, self.extra.labels])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of both."""
        return self.train.class_names

    @property
    def name(self) -> str:
        """What was mixed."""
        return f'{self.train.name} with {self.fraction:g} {self.extra.name}'

    @property
    def split(self) -> str:
        """Both splits."""
        return f'{self.train.split} with {self.extra.split}'

    def shares(self, batch_size: int) -> tuple[int, int]:
        """How many examples of a batch are from train, and how many from extra.

        Raises:
          ValueError: if that leaves none of either.
        """
        extra = round(batch_size * self.fraction)
        if not 0 < extra < batch_size:
            raise ValueError(
                f'batch_size must leave room for both sets at fraction '
                f'{self.fraction}, got {batch_size}: {batch_size - extra} of train and '
                f'{extra} of extra'
            )
        return batch_size - extra, extra


def mixture(train: Dataset, extra: Dataset, fraction: float) -> Mixture:
    """Mixes a data set with extra images at a fixed ratio.

    Args:
      train: the data set proper.
      extra: images of the same size with labels of the same classes.
      fraction: share of every batch, between 0 and 1, that is from ``extra``:
        ``round(batch_size * fraction)`` examples. Rebuffi et al. take 0.7, Carmon et
        al. 0.5.

    Returns:
      A ``Mixture``, for ``epoch_of``, ``device_data`` and ``training.fit``.

    Raises:
      ValueError: for another fraction, or sets whose images or classes differ.
    """
    if not 0 < fraction < 1:
        raise ValueError(f'fraction must be between 0 and 1, got {fraction!r}')
    for name, dataset in (('train', train), ('extra', extra)):
        if not len(dataset.labels) or len(dataset.labels) != len(dataset.images):
            raise ValueError(
                f'{name} must hold images with one label each, got '
                f'{len(dataset.images)} images and {len(dataset.labels)} labels'
            )
    if extra.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f'extra must hold images of shape {train.images.shape[1:]}, as train does, '
            f'got {extra.images.shape[1:]}'
        )
    if extra.images.dtype != np.uint8:
        raise ValueError(f'extra must hold uint8 images, got {extra.images.dtype}')
    if tuple(extra.class_names) != tuple(train.class_names):
        raise ValueError(
            f'extra must have the classes of train, {train.class_names}, in their '
            f'order, got {extra.class_names}'
        )
    return Mixture(train, extra, float(fraction))


def batches_per_epoch(dataset: Dataset | Mixture, batch_size: int) -> int:
    """The number of batches in a pass over a data set; of a mixture, over its train.

    Raises:
      ValueError: if a mixture does not fit into such a batch.
    """
    if isinstance(dataset, Mixture):
        return -(-len(dataset.train.labels) // dataset.shares(batch_size)[0])
    return -(-len(dataset.labels) // batch_size)


def epoch_of(
    dataset: Dataset | Mixture, key: Key, number: int, batch_size: int
) -> Batch:
    r"""The batches of one epoch, made from a key and the number of the epoch alone.

    Of a ``Dataset`` they are ``epoch_indices(fold_in(key, number), n, batch_size)``.

    Of a ``Mixture``, every batch of B holds the same number E of extra examples, spread
    evenly over its rows, so that every part of a batch has the same ratio: example b is
    extra where :math:`\lfloor (b + 1) E / B \rfloor > \lfloor b E / B \rfloor`. An
    epoch is one pass over ``train``, in a new order. The passes over the extra set,
    each in a new order, continue across epochs. Its indices begin at ``len(train)``.
    The last batch is filled up with examples of ``train`` whose mask is False; its
    extra ones count.

    Args:
      dataset: what to draw from.
      key: one key, the same for all epochs.
      number: which epoch, from 0.
      batch_size: B.

    Returns:
      A ``Batch`` of shape (batches_per_epoch, B).

    Raises:
      ValueError: for a negative number, or as ``epoch_indices`` does.
    """
    if number < 0:
        raise ValueError(f'number must be >= 0, got {number}')
    key = keys.typed(key)
    now = jax.random.fold_in(key, number)
    if not isinstance(dataset, Mixture):
        return epoch_indices(now, len(dataset.labels), batch_size)
    size, share = len(dataset.train.labels), dataset.shares(batch_size)
    epoch = epoch_indices(now, size, share[0])
    steps = len(epoch.index)
    for_extra = jax.random.fold_in(key, 2**31 - 1)
    start, count = number * steps * share[1], steps * share[1]
    extra = size + _passing(for_extra, len(dataset.extra.labels), start, count)

    ends = np.arange(batch_size + 1) * share[1] // batch_size
    is_extra = ends[1:] > ends[:-1]
    # Rows of train and of extra, in the order in which a batch takes them.
    place = np.where(is_extra, share[0] + ends[:-1], np.arange(batch_size) - ends[:-1])
    rows = jnp.concatenate([epoch.index, extra.reshape(steps, share[1])], axis=1)
    mask = jnp.concatenate([epoch.mask, jnp.ones((steps, share[1]), bool)], axis=1)
    return Batch(rows[:, place], mask[:, place])


def pseudo_labelled(
    images: np.ndarray,
    logits_fn: LogitsFn,
    class_names: tuple[str, ...],
    *,
    name: str = 'pseudo-labelled',
    batch_size: int = 500,
) -> Dataset:
    r"""Labels images with a network's predictions :math:`\hat y = \arg\max_k f_k(x)`.

    Args:
      images: uint8 (N, H, W, C).
      logits_fn: a network in eval mode, usually trained without an adversary.
      class_names: of its outputs.
      name: of the result.
      batch_size: images at a time.

    Returns:
      A ``Dataset``, for ``mixture``.

    Raises:
      ValueError: if there are no images, or another number of classes.

    Reference: Carmon et al. 2019, arXiv 1905.13736, algorithm 1.
    """
    if not len(images):
        raise ValueError('images must hold at least one, got none')
    batch_size = min(batch_size, len(images))

    @jax.jit
    def answers(start: Array) -> Array:
        logits = logits_fn(to_float(start))
        if logits.shape[1] != len(class_names):
            raise ValueError(
                f'class_names must name the {logits.shape[1]} outputs of logits_fn, '
                f'got {len(class_names)}'
            )
        return jnp.argmax(logits, axis=1)

    labels = np.empty(len(images), np.int32)
    for start in range(0, len(images), batch_size):
        # The last batch overlaps the one before it, for one compiled program.
        start = min(start, len(images) - batch_size)
        rows = slice(start, start + batch_size)
        labels[rows] = answers(images[rows])
    return Dataset(images, labels, tuple(class_names), name, 'all')


def _passing(key: Key, size: int, start: int, count: int) -> Array:
    """Positions start .. start + count in endless shuffled passes over a set."""
    first, last = start // size, math.ceil((start + count) / size)
    passes = [
        jax.random.permutation(jax.random.fold_in(key, i), size)
        for i in range(first, last)
    ]
    offset = start - first * size
    return jnp.concatenate(passes)[offset : offset + count].astype(jnp.int32)
