"""What a training step costs, counted in the program that it becomes.

The unit is a gradient evaluation: one backward pass of one image through a network,
whichever variable the gradient is taken in. A gradient that is differentiated again
counts twice, because the forward pass that it was made from is passed backwards anew.

Every backward pass through a network leaves a mark in the program of the step. Marks in
a loop count once per iteration; of several branches the most expensive counts.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from advjax import models, training
from advjax.models import Model
from advjax.training import Method
from advjax.types import Array, LogitsFn

SHAPE, CLASSES, BATCH = (8, 8, 1), 4, 6
"""Of the linear network that is counted on: cost belongs to the method, not to it."""


def gradient_evaluations(
    build: Callable[[Mapping[str, LogitsFn]], Method],
    needs: tuple[str, ...] = (),
    mark: Callable[[Array], None] | None = None,
) -> float:
    """Counts in one update; nothing that the method says of itself is used.

    Args:
      build: makes the method from the networks that it needs.
      needs: their names; their backward passes count, too.
      mark: also run the update, and call this with every cotangent (B,) of the first
        logit as it passes.

    Returns:
      Gradient evaluations per image of the batch.

    Raises:
      ValueError: if there are gradients in a loop of unknown length.
    """
    model = _marked(_linear(), mark or _nothing)
    key = jax.random.key(0)
    others = {
        name: models.logits_fn(model, *model.init(jax.random.fold_in(key, i)))
        for i, name in enumerate(needs, 1)
    }
    method = build(others)
    x = jax.random.uniform(key, (BATCH, *SHAPE))
    state = training.create(
        model, optax.sgd(0.1), key=key, method=method, shape=x.shape
    )
    batch = {'image': x, 'label': jnp.arange(BATCH) % CLASSES}
    program = jax.jit(training.step).trace(method, state, batch, key)
    if mark is not None:
        jax.block_until_ready(jax.jit(training.step)(method, state, batch, key))
        jax.effects_barrier()
    return _marks(program.jaxpr.jaxpr) / BATCH


def _nothing(cotangent: Array) -> None:
    del cotangent


def _marked(model: Model, mark: Callable[[Array], None]) -> Model:
    @jax.custom_vjp
    def passed(logits):
        return logits

    def forward(logits):
        # Not the logits themselves: a gradient of the gradient passes here as well.
        return passed(logits), None

    def backward(_, cotangent):
        # An effect is neither differentiated nor optimised away.
        jax.debug.callback(mark, cotangent[:, 0])
        return (cotangent,)

    passed.defvjp(forward, backward)

    def apply(params, state, x, **options):
        logits, state = model.apply(params, state, x, **options)
        return passed(logits), state

    return model._replace(apply=apply)


def _marks(jaxpr: Any) -> int:
    """Images that pass backwards in a program."""
    count = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, list(_inside(equation.params))
        if name == 'debug_callback':
            count += equation.invars[0].aval.shape[0]
        elif name == 'scan':
            count += equation.params['length'] * _marks(inner[0])
        elif name == 'cond':
            count += max(map(_marks, inner))
        elif name == 'while' and any(map(_marks, inner)):
            raise ValueError('method must not take gradients in a loop without length')
        else:
            count += sum(map(_marks, inner))
    return count


def _inside(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, 'jaxpr', one)
            if hasattr(one, 'eqns'):
                yield one


def _linear() -> Model:
    height, width, channels = SHAPE

    def init(key):
        return jax.random.normal(key, (height * width * channels, CLASSES))

    def apply(weights, x, branch=0):
        del branch
        return x.reshape(x.shape[0], -1) @ weights

    return models.from_function(init, apply)
