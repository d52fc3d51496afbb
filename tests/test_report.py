"""The entry of the reports: evaluations in, a folder with figures and a page out."""

import json

import jax
import numpy as np
import pytest

from advjax import attacks, evaluation, linf, report
from advjax.types import as_pytree
from tests.contract import images, network

KEY = jax.random.key(0)
X, Y = (np.asarray(a) for a in images())
NET = as_pytree(network())


def evaluated(attack=None, **options):
    attack = attack or attacks.pgd(linf(0.1), 3)
    return evaluation.evaluate(NET, X, Y, attack, key=KEY, batch_size=len(X), **options)


def test_one_evaluation_makes_a_page_and_its_figures(tmp_path):
    found = evaluated()
    results = report.write(found, tmp_path / 'new')
    text = (tmp_path / 'new' / 'report.html').read_text(encoding='utf-8')
    assert '<h1>A change of at most 0.1 per pixel' in text
    assert json.loads((tmp_path / 'new' / 'results.json').read_text()) == results
    assert results['nets'][0]['robust_accuracy'] == found.robust_accuracy
    assert results['threat_model'] == {'norm': 'Linf', 'eps': 0.1, 'bounds': [0, 1]}
    assert [proof['failed'] for proof in results['proofs']] == [0, 0, 0, 0]
    assert found.names[0] in report.table(results)


def test_whether_a_net_was_adversarially_trained_is_what_it_says_not_its_name():
    def sentence(**adversarial):
        nets = {
            'first': report.Net(evaluated(), method='standard', adversarial=False),
            **{
                name: report.Net(evaluated(), method=name, adversarial=said)
                for name, said in adversarial.items()
            },
        }
        comparison = report.Comparison(nets)
        assert [n['adversarial'] for n in comparison.results()['nets']][1:] == [
            *adversarial.values()
        ]
        return str(comparison)

    assert 'the adversarially trained one' in sentence(mine=True)
    for said in (False, None):
        text = sentence(pgd_at=said)
        assert 'adversarially' not in text
        assert 'the network “pgd_at”' in text


def test_examples_are_images_that_every_net_is_right_on():
    nets = {name: report.Net(evaluated(), NET) for name in 'ab'}
    comparison = report.Comparison(nets, X, Y)
    assert comparison.html().count('<li class="card">') == min(
        report.comparison.EXAMPLES, int(evaluated().clean_correct.sum())
    )
    assert '<li class="card">' not in report.Comparison(nets).html()


def test_the_figures_of_a_search_without_a_radius_follow_from_its_distances():
    attack = attacks.deepfool(linf(np.inf))
    found = evaluated(attack, ball=linf(np.inf))
    nets = {'a': report.Net(found)}
    results = report.Comparison(nets, eps=0.2).results()
    (net,) = results['nets']
    assert results['threat_model']['eps'] == 0.2
    assert net['robust_accuracy'] == found.accuracy_at(0.2)
    assert net['curve']['accuracy'][5] == found.accuracy_at(0.2)
    assert net['distance']['found'] == int(found.success.sum())
    assert report.Comparison(nets).results()['threat_model']['eps'] is None


def test_nets_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(ValueError, match='at least one network'):
        report.write({}, tmp_path / 'none')
    other = {'a': evaluated(), 'b': evaluated(attacks.pgd(linf(0.2), 3))}
    with pytest.raises(ValueError, match='in one ball'):
        report.write(other, tmp_path / 'none')
    assert not (tmp_path / 'none').exists()
