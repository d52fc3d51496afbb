"""Sets of TensorFlow Datasets, read without TensorFlow.

tfds keeps a prepared set as files of records. In ``array_record`` form they are read
without TensorFlow, which only *preparing* a stock set needs. Whatever goes wrong (an
unknown name, no files, another format, no network, no TensorFlow) raises
``DatasetNotFound``, which says what to run.
"""

import contextlib
import difflib
import importlib
import importlib.util
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

_PIP = {
    'PIL': 'pillow',
    'sklearn': 'scikit-learn',
    'tensorflow_datasets': 'tensorflow-datasets',
}
_READ_AT_ONCE = 512


class DatasetNotFound(FileNotFoundError):  # noqa: N818
    """The data set is neither on disk, nor can it be put there."""


def require(module: str) -> Any:
    """Imports a module.

    Raises:
      ImportError: naming the package to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What is missing may be a dependency of the module.
        missing = (error.name or module).split('.')[0]
        raise ImportError(
            f'advjax.data.load needs {missing}: pip install '
            f'{_PIP.get(missing, missing)}'
        ) from error


def open_set(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The tfds builder of a set, which holds its metadata and no images.

    Args:
      name: in tfds' forms 'name', 'name/config', 'name:version'.
      data_dir: where tfds keeps its sets; None for its default.

    Raises:
      DatasetNotFound: if there is no such set, or only in another format.
      ImportError: naming the package to install.
    """
    tfds = require('tensorflow_datasets')
    require('array_record.python')
    # tfds reads the variable only when it is imported.
    where = data_dir or os.environ.get('TFDS_DATA_DIR') or None
    where = where and os.path.expanduser(where)
    try:
        # Not tfds.data_source: given a data_dir, it forgets the format.
        return tfds.builder(name, data_dir=where, file_format='array_record')
    except Exception as error:
        if 'File format is already set' in str(error):
            _refuse(name, where, _first_line(error), error)
        base = re.split('[/:]', name)[0]
        # Listing the community sets needs TensorFlow.
        known = tfds.list_builders(with_community_datasets=False)
        if base in known:
            raise DatasetNotFound(
                f'data set {name!r} cannot be opened in {_shown(where)} '
                f'({_first_line(error)})'
            ) from error
        near = difflib.get_close_matches(base.lower(), [*known, 'digits'], n=5)
        hint = 'near it: ' + ', '.join(near) if near else "'digits' always works"
        raise DatasetNotFound(
            f'no data set is called {name!r}: neither in {_shown(where)} nor among '
            f'those of tensorflow_datasets {tfds.__version__}; {hint}'
        ) from error


def image_and_label(name: str, info: Any, *, one_size: bool = True) -> tuple[str, str]:
    """The keys of the image and of the label in a set's examples.

    Args:
      name: for the error.
      info: the ``tfds.core.DatasetInfo`` of the set.
      one_size: refuse a set with images of several sizes.

    Raises:
      ValueError: unless it is a classification set of uint8 images.
    """
    tfds = require('tensorflow_datasets')
    image_key, label_key = 'image', 'label'
    supervised = tuple(info.supervised_keys or ())[:2]
    # Detection and multi-task sets have nested keys here.
    if len(supervised) == 2 and all(isinstance(key, str) for key in supervised):
        image_key, label_key = supervised
    features = info.features
    nested = isinstance(features, tfds.features.FeaturesDict)
    features = dict(features) if nested else {}
    image, label = features.get(image_key), features.get(label_key)
    if (
        not isinstance(image, (tfds.features.Image, tfds.features.Tensor))
        or not isinstance(label, tfds.features.ClassLabel)
        or not label.num_classes
        or len(image.shape) != 3
        or np.dtype(image.np_dtype) != np.uint8
    ):
        held = {key: type(feature).__name__ for key, feature in features.items()}
        raise ValueError(
            'name must be that of an image classification set (uint8 images '
            f'(H, W, C) with one class label each), got {name!r} with features {held}'
        )
    if one_size and None in image.shape:
        raise ValueError(
            f'name must be that of a set with images of one size, got {name!r} of '
            f'shape {image.shape}: it does not fit load, which holds a set in one '
            'array; read it with data.stream and a transform that resizes'
        )
    return image_key, label_key


