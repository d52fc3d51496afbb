r"""Signs that gradients are masked: whether an accuracy under attack can be believed.

A model whose gradients are useless looks robust to attacks that follow them. Athalye et
al. name five signs of it, none of which an honest model shows:

    one-step        a one-step attack does better than an iterative one
    black-box       a black-box attack does better than a white-box one
    unbounded       an attack without a bound does not reach every image
    random          random sampling finds what gradients miss
    radius          a larger radius does not help the attack

and the program adds what can be measured directly, among it the warnings that the code
of AutoAttack gives:

    non-monotone    at some larger radius fewer images fall
    zero gradients  the cross entropy has no gradient at all
    randomness      two answers to one image differ
    probabilities   the "logits" are probabilities
    square          the Square attack breaks what gradient attacks have left

A sign is a reason to look closer, not a proof; and silence proves nothing either.

Reference: Athalye et al. 2018, arXiv 1802.00420, section 3.1; Carlini et al. 2019,
arXiv 1902.06705, section 4; Croce and Hein 2020, arXiv 2003.01690, and their code.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, keys, losses
from advjax.attacks.checks import check_count
from advjax.attacks.gradients import value_and_gradient
from advjax.attacks.transfer import Views
from advjax.balls import Ball, as_ball
from advjax.evaluation.accuracy import evaluate, key_of, padded
from advjax.evaluation.inputs import check
from advjax.evaluation.masking_report import Masking, Sign
from advjax.evaluation.record import Evaluation
from advjax.evaluation.verify import logits_of
from advjax.types import Array, HostArray, Key, LogitsFn, Sampled, as_pytree

THRESHOLDS = {
    'one-step': 0.01,
    'black-box': 0.01,
    'unbounded': 0.01,
    'random': 0.01,
    'radius': -0.01,
    'non-monotone': 0.01,
    'zero gradients': 0.05,
    'randomness': 0.0,
    'probabilities': 0.5,
    'square': 0.002,
}
"""A sign fires where its value exceeds this. All are shares of images.

