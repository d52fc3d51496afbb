"""Attacks made of attacks: restarts, targets, and the worst of several.

Each runs its parts on every example and keeps, per example, the result of highest rank.
So adding a restart, a target or a member never makes the attack weaker. (For a model
with random answers each result is ranked by one more call, with fresh draws.) Each is
itself an attack and one compiled program.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys
from advjax.attacks.ascent import Ascent
from advjax.attacks.checks import check_count
from advjax.attacks.goal import Goal
from advjax.attacks.search import (
    call,
    calls_of,
    check_target,
    nothing,
    ranked,
    run,
)
from advjax.types import (
    Array,
    Attack,
    Found,
    Key,
    LogitsFn,
    Search,
    as_pytree,
    dataclass,
)


def _worst_in_turn(
    part: Callable[[Array], Any],
    count: int,
    parallel: bool,
    goal: Goal,
    key: Key,
    x: Array,
) -> Found:
    """The worst of ``part(0), ..., part(count - 1)``, and the queries of all."""

    def run_part(i):
        return ranked(part(i), goal, key, x, i)

    def add(carry, found):
        worst, queries = carry
        rank = jnp.asarray(found.rank)
        return worst.update(found.x, rank), _sum(queries, found.queries)

    begun = nothing(x), jnp.zeros(x.shape[:1], jnp.int32)
    if parallel:
        together, carry = jax.vmap(run_part)(jnp.arange(count)), begun
        for i in range(count):
            carry = add(carry, jax.tree.map(lambda a, i=i: a[i], together))
    else:
        carry, _ = jax.lax.scan(
            lambda carry, i: (add(carry, run_part(i)), None), begun, jnp.arange(count)
        )
    worst, queries = carry
    return worst.found(queries)


def _sum(queries: Array, more: Array) -> Array:
    """The sum, -1 (unknown) where either is."""
    return jnp.where((queries < 0) | (more < 0), -1, queries + more)


@dataclass
class Again:
    """One run of an attack among several, with draws of its own."""

    attack: Attack
    number: Array

    @property
    def calls(self) -> int | None:
        """Model calls per example."""
        return calls_of(self.attack)

    @property
    def ranked(self) -> bool:
        """As the attack."""
        return isinstance(self.attack, Search) and self.attack.ranked

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Runs the attack with another key."""
        return run(self.attack, goal, keys.fold(key, self.number), x)

    __call__ = call


@dataclass
class Restarts:
    """The worst of several runs of one attack; build it with ``restarts``."""

    attack: Attack
    count: int = struct.field(pytree_node=False)
    parallel: bool = struct.field(pytree_node=False, default=False)
    ranked = True

    @property
    def calls(self) -> int | None:
        """Model calls per example."""
        calls = calls_of(self.attack, ranked=True)
        return None if calls is None else self.count * calls

    def parts(self) -> dict[str, Again]:
        """The runs, by number."""
        return {str(i): Again(self.attack, jnp.int32(i)) for i in range(self.count)}

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The worst result of all runs."""
        run = functools.partial(Again, self.attack)
        return _worst_in_turn(run, self.count, self.parallel, goal, key, x)

    __call__ = call


def restarts(attack: Attack, count: int, parallel: bool = False) -> Restarts:
    """Runs ``attack`` from ``count`` independent random starts.

    Restart r of an example uses ``fold_in(key, r)``, so n + 1 restarts contain the
    n restarts.

    Args:
      attack: any attack; a deterministic one gains nothing.
      count: number of runs.
      parallel: run them side by side by ``vmap`` (count times the memory) instead
        of one after the other.

    Raises:
      ValueError: if ``count`` is not a positive integer.

    >>> from advjax import attacks
    >>> strong = restarts(attacks.pgd(0.3, 40), 5)
    >>> strong.calls, list(strong.parts())
    (205, ['0', '1', '2', '3', '4'])
    """
    return Restarts(as_pytree(attack), check_count('count', count), parallel)


@dataclass
class Towards:
    """An attack aimed at one wrong class; ``place`` 0 is the likeliest one."""

    attack: Attack
    place: Array

    @property
    def calls(self) -> int | None:
        """Model calls per example: one to order the classes, then the attack."""
        calls = calls_of(self.attack)
        return None if calls is None else 1 + calls

    @property
    def ranked(self) -> bool:
        """As the attack."""
        return isinstance(self.attack, Search) and self.attack.ranked

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Aims the attack; any error is a success."""
        logits = goal.logits_fn(x).astype(jnp.float32)
        classes = logits.shape[1]
        right = jax.nn.one_hot(goal.y, classes, dtype=bool)
        likely = jnp.where(right, -jnp.inf, jnp.nan_to_num(logits))
        order = jax.lax.top_k(likely, classes - 1)[1].astype(jnp.asarray(goal.y).dtype)
        aimed = goal.towards(jnp.take(order, self.place, axis=1))
        found = run(self.attack, aimed, keys.fold(key, self.place), x)
        return found._replace(queries=_sum(found.queries, jnp.ones_like(found.queries)))

    __call__ = call


