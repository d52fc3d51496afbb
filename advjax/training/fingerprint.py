"""What makes two training runs the same run, as a few short texts.

A checkpoint goes on only under what it was made with; each text names one thing that
could differ, so a refusal can say which.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax.fingerprint import of_arrays
from advjax.types import Params


def of_optimizer(optimizer: optax.GradientTransformation, params: Params) -> str:
    """What an optimizer does to a gradient of ones, for three updates.

    Functions cannot be compared, their results can. A schedule that differs only
    later is not seen.
    """
    ones = jax.tree.map(jnp.ones_like, params)

    def updates(params: Params) -> list[Params]:
        state, made = optimizer.init(params), []
        for _ in range(3):
            update, state = optimizer.update(ones, state, params)
            made.append(jax.tree.map(lambda u: jnp.sum(jnp.abs(u)), update))
        return made

    sums = jax.device_get(jax.jit(updates)(params))
    return of_arrays(jax.tree.map(lambda value: np.float32(f'{value:.4e}'), sums))
