"""The table of all methods: its costs, its order of work, and the whole in small."""

import dataclasses
import json
import types
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, training
from experiments.commands import compare_methods
from experiments.commands.compare_methods import job, methods, tables, workers
from experiments.commands.compare_methods.methods import ROWS, Setting, chosen
from experiments.frame import study
from experiments.frame.counting import gradient_evaluations

BALL = balls.linf(0.3)
SMOKE = compare_methods.STUDY.presets['smoke']


# What the catalogue does not say: other bases, other options.
DECLARED = {
    'GradAlign, both': (
        lambda: training.grad_align(BALL, 0.2, through_both=True),
        2 + 4,
    ),
    'GradAlign on PGD-AT 2': (
        lambda: training.grad_align(training.pgd_at(BALL, 2), 0.2),
        3 + 3,
    ),
    'AWP on TRADES 3': (lambda: training.awp(training.trades(BALL, steps=3)), 5 + 2),
    'AdvProp 2 + 2': (lambda: training.advprop(BALL, BALL, steps=2), 4 + 3),
    'VAT 3': (lambda: training.virtual_adversarial(2.0, power_iterations=3), 3 + 2),
    'smooth labels': (lambda: training.smooth_labels(training.fast(BALL)), 2),
}


@pytest.mark.parametrize(('make', 'declared'), DECLARED.values(), ids=DECLARED)
def test_a_step_costs_what_is_declared(make, declared):
    assert gradient_evaluations(lambda _: make()) == declared


@pytest.mark.parametrize('name', ['grad_align', 'ensemble_at'])
def test_what_is_counted_in_the_program_is_what_runs(name):
    row, seen = ROWS[name], []
    counted = gradient_evaluations(
        lambda nets: row.build(Setting(BALL, 2), nets),
        row.needs,
        lambda cotangent: seen.append(len(cotangent)),
    )
    assert sum(seen) / 6 == counted


def test_a_loop_of_unknown_length_is_refused():
    def endless(logits_fn, key, x, y):
        del key, y
        return jax.lax.while_loop(
            lambda z: jnp.sum(z) < 1e6,
            lambda z: z + 1 + jnp.abs(jax.grad(lambda v: jnp.sum(logits_fn(v)))(z)),
            x,
        )

    made = training.method(endless, training.on_adversarial)
    with pytest.raises(ValueError, match='loop without length'):
        gradient_evaluations(lambda _: made)


def test_iterative_methods_cost_the_same():
    setting = Setting(BALL, 5)
    for row in ROWS.values():
        spent = gradient_evaluations(lambda n, r=row: r.build(setting, n), row.needs)
        assert spent in (1, 2, 3, 5, 6)
        # At the preset's budget nobody pays an eighth too much or too little.
        budget = compare_methods.Config().budget
        replays = 6 if row.name == 'free' else 1
        paid = job.epochs_within(budget, spent, replays) * spent * replays
        assert paid == pytest.approx(budget, rel=0.125)


def test_rows_come_after_those_they_need():
    names = list(ROWS)
    for row in ROWS.values():
        assert all(names.index(need) < names.index(row.name) for need in row.needs)
    assert [row.name for row in chosen('ard')] == ['standard', 'pgd_at', 'ard']
    assert [row.name for row in chosen('fast, rslad')] == [
        'standard', 'pgd_at', 'fast', 'rslad'
    ]  # fmt: skip
    every = {row.name for row in chosen('all')}
    assert every == {row.name for row in ROWS.values() if not row.variant}
    with pytest.raises(ValueError, match='got pdg_at'):
        chosen('pgd_at,pdg_at')


def test_whoever_does_not_defend_says_why():
    for row in ROWS.values():
        assert row.defends or row.why, row.name


def test_all_rows_share_one_network_at_half_its_widths():
    def size(model):
        leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))[0])
        return sum(leaf.size for leaf in leaves)

    config = compare_methods.Config()
    sets = types.SimpleNamespace(shape=(28, 28, 1), classes=10)
    assert size(job.model_of(config, ROWS['pgd_at'], sets)) == 41_960
    whole = dataclasses.replace(config, scale=1.0)
    assert size(job.model_of(whole, ROWS['pgd_at'], sets)) == 166_406
    # Kernels as there, without their 74 biases, and two branches of scales and biases.
    split = size(job.model_of(config, ROWS['advprop'], sets))
    assert split == 41_960 - 74 + 2 * 2 * 74


