"""The parts of the studies of Ilyas and Tsipras et al.; the whole: test_studies."""

import numpy as np
import pytest
from scipy import stats

from advjax import features
from advjax.data import Dataset
from experiments.frame import measures
from experiments.frame.datasets import Sets
from experiments.studies.ilyas2019 import STUDY, learning, theory
from experiments.studies.tsipras2019 import STUDY as OTHER
from experiments.studies.tsipras2019 import digits, toy


def test_rank_correlation():
    a, b = [1, 2, 3, 4], [10, 30, 20, 40]
    assert measures.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert measures.rank_correlation(a, [-v for v in a]) == pytest.approx(-1)
    assert measures.rank_correlation(a, [1, 1, 1, 1]) == 0
    assert measures.rank_correlation([1], [1]) == 0


def test_every_gaussian_claim_holds():
    claims, table, _ = theory.gaussian_study(20_000)
    assert len(claims) == 10
    for claim in claims:
        assert claim.verdict == 'holds', claim
    # What the robust classifier loses on clean data it wins back, and more, at eps 1.
    numbers = np.array([[float(v) for v in row[4:]] for row in table.rows])
    assert (numbers[:, 0] >= numbers[:, 1]).all()
    assert numbers[2, 3] > numbers[2, 2] + 5


def test_an_adversary_moves_the_weight_to_the_robust_feature():
    config = OTHER.presets['smoke']
    truth = toy.made(config)
    natural = toy.trained(truth, config, 0 * truth.eta)
    adversarial = toy.trained(truth, config, 2 * truth.eta)
    assert (
        truth.accuracy(natural)
        > 0.99
        > 0.01
        > truth.accuracy(natural, eps=2 * truth.eta)
    )
    assert truth.accuracy(adversarial, eps=2 * truth.eta) == pytest.approx(
        0.95, abs=0.01
    )
    assert np.linalg.norm(natural) <= 1 + 1e-5
    assert abs(adversarial[0]) > 0.9 * np.abs(adversarial).sum()


def _sets(count=40):
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    labels = (np.arange(count) % 10).astype(np.int32)
    made = Dataset(images, labels, tuple('0123456789'), 'digits', 'train')
    return Sets(made, made, made)


def test_few_images_come_round_again():
    some = digits._some(_sets(), 7, 30, seed=0)
    values, counts = np.unique(some.train.images, return_counts=True)
    assert len(values) == 7
    assert counts.sum() == 30
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(some.train.labels, some.train.images.ravel() % 10)
    other = digits._some(_sets(), 7, 30, seed=1)
    assert set(np.unique(other.train.images)) != set(values)
    assert len(digits._some(_sets(), 40, 30, 0).train.labels) == 40


def test_the_learners_are_what_their_names_say():
    sets = _sets()._replace(
        train=_sets().train._replace(images=np.zeros((40, 8, 8, 1), np.uint8))
    )
    for name in learning.RATES:
        model = learning.architecture(sets, name)
        assert (model.features is None) == (name == 'softmax')
    assert set(STUDY.presets['cpu'].architectures) == set(learning.RATES)
    config = STUDY.presets['cpu']
    assert learning.radii(config) == [2.0, 3.0, 4.0]
    assert learning.det(2.0) == 'D_det_2'


def test_radii_of_the_sweep_are_methods():
    made = digits.methods(OTHER.presets['cpu'])
    assert list(made) == ['natural', 'eps 0.1', 'eps 0.3']
    assert not made['natural'].adversarial
    assert float(made['eps 0.1'].inner.ball.eps) == pytest.approx(0.1)
    assert features.signs(np.array([3, 7]), 7).tolist() == [-1, 1]
