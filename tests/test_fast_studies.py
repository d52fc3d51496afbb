"""The parts of the studies of fast and long training; the whole: test_studies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import linf, models, training
from advjax.data import Dataset, DatasetNotFound
from experiments.frame.counting import gradient_evaluations
from experiments.frame.datasets import Sets
from experiments.studies import andriushchenko2020, rice2020, wong2020
from experiments.studies.andriushchenko2020 import findings as curves
from experiments.studies.andriushchenko2020 import networks
from experiments.studies.rice2020 import findings as ends
from experiments.studies.wong2020 import findings as failures

KEY = jax.random.key(0)


def some_sets(count=8, shape=(8, 8, 1)):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    labels = (np.arange(count) % 10).astype(np.int32)
    made = Dataset(images, labels, tuple('0123456789'), 'digits', 'train')
    return Sets(made, made, made)


def test_gradients_are_counted_where_they_are_taken():
    ways = wong2020.methods(linf(0.1))
    counts = {n: gradient_evaluations(lambda _, m=m: m) for n, m in ways.items()}
    assert counts == {wong2020.FAST: 2, wong2020.PGD: 8, wong2020.ZERO: 2}
    assert gradient_evaluations(lambda _: training.standard()) == 1


def test_the_epoch_is_read_from_what_the_loop_says():
    rows = [
        {'epoch': e, 'train_loss': -e, 'held_out_robust': r, 'held_out_top_class': 0.1}
        for e, r in ((1, 0.6), (2, 0.1))
    ]
    event = training.diagnose(rows, adversarial=True)
    assert failures.said_at(np.array([f'{event}; went on'])) == 2
    assert failures.said_at(np.array([], str)) == 0
    assert failures.said_at(np.array(['collapse to a constant class at epoch 3'])) == 0


def test_the_better_seed_is_chosen_by_held_out_images():
    runs = [{'chosen': 0.5, 'best': 90.0}, {'chosen': 0.6, 'best': 80.0}]
    assert failures.best(runs)['best'] == 80


def test_the_one_layer_network_is_the_one_of_the_authors():
    model = networks.one_layer((8, 6, 3), 10)
    params, state = model.init(KEY)
    assert params['conv']['kernel'].shape == (3, 3, 3, 4)
    assert params['out']['kernel'].shape == (8 * 6 * 4, 10)
    assert not params['conv']['bias'].any()
    assert not params['out']['bias'].any()
    wide = networks.one_layer((8, 6, 3), 200, filters=50).init(KEY)[0]
    for layer, variance in (('conv', 2 / (9 * 50)), ('out', 2 / (8 * 6 * 50))):
        assert wide[layer]['kernel'].var() == pytest.approx(variance, rel=0.1)
    # Written out: zero padding, ReLU, rows by columns by channels.
    x = np.asarray(jax.random.uniform(KEY, (2, 8, 6, 3)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(params['conv']['kernel'])
    maps = sum(
        padded[:, i : i + 8, j : j + 6] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    wanted = np.maximum(maps, 0).reshape(2, -1) @ np.asarray(params['out']['kernel'])
    logits = model.apply(params, state, jnp.asarray(x))[0]
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


def test_the_penalty_is_part_of_what_adam_sees():
    optimizer = networks.optimizer(0.1, 10, 0.5)
    params, gradient = {'w': jnp.array([2.0, -4.0])}, {'w': jnp.array([0.1, 2.0])}
    by_hand = optax.adam(training.triangular(0.1, 10))
    seen = {'w': gradient['w'] + 0.5 * params['w']}  # The second is 0 by it.
    for _ in range(2):
        found = optimizer.update(gradient, optimizer.init(params), params)[0]
        wanted = by_hand.update(seen, by_hand.init(params), params)[0]
    np.testing.assert_allclose(found['w'], wanted['w'])


def test_what_is_measured_of_a_network_that_is_linear():
    def apply(params, x):
        score = x.reshape(len(x), -1) @ params
        return jnp.stack([-score, score], axis=1)

    model = models.from_function(lambda key: jax.random.normal(key, (16,)), apply)
    params = model.init(KEY)[0]
    x = 0.5 + 0.01 * jax.random.normal(KEY, (40, 4, 4, 1))
    y = (apply(params, x)[:, 1] > 0).astype(jnp.int32)
    seen = networks.measure(models.logits_fn(model, params), linf(0.001), KEY, x, y)
    assert seen['held_out_clean'] == 1
    assert seen['held_out_top_class'] == pytest.approx(
        max(np.bincount(y)) / 40, rel=1e-6
    )
    # One direction everywhere, and the last iterate of PGD is the corner, too.
    assert seen['alignment'] == pytest.approx(1, abs=1e-5)
    assert seen['fgsm_pgd'] == pytest.approx(1, abs=1e-4)
    assert seen['held_out_fgsm'] == seen['held_out_robust']
    margin = np.abs(np.asarray(apply(params, x)[:, 1]))
    reach = 0.001 * np.abs(np.asarray(params)).sum()
    assert seen['held_out_fgsm'] == pytest.approx((margin > reach).mean())


def run_of(robust, alignment=None, loss=None):
    epochs = np.arange(1, len(robust) + 1) / 2
    return {
        'epoch': epochs,
        'held_out_robust': np.array(robust, float),
        'alignment': np.array(alignment or robust, float),
        'train_loss': np.array(loss or -epochs, float),
    }


def test_a_fall_is_dated_and_measured():
    run = run_of([0.1, 0.2, 0.15, 0.08, 0.12, 0.06, 0.06, 0.06])
    assert curves.turning_point(run) == 1
    assert curves.halved_at(run, 'held_out_robust') == 3, 'it came back at 2.5'
    assert curves.left(run, 'held_out_robust') == pytest.approx(0.3)
    # Whole epochs: 0.2, 0.08, 0.06, 0.06.
    assert curves.detected_at(run) == 2
    up = run_of([0.1, 0.2, 0.2, 0.19])
    assert curves.halved_at(up, 'held_out_robust') == np.inf
    assert curves.detected_at(up) == 0
    rising = run_of([0.1, 0.2, 0.15, 0.08], loss=[1, 1, 2, 2])
    assert curves.detected_at(rising) == 0, 'the loss rises, too'


def test_how_far_is_far_enough_can_be_said():
    rows = [
        {'epoch': 1, 'train_loss': 2.0, 'held_out_robust': 0.15},
        {'epoch': 2, 'train_loss': 1.0, 'held_out_robust': 0.05},
    ]
    assert training.catastrophic_overfitting(rows) is None
    assert 'epoch 2' in str(training.catastrophic_overfitting(rows, drop=0.09))
    assert training.catastrophic_overfitting(rows, drop=0.11) is None


def test_there_are_no_more_looks_than_batches():
    config = andriushchenko2020.Config(looks=3, batch_size=4)
    with pytest.raises(ValueError, match=r'looks must be at most .* got 3'):
        networks.watched(config, Images(), some_sets(), linf(0.1), networks.FGSM)


class Images:
    """A ``Work`` that turns images into numbers."""

    def images(self, dataset):
        return np.float32(dataset.images) / 255, dataset.labels


class Missing:
    """A ``Work`` that has no CIFAR-10."""

    def __init__(self):
        self.asked = []

    def sets(self, dataset, **counts):
        self.asked.append((dataset, counts))
        if dataset == 'cifar10':
            raise DatasetNotFound('not here')
        return some_sets()


def test_without_cifar10_there_is_something_to_see():
    work = Missing()
    with pytest.warns(UserWarning, match='MNIST stands in for CIFAR-10'):
        sets = andriushchenko2020.sets_of(andriushchenko2020.Config(), work)
    assert sets.train.name == 'digits'
    assert [name for name, _ in work.asked] == ['cifar10', 'mnist']
    with pytest.warns(UserWarning, match='cifar10 is left out'):
        assert list(rice2020.sets_of(rice2020.Config(), Missing())) == ['digits']
    with pytest.raises(ValueError, match=r'dataset must be one of .*imagenet'):
        andriushchenko2020.sets_of(andriushchenko2020.Config('imagenet'), work)
    with pytest.raises(ValueError, match=r'datasets must be of .*imagenet'):
        rice2020.sets_of(rice2020.Config(('imagenet',)), work)


def test_the_fall_of_a_smoothed_curve():
    level = [0.5] * 10
    assert ends.fall({'held_out_robust': np.array(level)}) == pytest.approx(0)
    falling = np.array([0.2, 0.4, *[0.6] * 5, 0.5, *[0.4] * 5])
    assert ends.fall({'held_out_robust': falling}) == pytest.approx(20)
    # One lucky epoch is no peak.
    lucky = np.array([*level, 0.6, *level])
    assert ends.fall({'held_out_robust': lucky}) == pytest.approx(2)
    np.testing.assert_allclose(ends.smooth(np.array([1.0, 3.0])), [2.0])
