"""The frame that studies run in: claims, folders, resumption, pages, the scoreboard."""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from advjax import data, training, zoo
from advjax.report import charts
from experiments import __main__ as commands
from experiments import catalogue
from experiments.commands import reproduce
from experiments.frame import findings, flags, folders, nets, study
from experiments.frame import page as pages
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.study import Study
from experiments.frame.work import Work


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a study that only counts."""

    images: int = 30
    """How many."""
    words: str = 'a <b> & c'
    """Text that must be escaped."""


def counted(folder):
    """How often the part below was computed."""
    return len((folder / 'counted.txt').read_text())


def run(config, work):
    sets = work.sets('digits', test_images=config.images)
    x, _ = work.images(sets.test)

    def count():
        with open(work.folder / 'counted.txt', 'a') as file:
            file.write('x')
        return {'n': len(x), 'mean': x.mean(axis=0)}

    kept = work.keep('counted', count)

    def draw(width):
        return charts.lines([charts.Line('n', [0, 1], [1, 2])], width=width)

    return Findings(
        [
            claim('images', kept['n'], paper='30', tag='R', band=(30, 30)),
            claim('too many <i>', 99.94, paper='1', tag='C', band=(None, 2), unit='%'),
            claim('known', 1, paper='1', tag='M'),
            claim('broken', np.nan, band=(0, 1), reason='it is a | test'),
        ],
        [picture('A line', 'It rises.', draw)],
        [table('Numbers', ['what', 'value'], [['one', kept['n']], ['none', np.nan]])],
    )


STUDY = Study(
    'counting', 'Nobody 1999: Counting', 'It counts.', run,
    {'cpu': Config(), 'smoke': Config(images=10)}, 0.1,
)  # fmt: skip


@pytest.fixture
def results(tmp_path):
    return study.execute(STUDY, Config(), tmp_path / 'runs with a space')


class TestClaim:
    @pytest.mark.parametrize(
        ('measured', 'band', 'verdict'),
        [
            (1.0, (1, 2), 'holds'),
            (2.0, (1, 2), 'holds'),
            (2.1, (1, 2), 'outside'),
            (0.9, (1, 2), 'outside'),
            (-5, (None, 2), 'holds'),
            (5, (2, None), 'holds'),
            (1.9, (2, None), 'outside'),
            (np.nan, (None, None), 'outside'),
            (np.nan, None, 'reported'),
            (jnp.float32(3), None, 'reported'),
        ],
    )
    def test_the_verdict_is_that_of_the_band(self, measured, band, verdict):
        assert claim('x', measured, band=band).verdict == verdict

    @pytest.mark.parametrize('tag', ['M', 'm'])
    def test_a_figure_that_nobody_read_again_gates_nothing(self, tag):
        assert claim('x', 1, paper='2', tag=tag).verdict == 'reported'
        with pytest.raises(ValueError, match=f"tag '{tag}'"):
            claim('x', 1, paper='2', tag=tag, band=(0, 1))

    @pytest.mark.parametrize('band', [(2, 1), (np.nan, 1), (0, np.nan)])
    def test_an_empty_band_is_refused(self, band):
        with pytest.raises(ValueError, match='low <= high'):
            claim('x', 1, band=band)

    def test_an_unknown_tag_is_refused(self):
        with pytest.raises(ValueError, match=r"one of .*got 'Q'"):
            claim('x', 1, tag='Q')

    def test_a_reason_is_shown_only_outside_the_band(self):
        assert claim('x', 1, band=(0, 2), reason='why').row()['reason'] == ''
        assert claim('x', 3, band=(0, 2), reason='why').row()['reason'] == 'why'
        assert claim('x', 3, band=(0, 2)).row()['reason'] == 'not understood'

    def test_rows_are_strict_json(self):
        row = claim('x', np.inf, band=(None, 3)).row()
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        assert row['band'] == [None, 3]
        assert row['measured'] is None

    @pytest.mark.parametrize(
        ('band', 'text'),
        [
            (None, ''),
            ([1, 2.5], '1 to 2.5'),
            ([None, 2], '≤ 2'),
            ([2, None], '≥ 2'),
            ([3, 3], '3'),
            ([None, None], 'any'),
        ],
    )
    def test_bands_in_words(self, band, text):
        assert findings.band_text(band) == text


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match='2 cells'):
        table('t', ['a', 'b'], [['only one']])


class TestExecute:
    def test_results_and_page(self, results, tmp_path):
        folder = tmp_path / 'runs with a space' / 'counting'
        saved = json.loads((folder / 'results.json').read_text())
        assert saved == results
        verdicts = [c['verdict'] for c in saved['claims']]
        assert verdicts == ['holds', 'outside', 'reported', 'outside']
        assert saved['config'] == dataclasses.asdict(Config())
        assert saved['tables'][0]['rows'] == [['one', 30], ['none', None]]
        page = (folder / 'report.html').read_text()
        assert '1 of 3 claims hold' in page
        assert '2 do\nnot' in page
        assert 'too many &lt;i&gt;' in page
        assert 'a &lt;b&gt; &amp; c' in page
        assert page.count('<svg') == 2  # Wide and narrow.
        assert 'not understood' in page
        assert 'it is a | test' in page
        assert 'http' not in page.replace('http-equiv', '').replace(
            'http://www.w3.org', ''
        )

    def test_a_killed_study_goes_on(self, results, tmp_path):
        again = study.execute(STUDY, Config(), tmp_path / 'runs with a space')
        assert counted(tmp_path / 'runs with a space' / 'counting') == 1
        assert again['claims'] == results['claims']
        assert again['wall_seconds'] >= results['wall_seconds']

    def test_fresh_starts_over(self, results, tmp_path):
        kept = tmp_path / 'runs with a space' / 'counting' / 'mine.txt'
        kept.write_text('old')
        study.execute(STUDY, Config(), tmp_path / 'runs with a space', fresh=True)
        assert not kept.exists()
        assert counted(kept.parent) == 1

    def test_another_configuration_is_refused(self, results, tmp_path):
        with pytest.raises(folders.OtherRunError, match='images: 30 there, 7 now'):
            study.execute(STUDY, Config(images=7), tmp_path / 'runs with a space')

    @pytest.mark.parametrize('text', ['{"images": 3', '[]', '[1]'])
    def test_damaged_settings_are_named(self, results, tmp_path, text):
        directory = tmp_path / 'runs with a space'
        (directory / 'counting' / 'config.json').write_text(text)
        if text == '[]':  # No settings: every one of ours is another.
            with pytest.raises(folders.OtherRunError, match='images: None there'):
                study.execute(STUDY, Config(), directory)
        else:
            with pytest.raises(folders.OtherRunError, match='is damaged'):
                study.execute(STUDY, Config(), directory)
        study.execute(STUDY, Config(), directory, fresh=True)

    def test_the_text_table_aligns(self, results):
        lines = findings.text_of(results).split('\n')
        assert len(lines) == 5
        assert lines[2].endswith('outside (not understood)')
        assert '99.9 %' in lines[2]
        assert 'not finite' in lines[4]

    def test_a_half_written_part_is_done_again(self, results, tmp_path):
        path = tmp_path / 'runs with a space' / 'counting' / 'counted.npz'
        path.write_bytes(path.read_bytes()[:100])
        with pytest.warns(UserWarning, match='cannot be read'):
            study.execute(STUDY, Config(), path.parent.parent)


class TestWork:
    @pytest.fixture
    def work(self, tmp_path):
        with Work(tmp_path, tmp_path / 'shared') as work:
            yield work

    def test_parts_of_a_set_are_disjoint(self, work):
        sets = work.sets('digits', train_images=100, test_images=50)
        assert [len(part.labels) for part in sets] == [100, 143, 50]
        parts = [{image.tobytes() for image in part.images} for part in sets[:2]]
        assert not parts[0] & parts[1]
        assert sets.shape == (8, 8, 1)
        assert sets.classes == 10

    def test_digits_stand_in_for_a_missing_mnist(self, work, monkeypatch, tmp_path):
        monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'nothing'))
        monkeypatch.setenv('ADVJAX_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(data.prepared, 'prepare', _refuse)
        with pytest.warns(UserWarning, match='digits stand in for MNIST'):
            assert work.sets('mnist', test_images=7).train.name == 'digits'
        assert work.data[0]['asked'] == 'mnist'
        assert work.data[0]['dataset'] == 'digits'
        with pytest.raises(data.DatasetNotFound):
            work.sets('no_such_set')

    def test_shared_networks_know_their_data_sets(self, work):
        other = work.sets('digits').train._replace(name='cifar10')
        sets = work.sets('digits')._replace(train=other)
        for train in (nets.natural, nets.robust):
            with pytest.raises(ValueError, match=r"dataset must be one of .*'cifar10'"):
                train(work, sets)

    def test_what_is_kept_is_arrays(self, work):
        count = _counting(work.folder / 'count.txt', 3)
        for part in (work.keep('a', count), work.keep('a', count)):
            assert part['n'] == 3
            np.testing.assert_array_equal(part['x'], [0, 1])
        with pytest.raises(ValueError, match='bad: x must be an array'):
            work.keep('bad', lambda: {'x': {'nested': 1}})
        assert (work.folder / 'count.txt').read_text() == 'x'

    def test_what_other_code_or_data_made_is_made_again(self, work):
        path = work.folder / 'count.txt'
        for n in (3, 3, 4, 4, 3):
            assert work.keep('a', _counting(path, n))['n'] == n
        assert path.read_text() == 'xxx'
        work.keep('a', lambda: {'n': 3})
        assert work.keep('a', lambda: {'n': 5})['n'] == 5

    def test_networks_of_other_settings_are_trained_again(self, work):
        sets = work.sets('digits', train_images=64, test_images=20)
        model = zoo.softmax_regression(sets.shape)
        options = {'epochs': 4}
        one = work.fit('net', training.standard(), model, sets, **options)
        two = work.fit('net', training.fgsm_at(0.1), model, sets, **options)
        again = work.fit('net', training.fgsm_at(0.1), model, sets, **options)
        assert not np.array_equal(one.params['w'], two.params['w'])
        np.testing.assert_array_equal(two.params['w'], again.params['w'])

    def test_networks_are_trained_once(self, work):
        sets = work.sets('digits', train_images=64, test_images=20)
        model = zoo.softmax_regression(sets.shape)
        fits = [
            work.fit('net', training.standard(), model, sets, epochs=2, shared=shared)
            for shared in (False, False, True)
        ]
        assert (work.folder / 'nets' / 'net' / 'checkpoints').is_dir()
        assert (work.shared / 'net' / 'checkpoints').is_dir()
        for fit in fits[1:]:
            np.testing.assert_array_equal(fits[0].params['w'], fit.params['w'])

    def test_time_adds_up_over_interruptions(self, tmp_path):
        folders.write_json(tmp_path / 'seconds.json', {'seconds': 100.0})
        with Work(tmp_path, tmp_path) as work:
            assert work.seconds_before == 100
        assert Work(tmp_path, tmp_path).seconds_before >= 100
        (tmp_path / 'seconds.json').write_text('half of')
        assert Work(tmp_path, tmp_path).seconds_before == 0


def _counting(path, n):
    def compute():
        with open(path, 'a') as file:
            file.write('x')
        return {'n': n, 'x': jnp.arange(2)}

    return compute


def _refuse(name, builder):
    raise data.DatasetNotFound(f'{name} is not prepared')


class TestScoreboard:
    def test_one_row_per_claim(self, results):
        text = reproduce.board([results])
        assert len(text.split('\n')) == 2 + 4
        assert r'outside: it is a \| test' in text
        assert '| 30 (R) | 30 | 30 | holds |' in text

    def test_the_table_takes_its_place_in_the_readme(self, results, tmp_path):
        path = tmp_path / 'README.md'
        marks = f'{reproduce.BEGIN}\nold\n{reproduce.END}'
        path.write_text(f'before\n{marks}\nafter\n')
        for _ in range(2):
            reproduce.write_readme([results], path)
        text = path.read_text()
        assert text.startswith('before\n')
        assert text.endswith('\nafter\n')
        assert '\nold\n' not in text
        assert text.count('| counting |') == 4
        path.write_text('no marks')
        with pytest.raises(ValueError, match='marks'):
            reproduce.write_readme([results], path)

    def test_the_page_links_each_study(self, results):
        page = pages.scoreboard([{**results, 'page': 'counting/report.html'}])
        assert 'href="counting/report.html"' in page
        assert page.count('✗ outside') == 2
        assert 'too many &lt;i&gt;' in page

    def test_only_the_same_settings_count_as_finished(self, tmp_path):
        folder = tmp_path / 'counting-cpu'
        assert reproduce.finished(STUDY, 'cpu', tmp_path) is None
        study.execute(STUDY, Config(), tmp_path, folder=folder)
        assert reproduce.finished(STUDY, 'cpu', tmp_path)['study'] == 'counting'
        text = (folder / 'results.json').read_text()
        (folder / 'results.json').write_text(
            text.replace('"images": 30', '"images": 9')
        )
        assert reproduce.finished(STUDY, 'cpu', tmp_path) is None
        (folder / 'results.json').write_text(text[:50])
        assert reproduce.finished(STUDY, 'cpu', tmp_path) is None

    def test_other_code_or_data_is_not_finished(self, tmp_path):
        folder = tmp_path / 'counting-cpu'
        made = study.execute(STUDY, Config(), tmp_path, folder=folder)
        assert made['data'][0]['dataset'] == 'digits'
        for change in (
            {'code': {**made['code'], 'experiments': 'older'}},
            {'data': [{**made['data'][0], 'identity': 'other'}]},
            {'data': None},
            {'data': 3},
        ):
            folders.write_json(folder / 'results.json', {**made, **change})
            assert reproduce.finished(STUDY, 'cpu', tmp_path) is None
        folders.write_json(folder / 'results.json', made)
        assert reproduce.finished(STUDY, 'cpu', tmp_path) is not None


@functools.cache
def listed():
    return subprocess.run(
        [sys.executable, '-m', 'experiments'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize('name', catalogue.NAMES)
def test_every_study_is_listed_with_its_cost(name):
    found = study.load(name)
    assert found.name == name
    assert set(found.presets) == {'cpu', 'paper', 'smoke'}
    row = next(row for row in listed().splitlines() if f'experiments {name} ' in row)
    assert f' {found.minutes:g} min ' in row
    assert row.endswith(found.line)


def test_every_command_is_listed_and_loads():
    for entry in catalogue.COMMANDS:
        assert f'python -m experiments {entry.name} ' in listed()
        module = entry.load()
        assert hasattr(module, 'cli') != hasattr(module, 'STUDY')
    with pytest.raises(ValueError, match='one of szegedy2014'):
        study.load('nobody1999')


def test_every_package_of_a_study_is_in_the_catalogue():
    folder = pathlib.Path(catalogue.__file__).parent / 'studies'
    assert {p.parent.name for p in folder.glob('*/__init__.py')} == {*catalogue.NAMES}


def test_the_list_imports_nothing_that_it_does_not_run():
    script = 'from experiments import __main__ as m, catalogue; m.main([])\n'
    script += (
        'import sys; sys.exit(int("jax" in sys.modules or "numpy" in sys.modules))'
    )
    subprocess.run([sys.executable, '-c', script], check=True, capture_output=True)


def test_an_unknown_name_is_one_line():
    with pytest.raises(SystemExit, match=r'error: what there is: train, .*geometry'):
        commands.main(['nobody1999'])


def test_the_flags_of_a_study_go_over_its_preset(monkeypatch, capsys, tmp_path):
    seen = []

    def note(study, config, directory, **options):
        seen.append((config, options))
        return {'claims': [], 'wall_seconds': 0}

    monkeypatch.setattr(study, 'execute', note)
    monkeypatch.setattr(study.process, 'use_compilation_cache', lambda: None)
    words = ['--images', '7', '--preset=smoke', '--directory', str(tmp_path), '--fresh']
    study.cli(STUDY, words)
    config, options = seen[0]
    assert config == Config(images=7)
    assert options['folder'] == tmp_path / 'counting-smoke'
    assert (options['fresh'], options['progress']) == (True, True)
    assert options['command'].startswith('python -m experiments counting --images 7')
    study.cli(STUDY, [])
    assert seen[1][0] == Config()
    with pytest.raises(ValueError, match="--preset must be one of cpu, smoke, got 'x'"):
        study.cli(STUDY, ['--preset', 'x'])


def test_help_shows_the_command_that_is_typed(capsys):
    with pytest.raises(SystemExit):
        study.cli(STUDY, ['--help'])
    shown = capsys.readouterr().out
    assert 'usage: python -m experiments counting' in shown
    assert '--images' in shown


def test_a_part_of_the_flags_is_a_dataclass_of_its_own():
    @dataclasses.dataclass(frozen=True)
    class More(Config):
        quiet: bool = False

    args = flags.parse(More, ['--quiet', '--words', 'x'], name='counting')
    assert flags.part(Config, args) == Config(words='x')
    assert args.quiet


def test_refused_settings_leave_no_folder(tmp_path):
    def refuse(config, work):
        if config.images < 9:
            raise ValueError('images must be more')
        work.keep('one', lambda: {'a': 1})
        raise ValueError('later')

    folder = tmp_path / 'counting'
    refusing = dataclasses.replace(STUDY, run=refuse)
    with pytest.raises(ValueError, match='must be more'):
        study.execute(refusing, Config(images=3), tmp_path)
    assert not folder.exists()
    with pytest.raises(ValueError, match='later'):
        study.execute(refusing, Config(images=30), tmp_path)
    assert (folder / 'one.npz').exists()


def test_numbers_of_images_are_checked(tmp_path):
    work = Work(tmp_path, tmp_path / 'shared')
    for name in ('train_images', 'test_images', 'held_out'):
        for count in (0, -3):
            message = f'{name} must be an integer >= 1, got {count}'
            with pytest.raises(ValueError, match=message):
                work.sets('digits', **{name: count})


def test_results_that_are_no_results_are_not_finished(tmp_path):
    folder = tmp_path / 'counting-cpu'
    folder.mkdir()
    (folder / 'results.json').write_text('[]')
    assert reproduce.finished(STUDY, 'cpu', tmp_path) is None


def test_no_scoreboard_is_announced_where_none_was_written(
    tmp_path, monkeypatch, capsys
):
    words = ['--preset', 'smoke', '--directory', str(tmp_path)]
    monkeypatch.setattr(reproduce, 'main', lambda command: ['geometry ended with 1'])
    with pytest.raises(SystemExit, match='geometry ended with 1'):
        reproduce.cli(words)
    assert 'Scoreboard' not in capsys.readouterr().out
    (tmp_path / 'scoreboard.html').write_text('')
    with pytest.raises(SystemExit, match='geometry ended with 1'):
        reproduce.cli(words)
    assert str(tmp_path / 'scoreboard.html') in capsys.readouterr().out
