"""Shared set-up: strict JAX, a compilation cache, and the data beside the checkout."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import common

common.use_compilation_cache()
jax.config.update('jax_numpy_rank_promotion', 'raise')

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / 'shared'


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
