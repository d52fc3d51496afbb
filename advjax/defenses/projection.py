r"""Projection on the range of a generator, after Defense-GAN.

.. math:: g(x) = G(z^*(x)), \qquad z^*(x) \approx \arg\min_z \|G(z) - x\|_2^2

found by a fixed number of gradient steps from the origin. No useful gradient passes
such a long inner optimisation (vanishing or exploding); here none passes at all.

Broken by reparameterisation: the attacker moves the code instead of the pixels. Around
:math:`z^*` the solution follows the image along the pseudo-inverse of the generator's
Jacobian :math:`J = \partial G / \partial z`,

.. math:: z(x') = z^*(x) + (J^\top J + \mu I)^{-1} J^\top (x' - x)

(one Gauss-Newton step), so the gradient in pixels is the gradient in the code, times
:math:`J (J^\top J + \mu I)^{-1}`. No step is wasted on what the projection removes.

Reference: Samangouei et al. 2018, arXiv 1805.06605; Athalye et al. 2018, arXiv
1802.00420, sections 4.3 and 5.4.1. Deviation: a decoder instead of a GAN, and one start
at the origin instead of several random ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax.attacks.checks import check_count, check_positive
from advjax.defenses.defended import Defended, Preprocessed
from advjax.types import Array, LogitsFn, as_pytree, dataclass


@runtime_checkable
class Generator(Protocol):
    """A generator that knows the length of its codes."""

    @property
    def latent(self) -> int: ...  # noqa: D102
    def __call__(self, z: Array) -> Array:
        """Images (B, ...) of codes (B, latent)."""
        ...


@dataclass
class Projected:
    """Images replaced by the nearest ones that were found in a generator's range.

    Attributes:
      generator: codes (B, k) -> images (B, ...).
      rate: of Adam.
      latent: k.
      steps: of Adam, from the origin.
      followed: whether there is a gradient, that of the adaptive attacker.
      damping: mu.
    """

    generator: Any
    rate: Array
    damping: Array
    latent: int = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    followed: bool = struct.field(pytree_node=False, default=False)

    def codes(self, x: Array) -> Array:
        """The codes (B, k) found for images (B, ...), without a gradient."""
        adam = optax.adam(self.rate)

        def distance(z):
            return jnp.sum(jnp.square(self.generator(z) - x))

        def step(_, carry):
            z, state = carry
            updates, state = adam.update(jax.grad(distance)(z), state)
            return optax.apply_updates(z, updates), state

        z = jnp.zeros((x.shape[0], self.latent), x.dtype)
        z, _ = jax.lax.fori_loop(0, self.steps, step, (z, adam.init(z)))
        return jax.lax.stop_gradient(z)

    def __call__(self, x: Array) -> Array:
        """An array like ``x``."""
        fixed = jax.lax.stop_gradient(x)
        z = self.codes(fixed)
        if self.followed:
            # Adds exactly zero: only the gradient changes.
            z = z + self.follow(z, x - fixed)
        return self.generator(z)

    def follow(self, z: Array, delta: Array) -> Array:
        """How codes (B, k) move when their images move by ``delta`` (B, ...)."""

        def one(z, delta):
            def draw(z):
                return self.generator(z[None])[0].ravel()

            jacobian = jax.lax.stop_gradient(jax.jacfwd(draw)(z))
            gram = jacobian.T @ jacobian + self.damping * jnp.eye(self.latent)
            return jnp.linalg.inv(gram) @ (jacobian.T @ delta.ravel())

        return jax.vmap(one)(z, delta)


def projection(
    logits_fn: LogitsFn,
    generator: Callable[[Array], Array],
    latent: int | None = None,
    steps: int = 100,
    rate: float = 0.1,
    damping: float = 1e-3,
) -> Defended:
    """A network that sees the projection of its input on the range of a generator.

    Args:
      logits_fn: the network.
      generator: codes (B, k) -> images (B, ...), such as ``train_decoder`` returns.
      latent: k; by default the generator's attribute of that name.
      steps: of the inner optimisation, by Adam.
      rate: of Adam.
      damping: added to the attacker's Gauss-Newton matrix, mu.

    Raises:
      ValueError: if an argument is out of range, or k is not known.
    """
    size = latent
    if size is None and isinstance(generator, Generator):
        size = generator.latent
    if size is None:
        raise ValueError('latent must be given: this generator does not have one')
    check_positive('rate', rate)
    check_positive('damping', damping)
    projected = Projected(
        generator=as_pytree(generator),
        rate=jnp.float32(rate),
        damping=jnp.float32(damping),
        latent=check_count('latent', size),
        steps=check_count('steps', steps),
    )
    net = as_pytree(logits_fn)
    deployed = Preprocessed(net, projected)
    followed = Preprocessed(net, dataclasses.replace(projected, followed=True))
    return Defended(deployed, deployed, followed)
