"""Robust accuracy as a function of the radius, in one compiled program."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls
from advjax.evaluation.accuracy import index_of, key_of, padded
from advjax.evaluation.inputs import check
from advjax.evaluation.verify import logits_of, verify
from advjax.types import Array, Attack, HostArray, Key, LogitsFn, as_pytree


@dataclasses.dataclass(frozen=True)
class Curve:
    """Robust accuracy over R radii.

    Attributes:
      eps: (R,) radii, ascending.
      broken: (R, N) the model is wrong on the clean image, or a verified adversarial
        was found at this radius or a smaller one.
    """

    eps: np.ndarray
    broken: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """(R,) robust accuracy, never rising with the radius."""
        return 1 - self.broken.mean(axis=1)


@jax.jit
def _sweep(attack, radii: Array, logits_fn, key: Key, x: Array, y: Array) -> Array:
    def at(eps):
        return balls.with_eps(attack, eps)(logits_fn, key, x, y)

    return jax.vmap(at)(radii)


def robustness_curve(
    logits_fn: LogitsFn,
    x: HostArray,
    y: HostArray,
    attack: Attack,
    radii: HostArray | Sequence[float],
    *,
    key: Key,
    ids: HostArray | None = None,
    batch_size: int = 64,
) -> Curve:
    """Attacks at every radius at once and verifies each result at its own radius.

    An example broken at a radius is broken at every larger one: the small
    adversarial lies in the larger ball too. So the curve is monotone by
    construction, which no search alone guarantees.

    Args:
      logits_fn: the model, x -> (B, K) logits.
      x: (N, ...) float32 images within the ball's bounds.
      y: (N,) integer labels.
      attack: any attack that holds one ball; its radius is replaced.
      radii: (R,) ascending radii >= 0.
      key: one key.
      ids: (N,) data-set indices, ``arange(N)`` by default.
      batch_size: images per compiled call; R times as many pass the model.

    Raises:
      ValueError: as ``evaluate`` does, and for radii that do not ascend from >= 0.
    """
    radii = np.asarray(radii, np.float32)
    if (
        radii.ndim != 1
        or len(radii) == 0
        or radii[0] < 0
        or not (np.diff(radii) > 0).all()
    ):
        raise ValueError(f'radii must ascend from a value >= 0, got {radii}')
    attack, model = as_pytree(attack), as_pytree(logits_fn)
    found = balls.of(attack)
    if not found or any(type(b) is not type(found[0]) for b in found):
        raise ValueError(
            f'attack must hold a ball of one norm whose eps can be swept, got {attack}'
        )
    ball = balls.with_eps(found[0], jnp.float32(radii[-1]))
    x, y, _ = check(model, x, y, [ball])
    which = index_of(ids, len(x))

    broken = np.zeros((len(radii), len(x)), bool)
    for index, real in padded(np.arange(len(x)), batch_size):
        images, labels = x[index], y[index]
        at = key_of(key, 'curve', which[index])
        points = np.asarray(_sweep(attack, radii, model, at, images, labels))
        logits = logits_of(model, images)
        wrong = (logits.argmax(axis=1) != labels) | np.isnan(logits).any(axis=1)
        for r, eps in enumerate(radii):
            claimed = balls.with_eps(ball, jnp.float32(eps))
            seen = verify(model, claimed, images, labels, points[r])
            wrong = wrong | seen.adversarial
            broken[r, index[:real]] = wrong[:real]
    return Curve(eps=radii, broken=broken)
