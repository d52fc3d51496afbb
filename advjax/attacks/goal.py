"""A goal: what an attack climbs, and the rank by which points are kept."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from advjax import losses
from advjax.attacks.logits import mean_prediction
from advjax.types import (
    Array,
    Key,
    LogitsFn,
    Loss,
    Objective,
    Sampled,
    as_pytree,
    dataclass,
)


@dataclass
class Goal:
    """loss(logits_fn(x), y), to be maximised over x; build it with ``goal``.

    The *value* gives the direction; the *rank* says which of two points is the better
    adversarial example: the margin, positive exactly where the model is wrong, or where
    it answers the target. So the best point kept is adversarial if any was, whatever
    the loss.

    A ``types.Sampled`` model (``eot``, ``views``) has both replaced by expectations
    over draws that belong to the example and the step.

    Attributes:
      logits_fn: the model.
      y: (B,) labels, or what the loss takes in their place.
      target: (B,) classes that the loss leads to, or None.
      loss: (logits, y, target=None) -> (B,).
      any_error: with a target, whether any wrong answer counts, as "targeted" means in
        AutoAttack, or the target alone.
    """

    logits_fn: LogitsFn
    y: Array
    target: Array | None = None
    loss: Loss = struct.field(pytree_node=False, default=losses.margin)
    any_error: bool = struct.field(pytree_node=False, default=False)

    def value(self, x: Array, key: Key) -> Array:
        """The value alone, (B,)."""
        return self.value_and_logits(x, key)[0]

    def value_and_rank(self, x: Array, key: Key) -> tuple[Array, Array]:
        """The value and the rank, (B,) each, in one model call; ``key`` for samples."""
        value, logits = self.value_and_logits(x, key)
        return value, self.rank_of(logits)

    def rank(self, x: Array, key: Key) -> Array:
        """The rank alone, (B,), which needs no loss."""
        if isinstance(self.logits_fn, Sampled):
            return self.rank_of(mean_prediction(self.logits_fn.sample(key, x)))
        return self.rank_of(self.logits_fn(x))

    def value_and_logits(self, x: Array, key: Key) -> tuple[Array, Array]:
        """The value (B,) and the logits (B, K)."""
        if isinstance(self.logits_fn, Sampled):
            samples = self.logits_fn.sample(key, x)
            value = jnp.mean(jax.vmap(self.value_of)(samples), axis=0)
            return value, mean_prediction(samples)
        logits = self.logits_fn(x)
        return self.value_of(logits), logits

    def value_of(self, logits: Array) -> Array:
        """The value (B,) of logits (B, K)."""
        # A user's untargeted loss need not know the argument.
        towards = () if self.target is None else (self.target,)
        return self.loss(logits, self.y, *towards)

    def rank_of(self, logits: Array) -> Array:
        """How adversarial these logits are, (B,); NaN is no answer, hence wrong."""
        reach = None if self.any_error else self.target
        # Of soft labels it is the likeliest class that an attack has to beat.
        margin = losses.margin(logits, losses.hard(self.y), reach)
        return jnp.where(jnp.isnan(logits).any(axis=1), jnp.inf, margin)

    def with_loss(self, loss: Loss) -> 'Goal':
        """The same goal, climbed along another loss."""
        return dataclasses.replace(self, loss=loss)

    def take(self, index: Array) -> 'Goal':
        """The goal of some of the examples."""
        target = None if self.target is None else jnp.take(self.target, index, axis=0)
        return dataclasses.replace(
            self, y=jnp.take(self.y, index, axis=0), target=target
        )

    def towards(self, classes: Array) -> 'Goal':
        """The same goal, led towards classes (B,); any error still counts.

        Raises:
          ValueError: if there is a target already.
        """
        if self.target is not None:
            raise ValueError(
                'target must be None for an attack that chooses its own targets'
            )
        return dataclasses.replace(self, target=classes, any_error=True)


def goal(
    logits_fn: LogitsFn,
    y: Array,
    target: Array | None = None,
    *,
    loss: Loss = losses.margin,
    any_error: bool = False,
) -> Goal:
    """The goal of an attack on a model.

    Args:
      logits_fn: the model, (B, ...) -> (B, K).
      y: (B,) integer labels.
      target: (B,) classes to be answered instead, or None for any error.
      loss: what the search climbs; ``margin`` by default.
      any_error: count any error as a success, although the loss leads to ``target``.

    >>> import jax, jax.numpy as jnp
    >>> wrong = goal(lambda x: x, y=jnp.array([0, 0]))
    >>> x = jnp.array([[2.0, 1], [1, 3]])
    >>> value, rank = wrong.value_and_rank(x, jax.random.key(0))
    >>> [float(r) for r in rank]  # positive where the model errs
    [-1.0, 2.0]
    """
    # A model with random answers would lose its samples behind a function.
    model = logits_fn if isinstance(logits_fn, Sampled) else as_pytree(logits_fn)
    return Goal(model, y, target, loss=loss, any_error=any_error)


class Maximum(NamedTuple):
    """An objective as a goal: ranked by its own value."""

    objective: Objective

    def value(self, x: Array, key: Key) -> Array:
        """The value, (B,)."""
        del key
        return self.objective(x)

    def value_and_rank(self, x: Array, key: Key) -> tuple[Array, Array]:
        """The value, twice."""
        value = self.value(x, key)
        return value, value

    def with_loss(self, loss: Loss) -> 'Maximum':
        """Itself: an objective is no loss of a model."""
        del loss
        return self
