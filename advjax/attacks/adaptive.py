"""Tools of the adaptive attacker: other backward passes, other scales of logits.

Expectation over transformation is ``eot``; a surrogate loss is any function of
(logits, y, target) given as ``loss``; what remains is here.

Reference: Athalye et al. 2018, arXiv 1802.00420, section 4; Tramer et al. 2020, arXiv
2002.08347.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advjax.types import Array, LogitsFn, as_pytree, dataclass


def bpda(
    fn: Callable[[Array], Array], backward: Callable[[Array], Array] | None = None
) -> Callable[[Array], Array]:
    """Backward pass differentiable approximation: forward ``fn``, backward another.

    ``bpda(quantise)`` passes gradients straight through; ``bpda(jpeg, smooth)`` takes
    those of a differentiable stand-in. The value is that of ``fn``, bit for bit.

    Args:
      fn: any function of one array, differentiable or not.
      backward: the function whose gradient is taken instead, of the same shapes; the
        identity by default, which needs a ``fn`` that keeps the shape.

    Returns:
      A function like ``fn``, to be put into a model before it is attacked.

    Raises:
      ValueError: (when called) if the shapes of the two differ.

    Reference: Athalye et al. 2018, arXiv 1802.00420, section 4.1.
    """
    stand_in = backward or (lambda x: x)

    @jax.custom_vjp
    def swapped(x):
        return fn(x)

    def forward(x):
        value, (other, pull) = fn(x), jax.vjp(stand_in, x)
        if jnp.shape(value) != jnp.shape(other):
            raise ValueError(
                f'backward must return the shape of fn, {jnp.shape(value)}, got '
                f'{jnp.shape(other)}'
            )
        return value, pull

    def reverse(pull, cotangent):
        return pull(cotangent)

    swapped.defvjp(forward, reverse)
    return swapped


@dataclass
class Rescaled:
    """A model with its logits divided; build it with ``rescaled``."""

    logits_fn: LogitsFn
    temperature: Array

    def __call__(self, x: Array) -> Array:
        """Logits (B, K) in float32."""
        return self.logits_fn(x).astype(jnp.float32) / self.temperature


def rescaled(logits_fn: LogitsFn, temperature: float) -> Rescaled:
    """Divides the logits, so that the softmax of a saturated model has a gradient.

    A defensively distilled model has logits T times too large; the answer is the same
    after division by T, and cross entropy works again.

    Raises:
      ValueError: if the temperature is not positive.

    Reference: Carlini and Wagner 2016, arXiv 1607.04311.
    """
    if not temperature > 0:
        raise ValueError(f'temperature must be > 0, got {temperature}')
    return Rescaled(
        logits_fn=as_pytree(logits_fn), temperature=jnp.float32(temperature)
    )
