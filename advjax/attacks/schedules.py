"""How the step size of an ascent changes: functions of t = step / steps in [0, 1)."""

from collections.abc import Callable

import jax.numpy as jnp

from advjax.types import Array

Schedule = Callable[[Array], Array]


def constant(t: Array) -> Array:
    """The step-size schedule that does not change."""
    return jnp.ones_like(t)
