r"""Weight decay and norm constraints, as optax transformations.

    optimizer = optax.chain(
        training.l1_decay(1e-3),                # first: a part of the gradient
        optax.sgd(0.1, momentum=0.5),
        training.max_column_norm(1.9365),       # last: on the weights to come
    )

For some layers only: ``optax.masked(training.l1_decay(1e-3), mask)``. Both are cached,
because an optimizer is static structure of the compiled step.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from advjax.types import Array


@functools.cache
def l1_decay(coefficient: float) -> optax.GradientTransformation:
    r"""L1 weight decay: adds the gradient of :math:`\lambda \|\theta\|_1`.

    .. math:: g \leftarrow g + \lambda\, \mathrm{sign}(\theta)

    with sign(0) = 0; the subgradient form, which hovers around zero rather than
    resting there. Only kernels (see ``is_kernel``) decay.

    Args:
      coefficient: lambda.

    Raises:
      ValueError: if it is negative or NaN.
    """
    if not coefficient >= 0:
        raise ValueError(f'coefficient must be a number >= 0, got {coefficient!r}')

    def decay(path: Any, gradient: Array, weight: Array) -> Array:
        del path
        return gradient + coefficient * jnp.sign(weight).astype(gradient.dtype)

    return _of_kernels('l1_decay', decay)


@functools.cache
def weight_decay(coefficient: float) -> optax.GradientTransformation:
    r"""L2 weight decay that spares biases and normalisations.

    .. math:: g \leftarrow g + \lambda w

    for kernels alone (see ``is_kernel``): the gradient of
    :math:`\lambda \|w\|_2^2 / 2`, as ``weight_decay`` of PyTorch's SGD adds it to every
    parameter. It belongs before the optimizer; behind it, it would be decoupled
    decay.

    Args:
      coefficient: lambda (5e-4 in most CIFAR-10 recipes).

    Raises:
      ValueError: if it is negative or not finite.
    """
    if not 0 <= coefficient < math.inf:
        raise ValueError(f'coefficient must be a number >= 0, got {coefficient!r}')
    return optax.add_decayed_weights(
        coefficient, lambda w: jax.tree_util.tree_map_with_path(is_kernel, w)
    )


@functools.cache
def layer_decay(rate: float, **by_name: float) -> optax.GradientTransformation:
    r"""Weight decay per layer: adds the gradient of :math:`\lambda \sum w^2 / k`.

    .. math:: g \leftarrow g + \frac{2 \lambda}{k} w

    for every kernel w, whose last axis counts the k units of its layer. Leaves of one
    row or less (biases) are left alone. It belongs before the optimizer, as a part of
    the loss; behind it, it would be decoupled decay.

    Args:
      rate: lambda of all layers that ``by_name`` does not name.
      **by_name: lambda of what lies under that name in the params:
        ``layer_decay(1e-6, hidden=1e-5)``.

    Raises:
      ValueError: if a rate is negative or not finite, and, when it is initialised, if
        the params have no such name.

    Reference: Szegedy et al. 2014, arXiv 1312.6199, section 4.2.
    """
    for name, value in {'rate': rate, **by_name}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f'{name} must be a number >= 0, got {value!r}')

    def init(params: Any) -> optax.EmptyState:
        missing = [name for name in by_name if name not in params]
        if missing:
            raise ValueError(
                f'by_name must name layers of the params, {list(params)}, got {missing}'
            )
        return optax.EmptyState()

    def decay(path: Any, gradient: Array, weight: Array) -> Array:
        own = by_name.get(jax.tree_util.keystr(path[:1], simple=True), rate)
        return gradient + (2 * own / weight.shape[-1]) * weight.astype(gradient.dtype)

    return optax.GradientTransformation(init, _of_kernels('layer_decay', decay).update)


@functools.cache
def max_column_norm(limit: float = 1.9365) -> optax.GradientTransformation:
    r"""Keeps the incoming weights of every unit within a Euclidean ball.

    .. math:: w_j + \Delta_j \leftarrow \min\Big(1, \frac{c}{\|w_j + \Delta_j\|_2}\Big)
              (w_j + \Delta_j)

    for every column j of a kernel: all axes but the last, which counts units (as flax
    lays kernels out). It changes the update, so it composes with any optimizer and
    comes last in the chain; the bound holds up to rounding. Leaves of one row or less
    (biases) are left alone.

    Args:
      limit: c; by default that of the maxout network on MNIST.

    Raises:
      ValueError: if it is not positive.

    Reference: Srivastava et al. 2014 (max-norm); the figure from pylearn2's
    mnist_pi.yaml of Goodfellow et al. 2013, arXiv 1302.4389.
    """
    if not limit > 0:
        raise ValueError(f'limit must be a number > 0, got {limit!r}')

    def confine(path: Any, update: Array, weight: Array) -> Array:
        del path
        new = weight + update
        axes = tuple(range(new.ndim - 1))
        norm = jnp.sqrt(jnp.sum(jnp.square(new), axis=axes, keepdims=True))
        # Inside, the update passes bit for bit.
        return jnp.where(norm > limit, new * (limit / norm) - weight, update)

    return _of_kernels('max_column_norm', confine)


def is_kernel(path: Any, weight: Array) -> bool:
    """Whether a leaf of the params is a kernel: what multiplies activations.

    It has two axes or more and more than one row, and its name is none of ``OTHERS``:
    biases of attention have an axis of heads, positions one of places.

    Args:
      path: of the leaf, from ``jax.tree_util.tree_map_with_path``.
      weight: the leaf.
    """
    name = jax.tree_util.keystr(path[-1:], simple=True)
    rows = math.prod(weight.shape[:-1])
    return weight.ndim >= 2 and rows > 1 and name not in OTHERS


OTHERS = ('bias', 'scale', 'token', 'positions', 'embedding', 'pos_embedding')
"""Names of params that are no kernels, although they may have several axes."""


def _of_kernels(
    name: str, change: Callable[[Any, Array, Array], Array]
) -> optax.GradientTransformation:
    """Without state: ``change(path, update, weight)`` of every kernel."""

    def one(path, update, weight):
        return change(path, update, weight) if is_kernel(path, weight) else update

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        if params is None:
            raise ValueError(f'{name} needs params: update(updates, state, params)')
        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
