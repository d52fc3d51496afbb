"""The study of Szegedy et al. 2014: its parts by hand, and a small run of all of it."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import certify, models, zoo
from experiments.frame import study
from experiments.frame.work import Work
from experiments.studies.szegedy2014 import (
    STUDY,
    distortion,
    networks,
    norms,
    transfer,
    units,
)

SMOKE = STUDY.presets['smoke']


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """One small run, on digits."""
    folder = tmp_path_factory.mktemp('runs')
    found = study.execute(STUDY, SMOKE, folder)
    return found, folder / STUDY.name


def measured(results, what):
    (row,) = [c for c in results[0]['claims'] if what in c['what']]
    return row


def test_small_run_says_what_the_issue_asks_for(results):
    found, folder = results
    assert (folder / 'report.html').stat().st_size > 100_000
    assert json.loads((folder / 'results.json').read_text())['study'] == 'szegedy2014'
    assert [t['title'].split(' (')[0] for t in found['tables']] == [
        'Networks and distortions',
        'Error',
        'Error',
        'Operator norms of the linear layers',
        'The product bound, and what samples show',
        'Coherence of the top 4 images',
    ]
    # On any data and after any training:
    for always in (
        'SVD and power iteration disagree',
        'SVD and Fourier disagree',
        'Fourier bound of a zero-padded convolution over its norm, least',
        'largest stretch of a sample',
        'images fooled within the radius',
    ):
        assert measured(results, always)['verdict'] == 'holds', always
    # Bands that were read for MNIST do not judge digits.
    assert all(
        c['band'] is None for c in found['claims'] if c['what'].startswith('test error')
        and 'takes off' not in c['what']
    )  # fmt: skip


def test_every_network_is_in_the_transfer_tables(results):
    _, pairs, halves, *_ = results[0]['tables']
    assert pairs['columns'][1:] == list(networks.TABLE_1)
    assert len(pairs['rows']) == 15  # Six made for, six of noise, clean, two levels.
    assert halves['columns'][1:] == list(networks.HALVES)
    assert len(halves['rows']) == 11


def test_figures_no_one_has_read_again_gate_nothing(results):
    for row in results[0]['claims']:
        assert row['tag'] not in ('M', 'm') or row['band'] is None


def test_rms_is_the_distortion_of_the_paper():
    r = np.zeros((2, 2, 2, 1), np.float32)
    r[0, 0, 0, 0] = 3.0
    r[1] = 0.5
    np.testing.assert_allclose(distortion.rms(r), [np.sqrt(9 / 4), 0.5])


def test_scaled_has_the_size_asked_for_and_the_direction_given():
    r = np.random.RandomState(0).normal(size=(3, 2, 2, 1)).astype(np.float32)
    r[2] = 0
    grown = distortion.scaled(r, 0.1)
    np.testing.assert_allclose(distortion.rms(grown), [0.1, 0.1, 0], rtol=1e-5)
    np.testing.assert_allclose(
        grown[0], r[0] * 0.1 / distortion.rms(r)[0], rtol=1e-5
    )  # fmt: skip
    each = distortion.scaled(r, np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(distortion.rms(each), [0.1, 0.2, 0], rtol=1e-5)


def test_noise_has_exactly_that_size_and_is_gaussian():
    noise = distortion.noise(SMOKE, (2, 40, 40, 1), 0.3)
    np.testing.assert_allclose(distortion.rms(noise), 0.3, rtol=1e-5)
    assert abs(noise.mean()) < 0.02
    kurtosis = np.mean(noise**4) / np.mean(noise**2) ** 2
    assert kurtosis == pytest.approx(3, abs=0.3)


def test_off_diagonal():
    assert transfer.off_diagonal(np.array([[1, 2], [3, 4]])).tolist() == [2, 3]


def test_halves_share_no_image(tmp_path):
    sets = Work(tmp_path, tmp_path).sets('digits', train_images=200)
    first, second = networks.halves(sets)
    assert len(first.train.labels) == len(second.train.labels) == 100
    one, two = ({i.tobytes() for i in s.train.images} for s in (first, second))
    assert len(one | two) == len({i.tobytes() for i in sets.train.images})
    assert not one & two
    assert first.test is sets.test


def test_a_class_is_drawn_for_every_image_and_never_its_own(tmp_path):
    work = Work(tmp_path, tmp_path)
    config = dataclasses.replace(SMOKE, attacked=300)
    x, y, drawn = distortion.attacked_images(config, work, work.sets('digits'))
    assert x.shape == (300, 8, 8, 1)
    assert (drawn != y).all()
    assert set(drawn) == set(range(10))


def test_norms_of_a_network_are_those_of_numpy(tmp_path):
    params, _ = zoo.fast_mnist((8, 8, 1), 3).init(jax.random.key(0))
    with Work(tmp_path, tmp_path) as work:
        found = norms.of_network(work, 'net', certify.of_fast_mnist(params), (8, 8, 1))
    assert [row.layer for row in found] == ['1 (conv)', '2 (conv)', '3 (dense)',
                                            '4 (dense)']  # fmt: skip
    for row, name in zip(found[2:], ('full', 'out'), strict=True):
        expected = np.linalg.norm(np.asarray(params[name]['kernel']), 2)
        assert row.svd == pytest.approx(expected, rel=1e-4)
        assert row.power == pytest.approx(expected, rel=1e-3)
        assert np.isnan(row.fourier)
    for row in found[:2]:
        assert row.power == pytest.approx(row.svd, rel=1e-3)
        assert row.fourier >= row.svd * (1 - 1e-5)
        assert row.circular_fourier == pytest.approx(row.circular_svd, rel=1e-4)


def test_stretches_of_a_linear_network():
    """Three times the identity stretches everything by three."""
    model = zoo.softmax_regression((2, 1, 1), 2)
    params = {'w': 3 * jnp.eye(2), 'b': jnp.ones((1, 2))}
    fit = types.SimpleNamespace(logits_fn=models.logits_fn(model, params))
    x = np.zeros((2, 2, 1, 1), np.float32)
    moved = {'there': x + np.array([1.0, 0.0], np.float32).reshape(2, 1, 1, 1)}
    found = norms.stretches(fit, x, moved)
    np.testing.assert_allclose(found['infinitesimal'], [3, 3], rtol=1e-6)
    np.testing.assert_allclose(found['there'], [3], rtol=1e-6)  # One stayed.


def test_coherence_by_hand():
    x = np.zeros((4, 1, 2, 1), np.float32)
    x[1, 0, 0] = 3
    x[2, 0, 1] = 4
    found = units._coherence(
        np.array([[0, 1, 2], [0, 1, 3]]), x, np.array([5, 5, 1, 5])
    )
    np.testing.assert_allclose(found.purity, [200 / 3, 100])
    np.testing.assert_allclose(found.distance, [(3 + 4 + 5) / 3, (3 + 3 + 0) / 3])
