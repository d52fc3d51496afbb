r"""Where an adversary may go: a norm, a radius and a valid range.

A ball is a value. Its radius ``eps`` is a pytree leaf of shape () or (B,), so one
compiled program serves every radius and ``vmap`` sweeps them; ``bounds`` is static.

    project(x, x0)    the closest point of the ball around x0, intersected with bounds
    sample(key, x0)   a uniform draw from the ball, then moved inside the bounds
    steepest(grad)    argmax <grad, d> over the unit ball
    norm(delta)       (B,)
    contains(x, x0)   membership, with the one tolerance of the library

``project`` assumes that ``x0`` itself lies inside the bounds; then the result is
feasible, projecting twice changes rounding at most, and feasible points are
returned bit for bit. All norms are per example, over every axis but the first.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from advjax import keys, projections, rows
from advjax.types import Array, Ball, Bounds, HostArray, Key, dataclass

TOLERANCE = 2.0**-20
"""What rounding may add to a distance, as a share of eps and of the pixel scale.

Sixteen halves of a unit in the last place of a float32; see ``limit``.
"""

_ROUNDED = {
    'linf': lambda size: 1.0,
    'l2': lambda size: 1 + size**0.5 / 16,
    'l1': lambda size: 1 + size / 16,
}


def limit(ball: Ball, x: Any) -> Any:
    r"""The largest distance from images x that counts as within the radius.

    Adding a perturbation to a pixel of scale s rounds it by at most :math:`2^{-24} s`,
    so that of n pixels the norm grows by at most n (L1) or sqrt(n) (L2) times that:

    .. math:: \epsilon + 2^{-20} (1 + n^{1/p} / 16) \max(\epsilon, s)

    with s the larger end of the ball's bounds, or the largest pixel where it has none.
    In L0 nothing is added.

    Args:
      ball: the threat model, with a radius of shape () or (B,).
      x: (B, ...) images, of NumPy or JAX, as is the result: shape () or (B,).
    """
    own: Any = np if isinstance(x, np.ndarray) else jnp
    eps = own.asarray(ball.eps, np.float64 if own is np else x.dtype)
    if ball.norm_name == 'l0':
        return eps
    size = math.prod(x.shape[1:])
    rounded = _ROUNDED.get(ball.norm_name, _ROUNDED['l2'])(size)
    if ball.bounds is not None:
        scale = max(map(abs, ball.bounds))
    else:
        scale = own.max(own.abs(x), axis=tuple(range(1, x.ndim)), initial=0)
    return eps + TOLERANCE * rounded * own.maximum(eps, scale)


def contains(ball: Ball, x: Array, x0: Array) -> Array:
    """Whether x lies in the ball around x0 and in its bounds, (B,)."""
    inside = ball.norm(x - x0) <= limit(ball, jnp.asarray(x0))
    if ball.bounds is not None:
        low, high = ball.bounds
        inside &= jnp.all((x >= low) & (x <= high), axis=tuple(range(1, x.ndim)))
    return inside


@dataclass
class _NormBall:
    """What the balls of all norms share."""

    eps: Array
    bounds: Bounds = struct.field(pytree_node=False, default=(0.0, 1.0))

    contains = contains

    def confine(self, x: Array, otherwise: Array | float = 0.0) -> Array:
        """``x``: every coordinate may change."""
        del otherwise
        return x

    def with_eps(self, eps: Array) -> Any:
        """The same ball with another radius."""
        return dataclasses.replace(self, eps=eps)

    def unbounded(self) -> Any:
        """The same ball without bounds."""
        return dataclasses.replace(self, bounds=None)

    def take(self, index: HostArray, size: int) -> Any:
        """The same ball for some of ``size`` examples: a radius of each is indexed."""
        if jnp.ndim(self.eps) == 0:
            return self
        if self.eps.shape != (size,):
            raise ValueError(
                f'eps must have shape () or ({size},), one radius per example, '
                f'got {self.eps.shape}'
            )
        return dataclasses.replace(self, eps=jnp.asarray(self.eps)[index])


def _span(ball: Ball) -> float:
    return float('inf') if ball.bounds is None else ball.bounds[1] - ball.bounds[0]


def _draw(ball: Ball, key: Key, x0: Array, radius: Array, direction) -> Array:
    """x0 + radius * direction(key, size), clipped; x0 where the radius is infinite.

    A ball without bounds and of infinite radius has no uniform distribution.
    """
    shape, size = x0.shape[1:], int(np.prod(x0.shape[1:]))
    unit = keys.draw(
        lambda k: direction(k, size).astype(x0.dtype).reshape(shape),
        keys.per_example(key, x0.shape[0]),
    )
    radius = projections.wide(radius, x0)
    finite = jnp.isfinite(radius)
    return projections.clip(x0 + jnp.where(finite, radius, 0) * unit, ball.bounds)


@dataclass
class Linf(_NormBall):
    r""":math:`\{x' : \max_i |x'_i - x_i| \le \epsilon\}`, in pixels."""

    norm_name = 'linf'

    def project(self, x: Array, x0: Array) -> Array:
        """Exact: clips to the cube, then to the bounds."""
        return projections.linf(x, x0, self.eps, self.bounds)

    def sample(self, key: Key, x0: Array) -> Array:
        """Each coordinate uniform in [-eps, eps]."""
        radius = jnp.minimum(self.eps, _span(self))
        return _draw(
            self, key, x0, radius, lambda k, n: jax.random.uniform(k, (n,), minval=-1)
        )

    def steepest(self, grad: Array) -> Array:
        """sign(grad), with sign(0) = 0."""
        return jnp.sign(grad)

    def norm(self, delta: Array) -> Array:
        """Largest absolute coordinate, (B,)."""
        return rows.largest(jnp.abs(delta))


@dataclass
class L2(_NormBall):
    r""":math:`\{x' : \|x' - x\|_2 \le \epsilon\}`."""

    norm_name = 'l2'

    def project(self, x: Array, x0: Array) -> Array:
        """Exact Euclidean projection on the ball intersected with the bounds."""
        return projections.l2(x, x0, self.eps, self.bounds)

    def sample(self, key: Key, x0: Array) -> Array:
        """Uniform: a random direction times u^(1/d), so radii follow r^d."""

        def direction(key, size):
            towards, radius = jax.random.split(key)
            normal = jax.random.normal(towards, (1, size))
            length = jax.random.uniform(radius, (1, 1)) ** (1 / size)
            return length * self.steepest(normal)

        size = float(np.prod(x0.shape[1:]))
        radius = jnp.minimum(self.eps, _span(self) * size**0.5)
        return _draw(self, key, x0, radius, direction)

    def steepest(self, grad: Array) -> Array:
        """The gradient over its norm; zero where it is zero."""
        return projections.unit(grad)

    def norm(self, delta: Array) -> Array:
        """Euclidean norm, (B,)."""
        return projections.euclidean(delta).reshape(delta.shape[0])


@dataclass
class L1(_NormBall):
    r""":math:`\{x' : \|x' - x\|_1 \le \epsilon\}`."""

    norm_name = 'l1'

    def project(self, x: Array, x0: Array) -> Array:
        """Exact Euclidean projection on the ball intersected with the bounds."""
        return projections.l1(x, x0, self.eps, self.bounds)

    def sample(self, key: Key, x0: Array) -> Array:
        """Uniform: normalised exponentials with random signs."""

        def direction(key, size):
            lengths, signs = jax.random.split(key)
            spacing = jax.random.exponential(lengths, (size + 1,))
            return jax.random.rademacher(signs, (size,), spacing.dtype) * (
                spacing[:-1] / jnp.sum(spacing)
            )

        size = float(np.prod(x0.shape[1:]))
        return _draw(
            self, key, x0, jnp.minimum(self.eps, _span(self) * size), direction
        )

    def steepest(self, grad: Array) -> Array:
        """The sign of the one largest coordinate (the first of equals)."""
        return _top(grad, 1.0)

    def norm(self, delta: Array) -> Array:
        """Sum of absolute coordinates, (B,)."""
        return rows.total(jnp.abs(delta))


@dataclass
class L0(_NormBall):
    r""":math:`\{x' : \#\{i : x'_i \ne x_i\} \le \epsilon\}`, eps in coordinates.

    A coordinate is one number of the input: a colour pixel counts as three.
    """

    norm_name = 'l0'

    def project(self, x: Array, x0: Array) -> Array:
        """Exact: keeps the floor(eps) coordinates that lower the distance most."""
        return projections.l0(x, x0, self.eps, self.bounds)

    def sample(self, key: Key, x0: Array) -> Array:
        """floor(eps) random coordinates, each uniform in the bounds (or in x0 +- 1)."""
        low, high = self.bounds or (-1.0, 1.0)

        def draw(key):
            which, value = jax.random.split(key)
            order = jax.random.uniform(which, (1, *x0.shape[1:]))
            return order, jax.random.uniform(
                value, x0.shape[1:], minval=low, maxval=high
            )

        order, value = keys.draw(draw, keys.per_example(key, x0.shape[0]))
        chosen = projections.rank(order[:, 0]) < _count(self.eps, x0)
        value = value.astype(x0.dtype)
        return jnp.where(chosen, x0 + value if self.bounds is None else value, x0)

    def steepest(self, grad: Array) -> Array:
        """sign(grad) on the floor(eps) largest coordinates, divided by eps.

        Sparsity alone leaves the maximum unbounded, so coordinates are also held
        to [-1, 1]; divided by eps, a step ``eps * rate * steepest`` moves each of
        those coordinates by ``rate``.
        """
        eps = projections.wide(self.eps, grad)
        top = _top(grad, _count(self.eps, grad))
        return projections.divide(top, jnp.broadcast_to(eps, grad.shape), 0.0)

    def norm(self, delta: Array) -> Array:
        """Number of coordinates that differ, (B,)."""
        return rows.total((delta != 0).astype(delta.dtype))


def _count(eps: Array, x: Array) -> Array:
    return jnp.floor(projections.wide(eps, x))


def _top(grad: Array, count: float | Array) -> Array:
    return jnp.where(projections.rank(jnp.abs(grad)) < count, jnp.sign(grad), 0)


Kind = TypeVar('Kind')


def _make(kind: type[Kind], eps: float | HostArray, bounds: Bounds) -> Kind:
    if not isinstance(eps, jax.core.Tracer):
        value = np.asarray(eps)
        if value.ndim > 1:
            raise ValueError(f'eps must have shape () or (B,), got {value.shape}')
        if not (np.issubdtype(value.dtype, np.number) and np.all(value >= 0)):
            raise ValueError(f'eps must be a radius >= 0, got {eps}')
    if bounds is not None:
        message = (
            f'bounds must be None or finite (low, high) with low < high, got {bounds}'
        )
        try:
            low, high = (float(b) for b in bounds)
        except (TypeError, ValueError) as error:
            raise ValueError(message) from error
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(message)
        bounds = (low, high)
    build: Any = kind
    return build(eps=jnp.asarray(eps, jnp.float32), bounds=bounds)


def linf(eps: float | HostArray, bounds: Bounds = (0.0, 1.0)) -> Linf:
    r"""The maximum-norm ball :math:`\|x' - x\|_\infty \le \epsilon`.

    Args:
      eps: radius in pixels, () or (B,); 8/255 on [0, 1] is the CIFAR-10 custom.
      bounds: valid pixel range, or None for no range (Goodfellow 2015).

    Raises:
      ValueError: if eps is negative, NaN or of rank 2; if bounds are not ordered.

    >>> x0 = jnp.array([[0.25, 0.875]])
    >>> linf(0.25).project(jnp.array([[1.0, 2.0]]), x0).tolist()
    [[0.5, 1.0]]
    """
    return _make(Linf, eps, bounds)


def l2(eps: float | HostArray, bounds: Bounds = (0.0, 1.0)) -> L2:
    r"""The Euclidean ball :math:`\|x' - x\|_2 \le \epsilon`; see ``linf``."""
    return _make(L2, eps, bounds)


def l1(eps: float | HostArray, bounds: Bounds = (0.0, 1.0)) -> L1:
    r"""The ball :math:`\|x' - x\|_1 \le \epsilon`; see ``linf``."""
    return _make(L1, eps, bounds)


def l0(eps: float | HostArray, bounds: Bounds = (0.0, 1.0)) -> L0:
    r"""At most eps changed coordinates; see ``linf``.

    Without bounds a random start moves each chosen coordinate by less than 1.
    """
    return _make(L0, eps, bounds)


def of_norm(norm: str, eps: float | HostArray, bounds: Bounds = (0.0, 1.0)) -> Ball:
    """A ball by the name of its norm: 'linf', 'l2', 'l1' or 'l0'.

    Raises:
      ValueError: for another name, or eps < 0.
    """
    made = {'linf': linf, 'l2': l2, 'l1': l1, 'l0': l0}
    if norm not in made:
        raise ValueError(f'norm must be one of {list(made)}, got {norm!r}')
    return made[norm](eps, bounds)


def clip(ball: Ball, x: Array) -> Array:
    """Keeps x within the bounds of a ball, if it has any."""
    return x if ball.bounds is None else jnp.clip(x, *ball.bounds)


def inside(ball: Ball, x: Array, x0: Array) -> Array:
    """Keeps x within the bounds, and at x0 where a masked ball allows no change."""
    return clip(ball, ball.confine(x, x0))


def radius(ball: Ball, x0: Array) -> Array:
    """The radius (B,), at most the diameter of the bounds in the norm of the ball.

    So a search that scales its steps with the radius also works in a ball of
    infinite radius; without bounds an infinite radius is replaced by 1.
    """
    size = float(np.prod(x0.shape[1:]))
    span = _span(ball)
    longest = {'linf': span, 'l2': span * size**0.5, 'l1': span * size, 'l0': size}
    most = longest.get(ball.norm_name, np.inf)
    eps = jnp.broadcast_to(jnp.asarray(ball.eps, x0.dtype), x0.shape[:1])
    eps = jnp.minimum(eps, jnp.asarray(most, x0.dtype))
    return jnp.where(jnp.isfinite(eps), eps, 1)


def as_ball(ball: Any) -> Ball:
    """A ball as it is; a number as the radius of ``linf`` on [0, 1].

    Raises:
      ValueError: for anything else, naming what it lacks to be a ball.
    """
    if isinstance(ball, Ball):
        if jax.tree_util.all_leaves([ball]):
            raise ValueError(
                'ball must be a pytree, whose radius can be an argument: decorate '
                f'{type(ball).__name__} with advjax.types.dataclass'
            )
        return ball
    if _is_radius(ball):
        return linf(ball)
    members = sorted(name for name in dir(Ball) if not name.startswith('_'))
    missing = [name for name in members if name not in dir(ball)]
    raise ValueError(
        f'ball must be a radius of linf, or a ball, which has {members}: '
        f'{ball!r} lacks {missing}'
    )


def _is_radius(value: object) -> bool:
    number = int | float | np.number | np.ndarray | jax.Array
    return isinstance(value, number) and not isinstance(value, bool)


def stands_for_ball(value: object) -> bool:
    """Whether ``as_ball`` takes it: a ball or a radius, and not an attack."""
    return _is_radius(value) or _is_ball(value)


def _is_ball(node: object) -> bool:
    return isinstance(node, Ball)


def of(attack: object) -> list[Ball]:
    """The balls that an attack (any pytree) is built from."""
    return [b for b in jax.tree.leaves(attack, is_leaf=_is_ball) if _is_ball(b)]


def with_eps(attack: Any, eps: ArrayLike) -> Any:
    """The same attack with another radius in every ball it contains.

    Under ``vmap`` over ``eps`` this is a sweep of radii in one program.
    """
    return _map_balls(lambda ball: ball.with_eps(eps), attack)


def take(attack: Any, index: HostArray, size: int) -> Any:
    """The same attack for some of ``size`` examples: per-example radii are indexed.

    Args:
      attack: any pytree of balls.
      index: (B,) positions.
      size: the number of examples that a per-example radius must cover.

    Raises:
      ValueError: if a radius has a length other than ``size``.
    """
    return _map_balls(lambda ball: ball.take(index, size), attack)


def _map_balls(change: Callable[[Any], Any], attack: Any) -> Any:
    def one(node):
        return change(node) if _is_ball(node) else node

    return jax.tree.map(one, attack, is_leaf=_is_ball)
