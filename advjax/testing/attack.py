"""What every attack must satisfy, as functions that raise AssertionError.

A law is a function (subject, setting): the attack with what is to be known of it, and
the network and images that it is tried on. ``check_attack`` runs them all.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls
from advjax.attacks import starts
from advjax.attacks.ascent import Ascent
from advjax.evaluation.verify import norm_of
from advjax.testing.broken import LawBrokenError
from advjax.testing.trial import Setting, Subject, margin, run, the_key, typed
from advjax.types import Array, Ball, as_pytree

_trials = itertools.count()


def _same(
    subject: Subject,
    f: Any,
    y: Array,
    one: Array,
    two: Array,
    x: Array,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Values are compared, not pixels: a sign of a rounding error flips a pixel.

    The margin of a closest success is rounding, its distance is not.
    """
    if subject.minimum:
        norms = [np.asarray(subject.ball.norm(a - x)) for a in (one, two)]
        np.testing.assert_allclose(*norms, rtol=1e-3, atol=1e-4)
    else:
        np.testing.assert_allclose(
            margin(f, one, y), margin(f, two, y), rtol=rtol, atol=atol
        )


def feasible(subject: Subject, setting: Setting) -> None:
    """Results lie inside the ball and the range, and are not the clean image again."""
    f, (x, y) = setting.network(), setting.images()
    adv = subject.run(f, setting.keys(), x, y)
    chex.assert_equal_shape([adv, x])
    delta = np.asarray(adv, np.float64) - np.asarray(x, np.float64)
    norm, most = norm_of(subject.ball, delta), balls.limit(subject.ball, np.asarray(x))
    assert (norm <= most).all(), f'distances {norm}, allowed {most}'
    # A minimum-norm attack returns the clean image where it found nothing.
    moved = (norm > 0).mean()
    assert moved >= (0.3 if subject.minimum else 1), f'{moved:.0%} of images moved'
    if subject.ball.bounds is not None:
        low, high = subject.ball.bounds
        seen = float(adv.min()), float(adv.max())
        assert low <= seen[0] <= seen[1] <= high, f'pixels in {seen}'


def worse_for_the_model(subject: Subject, setting: Setting) -> None:
    """The attack raises what it is judged by; noise of that size does not."""
    f, (x, y) = setting.network(), setting.images()
    adv = subject.run(f, setting.keys(), x, y)
    if subject.minimum:
        moved = np.asarray(adv != x).reshape(len(x), -1).any(axis=1)
        margins = margin(f, adv, y)[moved]
        assert (margins > 0).all(), f'margins of what was found: {margins}'
        return
    before = np.asarray(subject.judge(f, x, y))
    noise = subject.ball.sample(the_key(), x)
    gained = np.mean(np.asarray(subject.judge(f, adv, y)) - before)
    by_chance = np.mean(np.asarray(subject.judge(f, noise, y)) - before)
    assert gained > max(0, 2 * by_chance), f'raised by {gained}, noise by {by_chance}'


def reaches_the_boundary(subject: Subject, setting: Setting) -> None:
    """On a linear model a search ends on the boundary of the ball."""
    if not subject.fills or subject.minimum or subject.ball.norm_name == 'l0':
        return
    f, (x, y) = setting.network(linear=True), setting.images()
    x = jnp.full_like(x, 0.5)
    norm = subject.ball.norm(subject.run(f, setting.keys(), x, y) - x)
    assert np.min(norm) >= 0.9 * np.min(subject.ball.eps), f'distances {norm}'


def zero_radius_is_identity(subject: Subject, setting: Setting) -> None:
    """A ball of radius 0 returns the clean image bit for bit."""
    if subject.has_ball:
        f, (x, y) = setting.network(), setting.images()
        np.testing.assert_array_equal(subject.scaled(0).run(f, setting.keys(), x, y), x)


def few_tiny_steps_stay_inside(subject: Subject, setting: Setting) -> None:
    """Clip, do not normalise: small steps from the clean image end near it."""
    attack = subject.attack
    if not isinstance(attack, Ascent) or subject.ball.norm_name == 'l0':
        return
    f, (x, y) = setting.network(), setting.images()
    slow = dataclasses.replace(attack, rate=jnp.float32(0.004), start=starts.clean)
    moved = np.asarray(
        subject.ball.norm(run(slow, subject.sees(f), setting.keys(), x, y) - x)
    )
    most = (0.004 * attack.steps + 0.001) * np.asarray(subject.ball.eps)
    assert (moved <= most).all(), f'distances {moved}, allowed {most}'


