r"""Spatial attack: the rotation and translation that the model gets wrong.

.. math:: \max_{|\theta| \le \theta_{max},\, |t| \le t_{max}}
          L(f(T_{\theta, t}(x)), y)

by a grid, by random draws, or by gradient ascent on the three numbers. Images are
turned about their centre with bilinear interpolation; what comes in is black.

A moved image is no member of a norm ball: evaluate it with ``ball=linf(1.0)``, which
checks the answer and the range.

Reference: Engstrom et al. 2019, arXiv 1712.02779, section 3.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from advjax import balls, keys
from advjax.attacks.checks import check_count
from advjax.attacks.goal import Goal, goal
from advjax.attacks.named import pgd
from advjax.attacks.search import Worst, call, nothing, spent
from advjax.types import Array, Found, Key, LogitsFn, dataclass

How = Literal['grid', 'random', 'gradient']


def move(x: Array, pose: Array) -> Array:
    """Turns and shifts images.

    Args:
      x: (B, height, width, channels).
      pose: (B, 3) degrees counter-clockwise, and pixels down and right.

    Returns:
      (B, height, width, channels), by bilinear interpolation with zeros around.
    """
    height, width = x.shape[1:3]
    centre = jnp.asarray([(height - 1) / 2, (width - 1) / 2], x.dtype)
    rows, columns = jnp.meshgrid(
        jnp.arange(height, dtype=x.dtype),
        jnp.arange(width, dtype=x.dtype),
        indexing='ij',
    )

    def one(image, numbers):
        angle = numbers[0] * np.pi / 180
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # Where each pixel of the result comes from.
        down = rows - centre[0] - numbers[1]
        right = columns - centre[1] - numbers[2]
        source = [
            cos * down + sin * right + centre[0],
            -sin * down + cos * right + centre[1],
        ]
        return jax.vmap(
            lambda plane: jax.scipy.ndimage.map_coordinates(plane, source, order=1),
            in_axes=2,
            out_axes=2,
        )(image)

    return jax.vmap(one)(x, pose)


@dataclass
class Spatial:
    """The spatial attack; build it with ``spatial``."""

    most: Array
    how: How = struct.field(pytree_node=False)
    counts: tuple[int, ...] = struct.field(pytree_node=False)
    ranked = True

    @property
    def calls(self) -> int:
        """Model calls per example."""
        return int(np.prod(self.counts)) + (self.how == 'gradient')

    def find(
        self,
        logits_fn: LogitsFn,
        x: Array,
        y: Array,
        target: Array | None = None,
        *,
        key: Key,
    ) -> Array:
        """The worst pose (B, 3): degrees, pixels down, pixels right."""
        each = keys.per_example(key, x.shape[0])
        return self._find(goal(logits_fn, y, target), each, x).x

    def _find(self, goal: Goal, key: Key, x: Array) -> Worst:
        start = jnp.zeros((x.shape[0], 3), x.dtype)
        if self.how == 'gradient':

            def seen(pose):
                return goal.logits_fn(move(x, pose * self.most[None]))

            moved = dataclasses.replace(goal, logits_fn=seen)
            cube = balls.linf(1.0, bounds=None)
            ascent = pgd(cube, self.counts[0], keep_best=True)
            found = ascent.search(moved, key, start)
            return Worst(found.x * self.most[None], jnp.asarray(found.rank))

        def try_pose(worst, entry):
            pose = self._pose(key, entry, x)
            # The misclassified one of largest loss; the margin orders both at once.
            return worst.update(pose, goal.rank(move(x, pose), key)), None

        entries = jnp.arange(int(np.prod(self.counts)))
        if self.how == 'grid':
            axes = [jnp.linspace(-1, 1, n, dtype=x.dtype) for n in self.counts]
            entries = jnp.stack(jnp.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
        return jax.lax.scan(try_pose, nothing(start), entries)[0]

    def _pose(self, key: Key, entry: Array, x: Array) -> Array:
        if self.how == 'grid':
            return jnp.broadcast_to((entry * self.most)[None], (x.shape[0], 3))
        drawn = keys.draw(
            lambda k: jax.random.uniform(k, (3,), x.dtype, -1, 1), keys.fold(key, entry)
        )
        return drawn * self.most[None]

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The worst of the moved images.

        Raises:
          ValueError: if images are not (B, height, width, channels).
        """
        if x.ndim != 4:
            raise ValueError(
                f'x must be (B, height, width, channels) to be turned, got {x.shape}'
            )
        pose, rank = self._find(goal, key, x)
        return Found(move(x, pose), rank, spent(self, x))

    __call__ = call


def spatial(
    degrees: float = 30.0,
    pixels: float = 3.0,
    search: How = 'grid',
    counts: tuple[int, ...] | int | None = None,
) -> Spatial:
    """The worst rotation and translation.

    Args:
      degrees: largest rotation to either side.
      pixels: largest translation to each side; about a tenth of the image.
      search: 'grid', 'random' (worst of k) or 'gradient' (weak: the loss is rugged).
      counts: points of the grid in (rotation, down, right), (31, 5, 5) by default;
        draws, 10 by default; or gradient steps, 20 by default.

    Raises:
      ValueError: for an unknown search, or counts that do not go with it.

    Reference: Engstrom et al. 2019, arXiv 1712.02779.
    """
    defaults = {'grid': (31, 5, 5), 'random': (10,), 'gradient': (20,)}
    if search not in defaults:
        raise ValueError(f'search must be one of {list(defaults)}, got {search!r}')
    if counts is None:
        counts = defaults[search]
    counts = (counts,) if isinstance(counts, int) else tuple(counts)
    if len(counts) != len(defaults[search]):
        raise ValueError(
            f'counts must be {len(defaults[search])} numbers for {search!r}, got '
            f'{counts}'
        )
    for count in counts:
        check_count('counts', count)
    if not (degrees >= 0 and pixels >= 0):
        raise ValueError(f'degrees and pixels must be >= 0, got {degrees} and {pixels}')
    most = jnp.asarray([degrees, pixels, pixels], jnp.float32)
    return Spatial(most=most, how=search, counts=counts)
