"""The commands a newcomer types, and what they leave behind."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import attack_cost, loop
from experiments.benchmarks import command as benchmark
from experiments.commands import attack, train
from experiments.frame import folders, measures

ROOT = Path(__file__).parent.parent
SMALL = train.Config(epochs=2, test_images=40, attack_steps=2, restarts=2, held_out=60)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs') / 'a folder with spaces'
    return train.main(SMALL, folder, fresh=False, progress=False), folder


def test_results_hold_what_the_page_shows(run):
    results, folder = run
    assert json.loads((folder / 'results.json').read_text()) == results
    assert [net['name'] for net in results['nets']] == ['standard', 'pgd_at']
    for net in results['nets']:
        assert net['examples'] == 40
        accuracies = [a['robust_accuracy'] for a in net['attacks']]
        assert net['robust_accuracy'] <= min(accuracies)
        assert max(accuracies) <= net['clean_accuracy']
        assert len(net['curve']['eps']) == 16
        assert net['curve']['eps'][5] == pytest.approx(0.15)
        assert len(net['history']) == 2
    assert results['environment']['jax']


def test_every_proof_was_checked_and_holds(run):
    results, _ = run
    assert len(results['proofs']) >= 6
    for proof in results['proofs']:
        assert proof['checked'] > 0, proof
        assert proof['failed'] == 0, proof


def test_the_page_is_one_file_with_the_figures_in_it(run):
    results, folder = run
    page = (folder / 'report.html').read_text()
    assert page.count('<svg') >= 3
    assert 'http://' not in page.replace('http://www.w3.org', '')
    assert 'https://' not in page
    for proof in results['proofs']:
        assert proof['claim'].split(' within ')[0] in page


def test_metrics_are_one_row_per_epoch_of_each_net(run):
    _, folder = run
    rows = [json.loads(r) for r in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert [(r['net'], r['epoch']) for r in rows] == [
        ('standard', 1), ('standard', 2), ('pgd_at', 1), ('pgd_at', 2),
    ]  # fmt: skip


def test_the_same_command_again_gives_the_same_figures(run):
    results, folder = run
    again = train.main(SMALL, folder, fresh=False, progress=False)
    for old, new in zip(results['nets'], again['nets'], strict=True):
        assert old == new


def test_another_configuration_in_that_folder_is_refused(run):
    _, folder = run
    other = dataclasses.replace(SMALL, epochs=3)
    with pytest.raises(folders.OtherRunError, match='epochs: 2 there, 3 now'):
        train.main(other, folder, fresh=False, progress=False)


def test_fresh_deletes_runs_only(tmp_path):
    (tmp_path / 'thesis.tex').write_text('all of it')
    with pytest.raises(folders.OtherRunError, match='not the folder of a run'):
        folders.run_folder(tmp_path, SMALL, fresh=True)
    assert (tmp_path / 'thesis.tex').exists()
    folders.run_folder(tmp_path / 'new', SMALL, fresh=True)
    (tmp_path / 'new' / 'left').write_text('over')
    folders.run_folder(tmp_path / 'new', SMALL, fresh=True)
    assert not (tmp_path / 'new' / 'left').exists()


def test_broken_attacks_would_show_in_the_proofs():
    """A proof that cannot fail proves nothing."""
    import jax
    import numpy as np

    from advjax import evaluation, linf
    from advjax.report.checks import checks_of
    from tests.contract import images, network

    x, y = (np.asarray(a) for a in images())

    def beyond(logits_fn, key, x, y):
        return 1 - x

    e = evaluation.evaluate(
        network(), x, y, beyond, key=jax.random.key(0), ball=linf(0.05), batch_size=6
    )
    assert any(p['failed'] for p in checks_of([e], linf(0.05)))


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, '-m', 'experiments', *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_errors_of_the_command_line_are_one_line(tmp_path):
    where = ('--directory', str(tmp_path), '--quiet')
    for arguments, words in (
        (('--dataset', 'mnits'), 'mnist'),
        (('--norm', 'l1'), 'eps must be given for norm l1'),
        (('--eps', '-0.1'), 'eps must be positive and finite, got -0.1'),
        (('--eps', 'inf'), 'eps must be positive and finite, got inf'),
        (('--seeds', '0'), 'seeds must be at least 1, got 0'),
        (('--epochs', '0'), 'epochs must be an integer >= 1, got 0'),
        (('--held-out', '99999'), '99999'),
    ):
        out = command('train', *arguments, *where)
        assert out.returncode != 0
        assert words in out.stderr
        assert 'Traceback' not in out.stderr


def test_a_read_only_folder_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    out = command('train', '--directory', str(tmp_path / 'file' / 'x'))
    assert out.returncode != 0
    assert 'Traceback' not in out.stderr
    assert 'file' in out.stderr


def test_help_names_every_setting():
    out = command('train', '--help', COLUMNS='200')
    assert out.returncode == 0
    for field in dataclasses.fields(train.Command):
        assert '--' + field.name.replace('_', '-') in out.stdout


def test_benchmark_measures_ratios():
    figures = benchmark.main(
        benchmark.Config(
            batch=2, steps=2, unrolled_steps=2, repeats=1, torch=False, suite='loop'
        )
    )
    assert all(r['measured'] > 0 for r in figures['loop']['ratios'].values())
    assert 'goal' in loop.table(figures['loop'])


def test_benchmark_of_autoattack_reports_every_member():
    figures = benchmark.main(
        benchmark.Config(images=4, torch=False, suite='autoattack', short=True)
    )
    ours = figures['autoattack']['ours']
    assert list(ours) == ['standard', 'apgd_ce', 'apgd_t', 'fab_t', 'square']
    whole = ours['standard']['robust_accuracy']
    assert all(whole <= row['robust_accuracy'] for row in ours.values())
    text = attack_cost.autoattack_table(figures['autoattack'])
    assert 'square' in text


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short training on digits."""
    folder = tmp_path_factory.mktemp('a run') / 'digits run'
    config = dataclasses.replace(SMALL, method='fast', test_images=None)
    train.main(config, folder, False, False)
    return folder


