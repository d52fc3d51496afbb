r"""Dropout at test time: units are dropped at random in every prediction.

.. math:: h \leftarrow r \odot h / (1 - p), \quad r_j \sim \mathrm{Bernoulli}(1 - p)

Every draw has a gradient, but only that of the draw (stochastic gradients). Broken by
EOT.

Reference: the dropout randomness baseline of Feinman et al. 2017, arXiv 1703.00410,
used as a defence; Athalye et al. 2018, arXiv 1802.00420, section 4.2.
"""

from typing import Any

import jax.numpy as jnp

from advjax.defenses.activations import with_noise
from advjax.defenses.defended import Defended, randomised
from advjax.types import Array, Key, LogitsFn, as_pytree, dataclass


@dataclass
class Dropped:
    """A network with a random share of its units."""

    logits_fn: Any
    rate: Array

    def __call__(self, key: Key, x: Array) -> Array:
        """Logits (B, K)."""

        def change(h: Array, noise: Array) -> Array:
            return jnp.where(noise >= self.rate, h / (1 - self.rate), 0)

        return with_noise(self.logits_fn, change)(key, x)


def dropout(
    logits_fn: LogitsFn, rate: float = 0.5, *, answers: int = 10, draws: int = 30
) -> Defended:
    """A network whose units are dropped at test time, after every ReLU.

    ``rate`` is p; ``answers`` and ``draws`` are those of ``randomised``.

    Raises:
      ValueError: if ``rate`` does not lie in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f'rate must lie in [0, 1), got {rate!r}')
    fn = Dropped(as_pytree(logits_fn), jnp.float32(rate))
    return randomised(fn, answers=answers, draws=draws)
