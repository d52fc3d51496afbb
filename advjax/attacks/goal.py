"""A goal: what an attack maximises, and the rank by which iterates are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advjax import losses
from advjax.attacks.logits import Eot, mean_prediction
from advjax.types import Array, Key, LogitsFn, Loss, Objective


class Goal(NamedTuple):
    """loss(logits_fn(x), y), to be maximised over x.

    The *value* gives the direction; the *rank* says which of two iterates is the
    better adversarial example: the margin, positive exactly where the model is
    wrong (or answers the target). So the best iterate kept is adversarial if any
    iterate was, whatever the loss.

    A randomised model (``Eot``) has both replaced by expectations over draws that
    belong to the example and the step.
    """

    logits_fn: LogitsFn
    loss: Loss
    y: Array
    target: Array | None = None

    def __call__(self, x: Array) -> Array:
        """The value (B,) alone, as any objective returns it."""
        return self._loss(self.logits_fn(x))

    def _loss(self, logits: Array) -> Array:
        # A user's untargeted loss need not know the argument.
        aim = () if self.target is None else (self.target,)
        return self.loss(logits, self.y, *aim)

    def evaluate(self, x: Array, key: Key) -> tuple[Array, Array]:
        """Returns the value (B,) and the logits (B, K); ``key`` is for an ``Eot``."""
        if isinstance(self.logits_fn, Eot):
            samples = self.logits_fn.sample(key, x)
            value = jnp.mean(jax.vmap(self._loss)(samples), axis=0)
            return value, mean_prediction(samples)
        logits = self.logits_fn(x)
        return self._loss(logits), logits

    def rank(self, logits: Array) -> Array:
        """How adversarial these logits are, (B,); NaN is no answer, hence wrong."""
        margin = losses.margin(logits, self.y, self.target)
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
    logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Array | None = None
) -> Array:
    """The margin of the model at ``x``, (B,): what finished attacks are ranked by."""
    goal = Goal(logits_fn, losses.margin, y, target)
    return goal.rank(goal.evaluate(x, key)[1])
