"""What changes in the course of training: learning rates, radii, weights of losses."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import optax
from jax.typing import ArrayLike

from advjax.training.methods import Method
from advjax.training.selection import Where, find
from advjax.types import Array

Factor = Callable[[Array], ArrayLike]


@functools.cache
def triangular(peak: float, steps: int, rise: float = 0.4) -> optax.Schedule:
    """Linear from 0 to ``peak`` over ``rise`` of the steps, then linear to 0.

    Args:
      peak: highest learning rate (5e-3 for Adam on MNIST in the paper).
      steps: length of the training.
      rise: fraction of it that the rate rises for.

    Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994, whose codes interpolate
    over [0, 0.4, 1] of the epochs on MNIST and [0, 0.5, 1] on CIFAR-10.
    """
    top = max(1, round(rise * steps))
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, top),
            optax.linear_schedule(peak, 0.0, max(1, steps - top)),
        ],
        [top],
    )


@functools.cache
def piecewise(
    peak: float, steps: int, drops: tuple[float, ...] = (0.5, 0.75), by: float = 0.1
) -> optax.Schedule:
    """Constant, multiplied by ``by`` at each of the fractions ``drops`` of training.

    Reference: Rice, Wong and Kolter 2020, arXiv 2002.11569: .1, .01 from epoch 100,
    .001 from epoch 150 of 200.
    """
    return optax.piecewise_constant_schedule(
        peak, {round(fraction * steps): by for fraction in drops}
    )


def scheduled(
    method: Method, factors: Mapping[Where, Factor] | None = None, /, **named: Factor
) -> Method:
    r"""The method with some of its numbers following schedules.

    >>> import optax
    >>> from advjax import training
    >>> warm = optax.linear_schedule(0.0, 1.0, 1000)
    >>> method = training.scheduled(training.trades(8 / 255), eps=warm, beta=warm)
    >>> [path for path, _ in method.plan]
    ['inner.attack.ball.eps', 'outer.beta']
    >>> same = training.scheduled(training.pgd_at(0.3), {'inner.ball.eps': warm})

    .. math:: \epsilon_t = \epsilon \cdot s(t)

    A schedule is a factor of the number's own value, not a value: so the number may be
    swept by ``vmap``, and attacks on held-out images keep the whole radius.

    Args:
      method: any method.
      factors: an optax schedule ``step -> factor`` by the path of a number
        ('outer.beta'), by the end of one path, or by a function that selects paths;
        see ``scaled``.
      **named: the same by a bare name, such as eps, beta, rate or gamma, where only one
        number has it. The radii of equal balls count as one.

    Raises:
      ValueError: if a factor is no function, the method has no such number, or more
        than one.
    """
    plan = []
    for where, factor in {**(factors or {}), **named}.items():
        if not callable(factor):
            raise ValueError(f'{where} must be a schedule step -> factor, got {factor}')
        plan += [(path, factor) for path in find(method, where)]
    return dataclasses.replace(method, plan=(*method.plan, *plan))