def test_radius_grows_from_zero():
    warm = methods.warmed(training.trades(BALL), 10)
    for step, eps in ((0, 0.0), (5, 0.15), (10, 0.3), (99, 0.3)):
        found = balls.of(warm.at(jnp.int32(step)))[0].eps
        np.testing.assert_allclose(found, eps, rtol=1e-6)
    assert methods.warmed(training.standard(), 10).plan == ()


def test_nobody_starts_before_what_it_needs_is_done():
    begun, finished = [], []

    class Now(Future):
        def __init__(self, name):
            super().__init__()
            needs = ROWS[name].needs
            assert set(needs) <= set(finished), (name, finished)
            begun.append(name)
            self.set_result({'name': name})

    rows = chosen('all')
    for name, result in workers._in_order(rows, Now):
        finished.append(name)
        assert result == {'name': name}
    assert sorted(finished) == sorted(row.name for row in rows)
    defended = [ROWS[name].defends for name in begun if not ROWS[name].needs]
    assert defended == sorted(defended, reverse=True)


def test_processes_go_on_from_rows_that_are_there(tmp_path):
    rows = chosen('ard')
    (tmp_path / 'rows').mkdir()
    _, made_of = job.sources(SMOKE, tmp_path)
    for row in rows:
        kept = json.dumps({'title': row.name, 'made_of': made_of})
        (tmp_path / 'rows' / f'{row.name}.json').write_text(kept)
    found = dict(workers.run(SMOKE, rows, tmp_path, 2))
    assert found == {row.name: {'title': row.name} for row in rows}


@pytest.mark.parametrize('kept', ['[1]', 'half of {', '{"made_of": {"code": {}}}'])
def test_a_row_of_other_code_is_made_again(tmp_path, monkeypatch, kept):
    path = tmp_path / 'rows' / 'standard.json'
    path.parent.mkdir()
    path.write_text(kept)
    old = tmp_path / 'nets' / 'standard'
    old.mkdir(parents=True)
    monkeypatch.setattr(job, '_run', lambda *_: {'title': 'new'})
    for _ in range(2):
        assert job.run(SMOKE, 'standard', tmp_path) == {'title': 'new'}
        monkeypatch.setattr(job, '_run', lambda *_: pytest.fail('made twice'))
    assert not old.exists()


def test_seconds_leave_the_compiling_epoch_out():
    def ends(*seconds):
        return [{'seconds': s} for s in seconds]

    assert job.seconds_per_epoch(ends(50.0, 52.0, 54.0, 57.0)) == 2
    assert job.seconds_per_epoch(ends(50.0)) == 50


def entry(found, title):
    return next(e for e in found if e['title'] == title)


