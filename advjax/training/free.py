r"""Free adversarial training: one backward pass for both players.

Every batch is replayed m times. Each replay differentiates one loss with respect to
the weights, which descend, and to the noise, which ascends:

.. math:: \theta \leftarrow \theta - \tau E \nabla_\theta \ell(x + \delta, y, \theta),
    \qquad \delta \leftarrow \Pi_{B(0)}\big(\delta
        + \epsilon\, \mathrm{sign}\, \nabla_x \ell(x + \delta, y, \theta)\big)

The noise of one batch is where the next batch begins.
"""

import jax.numpy as jnp
from flax import struct

from advjax import balls, rows
from advjax.balls import Ball, as_ball
from advjax.training.methods import Method, method, on_adversarial
from advjax.types import Array, Key, LogitsFn, dataclass


@dataclass
class Free:
    """The adversary that plays at the same time as the network; see ``free``.

    It has no search of its own: ``training.step`` asks it where the images stand
    (``images``) and shows it the gradient there (``reply``); what it carries from
    step to step is in ``TrainState.carried``.
    """

    ball: Ball
    rate: Array
    replays: int = struct.field(pytree_node=False)

    def begin(self, shape: tuple[int, ...]) -> Array:
        """The noise before the first batch: none."""
        return jnp.zeros(shape, jnp.float32)

    def images(self, noise: Array, x: Array) -> Array:
        """Returns the images that are trained on, (B, ...)."""
        return balls.clip(self.ball, x + noise)

    def reply(self, noise: Array, gradient: Array) -> Array:
        """Returns the noise after the gradient of the loss in the images."""
        eps = jnp.asarray(self.ball.eps, noise.dtype)
        size = rows.wide(jnp.broadcast_to(eps * self.rate, noise.shape[:1]), noise)
        direction = self.ball.steepest(jnp.nan_to_num(gradient))
        # The noise belongs to no image: what is in range is seen when it is added.
        anywhere = self.ball.unbounded()
        moved = noise + jnp.where(direction == 0, 0, size * direction)
        return anywhere.project(moved, jnp.zeros_like(noise))

    def __call__(self, logits_fn: LogitsFn, key: Key, x: Array, y: Array) -> Array:
        """Refuses: without a training step there is nothing to share."""
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
    through the clipping to the pixel range as well, which keeps noise that points out
    of it from ever turning round: before the black background of MNIST nothing robust
    is learned in that way.
    """
    ball = as_ball(ball)
    if not (isinstance(replays, int) and replays >= 1):
        raise ValueError(f'replays must be an integer >= 1, got {replays!r}')
    if not 0 < rate < float('inf'):
        raise ValueError(f'rate must be positive and finite, got {rate}')
    if jnp.ndim(ball.eps):
        raise ValueError(
            'ball must have one radius for all examples: the noise passes from one to '
            f'another, got eps of shape {jnp.shape(ball.eps)}'
        )
    return method(Free(ball, jnp.float32(rate), replays), on_adversarial)
