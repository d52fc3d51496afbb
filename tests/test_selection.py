"""Numbers of a method by path: what is meant, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, balls, training, zoo
from advjax.training.named import Trades
from advjax.training.selection import find, paths

WARM = optax.linear_schedule(0.0, 1.0, 10)
# The attack has a beta, too.
TWO = training.method(attacks.ead(balls.l1(0.1)), Trades(jnp.float32(6)))


def test_a_name_that_is_two_numbers_is_refused_with_their_paths():
    betas = [path for path in paths(TWO) if path.endswith('.beta')]
    assert len(betas) == 2
    assert 'outer.beta' in betas
    with pytest.raises(ValueError, match=r"'beta' must be one number .*outer\.beta"):
        training.scaled(TWO, 'beta', 0.5)
    with pytest.raises(ValueError, match="'beta' must be one number"):
        training.scheduled(TWO, beta=WARM)
    one = training.scheduled(TWO, {'outer.beta': WARM}).at(jnp.int32(5))
    assert one.outer.beta == 3
    changed = [
        path
        for path, leaf in paths(one).items()
        if not np.array_equal(leaf, paths(TWO)[path])
    ]
    assert changed == ['outer.beta']


def test_a_function_selects_several():
    half = training.scaled(TWO, lambda path: path.endswith('.beta'), 0.5)
    assert [float(half.outer.beta), paths(half)['outer.beta']] == [3.0, 3.0]
    assert sum(paths(half)[p] != paths(TWO)[p] for p in paths(TWO)) == 2
    plan = training.scheduled(TWO, {lambda path: 'beta' in path: WARM}).plan
    assert len(plan) == 2
    with pytest.raises(ValueError, match='where must select numbers'):
        training.scaled(TWO, lambda path: False, 0.5)


def test_radii_of_equal_balls_are_one_number():
    for method, count in (
        (training.grad_align(0.05), 2),
        (training.ensemble_at(0.1, [zoo.mlp((4, 4, 1), 3, (4,))[1]] * 2), 3),
        (training.advprop(0.1, 0.1), 2),
        (training.advprop(balls.linf(0.1), balls.linf(np.float32(0.1))), 2),
    ):
        assert len(find(method, 'eps')) == count
        half = training.scaled(method, 'eps', 0.5)
        for one, other in zip(balls.of(half), balls.of(method), strict=True):
            np.testing.assert_allclose(one.eps, other.eps / 2)


def test_radii_of_different_balls_are_not():
    for method in (
        training.advprop(0.1, 0.2),
        training.advprop(balls.linf(0.1), balls.l2(0.1)),
    ):
        with pytest.raises(ValueError, match="'eps' must be one number"):
            training.scheduled(method, eps=WARM)
        first = training.scaled(method, 'inner.attacks.0.ball.eps', 0.0)
        assert [float(b.eps) > 0 for b in balls.of(first)] == [False, True]


def test_traced_radii_are_one_number_only_as_one_object():
    method = jax.jit(
        lambda eps: training.scaled(training.grad_align(eps, 1.0), 'eps', 2)
    )
    assert {float(ball.eps) for ball in balls.of(method(0.25))} == {0.5}
    with pytest.raises(ValueError, match='must be one number'):
        jax.jit(lambda m: training.scaled(m, 'eps', 2))(training.advprop(0.1, 0.1))
    # What is scheduled is known by its paths from then on.
    grown = training.scheduled(training.grad_align(0.05), eps=lambda step: 2.0)
    radii = {float(b.eps) for b in balls.of(jax.jit(lambda m: m.at(0))(grown))}
    assert radii == {np.float32(0.1)}


def test_the_plan_follows_the_outer_loss_into_another():
    plan = training.scheduled(training.trades(0.1), beta=WARM, eps=WARM)
    for wrapped in (training.smooth_labels(plan, 0.1), training.with_own_loss(plan)):
        now = wrapped.at(jnp.int32(5))
        assert float(now.outer.outer.beta) == 3
        assert float(now.inner.attack.ball.eps) == np.float32(0.05)
    with pytest.raises(ValueError, match='base must not be scheduled'):
        training.grad_align(training.scheduled(training.fast(0.1), eps=WARM), 0.2)


def test_what_is_missing_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"'gamma' must be .* which has \['inner.ball"):
        training.scaled(training.pgd_at(0.1), 'gamma', 2.0)
    with pytest.raises(ValueError, match=r'outer\.beta must be a schedule'):
        # pyrefly: ignore[bad-assignment]
        training.scheduled(training.trades(0.1), {'outer.beta': 0.5})
