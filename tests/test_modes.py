"""Every attack under JAX's modes: x64, strict promotion, checks for leaked tracers."""

import jax
import numpy as np
import pytest

from advjax import attacks
from tests import contract

ENTRIES = [entry for entry in attacks.catalogue() if entry.looks_for != 'other']
MODES = {
    'x64': lambda: jax.enable_x64(True),
    'strict': lambda: jax.numpy_dtype_promotion('strict'),
    'leaks': jax.checking_leaks,
}


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.name)
def test_an_attack_runs_in_every_mode(entry, mode):
    """To a result in its ball, and of the type of the images."""
    norm = entry.norms[0]
    ball = contract._BALLS[entry.looks_for][norm]
    attack = entry.factory(ball, **entry.quick)
    f, (x, y) = contract.network(), contract.images()
    with MODES[mode]():
        adv = jax.jit(lambda x, y: attack(f, contract.KEY, x, y))(x, y)
    assert adv.dtype == np.float32
    assert np.asarray(ball.contains(adv, x)).all()
