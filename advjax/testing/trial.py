"""What the laws of attacks are tried on: a subject, in a setting of small networks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, keys, losses
from advjax.types import Array, Ball, Key


def the_key() -> Key:
    """The key of all trials; made when it is needed, since importing makes no array."""
    return jax.random.key(7)


def _network(params, x):
    flat = x.reshape(x.shape[0], -1)
    hidden = flat @ params['w1'] + params['b1']
    logits = jnp.where(params['linear'], hidden, jnp.tanh(hidden)) @ params['w2']
    bright = jnp.mean(flat, axis=1, keepdims=True) > params['nan_above']
    return jnp.where(bright, jnp.nan, logits)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Small networks and images.

    The networks differ in numbers alone, so that most laws share one program.
    """

    shape: tuple[int, ...] = (4, 5, 1)
    batch: int = 6
    classes: int = 4

    @property
    def size(self) -> int:
        """Numbers in an image."""
        return int(np.prod(self.shape))

    def network(
        self,
        seed: int = 0,
        *,
        scale: float = 1.0,
        nan_above: float = 2.0,
        linear: bool = False,
    ) -> Any:
        """A smooth two-layer network: no gradient coordinate is exactly zero.

        With scale 0 it is constant; above a mean brightness its logits are NaN.
        """
        one, two, three = jax.random.split(jax.random.key(seed), 3)
        params = {
            'w1': jax.random.normal(one, (self.size, 16)) / self.size**0.5,
            'b1': jax.random.normal(three, (1, 16)) * 0.1,
            'w2': scale * jax.random.normal(two, (16, self.classes)),
            'nan_above': jnp.float32(nan_above),
            'linear': jnp.asarray(linear),
        }
        return jax.tree_util.Partial(_network, params)

    def keys(self) -> Key:
        """The key of every example, (B,)."""
        return keys.per_example(the_key(), self.batch)

    def images(self, seed: int = 1) -> tuple[Array, Array]:
        """Images in the open range, labelled as the network sees them."""
        shape = (self.batch, *self.shape)
        x = jax.random.uniform(jax.random.key(seed), shape, minval=0.05, maxval=0.95)
        return x, jnp.argmax(self.network()(x), axis=1).astype(jnp.int32)


def margin(f: Any, x: Array, y: Array) -> np.ndarray:
    """By how much the model errs, (B,)."""
    return np.asarray(losses.margin(f(x), y))


@dataclasses.dataclass(frozen=True)
class Subject:
    """An attack, and what is to be known of it.

    Attributes:
      attack: any attack.
      ball: where its results must lie.
      sees: what stands between the attack and the network, such as ``eot``.
      judge: (f, x, y) -> (B,), what the attack raises.
      minimum: whether it returns the closest success, and the clean image for none.
      fills: whether it goes to the boundary of the ball on a linear model, as attacks
        do that neither stop at the first success nor prefer sparse points.
      stronger: versions of it with more steps or restarts, in order, none of which may
        be weaker than the one before.
    """

    attack: Any
    ball: Ball
    sees: Callable[[Any], Any] = lambda f: f
    judge: Callable[..., Any] = margin
    minimum: bool = False
    fills: bool = True
    stronger: tuple[Any, ...] = ()

    def run(self, f: Any, key: Any, x: Array, y: Array) -> Array:
        """One compiled call against the network f."""
        return run(self.attack, self.sees(f), key, x, y)

    def at(self, ball: Ball) -> 'Subject':
        """The same attack in another ball."""

        def one(node):
            return ball if isinstance(node, Ball) else node

        attack = jax.tree.map(
            one, self.attack, is_leaf=lambda node: isinstance(node, Ball)
        )
        return dataclasses.replace(self, attack=attack, ball=ball)

    def scaled(self, factor: Any) -> 'Subject':
        """The same attack in a ball of another radius."""
        return self.at(self.ball.with_eps(jnp.float32(self.ball.eps * factor)))

    @property
    def has_ball(self) -> bool:
        """Whether the radius is a number of the attack, and not within its code."""
        return bool(balls.of(self.attack))


compiled = jax.jit(lambda attack, f, key, x, y: attack(f, key, x, y))


def run(attack: Any, f: Any, key: Key, x: Array, y: Array) -> Array:
    """One compiled call; attacks that differ in numbers alone share the program."""
    return compiled(typed(attack), f, key, x, y)


def typed(attack: Any) -> Any:
    """Numbers of one type: a Python float and an array would be two programs."""
    return jax.tree.map(
        lambda leaf: np.float32(leaf) if type(leaf) is float else leaf, attack
    )
