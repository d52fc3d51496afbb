"""Checks of arguments: each error names the argument, its value and what is allowed."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from advjax.balls import as_ball, of_norm
from advjax.types import Array, Ball


def check_ball(ball: Any, name: str, kinds: tuple[str, ...]) -> Ball:
    """Validates the ball of an attack that is defined in some norms.

    Raises:
      ValueError: naming the attack, the ball and what is allowed.
    """
    ball = as_ball(ball)
    if ball.norm_name not in kinds:
        raise ValueError(f'ball of {name} must be one of {list(kinds)}, got {ball}')
    return ball


def norm_ball(ball: Any, name: str, kinds: tuple[str, ...]) -> Ball:
    """The ball of a minimum-norm attack; infinite in the first of ``kinds`` by default.

    A bare number is refused: elsewhere it is a radius of ``linf``, and here it would
    change the norm unnoticed.

    Raises:
      ValueError: naming the attack, the ball and what is allowed.
    """
    if ball is None:
        return of_norm(kinds[0], float('inf'))
    if not isinstance(ball, Ball):
        raise ValueError(f'{name} takes a ball, {kinds[0]}({ball}), got {ball!r}')
    return check_ball(ball, name, kinds)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Validates a number of steps, samples, queries.

    Raises:
      ValueError: if it is no integer of at least ``least``.
    """
    if not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        raise ValueError(f'{name} must be an integer >= {least}, got {value!r}')
    return value


def check_positive(name: str, value: Any) -> float:
    """Validates a positive number.

    Raises:
      ValueError: if it is not one.
    """
    if not (isinstance(value, int | float) and value > 0):
        raise ValueError(f'{name} must be a number > 0, got {value!r}')
    return value


def check_weight(name: str, value: Any) -> Array:
    """Validates the weight of a term of a loss; a traced one passes unchecked.

    Raises:
      ValueError: if it is no finite number of at least 0.
    """
    return _number(name, value, lambda v: 0 <= v < math.inf, 'be a finite number >= 0')


def check_fraction(name: str, value: Any) -> Array:
    """Validates a number in [0, 1]; a traced one passes unchecked.

    Raises:
      ValueError: if it is no number in [0, 1].
    """
    return _number(name, value, lambda v: 0 <= v <= 1, 'lie in [0, 1]')


def _number(
    name: str, value: Any, allowed: Callable[[float], bool], words: str
) -> Array:
    if not isinstance(value, jax.core.Tracer):
        try:
            fits = allowed(float(value))
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f'{name} must {words}, got {value!r}')
    return jnp.asarray(value, jnp.float32)


def check_loss(loss: Any) -> Any:
    """Validates a loss.

    Raises:
      ValueError: if it is no function.
    """
    if not callable(loss):
        raise ValueError(f'loss must be a function, got {loss!r}')
    return loss
