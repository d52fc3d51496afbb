"""A defended model as three logits functions.

    defended = defenses.jpeg(logits_fn, quality=50)

    defended.deployed      the model that is used and evaluated
    defended.naive         what a naive attacker differentiates
    defended.adaptive      nearly the same values with a useful gradient

    attack = attacks.pgd(0.2)
    evaluation.evaluate(defended.deployed, x, y, {
        'naive': defended.naively(attack), 'adaptive': defended.adaptively(attack)
    }, key)

``preprocessed`` and ``randomised`` make one of any transformation of the input and of
any randomised model; the other modules are defences of the literature.
"""

from collections.abc import Callable
from typing import Any

import jax

from advjax import attacks
from advjax.attacks.checks import check_count
from advjax.attacks.surrogate import Surrogate
from advjax.types import Array, Attack, Key, LogitsFn, as_pytree, dataclass


def check_pictures(x: Array) -> None:
    """Refuses inputs that are not (B, H, W, C)."""
    if x.ndim != 4:
        raise ValueError(f'x must be images (B, H, W, C), got shape {x.shape}')


@dataclass
class Defended:
    """A defended model and how it is attacked; a pytree of three logits functions.

    Attributes:
      deployed: the model that is evaluated. A randomised one is an ``Eot``: the mean
        prediction over draws that no attacker knows.
      naive: what a naive attacker differentiates: the deployed model itself, or one
        frozen draw of a randomised one.
      adaptive: what an attacker who knows the defence differentiates: nearly the same
        values, with useful gradients.
    """

    deployed: Any
    naive: Any
    adaptive: Any

    def naively(self, attack: Attack) -> Surrogate:
        """The attack that ignores the defence, for ``deployed``."""
        return attacks.surrogate(attack, self.naive)

    def adaptively(self, attack: Attack) -> Surrogate:
        """The attack that knows the defence, for ``deployed``."""
        return attacks.surrogate(attack, self.adaptive)


@dataclass
class Preprocessed:
    """A network behind a transformation of its input: ``logits_fn(transform(x))``.

    With a random transformation it is a function of (key, x), as the transformation is.
    """

    logits_fn: Any
    transform: Any

    def __call__(self, *inputs: Array) -> Array:
        """Logits (B, K) at (x) or at (key, x)."""
        return self.logits_fn(self.transform(*inputs))


@dataclass
class Swapped:
    """A transformation with the backward pass of another (BPDA)."""

    transform: Any
    backward: Any = None

    def __call__(self, *inputs: Array) -> Array:
        """The value of the transformation at (x) or at (key, x)."""
        *key, x = inputs
        return attacks.bpda(lambda x: self.transform(*key, x), self.backward)(x)


@dataclass
class Frozen:
    """One draw of a randomised model, the same for every image and every call."""

    fn: Any

    def __call__(self, x: Array) -> Array:
        """Logits (B, K)."""
        seed = jax.numpy.broadcast_to(jax.random.key(1), x.shape[:1])
        return attacks.eot(self.fn, 1).sample(seed, x)[0]


def preprocessed(
    logits_fn: LogitsFn,
    transform: Callable[[Array], Array],
    backward: Callable[[Array], Array] | None = None,
) -> Defended:
    r"""A deterministic transformation g in front of a network: :math:`f(g(x))`.

    The naive attacker differentiates g, which may have no gradient at all; the adaptive
    one replaces it by another function in the backward pass (BPDA).

    Args:
      logits_fn: the network f.
      transform: g, x -> what the network takes.
      backward: differentiable stand-in for g in the backward pass; the identity by
        default, which fits wherever g(x) is close to x.

    Reference: Athalye et al. 2018, arXiv 1802.00420, section 4.1.
    """
    net, g = as_pytree(logits_fn), as_pytree(transform)
    h = None if backward is None else as_pytree(backward)
    deployed = Preprocessed(net, g)
    return Defended(deployed, deployed, Preprocessed(net, Swapped(g, h)))


def randomised(
    fn: Callable[[Key, Array], Array],
    seen: Callable[[Key, Array], Array] | None = None,
    *,
    answers: int = 10,
    draws: int = 30,
) -> Defended:
    r"""A randomised model, deployed as the mean prediction over some draws.

    The naive attacker takes one draw for the model; the adaptive one ascends the
    expected loss, :math:`\nabla_x E_r L(f(x; r), y)` (EOT), over other draws.

    Args:
      fn: ``(key, x) -> logits``, called with one key and a batch of one.
      seen: the adaptive attacker's ``fn``, where ``fn`` has no useful gradient.
      answers: draws that the deployed model averages over.
      draws: draws per gradient of the adaptive attacker.

    Raises:
      ValueError: if a number of draws is not a positive integer.

    Reference: Athalye et al. 2018, arXiv 1802.00420, section 4.2.
    """
    check_count('answers', answers)
    check_count('draws', draws)
    fn = as_pytree(fn)
    climbed = fn if seen is None else as_pytree(seen)
    return Defended(
        deployed=attacks.eot(fn, answers),
        naive=Frozen(fn),
        adaptive=attacks.eot(climbed, draws),
    )
