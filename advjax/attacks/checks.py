"""What factories refuse, each by naming the argument, the value and the allowed."""

from typing import Any

from advjax.balls import Ball, as_ball, kind


def check_ball(ball: Any, name: str, kinds: tuple[str, ...]) -> Ball:
    """Validates the ball of an attack that is defined in some norms.

    Raises:
      ValueError: naming the attack, the ball and what is allowed.
    """
    ball = as_ball(ball)
    if kind(ball) not in kinds:
        raise ValueError(f'ball of {name} must be one of {list(kinds)}, got {ball}')
    return ball


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


def check_loss(loss: Any) -> Any:
    """Validates a loss.

    Raises:
      ValueError: if it is no function.
    """
    if not callable(loss):
        raise ValueError(f'loss must be a function, got {loss!r}')
    return loss
