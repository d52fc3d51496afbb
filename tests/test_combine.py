"""Restarts, targets, the worst of several; averages over noise and over models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, keys, linf, losses
from tests.contract import BATCH, CLASSES, KEY, images, margin, network, run

PGD = attacks.pgd(linf(0.1), 4, rate=0.3)


def best_by_hand(f, x, y, points):
    scores = np.stack([margin(f, p, y) for p in points])
    return np.stack([points[k][i] for i, k in enumerate(scores.argmax(0))])


@pytest.mark.parametrize('parallel', [False, True])
def test_restarts_keep_the_worst_of_their_runs(parallel):
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, BATCH)
    runs = [np.asarray(run(PGD, f, keys.fold(each, r), x, y)) for r in range(4)]
    got = run(attacks.restarts(PGD, 4, parallel), f, KEY, x, y)
    np.testing.assert_allclose(got, best_by_hand(f, x, y, runs), atol=1e-6)
    chosen = [np.abs(got - one).reshape(BATCH, -1).max(1) < 1e-6 for one in runs]
    assert len({int(np.argmax(c)) for c in np.array(chosen).T}) > 1


def test_targeted_aims_at_the_likeliest_wrong_classes():
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, BATCH)
    order = np.argsort(-np.asarray(f(x)), axis=1)
    assert (order[:, 0] == y).all()
    runs = [
        np.asarray(
            jax.jit(lambda k, t: PGD(f, k, x, y, target=t))(
                keys.fold(each, i), jnp.asarray(order[:, i + 1], jnp.int32)
            )
        )
        for i in range(2)
    ]
    got = run(attacks.targeted(PGD, 2), f, KEY, x, y)
    np.testing.assert_allclose(got, best_by_hand(f, x, y, runs), atol=1e-6)


def test_a_target_is_reached():
    f, (x, y) = network(scale=3.0), images()
    target = (y + 1) % CLASSES
    strong = attacks.pgd(linf(0.6), 30, loss=losses.margin)
    adv = jax.jit(lambda: strong(f, KEY, x, y, target=target))()
    assert (jnp.argmax(f(adv), axis=1) == target).all()
    assert not (jnp.argmax(f(x), axis=1) == target).any()


def test_worst_of_keeps_the_worst_of_its_members():
    f, (x, y) = network(), images()
    members = [attacks.fgsm(0.1), PGD]
    each = keys.per_example(KEY, BATCH)
    points = [
        np.asarray(run(member, f, keys.fold(each, i), x, y))
        for i, member in enumerate(members)
    ]
    got = run(attacks.worst_of(members), f, KEY, x, y)
    np.testing.assert_allclose(got, best_by_hand(f, x, y, points), atol=1e-6)


def test_a_plain_function_is_an_attack():
    def towards_grey(logits_fn, key, x, y):
        return x + 0.1 * jnp.sign(0.5 - x)

    f, (x, y) = network(), images()
    got = run(attacks.worst_of([towards_grey, attacks.fgsm(0.1)]), f, KEY, x, y)
    assert (margin(f, got, y) >= margin(f, towards_grey(f, KEY, x, y), y)).all()
    assert attacks.worst_of([towards_grey]).calls is None


def test_declared_calls_add_up():
    assert PGD.calls == 5
    assert attacks.restarts(PGD, 3).calls == 3 * 5
    assert attacks.targeted(PGD, 2).calls == 2 * 6
    assert attacks.worst_of([PGD, attacks.fgsm(0.1)]).calls == 5 + 2
    last = PGD.replace(keep_best=False)
    assert attacks.from_prediction(last).calls == 5


def test_eot_gradient_is_the_gradient_of_the_expected_loss():
    f, (x, y) = network(), images()

    def noisy(key, image):
        return f(image + 0.3 * jax.random.normal(key, image.shape))

    seen = attacks.eot(noisy, 16)
    goal = attacks.goal(seen, y, loss=losses.cross_entropy)
    value = goal.value(x, KEY)
    each = keys.per_example(KEY, BATCH)
    by_hand = [
        np.mean(
            [
                losses.cross_entropy(
                    noisy(jax.random.fold_in(each[i], s), x[i : i + 1]), y[i : i + 1]
                )[0]
                for s in range(16)
            ]
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(value[:2], by_hand, rtol=1e-5)


def test_eot_sees_through_noise_that_hides_the_gradient():
    """Against a noisy model many draws point better than one."""
    f, (x, y) = network(), images(batch=BATCH)

    def noisy(key, image):
        return f(image + 1.0 * jax.random.normal(key, image.shape))

    step = attacks.fgsm(0.1)
    gains = [
        margin(f, run(step, attacks.eot(noisy, n), KEY, x, y), y).mean()
        for n in (1, 64)
    ]
    assert gains[1] > gains[0]


def test_eot_is_deterministic_as_a_logits_function():
    f, (x, _) = network(), images()
    seen = attacks.eot(lambda k, image: f(image + jax.random.normal(k, image.shape)), 4)
    np.testing.assert_array_equal(seen(x), seen(x))
    np.testing.assert_allclose(seen(x)[2:3], seen(x[2:3]), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(jnp.exp(seen(x)), axis=1), 1, rtol=1e-5)


def test_ensemble_of_logits_and_of_probabilities():
    one, two, (x, _) = network(0), network(1), images()
    mean = attacks.ensemble([one, two], [3, 1])(x)
    np.testing.assert_allclose(mean, 0.75 * one(x) + 0.25 * two(x), rtol=1e-5)
    p = attacks.ensemble([one, two], average='probabilities')(x)
    expected = (jax.nn.softmax(one(x)) + jax.nn.softmax(two(x))) / 2
    np.testing.assert_allclose(jnp.exp(p), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: attacks.restarts(PGD, 0), 'count .* got 0'),
        (lambda: attacks.targeted(PGD, 1.5), r'classes .* got 1\.5'),
        (lambda: attacks.worst_of([]), 'attacks .* none'),
        (lambda: attacks.eot(lambda k, x: x, 0), 'samples .* got 0'),
        (lambda: attacks.ensemble([]), 'members .* none'),
        (lambda: attacks.ensemble([network()], [1, 2]), 'weights must be 1'),
        (lambda: attacks.ensemble([network()], [0]), 'not all zero'),
        (lambda: attacks.ensemble([network()], average='vote'), "'vote'"),
        (lambda: attacks.restarts('pgd', 2), "'pgd'"),
        (lambda: attacks.from_prediction(PGD), 'attack must have keep_best=False'),
        (
            lambda: attacks.ensemble([attacks.eot(lambda k, x: x, 2)]),
            'members must be deterministic',
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_more_targets_than_wrong_classes():
    f, (x, y) = network(), images()
    with pytest.raises(ValueError, match='at most 3'):
        attacks.targeted(PGD, CLASSES)(f, KEY, x, y)


def test_a_member_outside_the_ball_cannot_hide_the_others():
    def far_away(logits_fn, key, x, y):
        return 1 - x

    f, (x, y) = network(), images()
    strong = attacks.pgd(linf(0.01), 8)
    got = run(attacks.worst_of([strong, far_away]), f, KEY, x, y)
    assert np.asarray(strong.ball.contains(got, x)).all()
    assert (margin(f, far_away(f, KEY, x, y), y) > margin(f, got, y)).any()


def test_targets_pass_through_worst_of():
    f, (x, y) = network(), images()
    both = attacks.worst_of([attacks.fgsm(0.1), PGD])
    adv = run(attacks.targeted(both, 2), f, KEY, x, y)
    assert margin(f, adv, y).mean() > margin(f, x, y).mean()
