"""The named first-order attacks, each a row of the table that ``Ascent`` is.

name       direction                       step size       start
FGSM       steepest                        eps, one step   clean
R+FGSM     steepest                        half of eps     corner
BIM        steepest                        eps / steps     clean
PGD        steepest                        2.5 eps/steps   uniform
MI-FGSM    momentum, then steepest         eps / steps     clean
NI-FGSM    the same, looking ahead         eps / steps     clean
VMI-FGSM   the same, variance corrected    eps / steps     clean
Adam-PGD   Adam, then steepest             2.5 eps/steps   uniform
PGD-L1     sparse signs                    2.5 eps/steps   uniform
PGD-L0     the gradient, then projection   pixels          uniform
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from advjax import losses
from advjax.attacks.ascent import Ascent
from advjax.attacks.checks import check_ball, check_count, check_positive
from advjax.attacks.directions import normalised, sparse
from advjax.attacks.gradients import VarianceTuned
from advjax.attacks.schedules import Schedule, constant
from advjax.attacks.starts import Start, corner, uniform, within
from advjax.attacks.transforms import adam, momentum
from advjax.balls import as_ball
from advjax.types import Array, Ball, Loss


def _ascent(
    ball: Ball | float,
    steps: int,
    rate: float | Array | None,
    reach: float = 1.0,
    **options,
) -> Ascent:
    """Validates; without a rate all steps together are ``reach`` radii long."""
    check_count('steps', steps)
    if rate is None:
        rate = reach / steps
    if not isinstance(rate, jax.core.Tracer):
        value = np.asarray(rate)
        if not (np.issubdtype(value.dtype, np.number) and np.all(value >= 0)):
            raise ValueError(f'rate must be a step size >= 0 in radii, got {rate!r}')
    for name in ('loss', 'start', 'schedule'):
        if name in options and not callable(options[name]):
            raise ValueError(f'{name} must be a function, got {options[name]!r}')
    return Ascent(
        ball=as_ball(ball), rate=jnp.asarray(rate, jnp.float32), steps=steps, **options
    )


def fgm(ball: Ball | float, loss: Loss = losses.cross_entropy) -> Ascent:
    r"""Fast gradient method: one full step, :math:`x + \epsilon\,\mathrm{steepest}`.

    The maximum of the linearised loss over the ball of any norm.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      loss: what to maximise.

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 4; Miyato et al.
    2016 for L2.
    """
    return _ascent(ball, 1, 1.0, loss=loss)


def fgsm(ball: Ball | float, loss: Loss = losses.cross_entropy) -> Ascent:
    r"""Fast gradient sign method: :math:`x + \epsilon\,\mathrm{sign}(\nabla_x L)`.

    The paper does not clip to the pixel range; here the ball decides:
    ``fgsm(linf(0.25, bounds=None))`` is the paper's.

    Raises:
      ValueError: if the ball is not an Linf ball (use ``fgm``).

    Reference: Goodfellow et al. 2015, arXiv 1412.6572, section 4.
    """
    ball = as_ball(ball)
    if ball.norm_name != 'linf':
        raise ValueError(f'fgsm is defined on linf balls, got {ball}: use fgm')
    return fgm(ball, loss)


def rand_fgsm(
    ball: Ball | float, share: float = 0.5, loss: Loss = losses.cross_entropy
) -> Ascent:
    r"""FGSM after a random step, which leaves a curved loss at the image behind.

    .. math:: x' = x + \alpha\,\mathrm{sign}(N(0, I)), \qquad
        x_{adv} = x' + (\epsilon - \alpha)\,\mathrm{sign}(\nabla_{x'} L(x', y))

    Args:
      ball: an Linf ball, or a number as its radius.
      share: alpha / eps, in [0, 1]; 0 is FGSM.
      loss: what to maximise.

    Raises:
      ValueError: if the ball is not an Linf ball, or the share out of range.

    Reference: Tramer et al. 2018, arXiv 1705.07204 (RAND+FGSM). As in the
    authors' code both points are clipped to the pixel range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'share must lie in [0, 1], got {share!r}')
    ball = check_ball(ball, 'rand_fgsm', ('linf',))
    start = within(corner, float(share))
    return _ascent(ball, 1, 1 - share, loss=loss, start=start)


def bim(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Basic iterative method: PGD from the clean image, last iterate.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default, so that the steps just
        reach the boundary. The paper's alpha = 1/255 is ``1 / 255 / eps``.
      loss: what to maximise.

    Reference: Kurakin et al. 2017, arXiv 1607.02533, section 2.2.
    """
    return _ascent(ball, steps, rate, loss=loss)


def pgd(
    ball: Ball | float,
    steps: int = 40,
    rate: float | Array | None = None,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
    schedule: Schedule = constant,
    unroll: int = 1,
) -> Ascent:
    r"""Projected gradient descent (on the negative loss), from a random start.

    .. math:: x_{t+1} = \Pi_{x+S}(x_t + \alpha\,\mathrm{sign}(\nabla_x L(x_t, y)))

    and in other balls the steepest direction instead of the sign.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii, alpha / eps; 2.5 / steps by default. Madry's MNIST
        attack is ``steps=40, rate=0.01 / 0.3``.
      loss: what to maximise.
      start: where to begin; ``clean`` makes it BIM.
      keep_best: return the best iterate by margin instead of the last, so that a
        success at any iterate counts. The paper's code returns the last.
      schedule: factor of the step size over t in [0, 1).
      unroll: loop iterations unrolled in the compiled program.

    Reference: Madry et al. 2018, arXiv 1706.06083, section 2.1.

    >>> key, f = jax.random.key(0), lambda x: x - 0.5  # two classes, two pixels
    >>> x, y = jnp.array([[0.6, 0.4]]), jnp.array([0])
    >>> [f'{pixel:.2f}' for pixel in pgd(0.25, 10)(f, key, x, y)[0]]
    ['0.35', '0.65']
    """
    return _ascent(
        ball,
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=start,
        keep_best=keep_best,
        schedule=schedule,
        unroll=unroll,
    )


def mi_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Momentum iterative FGSM, made for transfer.

    .. math::
        g_{t+1} = \mu g_t + \frac{\nabla_x L(x_t, y)}{\|\nabla_x L(x_t, y)\|_1},
        \qquad x_{t+1} = \Pi(x_t + \alpha\,\mathrm{steepest}(g_{t+1}))

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default, as in the paper.
      decay: mu.
      loss: what to maximise.

    Reference: Dong et al. 2018, arXiv 1710.06081, algorithm 1; the L1 norm is taken
    as a mean (see ``momentum``), which changes no direction.
    """
    if not decay >= 0:
        raise ValueError(f'decay must be a number >= 0, got {decay!r}')
    return _ascent(ball, steps, rate, loss=loss, transform=momentum(decay))


def ni_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Nesterov iterative FGSM: MI-FGSM whose gradient looks ahead.

    .. math:: x_t^{nes} = x_t + \alpha \mu g_t

    replaces :math:`x_t` in the gradient of ``mi_fgsm``. The look-ahead point is not
    projected, as in the paper. The paper prints the L1 norm as a sum, at which the
    look-ahead is 1/d of a pixel step and the method is MI-FGSM; its code takes the
    mean, and so does this (see ``momentum``).

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default.
      decay: mu.
      loss: what to maximise.

    Reference: Lin et al. 2020, arXiv 1908.06281, algorithm 1.
    """
    attack = mi_fgsm(ball, steps, rate, decay, loss)
    return dataclasses.replace(attack, lookahead=jnp.float32(decay))


def adam_pgd(
    ball: Ball | float,
    steps: int = 40,
    rate: float | Array | None = None,
    loss: Loss = losses.margin,
    schedule: Schedule = constant,
    keep_best: bool = True,
) -> Ascent:
    r"""PGD along Adam's direction instead of the gradient.

    .. math:: \mathrm{steepest}(\hat m / (\sqrt{\hat v} + 10^{-8}))

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 2.5 / steps by default.
      loss: what to maximise; the margin by default.
      schedule: factor of the step size over t in [0, 1).
      keep_best: return the best iterate by margin instead of the last.

    Reference: Uesato et al. 2018, arXiv 1802.05666, section 4, who take Adam's
    own step; here it enters as a gradient transformation, so that the step is the
    steepest one of the ball.
    """
    return _ascent(
        ball,
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=uniform,
        transform=adam(),
        schedule=schedule,
        keep_best=keep_best,
    )


def vmi_fgsm(
    ball: Ball | float,
    steps: int = 10,
    rate: float | Array | None = None,
    decay: float = 1.0,
    reach: float = 1.5,
    samples: int = 20,
    nesterov: bool = False,
    loss: Loss = losses.cross_entropy,
) -> Ascent:
    r"""Variance-tuned momentum iterative FGSM, made for transfer.

    ``mi_fgsm`` (or with ``nesterov`` ``ni_fgsm``: VNI-FGSM) on the gradient plus its
    variance among ``samples`` neighbours within ``beta`` radii.

    Args:
      ball: a ball, or a number as the radius of ``linf``.
      steps: number of gradient steps.
      rate: step size in radii; 1 / steps by default.
      decay: mu.
      reach: radius of the neighbourhood in radii, beta in the paper.
      samples: neighbours per step; each costs a gradient.
      nesterov: look ahead.
      loss: what to maximise.

    Raises:
      ValueError: if ``samples`` is not a positive integer.

    Reference: Wang and He 2021, arXiv 2103.15571, algorithm 1.
    """
    check_count('samples', samples)
    check_positive('reach', reach)
    attack = (ni_fgsm if nesterov else mi_fgsm)(ball, steps, rate, decay, loss)
    source = VarianceTuned(reach=jnp.float32(reach), samples=samples)
    return dataclasses.replace(attack, gradient=source)


def pgd_l1(
    ball: Ball,
    steps: int = 100,
    rate: float | Array | None = None,
    quantile: float = 0.99,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
) -> Ascent:
    r"""Sparse L1 descent (SLIDE): PGD in L1 that moves the largest 1 % at once.

    .. math:: x_{t+1} = \Pi\big(x_t + \epsilon\rho\, e_t / \|e_t\|_1\big), \quad
        e_{t,i} = \mathrm{sign}(g_i)\, [\,|g_i| \ge Q_q(|g|)\,]

    The steepest direction of the L1 ball moves one coordinate a step, which is slow.

    Args:
      ball: an L1 ball.
      steps: number of gradient steps.
      rate: step size in radii; 2.5 / steps by default.
      quantile: q.
      loss: what to maximise.
      start: where to begin.
      keep_best: return the best iterate by margin instead of the last.

    Reference: Tramer and Boneh 2019, arXiv 1904.13000, algorithm 1; the projection
    here is the exact one on the ball and the range.
    """
    if not 0 <= quantile < 1:
        raise ValueError(f'quantile must lie in [0, 1), got {quantile}')
    return _ascent(
        check_ball(ball, 'pgd_l1', ('l1',)),
        steps,
        rate,
        reach=2.5,
        loss=loss,
        start=start,
        direction=sparse(quantile),
        keep_best=keep_best,
    )


def pgd_l0(
    ball: Ball,
    steps: int = 100,
    rate: float | Array = 0.3,
    loss: Loss = losses.cross_entropy,
    start: Start = uniform,
    keep_best: bool = True,
) -> Ascent:
    r"""PGD in L0: a dense gradient step, then the projection keeps eps coordinates.

    .. math:: x_{t+1} = \Pi_{L_0 \cap [l, u]}\big(x_t + \rho\, g / \|g\|_\infty\big)

    Args:
      ball: an L0 ball; eps counts numbers of the input (three to a colour pixel).
      steps: number of gradient steps.
      rate: the largest move of a coordinate per step, in pixels.
      loss: what to maximise.
      start: where to begin.
      keep_best: return the best iterate by margin instead of the last.

    Reference: Croce and Hein 2019, arXiv 1909.05040, section 4, whose step is scaled
    by the L1 norm of the gradient.
    """
    return _ascent(
        check_ball(ball, 'pgd_l0', ('l0',)),
        steps,
        rate,
        loss=loss,
        start=start,
        direction=normalised,
        keep_best=keep_best,
    )
