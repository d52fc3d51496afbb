r"""Adversarial weight perturbation: the same ascent, on the weights.

.. math:: \min_w \max_{v \in V} E \max_{x' \in B(x)} \ell(f_{w + v}(x'), y), \qquad
    V = \{v : \|v_l\| \le \gamma \|w_l\| \text{ for every layer } l\}
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from advjax.training.methods import Method
from advjax.training.weights import is_kernel
from advjax.types import Array, Params, dataclass


@dataclass
class WeightPerturbation:
    r"""One step of ascent to the edge of V.

    .. math:: v_l = \gamma \|w_l\| \, g_l / \|g_l\|, \qquad g = \nabla_w \ell

    for every kernel; biases, normalisations and positions stay (see
    ``weights.is_kernel``).
    """

    gamma: Array

    def __call__(self, loss: Callable[[Params], Array], params: Params) -> Params:
        """Returns w + v."""
        gradient = jax.grad(loss)(params)
        return jax.tree_util.tree_map_with_path(self._moved, params, gradient)

    def _moved(self, path: Any, w: Array, g: Array) -> Array:
        if not is_kernel(path, w):
            return w
        size = jnp.sqrt(jnp.sum(jnp.square(g)))
        # A layer that the loss does not depend on has no worst direction.
        unit = jnp.where(size > 0, g / jnp.where(size > 0, size, 1), 0)
        length = jnp.sqrt(jnp.sum(jnp.square(w)))
        return w + self.gamma.astype(w.dtype) * length * unit


def awp(method: Method, gamma: float = 0.01) -> Method:
    """Any method, its gradient taken at adversarially perturbed weights.

    The images are found first, at the unperturbed weights; then the weights move
    against the method's own outer loss on these images, in train mode; the gradient
    taken there updates the unperturbed weights, which nothing has to restore.

    One more gradient of the outer loss per step. The authors' warm-up (no perturbation
    in the first epochs) is ``scheduled(awp(...), gamma=...)``.

    Args:
      method: what to train for: ``pgd_at``, ``trades``, ``mart``, ...
      gamma: largest relative size of v (0.01 with PGD-AT, 0.005 with TRADES).

    Raises:
      ValueError: if gamma is negative, or the method perturbs its weights already.

    Reference: Wu, Xia and Wang 2020, arXiv 2004.05884, equations 7 to 10 with one step,
    as in their code. There weight decay acts on w + v, here on w; the running
    statistics of BatchNorm are in both those of the perturbed network.
    """
    if not 0 <= gamma < float('inf'):
        raise ValueError(f'gamma must be finite and >= 0, got {gamma}')
    if method.on_weights is not None:
        raise ValueError('method perturbs its weights already')
    return dataclasses.replace(
        method, on_weights=WeightPerturbation(jnp.float32(gamma))
    )
