"""Learning-rate schedules of the field that optax has no name for."""

import functools

import optax


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