def prepare(name: str, builder: Any) -> None:
    """Downloads and prepares a set, if that has not been done.

    Raises:
      DatasetNotFound: if that is not possible.
    """
    if builder.is_prepared():
        return
    missing = f'{builder.data_path} is missing'
    where = builder.data_dir_root
    # A user's own builder may not need TensorFlow.
    stock = type(builder).__module__.startswith('tensorflow_datasets.')
    if stock and not _installed('tensorflow'):
        _refuse(name, where, f'{missing}, and TensorFlow is not installed')
    if hosts := _unreachable(builder):
        _refuse(name, where, f'{missing}, and {hosts} cannot be reached')
    try:
        builder.download_and_prepare()
    except Exception as error:
        _refuse(name, where, f'{missing}; {_first_line(error)}', error)


def files_of(name: str, split: str, builder: Any) -> list[list[Any]]:
    """[path, bytes, modification time] of each file that holds a split.

    Raises:
      ValueError: if there is no such split, or if it is empty.
      DatasetNotFound: if one of its files is missing.
    """
    splits = builder.info.splits
    try:
        size = splits[split].num_examples
    except (ValueError, AssertionError, KeyError) as error:
        raise ValueError(
            f'{unknown_split(name, split, splits)} ({_first_line(error)})'
        ) from error
    if size <= 0:
        raise ValueError(f'split must hold examples, got {split!r} of {name!r}')
    try:
        found = [(os.path.abspath(p), os.stat(p)) for p in splits[split].filepaths]
    except OSError as error:
        _refuse(name, builder.data_dir_root, _first_line(error), error)
    return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found]


def unknown_split(name: str, split: str, available: Any) -> str:
    """The message that lists the splits of a set."""
    names = ', '.join(repr(str(known)) for known in available)
    return (
        f"split must be one of {names} (or a part, such as 'test[:100]', or a sum) "
        f'for {name!r}, got {split!r}'
    )


def decode(
    name: str, split: str, builder: Any, keys: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes all images and labels of a split: uint8 (N, H, W, C), int32 (N,).

    Raises:
      OSError: if the files are damaged.
      ValueError: if there are examples without a label.
    """
    tqdm = require('tqdm')
    image, label = (builder.info.features[key] for key in keys)
    tfds = require('tensorflow_datasets')
    if isinstance(image, tfds.features.Image) and not _installed('cv2'):
        require('PIL')
    try:
        source = builder.as_data_source(split)
        images = np.empty((len(source), *image.shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        # disable=None: no bar without a terminal.
        progress = tqdm.tqdm(
            total=len(source), desc=f'decoding {name} {split}', disable=None
        )
        with progress, without_advice():
            for start in range(0, len(source), _READ_AT_ONCE):
                stop = min(start + _READ_AT_ONCE, len(source))
                examples = source.__getitems__(list(range(start, stop)))
                images[start:stop] = [example[keys[0]] for example in examples]
                labels[start:stop] = [example[keys[1]] for example in examples]
                progress.update(stop - start)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise OSError(
            f'{name!r} in {builder.data_path} cannot be decoded '
            f'({_first_line(error)}); delete that folder and prepare it again'
        ) from error
    if labels.min() < 0 or labels.max() >= label.num_classes:
        raise ValueError(
            f'split must be labelled, got {split!r} of {name!r} with labels from '
            f'{labels.min()} to {labels.max()} for {label.num_classes} classes'
        )
    return images, labels


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Silences the decoder's advice to install another decoder."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _installed(module: str) -> bool:
    # find_spec raises on what is in sys.modules without a spec, such as a stub.
    if sys.modules.get(module) is not None:
        return True
    return module not in sys.modules and importlib.util.find_spec(module) is not None


def _unreachable(builder: Any) -> str:
    """The hosts of a download if none of them can be resolved, else ''.

    Without a network tfds retries every file ten times, which takes minutes.
    """
    downloads = builder.data_dir_root / 'downloads'
    if urllib.request.getproxies() or (downloads.exists() and any(downloads.iterdir())):
        return ''  # A proxy resolves names itself; the files may be there already.
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()}
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            continue
        return ''
    return ', '.join(sorted(map(str, hosts)))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0][:300]}'


def _shown(where: Any) -> str:
    return os.fspath(where) if where else '~/tensorflow_datasets'


def _refuse(
    name: str, where: Any, reason: str, cause: BaseException | None = None
) -> NoReturn:
    folder = f', data_dir={os.fspath(where)!r}' if where else ''
    raise DatasetNotFound(
        f'data set {name!r} is not ready in {_shown(where)} ({reason}). '
        'To prepare it, with a network and after "pip install tensorflow": '
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, file_format='array_record'{folder})"
        '.download_and_prepare()". A copy in another format must be moved away first, '
        f"one of another version is read as '{name.split(':')[0]}:VERSION', and one "
        'elsewhere is found through TFDS_DATA_DIR or data_dir.'
    ) from cause