That of 'radius' is negative: its value is minus the accuracy that falls when the radius
is doubled, and the sign fires where this is less than a hundredth.
"""

_FACTORS = (0.25, 0.5, 1.0, 2.0)


@jax.jit
def _gradient_is_zero(logits_fn: Any, key: Key, x: Array, y: Array) -> Array:
    goal = attacks.goal(logits_fn, y, loss=losses.cross_entropy)
    gradient, _ = value_and_gradient(goal, x, key)
    flat = gradient.reshape(len(x), -1)
    # A gradient that is not finite leads nowhere either.
    return ~(jnp.isfinite(flat).all(axis=1) & (flat != 0).any(axis=1))


@jax.jit
def _two_draws(logits_fn: Any, key: Key, x: Array) -> tuple[Array, Array]:
    one, two = (keys.fold(keys.per_example(key, len(x)), i) for i in (1, 2))
    return logits_fn.sample(one, x)[0], logits_fn.sample(two, x)[0]


def _differ(model: Any, key: Key, x: np.ndarray) -> np.ndarray:
    """Whether two answers differ by more than 1e-4, the bound of AutoAttack, (B,)."""
    if isinstance(model, Sampled) and not isinstance(model, Views):
        one, two = (np.asarray(a) for a in _two_draws(model, key, x))
    else:
        one, two = logits_of(model, x), logits_of(model, x)
    return np.abs(one - two).max(axis=1) > 1e-4


def _are_probabilities(logits: np.ndarray) -> np.ndarray:
    """Whether numbers lie in [0, 1] and sum to one, (B,)."""
    inside = (logits.min(axis=1) >= 0) & (logits.max(axis=1) <= 1)
    return inside & (np.abs(logits.sum(axis=1) - 1) < 1e-4)


def _span(ball: Ball, x: np.ndarray) -> float:
    """The radius at which the ball holds every image of the range."""
    low, high = ball.bounds or (float(x.min()), float(x.max()))
    return float(ball.norm(jnp.full_like(x[:1], high - low))[0])


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'


def masking(
    logits_fn: LogitsFn,
    x: HostArray,
    y: HostArray,
    ball: Ball | float,
    *,
    key: Key,
    substitute: LogitsFn | None = None,
    steps: int = 40,
    queries: int = 1000,
    samples: int = 100,
    batch_size: int = 256,
    ids: HostArray | None = None,
) -> Masking:
    """Looks for signs of masked gradients; every attack's result is verified.

    Args:
      logits_fn: the model, x -> (B, K), as it is deployed. A randomised model is an
        ``attacks.eot``; attacks that follow gradients then climb its mean.
      x: (N, ...) float32 images within the ball's bounds.
      y: (N,) integer labels.
      ball: the threat model; a number is the radius of ``linf``.
      key: one key.
      substitute: another model for the same task, from which examples are transferred:
        best an undefended one of the same architecture. Without one the black box is
        the Square attack alone.
      steps: of the iterative attack, PGD on the cross entropy.
      queries: of the Square attack, which needs (N, H, W, C) images and is left out
        for others.
      samples: of random search.
      batch_size: images per compiled call.
      ids: (N,) data-set indices, ``arange(N)`` by default.

    Raises:
      ValueError: as ``evaluate`` does; for a ball of radius 0, or without a black box.
    """
    ball, model = as_ball(ball), as_pytree(logits_fn)
    for name, value in (('steps', steps), ('queries', queries), ('samples', samples)):
        check_count(name, value)
    x, y, _ = check(model, x, y, [ball])
    if np.ndim(ball.eps) or not ball.eps > 0:
        raise ValueError(f'ball must have one radius > 0, got {ball.eps}')
    pgd = attacks.pgd(ball, steps)
    named: dict[str, Any] = {'one-step': attacks.fgm(ball), 'iterative': pgd}
    named['random'] = attacks.random_search(ball, samples)
    if x.ndim == 4 and ball.norm_name in ('linf', 'l2', 'l1'):
        named['square'] = attacks.square(ball, queries)
    if substitute is not None:
        named['transfer'] = attacks.surrogate(pgd, substitute)
    if not {'square', 'transfer'} & set(named):
        raise ValueError(
            'substitute must be given where the Square attack is not defined: for '
            f'images of shape {x.shape[1:]} and {ball}'
        )
    options = {'batch_size': batch_size, 'ids': ids}
    record = evaluate(model, x, y, named, key=key, ball=ball, **options)

    span, eps = _span(ball, x), float(ball.eps)
    radii = [eps * f for f in _FACTORS if eps * f < span] + [span]
    broken = []
    for radius in radii:
        if radius == eps:
            broken.append(record.success[1])
            continue
        wider = balls.with_eps(pgd, jnp.float32(radius))
        found = evaluate(model, x, y, wider, key=key, **options)
        broken.append(found.success[0])
    curve = np.array([(record.clean_correct & ~b).mean() for b in broken])

    which = np.arange(len(x)) if ids is None else np.asarray(ids)
    looks = {'zero gradients': [], 'randomness': [], 'probabilities': []}
    for index, real in padded(np.arange(len(x)), batch_size):
        at = key_of(key, 'masking', which[index])
        zero = np.asarray(_gradient_is_zero(model, at, x[index], y[index]))
        looks['zero gradients'].extend(zero[:real])
        looks['randomness'].extend(_differ(model, at, x[index])[:real])
        logits = logits_of(model, x[index])
        looks['probabilities'].extend(_are_probabilities(logits)[:real])
    shares = {name: float(np.mean(seen)) for name, seen in looks.items()}
    signs = _signs(record, np.array(radii), curve, np.array(broken), shares)
    return Masking(
        signs=tuple(signs),
        clean=record.clean_accuracy,
        accuracy={name: record.accuracy(name) for name in record.names},
        radii=np.array(radii),
        curve=curve,
        evaluation=record,
    )


def _signs(
    record: Evaluation,
    radii: np.ndarray,
    curve: np.ndarray,
    broken: np.ndarray,
    shares: dict[str, float],
) -> Iterator[Sign]:
    """The signs, in the order of the paper."""
    accuracy = {name: record.accuracy(name) for name in record.names}
    success = dict(zip(record.names, record.success, strict=True))
    one, many = accuracy['one-step'], accuracy['iterative']
    white = success['one-step'] | success['iterative']

    def sign(name: str, value: float, sentence: str) -> Sign:
        return Sign(name, float(value), THRESHOLDS[name], sentence)

    yield sign(
        'one-step',
        many - one,
        f'one step leaves {_percent(one)}, iterating {_percent(many)}',
    )
    black = {n: accuracy[n] for n in ('square', 'transfer') if n in accuracy}
    best = min(black, key=lambda name: black[name])
    yield sign(
        'black-box',
        many - black[best],
        f'{best} leaves {_percent(black[best])}, white-box gradients {_percent(many)}',
    )
    # What falls at any radius lies within the largest.
    standing = record.clean_correct & ~broken.any(axis=0)
    yield sign(
        'unbounded',
        standing.mean(),
        f'{_percent(standing.mean())} stand at every radius up to {radii[-1]:.3g}, '
        'which holds all images',
    )
    missed = (success['random'] & ~white).mean()
    yield sign(
        'random', missed, f'random points break {_percent(missed)} that gradients miss'
    )
    here = np.searchsorted(radii, float(record.ball.eps))
    next_ = min(here + 1, len(radii) - 1)
    # Where next to nothing is left, a larger radius has nothing to gain.
    gain = curve[here] - curve[next_] if curve[here] > 0.05 else 1.0
    yield sign(
        'radius',
        -gain,
        f'from radius {radii[here]:.3g} to {radii[next_]:.3g} the accuracy goes from '
        f'{_percent(curve[here])} to {_percent(curve[next_])}',
    )
    rises = np.diff(curve)
    where = int(rises.argmax())
    yield sign(
        'non-monotone',
        rises[where],
        f'{_percent(curve[where])} at radius {radii[where]:.3g}, '
        f'{_percent(curve[where + 1])} at {radii[where + 1]:.3g}',
    )
    for name, words in (
        ('zero gradients', 'of the images have a gradient of zero, or none'),
        ('randomness', 'of the images get two answers that differ'),
        ('probabilities', 'of the outputs are probabilities, not logits'),
    ):
        yield sign(name, shares[name], f'{_percent(shares[name])} {words}')
    if 'square' in success:
        more = (success['square'] & ~white).mean()
        yield sign(
            'square', more, f'Square breaks {_percent(more)} that gradients have left'
        )
