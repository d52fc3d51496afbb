"""Attacks made of attacks: restarts, targets, and the worst of several.

Each runs its parts on every example and keeps, per example, the result on which
the model's margin is worst. So adding a restart, a target or a member never makes
the attack weaker. Each is itself an attack and one compiled program.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from advjax import balls, keys
from advjax.attacks.goal import Aim, margin_at
from advjax.rows import choose
from advjax.types import Array, Attack, Key, LogitsFn, as_pytree, dataclass


def _worse(one: tuple[Array, Array], other: tuple[Array, Array]):
    """Keeps the point of higher rank per example; the first of equals and of NaN."""
    (x, rank), (new_x, new_rank) = one, other
    better = new_rank > rank
    return choose(better, new_x, x), jnp.where(better, new_rank, rank)


def _worst_in_turn(run, count: int, x: Array, parallel: bool) -> Array:
    """The worst of ``run(0), ..., run(count - 1)``, each a (point, rank)."""
    nothing = x, jnp.full_like(x, -jnp.inf, shape=x.shape[:1])
    if parallel:
        points, ranks = jax.vmap(run)(jnp.arange(count))
        best = nothing
        for i in range(count):
            best = _worse(best, (points[i], ranks[i]))
        return best[0]

    def body(best, i):
        return _worse(best, run(i)), None

    return jax.lax.scan(body, nothing, jnp.arange(count))[0][0]


def _calls(attack: Attack) -> int | None:
    return getattr(attack, 'calls', None)


@dataclass
class Again:
    """One restart of an attack: the same search with draws of its own."""

    attack: Any
    number: Array

    @property
    def calls(self) -> int | None:
        """Model calls per example."""
        return _calls(self.attack)

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Key,
        x: Array,
        y: Array,
        target: Any = None,
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``."""
        own = keys.fold(keys.per_example(key, x.shape[0]), self.number)
        return self.attack(logits_fn, own, x, y, **_aimed(target))


def _aimed(target: Any) -> dict[str, Any]:
    """A user's untargeted attack need not know the argument."""
    return {} if target is None else {'target': target}


@dataclass
class Restarts:
    """The worst of several runs of one attack; build it with ``restarts``."""

    attack: Any
    count: int = struct.field(pytree_node=False)
    parallel: bool = struct.field(pytree_node=False, default=False)

    @property
    def calls(self) -> int | None:
        """Model calls per example: every run, and one to rank it."""
        calls = _calls(self.attack)
        return None if calls is None else self.count * (calls + 1)

    def part(self, number: int | Array) -> Again:
        """One of the ``count`` runs, an attack of its own."""
        return Again(attack=self.attack, number=jnp.asarray(number, jnp.int32))

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Key,
        x: Array,
        y: Array,
        target: Any = None,
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``."""
        each = keys.per_example(key, x.shape[0])

        def run(i):
            point = self.part(i)(logits_fn, each, x, y, target)
            return point, margin_at(logits_fn, keys.fold(each, i), point, y, target)

        return _worst_in_turn(run, self.count, x, self.parallel)


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
    """
    if not (isinstance(count, int) and count >= 1):
        raise ValueError(f'count must be an integer >= 1, got {count!r}')
    return Restarts(attack=as_pytree(attack), count=count, parallel=parallel)


@dataclass
class Towards:
    """An attack aimed at the wrong class of one place in the order of likelihood."""

    attack: Any
    place: Array

    @property
    def calls(self) -> int | None:
        """Model calls per example: one to rank the classes, then the attack."""
        calls = _calls(self.attack)
        return None if calls is None else 1 + calls

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Attacks ``logits_fn`` at ``x``; any error is a success."""
        own = keys.fold(keys.per_example(key, x.shape[0]), self.place)
        logits = logits_fn(x).astype(jnp.float32)
        classes = logits.shape[1]
        right = jax.nn.one_hot(y, classes, dtype=bool)
        likely = jnp.where(right, -jnp.inf, jnp.nan_to_num(logits))
        order = jax.lax.top_k(likely, classes - 1)[1].astype(jnp.asarray(y).dtype)
        towards = jnp.take(order, self.place, axis=1)
        return self.attack(logits_fn, own, x, y, target=Aim(towards))


@dataclass
class Targeted:
    """The worst over the likeliest wrong classes; build it with ``targeted``."""

    attack: Any
    classes: int = struct.field(pytree_node=False)
    parallel: bool = struct.field(pytree_node=False, default=False)

    @property
    def calls(self) -> int | None:
        """Model calls per example: every target, one to choose and one to rank it."""
        calls = _calls(self.attack)
        return None if calls is None else self.classes * (calls + 2)

    @property
    def count(self) -> int:
        """The number of parts."""
        return self.classes

    def part(self, place: int | Array) -> Towards:
        """The attack on the class of one place: 0 is the likeliest wrong one."""
        return Towards(attack=self.attack, place=jnp.asarray(place, jnp.int32))

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Attacks ``logits_fn`` at ``x``; the verdict is untargeted."""
        each = keys.per_example(key, x.shape[0])
        wrong = jax.eval_shape(logits_fn, x).shape[1] - 1
        if self.classes > wrong:
            raise ValueError(
                f'classes must be at most {wrong}, the number of wrong classes of this '
                f'model, got {self.classes}'
            )

        def run(i):
            point = self.part(i)(logits_fn, each, x, y)
            return point, margin_at(logits_fn, keys.fold(each, i), point, y)

        return _worst_in_turn(run, self.classes, x, self.parallel)


