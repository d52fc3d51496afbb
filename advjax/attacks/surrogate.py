"""An attack that searches one model and is judged on another.

    attack = surrogate(pgd(0.3), undefended)    # undefended: what the attacker has
    evaluation.evaluate(deployed, x, y, attack, key=key)

This is transfer, where the attacker has a model of their own; and it is the adaptive
attacker, who replaces parts of the deployed model by others with a gradient.
"""

import dataclasses

from advjax.attacks.goal import Goal
from advjax.attacks.search import call, calls_of, run
from advjax.types import Array, Attack, Found, Key, LogitsFn, as_pytree, dataclass


@dataclass
class Surrogate:
    """An attack with a model of its own; build it with ``surrogate``."""

    attack: Attack
    logits_fn: LogitsFn

    ranked = False

    @property
    def calls(self) -> int | None:
        """Calls of the surrogate per example; the model under attack sees none."""
        return calls_of(self.attack)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Searches the surrogate, whose ranks are not those of the model."""
        found = run(
            self.attack, dataclasses.replace(goal, logits_fn=self.logits_fn), key, x
        )
        return found._replace(rank=None)

    __call__ = call


def surrogate(attack: Attack, logits_fn: LogitsFn) -> Surrogate:
    """Runs ``attack`` on ``logits_fn``, whatever model it is called with.

    Args:
      attack: any attack.
      logits_fn: what it searches: an undefended copy, an ``ensemble``, the deployed
        model with ``bpda`` or ``eot`` inside.
    """
    return Surrogate(attack=as_pytree(attack), logits_fn=as_pytree(logits_fn))