@dataclass
class Targeted:
    """The worst over the likeliest wrong classes; build it with ``targeted``."""

    attack: Attack
    classes: int = struct.field(pytree_node=False)
    parallel: bool = struct.field(pytree_node=False, default=False)
    ranked = True

    @property
    def calls(self) -> int | None:
        """Model calls per example: every target, and one each to choose it."""
        calls = calls_of(self.attack, ranked=True)
        return None if calls is None else self.classes * (calls + 1)

    def parts(self) -> dict[str, Towards]:
        """The attacks on one class each, by its place: 0 is the likeliest wrong one."""
        return {str(i): Towards(self.attack, jnp.int32(i)) for i in range(self.classes)}

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The worst result of all targets; success is any misclassification."""
        wrong = jax.eval_shape(goal.logits_fn, x).shape[1] - 1
        if self.classes > wrong:
            raise ValueError(
                f'classes must be at most {wrong}, the number of wrong classes of this '
                f'model, got {self.classes}'
            )
        aimed = functools.partial(Towards, self.attack)
        return _worst_in_turn(aimed, self.classes, self.parallel, goal, key, x)

    __call__ = call


def targeted(attack: Attack, classes: int = 9, parallel: bool = False) -> Targeted:
    """Aims ``attack`` at each of the ``classes`` likeliest wrong classes in turn.

    "Likeliest" is by the clean logits, and any error counts as a success. Often
    stronger than more restarts of the untargeted attack (Gowal et al. 2019, arXiv
    1910.09338).

    Args:
      attack: an attack that takes ``target``: any of ours, or a function
        (logits_fn, key, x, y, target) -> x_adv, whose target is (B,) classes.
      classes: how many wrong classes to try.
      parallel: try them side by side by ``vmap`` instead of in turn.

    Raises:
      ValueError: if ``attack`` takes no target, if ``classes`` is not a positive
        integer or (when called) exceeds the number of wrong classes.

    >>> from advjax import attacks, losses
    >>> targeted(attacks.pgd(0.3, 40, loss=losses.dlr), 9).calls
    378
    """
    check_count('classes', classes)
    for function in _functions(attack):
        check_target(function)
    return Targeted(as_pytree(attack), classes, parallel)


def _functions(attack: Any) -> list[Any]:
    """The plain functions that an attack is made of."""
    if isinstance(attack, Again | Restarts):
        return _functions(attack.attack)
    if isinstance(attack, WorstOf):
        return [f for member in attack.attacks for f in _functions(member)]
    return [] if isinstance(attack, Search) else [attack]


@dataclass
class WorstOf:
    """The worst of several different attacks; build it with ``worst_of``."""

    attacks: tuple[Attack, ...]
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    ranked = True

    @property
    def members(self) -> dict[str, Any]:
        """The attacks by name, in the order in which they run."""
        return dict(zip(self.names, self.attacks, strict=True))

    def parts(self) -> dict[str, Again]:
        """The attacks by name, each with the draws that it has inside of this one."""
        return {
            name: Again(attack, jnp.int32(i))
            for i, (name, attack) in enumerate(self.members.items())
        }

    @property
    def calls(self) -> int | None:
        """Model calls per example."""
        calls = [calls_of(attack, ranked=True) for attack in self.attacks]
        known = [c for c in calls if c is not None]
        return sum(known) if len(known) == len(calls) else None

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """The worst result of all members."""
        worst, queries = nothing(x), jnp.zeros(x.shape[:1], jnp.int32)
        for i, attack in enumerate(self.attacks):
            found = ranked(attack, goal, keys.fold(key, i), x, i)
            allowed = self._allowed(attack, found.x, x)
            rank = jnp.where(allowed, jnp.asarray(found.rank), -jnp.inf)
            worst = worst.update(found.x, rank)
            queries = _sum(queries, found.queries)
        return worst.found(queries)

    __call__ = call

    def _allowed(self, attack: Any, point: Array, x: Array) -> Array:
        """A member without a ball of its own must end in a ball of another's.

        Otherwise it could win from outside, and hide what the others found inside.
        """
        others = balls.of(self.attacks)
        if balls.of(attack) or not others:
            return jnp.ones(x.shape[:1], bool)
        return jnp.stack([ball.contains(point, x) for ball in others]).any(axis=0)


def worst_of(attacks: Sequence[Attack] | Mapping[str, Attack]) -> WorstOf:
    """Runs several attacks and keeps the worst result per example.

    This is one attack and one compiled program: use it inside training or inside
    other combinators. ``evaluation.evaluate`` takes it apart again, and reports on
    every member under its name.

    Args:
      attacks: the members, as a sequence or as {name: attack}.

    Raises:
      ValueError: if ``attacks`` is empty.

    >>> from advjax import attacks
    >>> worst_of({'fast': attacks.fgsm(0.3), 'slow': attacks.pgd(0.3, 40)}).calls
    43
    """
    if not attacks:
        raise ValueError('attacks must hold at least one attack, got none')
    if not isinstance(attacks, Mapping):
        attacks = {str(i): attack for i, attack in enumerate(attacks)}
    return WorstOf(
        attacks=tuple(as_pytree(attack) for attack in attacks.values()),
        names=tuple(str(name) for name in attacks),
    )


@dataclass
class FromPrediction:
    """Attacks a prediction instead of the label; see ``from_prediction``."""

    attack: Attack
    of: LogitsFn | None = None
    ranked = False

    @property
    def calls(self) -> int | None:
        """Model calls per example: the attack's, and one for its own prediction."""
        calls = calls_of(self.attack)
        return None if calls is None else calls + (self.of is None)

    def search(self, goal: Goal, key: Key, x: Array) -> Found:
        """Runs the attack with clean logits in place of the label."""
        said = goal.logits_fn if self.of is None else self.of
        found = run(self.attack, dataclasses.replace(goal, y=said(x)), key, x)
        more = jnp.full_like(found.queries, self.of is None)
        return Found(found.x, None, _sum(found.queries, more))

    __call__ = call


def from_prediction(attack: Attack, of: LogitsFn | None = None) -> FromPrediction:
    """Gives ``attack`` the clean logits (B, K) where it expects labels.

    With ``loss=losses.kl`` this is the inner maximum of TRADES and of virtual
    adversarial training, and with the logits of a teacher that of RSLAD. The attack
    must not keep the best iterate, which would be the one of largest margin and not of
    largest loss.

    Args:
      attack: any attack with a loss of (logits, logits).
      of: the model whose logits they are; the one under attack by default.

    Raises:
      ValueError: if the attack keeps the best iterate.
    """
    if isinstance(attack, Ascent) and attack.keep_best:
        raise ValueError(
            'attack must have keep_best=False: the best would be chosen by the answer, '
            'not by the loss'
        )
    return FromPrediction(as_pytree(attack), None if of is None else as_pytree(of))
