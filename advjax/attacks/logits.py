"""Combinators on the logits function: what an attack sees of the defender.

Each returns a pytree that is called like any logits function, so all of them
compose with every attack in one compiled program.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from advjax import keys
from advjax.attacks.checks import check_count
from advjax.types import Array, Key, LogitsFn, Sampled, as_pytree, dataclass

Average = Literal['logits', 'probabilities']


def mean_prediction(samples: Array) -> Array:
    """Log of the mean probability over the leading axis: (S, B, K) -> (B, K)."""
    log_p = jax.nn.log_softmax(samples.astype(jnp.float32))
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(samples.shape[0])


@dataclass
class Eot:
    r"""Expectation over transformation: a randomised model, averaged.

    Attacks of this library maximise :math:`E_r[L(f(x; r), y)]`: each step draws
    fresh randomness and averages the loss, hence the gradient, over ``samples``
    draws. Called as a plain logits function it is deterministic: the log of the
    mean probability over draws from one fixed key, the same for every example.

    Build it with ``eot``.

    Reference: Athalye et al. 2018, arXiv 1707.07397 and 1802.00420.
    """

    fn: Callable[[Key, Array], Array]
    samples: int = struct.field(pytree_node=False)

    def sample(self, key: Key, x: Array) -> Array:
        """Draws (S, B, K) logits; ``key`` is one key or one per example."""
        each = keys.per_example(key, x.shape[0])

        def once(draw):
            # One example at a time, so that its draw has no batch-mates.
            alone = jax.vmap(lambda k, xi: self.fn(k, xi[None])[0])
            return alone(keys.fold(each, draw), x)

        return jax.vmap(once)(jnp.arange(self.samples))

    def __call__(self, x: Array) -> Array:
        """Logits (B, K): the log of the mean probability."""
        fixed = jnp.broadcast_to(jax.random.key(0), x.shape[:1])
        return mean_prediction(self.sample(fixed, x))


def eot(fn: Callable[[Key, Array], Array], samples: int = 20) -> Eot:
    """Makes a randomised model attackable through its expectation.

    Args:
      fn: ``(key, x) -> logits``, called with one key and a batch of one.
      samples: draws per gradient (AutoAttack's ``rand`` version uses 20).

    Raises:
      ValueError: if ``samples`` is not a positive integer.
    """
    return Eot(fn=as_pytree(fn), samples=check_count('samples', samples))


@dataclass
class Ensemble:
    """Several models as one; build it with ``ensemble``."""

    members: tuple[Any, ...]
    weights: Array
    average: Average = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """Logits (B, K) of the weighted ensemble."""
        logits = jnp.stack([member(x).astype(jnp.float32) for member in self.members])
        weights = (self.weights / jnp.sum(self.weights)).reshape(-1, 1, 1)
        if self.average == 'logits':
            return jnp.sum(weights * logits, axis=0)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0, b=weights)


def ensemble(
    members: Sequence[LogitsFn],
    weights: Sequence[float] | None = None,
    average: Average = 'logits',
) -> Ensemble:
    r"""Fuses models into one: :math:`z(x) = \sum_k w_k z_k(x)`.

    Args:
      members: logits functions with the same number of classes.
      weights: one non-negative weight per member; equal by default; normalised.
      average: 'logits' (the form that transfers best, Dong et al. 2018, section
        3.4) or 'probabilities' (the log of the mean prediction).

    Raises:
      ValueError: if there is no member or a randomised one, if weights do not
        match or sum to zero, or if ``average`` is unknown.

    Reference: Dong et al. 2018, arXiv 1710.06081.
    """
    if any(isinstance(member, Sampled) for member in members):
        raise ValueError(
            'members must be deterministic, got an Eot or Views: take the expectation '
            'outside, over the ensemble'
        )
    if not members:
        raise ValueError('members must hold at least one logits function, got none')
    weights = [1.0] * len(members) if weights is None else list(weights)
    if len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(
            f'weights must be {len(members)} non-negative numbers, not all zero, '
            f'got {weights}'
        )
    if average not in ('logits', 'probabilities'):
        raise ValueError(
            f"average must be 'logits' or 'probabilities', got {average!r}"
        )
    return Ensemble(
        members=tuple(as_pytree(m) for m in members),
        weights=jnp.asarray(weights, jnp.float32),
        average=average,
    )
