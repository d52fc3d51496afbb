"""How a search becomes an attack: all that is the same in every one of them.

An attack's author writes ``search(goal, key, x) -> Found``, and two lines more:

    @dataclass
    class Mine:
        ball: Ball
        calls, ranked = 1, True

        def search(self, goal, key, x):
            ...
            return Found(best, rank, queries)

        __call__ = call

``call`` is what a user calls. It is assigned, and neither inherited nor added by a
decorator, so that a reader and a type checker see it in the class.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from advjax import keys
from advjax.attacks.goal import Goal, Maximum, goal
from advjax.rows import choose
from advjax.types import (
    AnyGoal,
    Array,
    Found,
    Key,
    LogitsFn,
    Objective,
    Sampled,
    Search,
    check_images,
)


def call(
    self: Search,
    logits_fn: LogitsFn,
    key: Key,
    x: Array,
    y: Array,
    target: Array | None = None,
) -> Array:
    """Attacks ``logits_fn`` at ``x``.

    Args:
      self: the search.
      logits_fn: the model, (B, ...) -> (B, K) logits.
      key: one key, or one per example.
      x: (B, ...) float32 images within the bounds of the ball.
      y: (B,) labels.
      target: (B,) classes to be answered instead, or None for any error.

    Returns:
      An array like ``x``.
    """
    check_images(x)
    each = keys.per_example(key, x.shape[0])
    return self.search(goal(logits_fn, y, target), each, x).x


def maximize(self: Search, objective: Objective, key: Key, x0: Array) -> Array:
    """Searches the ball around ``x0`` for the maximum of any objective.

    Args:
      self: the search.
      objective: (B, ...) -> (B,), one value per example, each depending on its own
        example only.
      key: one key, or one per example.
      x0: (B, ...) float32 centre of the ball.

    Returns:
      An array like ``x0`` inside the ball.
    """
    check_images(x0)
    each = keys.per_example(key, x0.shape[0])
    return self.search(Maximum(objective), each, x0).x


def run(attack: Any, goal: Goal, key: Key, x: Array) -> Found:
    """Runs any attack for a goal: one of ours, or a plain function.

    Args:
      attack: a ``types.Search``, or a function (logits_fn, key, x, y) -> x_adv, which
        also takes ``target`` if the goal has one.
      goal: what it is to reach.
      key: (B,) keys.
      x: (B, ...) images.

    Raises:
      ValueError: if the goal has a target and the function takes none.
    """
    if isinstance(attack, Search):
        return attack.search(goal, key, x)
    aimed = {}
    if goal.target is not None:
        check_target(attack)
        aimed['target'] = goal.target
    point = attack(goal.logits_fn, key, x, goal.y, **aimed)
    return Found(point, None, jnp.full(x.shape[:1], -1, jnp.int32))


def ranked(
    attack: Any, goal: Goal, key: Key, x: Array, number: int | Array = 0
) -> Found:
    """``run``, and the rank of the result: by one more model call if it has none.

    For a model with random answers always by a call with draws of its own, which
    ``number`` tells apart: a rank that the best was chosen by is too high.
    """
    result = run(attack, goal, key, x)
    if result.rank is not None and not isinstance(goal.logits_fn, Sampled):
        return result
    return result._replace(rank=goal.rank(result.x, keys.fold(key, number)))


def calls_of(attack: Any, ranked: bool = False) -> int | None:
    """Model calls per example of any attack, its result ``ranked`` or not.

    None for a plain function, and where it is not known beforehand.
    """
    if not isinstance(attack, Search) or attack.calls is None:
        return None
    return attack.calls + (ranked and not attack.ranked)


def check_target(attack: Any) -> None:
    """Refuses an attack that cannot be aimed: a function that takes no target.

    Raises:
      ValueError: naming it.
    """
    if isinstance(attack, Search):
        return
    try:
        known = inspect.signature(attack)
    except ValueError:  # A callable without a signature is assumed to take it.
        return
    if not any(
        p.name == 'target' or p.kind is p.VAR_KEYWORD for p in known.parameters.values()
    ):
        inner = attack.func if isinstance(attack, jax.tree_util.Partial) else attack
        name = inner.__qualname__ if inspect.isroutine(inner) else repr(inner)
        raise ValueError(
            f'attack must take an argument target, the (B,) classes to be reached, to '
            f'be aimed; {name} takes {known}'
        )


class Worst(NamedTuple):
    """The worst point so far of every example, and its rank.

    Attributes:
      x: (B, ...).
      rank: (B,), -inf before there is any.
    """

    x: Array
    rank: Array

    def update(self, x: Array, rank: Array) -> 'Worst':
        """Takes ``x`` where its rank is higher; ties and NaN keep the earlier point."""
        better = rank > self.rank
        return Worst(choose(better, x, self.x), jnp.where(better, rank, self.rank))

    def found(self, queries: Array) -> Found:
        """As the result of a search."""
        return Found(self.x, self.rank, queries)


def nothing(x: Array) -> Worst:
    """The clean image with rank -inf: any point with a rank replaces it."""
    return Worst(x, jnp.full_like(x, -jnp.inf, shape=x.shape[:1]))


def spent(self: Any, x: Array) -> Array:
    """The declared model calls, for every example."""
    return jnp.full(x.shape[:1], self.calls, jnp.int32)


def keep(self: Any, worst: Worst) -> Found:
    """The result of a search that kept its worst point and made all its calls."""
    return worst.found(spent(self, worst.x))


class Stepwise(Protocol):
    """A search of equal steps, which one can take one by one."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    def init(self, goal: Any, key: Key, x0: Array) -> Any:
        """The state before the first step; ``key`` holds (B,) keys."""
        ...

    def step(self, goal: Any, x0: Array, state: Any) -> Any:
        """The state after one more step."""
        ...


def iterate(
    self: Stepwise,
    goal: AnyGoal,
    key: Key,
    x: Array,
    steps: int | None = None,
    unroll: int = 1,
) -> Any:
    """The state after ``steps`` steps, by default all of them."""
    steps = self.steps if steps is None else steps

    def body(state, _):
        return self.step(goal, x, state), None

    unroll = max(1, min(unroll, steps))
    state = self.init(goal, key, x)
    return jax.lax.scan(body, state, length=steps, unroll=unroll)[0]


def iterate_while(
    self: Any,
    active: Callable[[Any], Array],
    goal: AnyGoal,
    key: Key,
    x: Array,
    steps: int | None = None,
) -> Any:
    """The state once ``active(state)``, (B,), is False, or after ``steps`` steps."""

    def unfinished(state):
        if steps is None:
            return jnp.any(active(state))
        return (state.time < steps) & jnp.any(active(state))

    return jax.lax.while_loop(
        unfinished, lambda state: self.step(goal, x, state), self.init(goal, key, x)
    )
