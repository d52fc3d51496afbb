"""A training as a value: what is trained, and how far it has got."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advjax import data, sharding
from advjax.models import Model
from advjax.sharding import Placement
from advjax.training.feed import Feed
from advjax.training.methods import Method
from advjax.training.result import Fit
from advjax.training.settings import Recovery
from advjax.training.steps import TrainState, create
from advjax.types import Array, Key

Augment = Callable[[Key, Array, Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained, on what, and for how long; see ``fit``."""

    method: Method
    model: Model
    optimizer: optax.GradientTransformation
    feed: Feed
    held_out: data.Dataset
    key: Key
    epochs: int
    batch_size: int
    attack: Any
    augment: Augment | None
    averaging: Any
    place: Placement
    recovery: Recovery

    @property
    def updates_per_epoch(self) -> int:
        """Updates of the weights in one epoch."""
        return self.feed.batches_per_epoch * self.method.replays

    def attempt_key(self, attempt: int) -> Key:
        """The key of one seed."""
        return jax.random.fold_in(self.key, attempt)

    def score(self, row: Mapping[str, Any]) -> float:
        """What the best epoch is chosen by."""
        # With a view of its own the adversary serves the answers of the plain one.
        robust = self.method.adversarial and not self.method.view
        return row['held_out_robust' if robust else 'held_out_clean']


@dataclasses.dataclass(frozen=True)
class Record:
    """How far a training has got, apart from arrays.

    Attributes:
      attempt: the seed that is being tried.
      epoch: finished epochs of it.
      best_score: of the best epoch of all seeds; -1 before the first.
      history: one row per epoch, those of failed attempts included.
      events: failures and what followed, in words.
      seconds: wall time spent training.
      finished: nothing is left to be done.
    """

    attempt: int = 0
    epoch: int = 0
    best_score: float = -1.0
    history: tuple[Mapping[str, Any], ...] = ()
    events: tuple[str, ...] = ()
    seconds: float = 0.0
    finished: bool = False

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """History of the present attempt."""
        return [row for row in self.history if row['attempt'] == self.attempt]


class Training(NamedTuple):
    """A training at one moment: all that a checkpoint must hold to go on from it.

    Attributes:
      state: of the present attempt.
      best: 'params' and 'model_state' of the best epoch.
      record: the rest.
    """

    state: TrainState
    best: dict[str, Any]
    record: Record

    def note(self, **changes: Any) -> 'Training':
        """The same with another record."""
        return self._replace(record=dataclasses.replace(self.record, **changes))


def initial(plan: Plan, attempt: int) -> TrainState:
    """The state that a seed begins with."""
    key = jax.random.fold_in(plan.attempt_key(attempt), 0)
    shape = (plan.batch_size, *plan.feed.shape)

    def make(method, averaging, key):
        return create(
            plan.model,
            plan.optimizer,
            key=key,
            method=method,
            shape=shape,
            averaging=averaging,
        )

    state = jax.jit(make)(plan.method, plan.averaging, key)
    return placed(plan.place, state) if plan.place.several else state


def placed(place: Placement, state: TrainState) -> TrainState:
    """A state, replicated or sharded as training keeps it."""
    return place.put(state, place.of_state(state))


def kept(state: TrainState) -> dict[str, Any]:
    """A copy of the network in a state, which survives the donation of the state."""
    params, model_state = state.result
    return jax.tree.map(jnp.copy, {'params': params, 'model_state': model_state})


def begin(plan: Plan) -> Training:
    """A training before its first update."""
    state = initial(plan, 0)
    return Training(state, kept(state), Record())


def outcome(plan: Plan, training: Training) -> Fit:
    """The result of a training that ends here."""
    best, record = training.best, training.record
    if plan.place.several:  # The result is used on one device, or placed anew.
        best = jax.tree.map(jnp.array, sharding.fetched(best))
    return Fit(
        model=plan.model,
        params=best['params'],
        model_state=best['model_state'],
        last=training.state,
        history=record.history,
        events=record.events,
        seconds=record.seconds,
        adversarial=plan.method.adversarial,
    )
