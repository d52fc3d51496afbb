"""An attack that searches one model and is judged on another.

    attack = surrogate(pgd(0.3), undefended)    # undefended: what the attacker has
    evaluation.evaluate(deployed, x, y, attack, key)

This is transfer, where the attacker has a model of their own; and it is the adaptive
attacker, who replaces parts of the deployed model by others with a gradient.
"""

from typing import Any

from advjax.types import Array, Attack, Key, LogitsFn, as_pytree, dataclass


@dataclass
class Surrogate:
    """An attack with a model of its own; build it with ``surrogate``."""

    attack: Any
    logits_fn: Any

    @property
    def calls(self) -> int | None:
        """Calls of the surrogate per example; the model under attack sees none."""
        return getattr(self.attack, 'calls', None)

    def __call__(
        self, logits_fn: LogitsFn, key: Key, x: Array, y: Array, target: Any = None
    ) -> Array:
        """Attacks the surrogate; ``logits_fn`` is not looked at."""
        del logits_fn
        aimed = {} if target is None else {'target': target}
        return self.attack(self.logits_fn, key, x, y, **aimed)


def surrogate(attack: Attack, logits_fn: LogitsFn) -> Surrogate:
    """Runs ``attack`` on ``logits_fn``, whatever model it is called with.

    Args:
      attack: any attack.
      logits_fn: what it searches: an undefended copy, an ``ensemble``, the deployed
        model with ``bpda`` or ``eot`` inside.
    """
    return Surrogate(attack=as_pytree(attack), logits_fn=as_pytree(logits_fn))
