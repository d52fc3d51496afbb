"""Balls in which only some coordinates may change: patches, regions, features."""

import jax
import jax.numpy as jnp
import numpy as np

from advjax.balls import as_ball, contains
from advjax.types import Array, Ball, Bounds, HostArray, Key, dataclass


@dataclass
class Masked:
    """A ball in which only some coordinates may change; build it with ``masked``."""

    ball: Ball
    mask: Array

    @property
    def norm_name(self) -> str:
        """The norm of the ball."""
        return self.ball.norm_name

    @property
    def eps(self) -> Array:
        """The radius of the ball."""
        return self.ball.eps

    @property
    def bounds(self) -> Bounds:
        """The valid range of the ball."""
        return self.ball.bounds

    def allowed(self, x: Array) -> Array:
        """Which coordinates may change, in the shape of x."""
        if self.mask.ndim != x.ndim:
            raise ValueError(
                f'mask must have the rank of x, {x.ndim}, its first axis 1 or the '
                f'batch, got shape {self.mask.shape}'
            )
        return jnp.broadcast_to(self.mask, x.shape)

    def confine(self, x: Array, otherwise: Array | float = 0.0) -> Array:
        """``x`` where the mask allows a change, elsewhere ``otherwise``."""
        return jnp.where(self.allowed(x), x, otherwise)

    def with_eps(self, eps: Array) -> 'Masked':
        """The same mask on a ball of another radius."""
        return Masked(ball=self.ball.with_eps(eps), mask=self.mask)

    def unbounded(self) -> 'Masked':
        """The same mask on a ball without bounds."""
        return Masked(ball=self.ball.unbounded(), mask=self.mask)

    def take(self, index: HostArray, size: int) -> 'Masked':
        """The same ball for some of ``size`` examples."""
        each = self.mask.shape[0] == size and size > 1
        mask = self.mask[index] if each else self.mask
        return Masked(ball=self.ball.take(index, size), mask=mask)

    def project(self, x: Array, x0: Array) -> Array:
        """Exact: the norm is monotone, so first the mask, then the ball."""
        return self.ball.project(self.confine(x, x0), x0)

    def sample(self, key: Key, x0: Array) -> Array:
        """A draw from the ball, restricted to the allowed coordinates."""
        return self.confine(self.ball.sample(key, x0), x0)

    def steepest(self, grad: Array) -> Array:
        """The steepest direction among the allowed coordinates."""
        return self.ball.steepest(self.confine(grad))

    def norm(self, delta: Array) -> Array:
        """The norm of the ball; infinite where a forbidden coordinate moved."""
        moved = jnp.where(self.allowed(delta), 0, delta)
        away = jnp.any(moved != 0, axis=tuple(range(1, delta.ndim)))
        return jnp.where(away, jnp.inf, self.ball.norm(delta))

    contains = contains


def masked(ball: Ball | float, mask: HostArray) -> Masked:
    """Confines a ball to some coordinates: a patch, a region, a feature set.

    ``masked(linf(1.0), patch)`` is the threat model of an adversarial patch. The mask
    is a leaf, so one program serves all locations.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      mask: (1, ...) or (B, ...) bool that broadcasts to the images; True may change.

    Raises:
      ValueError: if the mask is not boolean.

    >>> left = masked(1.0, np.array([[True, False]]))
    >>> left.project(jnp.ones((1, 2)), jnp.zeros((1, 2))).tolist()
    [[1.0, 0.0]]
    """
    if not isinstance(mask, jax.core.Tracer) and np.asarray(mask).dtype != bool:
        raise ValueError(
            f'mask must be an array of bool, True where pixels may change, got '
            f'{np.asarray(mask).dtype}'
        )
    return Masked(ball=as_ball(ball), mask=jnp.asarray(mask))
