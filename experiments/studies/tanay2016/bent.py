"""A linear classifier weakened by two ReLU units, and one without adversarial examples.

The network of this module is the nearest-centroid classifier plus one pair of
ReLU units,

    s(x) = b.x + b_0 + k [relu(z.x - z_0 - tau) - relu(-(z.x - z_0) - tau)]

where z is a direction in which the images hardly vary. On images both units are off, so
answers and gradients are those of the linear classifier; but a small step along z turns
any answer. z is orthogonal to sign(b), so the step of FGSM does not move along it: FGSM
cannot tell the network from the linear classifier, whose worst case is known.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import geometry
from advjax.types import LogitsFn
from experiments.frame.two_classes import Pair, as_network, margins
from experiments.studies.tanay2016.tilting import components


class Bent(NamedTuple):
    """The network, its linear part, and the direction z in which it bends."""

    network: LogitsFn
    linear: LogitsFn
    plane: geometry.Hyperplane
    direction: np.ndarray
    tau: float


def _bent(params: Any, x: jax.Array) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    along = x @ params['z'] - params['z0']
    bend = jax.nn.relu(along - params['tau']) - jax.nn.relu(-along - params['tau'])
    score = x @ params['b'] + params['b0'] + params['k'] * bend
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


def flat_direction(task: Pair, level: float) -> np.ndarray:
    """A unit direction of little variance, orthogonal to b and to sign(b).

    Args:
      task: the data.
      level: components of a smaller standard deviation than this are mixed, but for
        those in which the images do not vary at all.
    """
    i, j = task.means
    b = geometry.halfway(i, j).normal
    rows, sizes = components(task.x)
    quiet = rows[(sizes < level) & (sizes > 1e-3 * sizes[0])]
    if len(quiet) < 3:
        raise ValueError(f'level leaves {len(quiet)} components, 3 are needed: {level}')
    fixed, _ = np.linalg.qr(np.stack([quiet @ b, quiet @ np.sign(b)], axis=1))
    # The quietest component, less what it has of the two.
    mixed = np.eye(len(quiet))[-1]
    mixed = (mixed - fixed @ (fixed.T @ mixed)) @ quiet
    return mixed / np.linalg.norm(mixed)


def bent_network(task: Pair, level: float, steepness: float, share: float) -> Bent:
    """Builds the network.

    Args:
      task: the data.
      level: see ``flat_direction``.
      steepness: k.
      share: of the training images on which both units are off: what decides tau.
    """
    i, j = task.means
    plane, z = geometry.halfway(i, j), flat_direction(task, level)
    along = (task.x - task.x.mean(axis=0)) @ z
    tau = float(np.quantile(np.abs(along), share))

    def cell(value):
        return np.full((1, 1), value, np.float32)

    params = {
        'b': plane.normal.astype(np.float32)[:, None],
        'b0': cell(plane.offset),
        'z': z.astype(np.float32)[:, None],
        'z0': cell(task.x.mean(axis=0) @ z),
        'tau': cell(tau),
        'k': cell(steepness),
    }
    network: Any = jax.tree_util.Partial(_bent, params)
    return Bent(network, as_network(plane, task.shape), plane, z, tau)


def certain(plane: geometry.Hyperplane, task: Pair, eps: float) -> float:
    """A linear classifier's accuracy in the cube, in closed form."""
    return float(np.mean(margins(plane, task.test_x, task.test_y, 'linf') > eps))


def halves(shape: tuple[int, ...], count: int, seed: int = 0) -> Pair:
    """A task that a linear classifier has no adversarial examples in.

    Images whose left or right half is uniform noise in [0, 1], the other half black.
    The nearest-centroid classifier compares the two halves: to turn its answer every
    pixel must change by about a quarter of the whole range.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        y = rng.choice([-1, 1], size=count)
        x = rng.uniform(size=(count, *shape))
        middle = shape[1] // 2
        x[y < 0, :, middle:] = 0
        x[y > 0, :, :middle] = 0
        parts += [x.reshape(count, -1), y]
    x, y, test_x, test_y = parts
    return Pair(x, y, test_x, test_y, shape)


def reach(bent: Bent, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """How near the boundary is along two directions.

    Returns:
      L2 distances (B,) along FGSM's own direction and along z, from images that are
      classified rightly; infinite beyond 20.
    """
    size = x.shape[1:]
    sign = np.where(np.asarray(y) > 0, -1, 1).reshape((-1,) + (1,) * (x.ndim - 1))
    found = {}
    for name, direction in (
        ('fgsm', np.sign(bent.plane.normal)),
        ('z', bent.direction),
    ):
        towards = (sign * direction.reshape(1, *size)).astype(np.float32)
        found[name] = np.asarray(
            _distance(bent.network, x, y, towards, jnp.float32(20.0))
        )
    return found


@jax.jit
def _distance(network, x, y, direction, far):
    return geometry.distance_along(network, x, y, direction, far, grid=400)
