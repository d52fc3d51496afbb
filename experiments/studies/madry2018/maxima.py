r"""The landscape that PGD climbs: what many random starts on one image end in.

From R starts in the ball around one image, R ascents of the loss are recorded step by
step. Are their ends equally high (then the height is close to the inner maximum, and
more restarts find little more), are they one point or many, and what lies between two
of them?

The allowed set is the ball cut to the pixel range, a box that the clean image is no
centre of: where it is black, pixels can only grow. Seen from the image even two random
points of the box are therefore at an angle far below 90 degrees, so angles are taken
at the centre of the box.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys, losses
from advjax.attacks import Ascent, goal
from advjax.types import Array, HostArray, Key, LogitsFn


class Climb(NamedTuple):
    """Ascents from R starts on one image.

    Attributes:
      start: (R, ...) where they began.
      end: (R, ...) where they ended.
      values: (T + 1, R) the loss before, between and after the T steps.
    """

    start: HostArray
    end: HostArray
    values: HostArray


@jax.jit
def climb(attack: Ascent, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Climb:
    """Runs an attack of ``keep_best=False`` and records the loss of every iterate."""
    wanted = goal(logits_fn, y, loss=attack.loss)
    each = keys.per_example(key, x.shape[0])

    def step(state, _):
        return attack.step(wanted, x, state), wanted.value(state.x, each)

    first = attack.init(wanted, each, x)
    last, values = jax.lax.scan(step, first, length=attack.steps)
    end = wanted.value_of(logits_fn(last.x))
    return Climb(first.x, last.x, jnp.concatenate([values, end[None]]))


def climbs(
    attack: Ascent,
    logits_fn: LogitsFn,
    key: Key,
    image: np.ndarray,
    label: int,
    restarts: int,
) -> Climb:
    """Climbs from ``restarts`` starts on one image, as NumPy arrays."""
    again = np.broadcast_to(image, (restarts, *image.shape))
    own = keys.of_index(key, jnp.arange(restarts))
    found = climb(attack, logits_fn, own, again, np.full(restarts, label))
    return Climb(*map(np.asarray, found))


def box(image: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the Linf ball around an image in [0, 1], cut to that range."""
    image = np.asarray(image, np.float64)
    return np.maximum(image - eps, 0), np.minimum(image + eps, 1)


def _rows(points: HostArray) -> np.ndarray:
    return np.asarray(points, np.float64).reshape(len(points), -1)


def distances(points: HostArray) -> np.ndarray:
    """L2 distances of all pairs of R points, (R (R - 1) / 2,)."""
    rows = _rows(points)
    first, second = np.triu_indices(len(rows), 1)
    return np.linalg.norm(rows[first] - rows[second], axis=1)


def angles(points: HostArray, centre: np.ndarray) -> np.ndarray:
    """Angles in degrees at which ``centre`` sees all pairs of R points."""
    rows = _rows(points) - np.asarray(centre, np.float64).reshape(1, -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = (unit @ unit.T)[np.triu_indices(len(rows), 1)]
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def outliers(values: np.ndarray) -> float:
    """Share of values beyond the outer fence, the third quartile plus 3 IQR."""
    low, high = np.percentile(values, [25, 75])
    return float(np.mean(values > high + 3 * (high - low)))


@jax.jit
def _losses(logits_fn: LogitsFn, x: Array, y: Array) -> Array:
    return losses.cross_entropy(logits_fn(x), y)


def between(
    logits_fn: LogitsFn,
    ends: HostArray,
    label: int,
    pairs: int,
    points: int = 21,
) -> np.ndarray:
    """The loss along the segments between ends that follow each other, (pairs, points).

    Segment i joins the ends number i and i + 1; its points include both.

    Raises:
      ValueError: if there are not more points than segments.
    """
    if not 1 <= pairs < len(ends):
        raise ValueError(
            f'pairs must be in [1, {len(ends) - 1}] for {len(ends)} ends, got {pairs}'
        )
    share = np.linspace(0, 1, points, dtype=np.float32)
    share = share.reshape(1, points, *[1] * (ends.ndim - 1))
    first, second = ends[:pairs, None], ends[1 : pairs + 1, None]
    line = (1 - share) * first + share * second
    flat = line.reshape(-1, *ends.shape[1:])
    values = _losses(logits_fn, flat, np.full(len(flat), label))
    return np.asarray(values).reshape(pairs, points)
