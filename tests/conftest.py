"""Shared set-up: strict JAX, a compilation cache, and the data beside the checkout."""

import os
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from advjax import programs
from experiments.frame import process

# Compiling dominates: programs that run once need no optimised code. Processes that
# tests start inherit it.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
jax.config.update('jax_disable_most_optimizations', True)
process.use_compilation_cache()
jax.config.update('jax_numpy_rank_promotion', 'raise')

ROOT = Path(__file__).parent.parent

SHARED = ROOT.parent / 'shared'

_done = []


@pytest.fixture(autouse=True)
def _few_programs():
    yield
    _done.append(1)
    if len(_done) % 10 == 0:
        programs.let_go(0.4)


def pytest_collection_modifyitems(config, items):
    """With ``ADVJAX_TESTS=sample`` runs a sixteenth of the tests, always the same."""
    if os.environ.get('ADVJAX_TESTS') != 'sample':
        return
    kept = [item for item in items if zlib.crc32(item.nodeid.encode()) % 16 == 0]
    left = [item for item in items if item not in set(kept)]
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(scope='session')
def tfds_dir():
    """Folder with the prepared MNIST and CIFAR-10, or a skip."""
    folder = Path(os.environ.get('TFDS_DATA_DIR', SHARED / 'tfds'))
    if not (folder / 'mnist').is_dir():
        pytest.skip(f'no prepared MNIST in {folder}: set TFDS_DATA_DIR')
    return folder


@pytest.fixture(scope='session')
def mnist_test(tfds_dir):
    """All 10,000 MNIST test images in [0, 1], and their labels."""
    from advjax import data

    test = data.load('mnist', 'test', data_dir=tfds_dir)
    return np.asarray(data.to_float(test.images)), test.labels


@pytest.fixture(scope='session')
def golden():
    """The network of Wong et al. 2020 with its authors' weights, or a skip."""
    from advjax import models, zoo

    path = Path(os.environ.get('ADVJAX_GOLDEN', SHARED / 'golden'))
    path = path / 'mnist_fast_fgsm.npz'
    if not path.exists():
        pytest.skip(f'no weights at {path}: set ADVJAX_GOLDEN to their folder')
    return models.logits_fn(zoo.fast_mnist(), zoo.load_fast_mnist(path))
