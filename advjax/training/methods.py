r"""What a training method is: an inner maximum and an outer minimum.

.. math:: \min_\theta E\,\mathrm{outer}(\theta, x, \mathrm{inner}(\theta, x, y), y)

``inner`` is an attack, ``outer`` a loss over the parameters. A method is a pytree: its
radius, step sizes and weights are leaves that can be swept by ``vmap`` or scheduled.
Your own is ``method(attack, outer)`` with any two functions of these shapes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import jax
from flax import struct

from advjax.attacks.checks import check_count
from advjax.training.forward import Forward
from advjax.training.selection import scaled
from advjax.types import Array, Key, LogitsFn, Params, State, as_pytree, dataclass

if TYPE_CHECKING:
    from advjax.training.steps import Differentiated, Task, TrainState

Inner = Callable[[LogitsFn, Key, Array, Array], Any]


class Outer(Protocol):
    """A loss over the parameters, one value per example."""

    def __call__(
        self, forward: Forward, state: State, x: Array, x_adv: Any, y: Array, /
    ) -> tuple[Array, Array, State]:
        """Returns losses (B,), logits (B, K), and the state of the last pass."""
        ...


class OnWeights(Protocol):
    """An adversary of the weights."""

    def __call__(self, loss: Callable[[Params], Array], params: Params, /) -> Params:
        """Returns the weights at which the gradient is taken."""
        ...


class Update(Protocol):
    """Where a step takes its gradient, if not at images found before."""

    def begin(self, shape: tuple[int, ...]) -> Any:
        """Returns what ``TrainState.carried`` holds before the first batch."""
        ...

    def __call__(
        self, method: 'Method', state: 'TrainState', task: 'Task'
    ) -> 'Differentiated':
        """Returns the gradient in the weights, and what is carried on."""
        ...


@dataclass
class Method:
    """A training method; build it with a factory, or with ``method``.

    Attributes:
      inner: the attack whose result is trained on; it may return any pytree of
        images, which the outer loss then gets.
      outer: ``(forward, state, x, x_adv, y) -> (losses (B,), logits (B, K), state)``,
        where ``forward(state, x, draw=0, **view) -> (logits, state)`` runs the network
        in train mode (see ``forward.Forward``).
      train_mode: run the model in train mode while attacking. Off by default:
        batch statistics would let the examples of a batch attack each other.
      view: the view of the model that the adversary belongs to, as sorted pairs such
        as (('branch', 1),): attacked in training and in the robust accuracy on
        held-out images. Such a network answers in its plain view, so it is that
        view's clean accuracy that the best epoch is chosen by.
      on_weights: an adversary of the weights (see ``awp``), or None.
      plan: what changes in the course of training (see ``scheduled``).
      adversarial: whether there is an inner maximum. If so, the best epoch is that of
        the highest robust accuracy on held-out images, and a fall of it is a failure.
      replays: updates in a row on every batch.
      unlabelled: whether the outer loss takes examples without a label (y = -1).
      update: the step where it is not the ordinary one (see ``free``), or None.
    """

    inner: Inner
    outer: Outer
    train_mode: bool = struct.field(pytree_node=False, default=False)
    view: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False, default=())
    on_weights: OnWeights | None = None
    plan: tuple[tuple[str, Any], ...] = struct.field(pytree_node=False, default=())
    adversarial: bool = struct.field(pytree_node=False, default=True)
    replays: int = struct.field(pytree_node=False, default=1)
    unlabelled: bool = struct.field(pytree_node=False, default=False)
    update: Update | None = None

    def at(self, step: Array) -> 'Method':
        """The method with its scheduled numbers at a step."""
        method = self
        for path, factor in self.plan:
            method = scaled(method, path, factor(step))
        return method

    def around(self, wrap: Callable[[Any], Any]) -> 'Method':
        """The method with its outer loss wrapped by another.

        Args:
          wrap: makes the new outer loss, which holds the present one as its ``outer``.
        """
        plan = tuple(
            (f'outer.{path}' if path.startswith('outer.') else path, factor)
            for path, factor in self.plan
        )
        return dataclasses.replace(self, outer=wrap(self.outer), plan=plan)


def method(
    inner: Inner,
    outer: Outer,
    train_mode: bool = False,
    view: Mapping[str, Any] | None = None,
    *,
    adversarial: bool = True,
    replays: int = 1,
    unlabelled: bool = False,
    update: Update | None = None,
) -> Method:
    """Pairs an attack with an outer loss.

    >>> from advjax import attacks, training
    >>> search = attacks.pgd(0.3, 10, keep_best=False)
    >>> training.method(search, training.on_adversarial).adversarial
    True

    Args:
      inner: an attack, ``(logits_fn, key, x, y) -> x_adv``.
      outer: ``(forward, state, x, x_adv, y) -> (losses (B,), logits (B, K), state)``.
      train_mode: this and what follows are the fields of ``Method``.
      view: such as {'branch': 1}.
      adversarial: False for random noise; ``unperturbed`` never is an adversary.
      replays: updates in a row on every batch.
      unlabelled: whether y may be -1.
      update: see ``Update``.

    Raises:
      ValueError: if the view names an argument that every model has, or replays is
        less than 1.
    """
    pairs = tuple(sorted((view or {}).items()))
    taken = {'params', 'state', 'x', 'train', 'key', 'draw'}
    taken &= {name for name, _ in pairs}
    if taken:
        raise ValueError(
            f'view must not name {sorted(taken)}, which every model has, got {view}'
        )
    return Method(
        as_pytree(inner),
        as_pytree(outer),
        train_mode,
        pairs,
        adversarial=adversarial and inner is not unperturbed,
        replays=check_count('replays', replays),
        unlabelled=unlabelled,
        update=update,
    )


def unperturbed(logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
    """The attack that returns the clean images."""
    del logits_fn, key, y
    return x


def name_of(part: Any) -> str:
    """The name of an attack or an outer loss, for messages."""
    if isinstance(part, jax.tree_util.Partial):
        return name_of(part.func)
    return getattr(part, '__name__', type(part).__name__)  # Functions have a name.
