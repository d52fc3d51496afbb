"""Fingerprints of a run: what must be equal for a checkpoint to be resumed.

A run resumes only under the settings that its checkpoint was made with; each text is
of one of them, so a refusal can say which one differs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax.fingerprint import of_arrays
from advjax.types import Params


def of_optimizer(optimizer: optax.GradientTransformation, params: Params) -> str:
    """What an optimizer does to weights and gradients of ones, for three updates.

    Functions cannot be compared, their results can. A schedule that differs only
    later is not seen.
    """
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)

    def updates(params: Params) -> list[Params]:
        state, made = optimizer.init(params), []
        for _ in range(3):
            update, state = optimizer.update(ones, state, params)
            made.append(jax.tree.map(lambda u: jnp.sum(jnp.abs(u)), update))
        return made

    sums = jax.device_get(jax.jit(updates)(ones))
    return of_arrays(jax.tree.map(lambda value: np.float32(f'{value:.4e}'), sums))


def of_augment(augment: Any, shape: tuple[int, ...]) -> str:
    """What an augmentation does to four images of noise."""
    if augment is None:
        return 'none'
    key = jax.random.key(0)
    x = jax.random.uniform(key, (4, *shape))
    y = jnp.zeros(4, jnp.int32)
    changed = jax.device_get(jax.jit(augment)(jax.random.split(key, 4), x, y))
    return of_arrays(jax.tree.map(lambda a: np.round(a, 3), changed))