def targeted(attack: Attack, classes: int = 9, parallel: bool = False) -> Targeted:
    """Aims ``attack`` at each of the ``classes`` likeliest wrong classes in turn.

    "Likeliest" by the clean logits; whatever error the model makes on the way
    counts. Often stronger than more restarts of the
    untargeted attack (Gowal et al. 2019, arXiv 1910.09338).

    Args:
      attack: an attack that takes ``target``.
      classes: how many wrong classes to try.
      parallel: try them side by side by ``vmap`` instead of in turn.

    Raises:
      ValueError: if ``classes`` is not a positive integer or (when called) exceeds
        the number of wrong classes.
    """
    if not (isinstance(classes, int) and classes >= 1):
        raise ValueError(f'classes must be an integer >= 1, got {classes!r}')
    return Targeted(attack=as_pytree(attack), classes=classes, parallel=parallel)


@dataclass
class WorstOf:
    """The worst of several different attacks; build it with ``worst_of``."""

    attacks: tuple[Any, ...]
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())

    @property
    def members(self) -> dict[str, Any]:
        """The attacks by name, in the order in which they run."""
        return dict(zip(self.names, self.attacks, strict=True))

    @property
    def calls(self) -> int | None:
        """Model calls per example: every member, and one each to rank it."""
        calls = [_calls(attack) for attack in self.attacks]
        known = [c for c in calls if c is not None]
        return sum(known) + len(calls) if len(known) == len(calls) else None

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Key,
        x: Array,
        y: Array,
        target: Any = None,
    ) -> Array:
        """Attacks ``logits_fn`` at ``x``."""
        each = keys.per_example(key, x.shape[0])
        best = x, jnp.full_like(x, -jnp.inf, shape=x.shape[:1])
        for i, attack in enumerate(self.attacks):
            own = keys.fold(each, i)
            point = attack(logits_fn, own, x, y, **_aimed(target))
            rank = margin_at(logits_fn, own, point, y, target)
            rank = jnp.where(self._allowed(attack, point, x), rank, -jnp.inf)
            best = _worse(best, (point, rank))
        return best[0]

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
    """Attacks what a model says instead of the label; see ``from_prediction``."""

    attack: Any
    of: Any = None

    @property
    def calls(self) -> int | None:
        """Model calls per example: the attack's, and one for its own prediction."""
        calls = _calls(self.attack)
        return None if calls is None else calls + (self.of is None)

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Attacks ``logits_fn`` at ``x``; ``y`` is not looked at."""
        del y
        said = logits_fn if self.of is None else self.of
        return self.attack(logits_fn, key, x, said(x))


def from_prediction(attack: Attack, of: LogitsFn | None = None) -> FromPrediction:
    """Gives ``attack`` the clean logits (B, K) where it expects labels.

    With ``loss=losses.kl`` this is the inner maximum of TRADES and of virtual
    adversarial training, and with the logits of a teacher that of RSLAD. The attack
    must not keep the best iterate: without a label there is no margin to rank by.

    Args:
      attack: any attack with a loss of (logits, logits).
      of: the model whose logits they are; the one under attack by default.

    Raises:
      ValueError: if the attack keeps the best iterate.
    """
    if getattr(attack, 'keep_best', False):
        raise ValueError(
            'attack must have keep_best=False: there is no label to rank by'
        )
    return FromPrediction(as_pytree(attack), None if of is None else as_pytree(of))
