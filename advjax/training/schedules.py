"""What changes in the course of training: learning rates, radii, weights of losses."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import optax

from advjax.training.methods import Method
from advjax.types import Array

Factor = Callable[[Array], Array]


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


def scheduled(method: Method, **factors: Factor) -> Method:
    r"""The method with some of its numbers following schedules.

        warm = optax.linear_schedule(0.0, 1.0, 1000)
        training.scheduled(training.trades(8 / 255), eps=warm, beta=warm)

    .. math:: \epsilon_t = \epsilon \cdot s(t)

    A schedule is a factor of the number's own value, not a value: so it may be swept
    by ``vmap``, and attacks on held-out images keep the whole radius.

    Args:
      method: any method.
      **factors: for the name of a leaf, such as eps, alpha, beta, rate or gamma, an
        optax schedule ``step -> factor``. All leaves of that name follow it.

    Raises:
      ValueError: if a factor is no function, or the method has no leaf of that name.
    """
    names = {
        path[-1].name
        for path, _ in jax.tree_util.tree_flatten_with_path(method)[0]
        if path and isinstance(path[-1], jax.tree_util.GetAttrKey)
    }
    for name, factor in factors.items():
        if name not in names:
            raise ValueError(
                f'{name!r} must be a number of the method, which has {sorted(names)}'
            )
        if not callable(factor):
            raise ValueError(f'{name} must be a schedule step -> factor, got {factor}')
    return dataclasses.replace(method, plan=(*method.plan, *factors.items()))