def test_any_attack_runs_on_a_trained_network(trained):
    for name, options in (
        ('autoattack', {'steps': 3, 'queries': 5}),
        ('apgd', {'steps': 5, 'loss': 'dlr', 'targets': 2}),
        ('deepfool', {'steps': 4, 'norm': 'l2'}),
        ('spatial', {}),
    ):
        config = attack.Config(trained, name, images=20, **options)
        results = attack.main(config, None, False)
        folder = Path(results['folder'])
        assert folder.is_relative_to(trained)
        for file in ('report.html', 'results.json', 'verdicts.csv', 'evaluation.npz'):
            assert (folder / file).stat().st_size > 0
        net = results['nets'][0]
        assert net['name'].startswith('fast')
        assert 0 <= net['robust_accuracy'] <= net['clean_accuracy']
        assert not any(proof['failed'] for proof in results['proofs'])
        verdicts = (folder / 'verdicts.csv').read_text().splitlines()
        assert len(verdicts) == 21
        if name == 'deepfool':
            curve = net['curve']['accuracy']
            assert curve == sorted(curve, reverse=True)
            assert net['distance']['median'] > 0


def test_the_restored_network_is_the_one_that_was_trained(trained):
    _, settings, name, _ = attack.load(attack.Config(trained))
    assert name.startswith('fast')
    assert settings['dataset'] == 'digits'
    before = json.loads((trained / 'results.json').read_text())['nets'][1]
    after = attack.main(attack.Config(trained, 'fgsm'), trained / 'other place', False)
    assert after['nets'][0]['clean_accuracy'] == before['clean_accuracy']
    fgsm = next(a for a in before['attacks'] if a['name'] == 'fgsm')
    assert after['nets'][0]['robust_accuracy'] == fgsm['robust_accuracy']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'attack': 'pgdd'}, "attack must be one of .*'pgdd'"),
        ({'attack': 'fgsm', 'steps': 3}, "fgsm has no option 'steps'"),
        ({'attack': 'ddn', 'norm': 'l1'}, 'norm of ddn must be one of'),
        ({'attack': 'pgd', 'norm': 'l2'}, 'eps must be given for norm l2'),
        ({'attack': 'pgd', 'eps': -1.0}, 'eps must be > 0'),
        ({'attack': 'pgd', 'net': 'best'}, 'net must be one of'),
        ({'attack': 'pgd', 'images': 0}, 'images must be >= 1'),
    ],
)
def test_attack_refuses_by_name(trained, options, words):
    with pytest.raises(ValueError, match=words):
        attack.main(attack.Config(trained, **options), None, False)


def test_attack_refuses_what_is_no_run(tmp_path):
    for place in (tmp_path, tmp_path / 'missing', tmp_path / 'missing.npz'):
        with pytest.raises(ValueError, match='checkpoint'):
            attack.main(attack.Config(place), None, False)


def test_attack_on_the_command_line(trained):
    out = command(
        'attack', '--checkpoint', str(trained), '--attack', 'apgd',
        '--steps', '3', '--images', '8',
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert 'worst case' in out.stdout
    assert 'Report: ' in out.stdout
    out = command('attack', '--checkpoint', str(trained / 'nothing'))
    assert out.returncode != 0
    assert 'Traceback' not in out.stderr
    assert 'checkpoint' in out.stderr


def test_answers_and_accuracy():
    network = jax.tree_util.Partial(jnp.multiply, jnp.float32(-1.0))
    x = np.array([[3, 1, 2], [1, 2, 3], [2, 3, 1]], np.float32)
    for size in (None, 1, 2, 5):
        assert measures.answers(network, x, size).tolist() == [1, 0, 2]
    assert measures.accuracy(network, x, np.array([1, 1, 2])) == pytest.approx(200 / 3)
