"""Every study, in its smallest form: seconds on digits, the same code as in full."""

import json
import re

import pytest

from advjax import files
from experiments import catalogue
from experiments.commands import reproduce
from experiments.frame import findings, study
from experiments.frame import page as pages


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    """One folder for all, so that the networks they share are trained once."""
    return tmp_path_factory.mktemp('all studies')


@pytest.fixture(scope='module', params=catalogue.NAMES)
def run(request, directory):
    found = study.load(request.param)
    folder = directory / f'{found.name}-smoke'
    results = study.execute(found, found.presets['smoke'], directory, folder=folder)
    return found, folder, results


def test_it_states_what_it_measured(run):
    _, folder, results = run
    assert json.loads((folder / 'results.json').read_text()) == results
    claims = results['claims']
    assert len({c['what'] for c in claims}) == len(claims) >= 5
    for c in claims:
        assert c['tag'] in findings.TAGS
        assert c['band'] is None or c['tag'] not in ('M', 'm')
        assert c['verdict'] in ('holds', 'outside', 'reported')
        assert c['measured'] is not None, c['what']
    assert any(c['band'] for c in claims)


def test_its_page_shows_claims_and_figures(run):
    _, folder, results = run
    page = (folder / 'report.html').read_text('utf-8')
    assert page.count('<svg') >= 4, 'fewer than two figures, wide and narrow'
    assert len(page) < 6e6
    assert page.count('class="verdict') == len(results['claims'])
    # One file: nothing is fetched, no script runs, every figure's names are its own.
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert '<script' not in page
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_it_says_what_it_is(run):
    found, _, _ = run
    assert re.search(r'(19|20)\d\d', found.title) or found.name == 'geometry'
    assert found.line
    assert found.minutes > 0
    module = catalogue.entry(found.name).load()
    assert f'python -m experiments {found.name}' in (module.__doc__ or '')


def test_the_scoreboard_of_all(directory):
    found = [
        results
        for name in catalogue.NAMES
        if (results := reproduce.finished(study.load(name), 'smoke', directory))
    ]
    assert len(found) == len(catalogue.NAMES)
    linked = [{**r, 'page': f'{r["study"]}-smoke/report.html'} for r in found]
    page = pages.scoreboard(linked)
    assert all(f'href="{r["page"]}"' in page for r in linked)
    files.write_text(directory / 'scoreboard.html', page)
    board = reproduce.board(found)
    assert len(board.split('\n')) == 2 + sum(len(r['claims']) for r in found)