def examples_are_independent(subject: Subject, setting: Setting) -> None:
    """Example i alone is example i in any batch, order or padding."""
    f, (x, y) = setting.network(), setting.images()
    each, count = setting.keys(), setting.batch
    # Rounding decides the last of ten bisection steps of a minimum-norm attack.
    apart = 1e-3 if subject.minimum else 1e-4
    whole = subject.run(f, each, x, y)
    backwards = np.arange(count)[::-1]
    for index in (backwards, [count // 2], np.resize([count - 1, 0], count)):
        index = np.array(index)
        part = subject.at(subject.ball.take(index, count))
        adv = part.run(f, each[index], x[index], y[index])
        _same(subject, f, y[index], adv, whole[index], x[index])
        np.testing.assert_allclose(adv, whole[index], atol=apart)


def same_key_same_result(subject: Subject, setting: Setting) -> None:
    """One key means one result, and labels are left as they were."""
    f, (x, y) = setting.network(), setting.images()
    before = np.array(y)
    first = subject.run(f, setting.keys(), x, y)
    np.testing.assert_array_equal(first, subject.run(f, setting.keys(), x, y))
    np.testing.assert_array_equal(y, before)


def jit_equals_eager(subject: Subject, setting: Setting) -> None:
    """Compilation changes rounding at most, and one key stands for one per example."""
    f, (x, y) = setting.network(), setting.images()
    eager = subject.attack(subject.sees(f), the_key(), x, y)
    compiled = subject.run(f, setting.keys(), x, y)
    _same(subject, f, y, compiled, eager, x)


def sweeps_compile_once(subject: Subject, setting: Setting) -> None:
    """Radii share one program; and vmap over radii is the loop over them."""
    if not subject.has_ball:
        return
    f, (x, y) = setting.network(), setting.images()
    whole = subject.ball.norm_name == 'l0'
    factors = [1 / 3, 1.0, 2.0] if whole else [0.5, 1.0, 2.0]
    radii = [jnp.asarray(subject.ball.eps * k, jnp.float32) for k in factors]
    attack, rest = typed(subject.attack), (subject.sees(f), setting.keys(), x, y)

    def traced(attack, *rest):
        return attack(*rest)

    # chex counts by name: another one spares us to clear the counts of others.
    traced.__name__ = f'trial_{next(_trials)}'
    traced = chex.assert_max_traces(traced, n=1)
    once = jax.jit(lambda attack, *rest: traced(attack, *rest))
    alone = [once(balls.with_eps(attack, eps), *rest) for eps in radii]
    together = jax.jit(
        jax.vmap(
            lambda eps, attack, *rest: balls.with_eps(attack, eps)(*rest),
            in_axes=(0, *[None] * 5),
        )
    )(jnp.stack(radii), attack, *rest)
    for one, swept in zip(alone, together, strict=True):
        _same(subject, f, y, one, swept, x, rtol=1e-3, atol=1e-4)


def more_is_never_weaker(subject: Subject, setting: Setting) -> None:
    """More steps or restarts at the same step size never lower the margin."""
    f, (x, y) = setting.network(), setting.images()
    seen = subject.sees(f)
    scores = [
        margin(seen, run(a, seen, setting.keys(), x, y), y) for a in subject.stronger
    ]
    fell = [(a - b).max() for a, b in itertools.pairwise(scores)]
    assert all(each <= 1e-5 for each in fell), f'the margin falls by {fell}'


def larger_radius_is_not_weaker(subject: Subject, setting: Setting) -> None:
    """Averaged over examples, a larger ball holds a worse point, or more of them."""
    if not subject.has_ball:
        return
    f, (x, y) = setting.network(), setting.images()
    means = []
    for factor in (1, 2, 3):
        adv = subject.scaled(factor).run(f, setting.keys(), x, y)
        if subject.minimum:
            moved = np.asarray(adv != x).reshape(len(x), -1).any(axis=1)
            means.append(float(moved.mean()))
        else:
            means.append(float(np.mean(subject.judge(f, adv, y))))
    if subject.minimum:
        assert means == sorted(means), f'shares found at 1, 2, 3 eps: {means}'
        assert means[-1] > 0.5, f'shares found at 1, 2, 3 eps: {means}'
    else:
        assert means[0] < means[1] < means[2], f'means at 1, 2, 3 eps: {means}'


def nan_logits_do_not_spread(subject: Subject, setting: Setting) -> None:
    """Examples whose logits are NaN stay feasible; the others are as without them."""
    x, y = setting.images()
    f, odd = setting.network(nan_above=0.8), setting.batch // 3
    bright, dark = x.at[odd].set(0.9), x.at[odd].set(0.1)
    if subject.has_ball:
        subject = subject.at(subject.ball.with_eps(jnp.minimum(subject.ball.eps, 0.01)))
    adv = subject.run(f, setting.keys(), bright, y)
    chex.assert_tree_all_finite(adv)
    assert np.asarray(subject.ball.contains(adv, bright)).all()
    others = np.arange(setting.batch) != odd
    expected = subject.run(f, setting.keys(), dark, y)
    np.testing.assert_allclose(adv[others], expected[others], atol=1e-6)


def constant_model_is_survived(subject: Subject, setting: Setting) -> None:
    """Without a gradient the result is still feasible and finite.

    A minimum-norm attack finds nothing there: a tie is no error.
    """
    x, y = setting.images()
    adv = subject.run(setting.network(scale=0.0), setting.keys(), x, y)
    chex.assert_tree_all_finite(adv)
    assert np.asarray(subject.ball.contains(adv, x)).all()
    if subject.minimum:
        np.testing.assert_array_equal(adv, x)


LAWS = (
    feasible,
    worse_for_the_model,
    reaches_the_boundary,
    zero_radius_is_identity,
    few_tiny_steps_stay_inside,
    examples_are_independent,
    same_key_same_result,
    jit_equals_eager,
    sweeps_compile_once,
    more_is_never_weaker,
    larger_radius_is_not_weaker,
    nan_logits_do_not_spread,
    constant_model_is_survived,
)


def obey(subject: Subject, law: Any, setting: Setting | None = None) -> None:
    """Runs one law.

    Raises:
      LawBrokenError: with the smallest input that breaks it.
    """
    setting = setting or Setting()
    try:
        law(subject, setting)
    except AssertionError as error:
        seen, smallest = error, setting
        for smaller in _smaller(setting):
            found = _broken(law, subject, smaller)
            if found is not None:
                seen, smallest = found, smaller
                break
        x, y = smallest.images()
        shown = f'x = {np.asarray(x).round(4).tolist()}\ny = {np.asarray(y).tolist()}'
        meaning = (law.__doc__ or '').split('\n')[0]
        raise LawBrokenError(f'{law.__name__}: {meaning}', seen, shown) from error


def _smaller(setting: Setting) -> list[Setting]:
    """From the smallest on: fewer pixels, then fewer images."""
    least = (2,) * min(2, len(setting.shape)) + (1,) * max(len(setting.shape) - 2, 0)
    few = [n for n in (1, 2) if n < setting.batch]
    return [
        dataclasses.replace(setting, shape=shape, batch=batch)
        for shape in (least, setting.shape)
        for batch in few
    ]


def _broken(law: Any, subject: Subject, setting: Setting) -> AssertionError | None:
    try:
        law(subject, setting)
    except AssertionError as error:
        return error
    except (TypeError, ValueError):  # An attack need not run on inputs that small.
        return None
    return None


def check_attack(
    attack: Any,
    ball: Ball | float | None = None,
    *,
    stronger: Sequence[Any] = (),
    laws: Sequence[Callable[[Subject, Setting], None]] = LAWS,
    shape: tuple[int, ...] = (4, 5, 1),
    **known: Any,
) -> None:
    """Runs the laws of attacks on yours.

    Args:
      attack: any attack, a plain function included.
      ball: where its results must lie; by default the one that it holds.
      stronger: versions with more steps or restarts, weakest first.
      laws: which ones; all by default.
      shape: of one image.
      **known: what else there is to know of the attack, see ``Subject``: ``sees``,
        ``judge``, ``minimum``, ``fills``.

    Raises:
      LawBrokenError: for the first law that does not hold.
      ValueError: if there is no ball.

    >>> from advjax import attacks, linf
    >>> check_attack(attacks.pgd(linf(0.1), 5, rate=0.3), laws=[feasible])
    """
    found = balls.of(attack)
    if ball is None and not found:
        raise ValueError('ball must be given, because the attack holds none')
    where = found[0] if ball is None else balls.as_ball(ball)
    strong = tuple(as_pytree(each) for each in stronger)
    subject = Subject(as_pytree(attack), where, stronger=strong, **known)
    for law in laws:
        obey(subject, law, Setting(shape=shape))