def test_notes_say_why_a_method_falls_and_what_happened():
    def one(*networks, events=(), replays=1):
        return {
            'evaluations': 1.0, 'replays': replays, 'epochs': 2, 'seconds': 1.0,
            'events': list(events),
            'networks': [
                {'title': t, 'clean': 99.0, 'pgd': a, 'autoattack': a, 'constant': c}
                for t, a, c in networks
            ],
        }  # fmt: skip

    event = (
        'catastrophic overfitting at epoch 3: robust held-out accuracy fell from 70.0% '
        '(epoch 2) to 0.0% while ...; began again with seed 1'
    )
    rows = chosen('fast,free,vat,gaussian,advprop,mart,alp')
    found = tables.networks(
        rows,
        {
            'standard': one(('standard', 1.0, False)),
            'gaussian': one(('Gaussian', 40.0, False)),
            'vat': one(('VAT', 30.0, False)),
            'fast': one(('Fast', 80.0, False), events=[event]),
            'free': one(('Free', 70.0, False), replays=6),
            'mart': one(('MART', 11.0, True)),
            'alp': one(('ALP', 20.0, False)),
            'advprop': one(('main', 0.0, False), ('auxiliary', 50.0, False)),
        },
    )
    assert entry(found, 'standard')['note'] == methods.NO_ADVERSARY
    # 39 points above standard: no excuse needed.
    assert entry(found, 'Gaussian')['note'] == ROWS['gaussian'].note
    assert ROWS['vat'].why in entry(found, 'VAT')['note']
    assert entry(found, 'Fast')['note'] == (
        'catastrophic overfitting at epoch 3, began again with seed 1'
    )
    assert entry(found, 'Free')['note'] == '6 updates per batch'
    assert 'constant class' in entry(found, 'MART')['note']
    assert 'not understood' in entry(found, 'ALP')['note']
    assert ROWS['advprop'].why in entry(found, 'main')['note']
    assert ROWS['advprop'].why not in entry(found, 'auxiliary')['note']
    verdicts = {c.what.partition(':')[0]: c.verdict for c in tables.claims(found)}
    assert verdicts['Fast'] == verdicts['auxiliary'] == 'holds'
    assert verdicts['MART'] == 'outside'
    assert verdicts['standard training under AutoAttack'] == 'holds'
    assert 'VAT' not in verdicts
    assert 'main' not in verdicts
    text = tables.markdown(tables.of(found, compare_methods.Config(), 0.3, 2))
    assert '| Fast | 99 | 80 | 80 | 1 | 1 | 2 | catastrophic' in text
    assert 'standard error 1.1 points' in text
    assert 'one core for each' in text


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp('runs')
    return study.execute(compare_methods.STUDY, SMOKE, directory), directory


def test_the_whole_in_small(run):
    results, directory = run
    folder = directory / 'compare_methods'
    table = results['tables'][0]
    assert [row[0] for row in table['rows']] == ['standard', 'PGD-AT', 'ARD']
    for _, clean, pgd, whole, seconds, spent, epochs, _ in table['rows']:
        assert 0 <= whole <= clean <= 100
        assert pgd <= clean
        assert seconds > 0
        assert spent * epochs == SMOKE.budget
    page = (folder / 'report.html').read_text('utf-8')
    assert page.count('<svg') == 2
    text = (folder / 'table.md').read_text()
    assert text.splitlines()[0].startswith('| method | clean')
    assert '| ARD |' in text
    assert json.loads((folder / 'results.json').read_text()) == results


def test_the_trained_network_is_better_than_chance(run):
    results, _ = run
    clean = {row[0]: row[1] for row in results['tables'][0]['rows']}
    assert clean['standard'] > 50


def test_the_branches_of_advprop_are_attacked_each(tmp_path, monkeypatch):
    def few(config, classes):
        return {name: attacks.fgm(0.15) for name in ('pgd', 'autoattack')}

    monkeypatch.setattr(job, 'adversaries', few)
    found = job.run(SMOKE, 'advprop', tmp_path)
    titles = [network['title'] for network in found['networks']]
    assert titles == ['AdvProp, main branch', 'AdvProp, auxiliary branch']
    # Through their own statistics: not the same adversarial images.
    kept = [
        np.load(tmp_path / 'attacked' / f'advprop-{i}' / 'pgd' / 'evaluation.npz')
        for i in range(2)
    ]
    assert not np.array_equal(kept[0]['worst'], kept[1]['worst'])


def test_a_finished_run_is_read_again(run, monkeypatch):
    results, directory = run
    monkeypatch.setattr(training, 'fit', None)
    again = study.execute(compare_methods.STUDY, SMOKE, directory)
    assert again['tables'] == results['tables']


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('budget', 0.0),
        ('eps', -0.1),
        ('warm_up', 1.5),
        ('workers', 0),
        ('methods', 'x'),
    ],
)
def test_refuses_what_makes_no_sense(name, value, tmp_path):
    config = dataclasses.replace(SMOKE, **{name: value})
    with pytest.raises(ValueError, match=name):
        study.execute(compare_methods.STUDY, config, tmp_path)
    assert not (tmp_path / 'compare_methods').exists()
