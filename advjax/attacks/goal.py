"""A goal: what an attack maximises, and the rank by which iterates are kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advjax import losses
from advjax.attacks.logits import mean_prediction
from advjax.types import Array, Key, LogitsFn, Loss, Objective


class Aim(NamedTuple):
    """Classes to search towards when any error of the model is a success.

    Passed as ``target`` it steers the loss, while iterates are ranked, and successes
    counted, as in the untargeted attack. This is what "targeted" means in AutoAttack.
    """

    classes: Array


class Goal(NamedTuple):
    """loss(logits_fn(x), y), to be maximised over x.

    The *value* gives the direction; the *rank* says which of two iterates is the
    better adversarial example: the margin, positive exactly where the model is
    wrong (or answers the target). So the best iterate kept is adversarial if any
    iterate was, whatever the loss.

    ``scale`` (B,) is the size of the logits at the clean image, where it is known: what
    their rounding is to be measured by (``attacks.minimum``).

    A model with a method ``sample`` (``Eot``, ``Views``) has both replaced by
    expectations over draws that belong to the example and the step.
    """

    logits_fn: LogitsFn
    loss: Loss
    y: Array
    target: Array | Aim | None = None
    scale: Array | None = None

    def __call__(self, x: Array) -> Array:
        """The value (B,) alone, as any objective returns it."""
        return self.loss_of(self.logits_fn(x))

    def loss_of(self, logits: Array) -> Array:
        """The value (B,) of logits (B, K)."""
        # A user's untargeted loss need not know the argument.
        aim = () if self.target is None else (self.towards,)
        return self.loss(logits, self.y, *aim)

    @property
    def towards(self) -> Array | None:
        """The classes (B,) that the loss leads to, or None."""
        return self.target.classes if isinstance(self.target, Aim) else self.target

    def evaluate(self, x: Array, key: Key) -> tuple[Array, Array]:
        """Returns the value (B,) and the logits (B, K); ``key`` is for samples."""
        sample: Any = getattr(self.logits_fn, 'sample', None)
        if sample is not None:
            samples = sample(key, x)
            value = jnp.mean(jax.vmap(self.loss_of)(samples), axis=0)
            return value, mean_prediction(samples)
        logits = self.logits_fn(x)
        return self.loss_of(logits), logits

    def rank(self, logits: Array) -> Array:
        """How adversarial these logits are, (B,); NaN is no answer, hence wrong."""
        reach = None if isinstance(self.target, Aim) else self.target
        # Of soft labels it is the likeliest class that an attack has to beat.
        margin = losses.margin(logits, losses.hard(self.y), reach)
        return jnp.where(jnp.isnan(logits).any(axis=1), jnp.inf, margin)


def evaluate(
    objective: Objective, x: Array, key: Key, ranked: bool
) -> tuple[Array, Array | None]:
    """Returns the value of any objective and, if ``ranked``, its rank.

    A plain objective is ranked by its own value.
    """
    if not isinstance(objective, Goal):
        value = objective(x)
        return value, value if ranked else None
    value, logits = objective.evaluate(x, key)
    return value, objective.rank(logits) if ranked else None


def margin_at(
    logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Array | Aim | None = None
) -> Array:
    """The margin of the model at ``x``, (B,): what finished attacks are ranked by."""
    goal = Goal(logits_fn, losses.margin, y, target)
    return goal.rank(goal.evaluate(x, key)[1])
