r"""Free adversarial training: a simultaneous update of weights and noise.

Every batch is replayed m times. Each replay differentiates one loss with respect to
the weights, which descend, and to the noise, which ascends:

.. math:: \theta \leftarrow \theta - \tau E \nabla_\theta \ell(x + \delta, y, \theta),
    \qquad \delta \leftarrow \Pi_{B(0)}\big(\delta
        + \epsilon\, \mathrm{sign}\, \nabla_x \ell(x + \delta, y, \theta)\big)

The noise of one batch is where the next batch begins.
"""

import jax
import jax.numpy as jnp

from advjax import balls, rows
from advjax.attacks.checks import check_count
from advjax.balls import Ball, as_ball
from advjax.training.methods import Method, method
from advjax.training.named import on_adversarial
from advjax.training.steps import (
    Differentiated,
    Task,
    TrainState,
    objective,
    weights,
)
from advjax.types import Array, Key, LogitsFn, dataclass


@dataclass
class Simultaneous:
    """The step of ``free``: weights and noise move by one backward pass."""

    ball: Ball
    rate: Array

    def begin(self, shape: tuple[int, ...]) -> Array:
        """The noise before the first batch: zero."""
        return jnp.zeros(shape, jnp.float32)

    def __call__(self, method: Method, state: TrainState, task: Task) -> Differentiated:
        """Returns the gradient at the noisy images, and the noise after it."""
        if state.carried is None:
            raise ValueError(
                'state must carry the noise of the method: create(..., method=, shape=)'
            )
        images = balls.clip(self.ball, task.x + state.carried)
        loss = objective(method, state, task)
        at = weights(method, state, lambda params: loss(params, images)[0])
        differentiated = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (value, sums), (gradient, slope) = differentiated(at, images)
        noise = self._ascended(state.carried, slope)
        return Differentiated(value, sums, gradient, noise)

    def _ascended(self, noise: Array, gradient: Array) -> Array:
        eps = jnp.asarray(self.ball.eps, noise.dtype)
        size = rows.wide(jnp.broadcast_to(eps * self.rate, noise.shape[:1]), noise)
        direction = self.ball.steepest(jnp.nan_to_num(gradient))
        # The noise belongs to no image: the valid range is that of image plus noise.
        anywhere = self.ball.unbounded()
        moved = noise + jnp.where(direction == 0, 0, size * direction)
        return anywhere.project(moved, jnp.zeros_like(noise))


def _no_attack(logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
    raise TypeError('free adversarial training has no attack of its own')


def free(ball: Ball | float, replays: int = 8, rate: float = 1.0) -> Method:
    """Free adversarial training, with m replays of every batch.

    One gradient evaluation per update: a run of ``epochs`` passes makes ``replays``
    times as many updates as standard training, so divide the epochs by m for the
    cost of standard training. With m = 1 the noise is that of the previous batch.

    Unlike the attacks of other methods, the noise sees the network in train mode: it
    is the same backward pass.

    Args:
      ball: a ball, or a number as the radius of ``linf``. Its radius may not differ
        between examples.
      replays: m.
      rate: step size in radii; the paper's is 1.

    Raises:
      ValueError: for replays below 1, a rate that is not positive, or a ball with a
        radius per example.

    Reference: Shafahi et al. 2019, arXiv 1904.12843, algorithm 1: the gradient is that
    with respect to the images that the network sees. The authors' code differentiates
    through the clipping to the pixel range as well, so noise that points out of the
    range never turns back: on the black background of MNIST nothing robust is learned
    in that way.
    """
    ball = as_ball(ball)
    check_count('replays', replays)
    if not 0 < rate < float('inf'):
        raise ValueError(f'rate must be positive and finite, got {rate}')
    if jnp.ndim(ball.eps):
        raise ValueError(
            'ball must have one radius for all examples: the noise passes from one to '
            f'another, got eps of shape {jnp.shape(ball.eps)}'
        )
    update = Simultaneous(ball, jnp.float32(rate))
    return method(_no_attack, on_adversarial, replays=replays, update=update)
