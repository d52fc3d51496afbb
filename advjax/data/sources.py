"""Image classification data sets as plain uint8 arrays.

``digits`` is scikit-learn's set of 1797 handwritten digits and always available.
Every other name is a set of TensorFlow Datasets (tfds), read from its
``array_record`` files without TensorFlow, decoded once and cached as ``.npy``.
*Preparing* one of the stock sets does need TensorFlow; ``load`` tries that if it
is installed, and otherwise says what to run.

The order is that of the source. tfds shuffles once, when it writes: examples are
sorted by a hash of their key, the same on every machine for one version of a set. The
labels of its MNIST test set begin 2 0 4 8 7 (those of the original file 7 2 1 0 4, an
order which tfds does not record), so an index into a data set here is a tfds index.
"""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax.data import cache, prepared
from advjax.types import Array


class Dataset(NamedTuple):
    """A labelled set of images of one size, in the order of its source.

    Attributes:
      images: uint8 (N, H, W, C).
      labels: int32 (N,), positions in ``class_names``.
      class_names: one name per class.
      name: what it was loaded as.
      split: the split, such as 'train' or 'test[:1000]'.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    split: str


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: 'digits', or the tfds name of an image classification set; tfds'
        forms 'name/config' and 'name:version' work too.
      split: 'train', 'test' or whatever the set has, also in tfds' forms
        'train[:1000]', 'test[50%:]' and 'train+test'. The splits of 'digits' are
        ours (see ``_digits``): 'train' of 1437 and 'test' of 360.
      data_dir: where tfds keeps its sets; by default ``$TFDS_DATA_DIR``, then
        ``~/tensorflow_datasets``.
      cache_dir: where decoded arrays are cached; by default ``$ADVJAX_CACHE``, then
        ``~/.cache/advjax``. If it cannot be written, each call decodes.

    Raises:
      DatasetNotFound: if the set is unknown, or not prepared and not preparable.
      ValueError: for an unknown split, or for a set that is not one of uint8
        images of one size with one label each.
      ImportError: naming the package to install, if one is missing.
      OSError: if the prepared files are damaged.
    """
    for argument, value in [('name', name), ('split', split)]:
        if not isinstance(value, str) or not value:
            raise ValueError(f'{argument} must be a non-empty string, got {value!r}')
    if name == 'digits':
        return _digits(split)
    builder = prepared.open_set(name, data_dir)
    # Before anything is downloaded: a set that does not fit may be 150 GB.
    keys = prepared.image_and_label(name, builder.info)
    prepared.prepare(name, builder)
    files = prepared.files_of(name, split, builder)
    class_names = tuple(builder.info.features[keys[1]].names)

    version = str(builder.version)
    folder = Path(cache_dir).expanduser() if cache_dir else cache.default_dir()
    stem = cache.stem_of(name, version, split, os.path.abspath(builder.data_path))
    identity = {
        'name': name,
        'version': version,
        'split': split,
        'class_names': list(class_names),
        'files': files,
    }
    arrays = cache.read(folder, stem, identity)
    if arrays is None:
        arrays = prepared.decode(name, split, builder, keys)
        try:
            cache.write(folder, stem, identity, *arrays)
        except OSError as error:
            warnings.warn(
                f'no cache for {name!r}: {folder} cannot be written ({error}); name '
                'another in $ADVJAX_CACHE, or each load decodes the images again',
                RuntimeWarning,
                stacklevel=2,
            )
    return Dataset(*arrays, class_names, name, split)


def to_float(images: np.ndarray | Array) -> Array:
    """Maps uint8 pixels to float32 in [0, 1]: v / 255, exactly. May be jitted.

    Raises:
      ValueError: if ``images`` is not uint8. Floats may be on either scale, and a wrong
        guess would scale a threat model by 255.
    """
    array = isinstance(images, np.ndarray | np.generic | jax.Array)
    dtype = images.dtype if array else type(images).__name__
    if dtype != np.uint8:
        raise ValueError(f'images must be a uint8 array (0 to 255), got {dtype}')
    # A table, because XLA's division by a constant is off by one ulp for 126 of the 256
    # values, and differently so on another device.
    table = jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))
    return jnp.take(table, images, mode='clip')


def _digits(split: str) -> Dataset:
    """Loads scikit-learn's 8x8 digits; 0..16 becomes round(v * 255 / 16).

    The set comes without a split. This one is fixed: shuffle with NumPy's
    ``RandomState(0)`` (whose stream will not change, unlike that of ``default_rng``),
    sort by class, and let every fifth be a test example. So a fifth of each class is in
    'test', and each split is in scikit-learn's order.
    """
    bunch = prepared.require('sklearn.datasets').load_digits()
    labels = bunch.target.astype(np.int32)
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    splits = {'train': np.flatnonzero(~is_test), 'test': np.flatnonzero(is_test)}
    chosen = np.concatenate([_sub(part, splits) for part in split.split('+')])
    images = np.round(bunch.images[chosen] * (255 / 16)).astype(np.uint8)[..., None]
    class_names = tuple(str(c) for c in bunch.target_names)
    return Dataset(images, labels[chosen], class_names, 'digits', split)


def _sub(part: str, splits: dict[str, np.ndarray]) -> np.ndarray:
    """The indices of 'test', 'test[10:]', 'test[:-50%]' and the like."""
    form = re.fullmatch(r'(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?', part.strip())
    if not form or form[1] not in splits:
        raise ValueError(prepared.unknown_split('digits', part, splits))
    index = splits[form[1]]
    ends = []
    for end in form.groups()[1:]:
        value = int(end.rstrip('%')) if end else None
        if value is not None and end.endswith('%'):
            value = round(value * len(index) / 100)
        if value and abs(value) > len(index):
            raise ValueError(f'split {part!r} reaches past {len(index)} examples')
        ends.append(value)
    chosen = index[slice(*ends)]
    if not len(chosen):
        raise ValueError(f'split {part!r} of digits is empty')
    return chosen
