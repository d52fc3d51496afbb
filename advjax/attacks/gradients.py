r"""Where an ascent gets its gradient from: backward pass, neighbours, or queries.

A source is a pytree that an ``Ascent`` asks once a step,

    gradient, rank, state = source(values, ball, x, key, state)

where ``values(x, key) -> (value, rank)`` are (B,) and ``state`` is what the source
carries from step to step. Sources that never differentiate ``values`` make any ascent
a black-box attack.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys
from advjax.convolutions import canonical
from advjax.rows import wide
from advjax.types import AnyGoal, Array, Ball, Key, LogitsFn, dataclass

Values = Callable[[Array, Key], tuple[Array, Array | None]]


class Source(Protocol):
    """Where a gradient comes from; a pytree.

    Attributes:
      calls: model calls per gradient, the rank included.
    """

    @property
    def calls(self) -> int: ...  # noqa: D102
    def init(self, x: Array) -> Any:
        """What it carries before the first step."""
        ...

    def __call__(
        self, values: Values, ball: Ball, x: Array, key: Key, state: Any
    ) -> tuple[Array, Array | None, Any]:
        """Returns gradient, rank and what it carries on."""
        ...


def exact(values: Any, x: Array, key: Key) -> tuple[Array, Any]:
    """One backward pass: the gradient of the sum of the values, and the ranks."""

    def total(x):
        value, rank = values(x, key)
        return jnp.sum(value), rank

    return canonical(jax.grad(total, has_aux=True))(x)


def value_and_gradient(
    goal: AnyGoal, x: Array, key: Key
) -> tuple[Array, tuple[Array, Array]]:
    """The gradient of a goal at ``x``, and its (value, rank), (B,) each."""

    def values(x, key):
        value, rank = goal.value_and_rank(x, key)
        return value, (value, rank)

    return exact(values, x, key)


def with_logits(
    logits_fn: LogitsFn, loss: Callable[[Array], Array], x: Array
) -> tuple[Array, Array, Array]:
    """One backward pass of ``loss(logits)``: values (B,), logits (B, K), gradient."""

    def total(x):
        logits = logits_fn(x)
        value = loss(logits)
        return jnp.sum(value), (value, logits)

    gradient, (value, logits) = canonical(jax.grad(total, has_aux=True))(x)
    return value, logits, gradient


def jacobian(logits_fn: LogitsFn, x: Array, vectors: Array) -> tuple[Array, Array]:
    """Logits (B, K) and the gradients of combinations of them, in one program.

    Args:
      logits_fn: the model.
      x: (B, ...).
      vectors: (M, B, K), the combinations.

    Returns:
      Logits (B, K) and gradients (M, B, ...).
    """

    def all_of(x):
        logits, pull = jax.vjp(logits_fn, x)
        rows = vectors.astype(logits.dtype)
        # In turn: side by side they are no faster, on CPU slower, and all in memory.
        return logits, jax.lax.map(lambda row: pull(row)[0], rows)

    return canonical(all_of)(x)


@dataclass
class Exact:
    """The gradient by one backward pass."""

    calls = 1

    def init(self, x: Array) -> tuple:
        """Carries nothing."""
        del x
        return ()

    def __call__(
        self, values: Values, ball: Ball, x: Array, key: Key, state: Any
    ) -> tuple[Array, Array | None, Any]:
        """Returns gradient, rank and state."""
        del ball
        gradient, rank = exact(values, x, key)
        return gradient, rank, state


@dataclass
class VarianceTuned:
    r"""The gradient corrected by its variance among the neighbours (VMI, VNI).

    .. math::
        v_{t+1} = \frac1N \sum_{i=1}^N \nabla L(x_t + r_i) - \nabla L(x_t), \qquad
        r_i \sim U[-\beta\epsilon, \beta\epsilon]^d

    and the source returns :math:`\nabla L(x_t) + v_t`.

    Attributes:
      reach: beta, the radius of the neighbourhood in radii of the ball.
      samples: N.

    Reference: Wang and He 2021, arXiv 2103.15571, algorithm 1.
    """

    reach: Array
    samples: int = struct.field(pytree_node=False, default=20)

    @property
    def calls(self) -> int:
        """Model calls per gradient."""
        return 1 + self.samples

    def init(self, x: Array) -> Array:
        """No variance before the first step."""
        return jnp.zeros_like(x)

    def __call__(
        self, values: Values, ball: Ball, x: Array, key: Key, state: Array
    ) -> tuple[Array, Array | None, Array]:
        """Returns gradient, rank and the next variance."""
        gradient, rank = exact(values, x, key)
        reach = wide(balls.radius(ball, x) * self.reach, x)

        def add(total, i):
            own = keys.fold(key, i)
            noise = keys.draw(
                lambda k: jax.random.uniform(k, x.shape[1:], x.dtype, -1, 1), own
            )
            return total + exact(values, x + reach * noise, own)[0], None

        total, _ = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(1, self.samples + 1))
        return gradient + state, rank, total / self.samples - gradient


@dataclass
class Differences:
    r"""The gradient from values alone, by differences along random directions.

    .. math::
        \hat g = \frac1N \sum_{i=1}^N
            \frac{L(x + \sigma u_i) - L(x - \sigma u_i)}{2\sigma}\, u_i

    with normal (NES) or Rademacher (SPSA) directions, for which
    :math:`u_i^{-1} = u_i`. The points ``x +- sigma u`` may leave the range, as in the
    papers; ``clipped`` keeps them inside.

    Attributes:
      sigma: half the distance of the two points, in pixels.
      samples: N, the number of pairs.
      signs: Rademacher instead of normal directions.
      clipped: evaluate inside the bounds only.
    """

    sigma: Array
    samples: int = struct.field(pytree_node=False, default=25)
    signs: bool = struct.field(pytree_node=False, default=False)
    clipped: bool = struct.field(pytree_node=False, default=False)

    @property
    def calls(self) -> int:
        """Model calls per gradient: the pairs, and one at x for its rank."""
        return 1 + 2 * self.samples

    def init(self, x: Array) -> tuple:
        """Carries nothing."""
        del x
        return ()

    def __call__(
        self, values: Values, ball: Ball, x: Array, key: Key, state: Any
    ) -> tuple[Array, Array | None, Any]:
        """Returns gradient, rank and state."""
        sample = jax.random.rademacher if self.signs else jax.random.normal
        sigma = jnp.asarray(self.sigma, x.dtype)

        def at(point, own):
            if self.clipped and ball.bounds is not None:
                point = jnp.clip(point, *ball.bounds)
            return values(point, own)[0]

        def add(total, i):
            own = keys.fold(key, i)
            u = keys.draw(lambda k: sample(k, x.shape[1:], x.dtype), own)
            slope = (at(x + sigma * u, own) - at(x - sigma * u, own)) / (2 * sigma)
            # One non-finite pair must not spoil the other directions.
            slope = wide(jnp.nan_to_num(slope).astype(x.dtype), x)
            return total + slope * u, None

        total, _ = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(1, self.samples + 1))
        return total / self.samples, values(x, key)[1], state
