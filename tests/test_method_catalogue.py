"""The catalogue of methods tells the truth, and all lists of methods are made of it."""

import inspect

import pytest

from advjax import balls, training
from advjax.training import entries
from experiments.commands import choices, configuration
from experiments.commands.compare_methods import methods
from experiments.frame.counting import gradient_evaluations
from tests.conftest import ROOT

ENTRIES = {entry.name: entry for entry in training.catalogue()}
BALL = balls.linf(0.05)


def given(entry, networks, steps):
    parts = {}
    if 'teacher' in entry.needs:
        parts['teacher'] = networks['a']
    if 'sources' in entry.needs:
        parts['sources'] = list(networks.values())
    if entry.steps is not None:
        parts['steps'] = steps
    return parts


def test_every_public_factory_is_listed():
    made = {
        name
        for name in training.__all__
        if inspect.isfunction(getattr(training, name))
        and inspect.signature(getattr(training, name)).return_annotation
        is training.Method
    }
    listed = {entry.factory.__name__ for entry in ENTRIES.values()}
    assert made - {'method', 'scheduled'} == listed
    assert len(ENTRIES) == len(training.catalogue()) == len(listed)


# The network that is counted on states no loss of its own.
COUNTED = [
    (entry, steps)
    for entry in ENTRIES.values()
    for steps in ((2, 3) if entry.steps is not None else (None,))
    if entry.network != 'own loss'
]


@pytest.mark.parametrize(
    ('entry', 'steps'), COUNTED, ids=lambda v: getattr(v, 'name', v)
)
def test_a_step_costs_what_the_catalogue_says(entry, steps):
    counted = gradient_evaluations(
        lambda networks: entry.build(**given(entry, networks, steps)), ('a', 'b')
    )
    assert counted == entry.gradients(steps)


@pytest.mark.parametrize('entry', ENTRIES.values(), ids=ENTRIES)
def test_an_entry_tells_the_truth(entry):
    assert entry.factory is getattr(training, entry.factory.__name__)
    assert entry.title
    assert entry.words.startswith('trained')
    assert entry.weight in ('', *entry.options)
    assert set(entry.options) >= {
        option
        for limit in entry.limits
        for option in limit.options
        if option not in ('ball', 'steps')
    }
    year = entry.paper.split(',')[0].split()[-1]
    assert entry.paper in ('a baseline', 'ours') or year.isdigit()
    taken = list(inspect.signature(entry.factory).parameters)
    assert len(taken) >= len(entry.needs)


def test_what_is_wrong_is_named():
    build = ENTRIES['trades'].build
    with pytest.raises(ValueError, match="trades has no option 'sigma'"):
        build(sigma=1.0)
    with pytest.raises(ValueError, match="trades has no option 'teacher'"):
        build(teacher=abs)
    with pytest.raises(ValueError, match="trades has no option 'method'"):
        build(method=training.standard())
    with pytest.raises(ValueError, match="fast has no option 'steps'"):
        ENTRIES['fast'].build(steps=3)
    with pytest.raises(ValueError, match="gaussian has no option 'ball'"):
        ENTRIES['gaussian'].build(0.1)
    with pytest.raises(ValueError, match="awp has no option 'steps'"):
        ENTRIES['awp'].build(steps=3, method=training.standard())
    with pytest.raises(ValueError, match='teacher of rslad must be given'):
        ENTRIES['rslad'].build()
    with pytest.raises(ValueError, match='sources of ensemble_at must be given'):
        ENTRIES['ensemble_at'].build()
    assert build(BALL, 3, beta=1.0).outer.beta == 1
    assert ENTRIES['awp'].build(0.1, 3).inner.steps == 3


def test_all_lists_of_methods_are_the_catalogue():
    with_networks = {n for n, e in ENTRIES.items() if e.network != 'own loss'}
    assert set(configuration.METHODS) == set(choices.METHODS) == with_networks
    assert {row.entry.name for row in methods.ROWS.values()} == with_networks
    assert set(methods.ROWS) == with_networks | {'ema'}
    assert set(methods._SAID) <= set(ENTRIES)


def test_the_readme_shows_the_table():
    text = (ROOT / 'README.md').read_text()
    begin, end = '<!-- methods -->\n', '<!-- /methods -->'
    assert begin in text
    shown = text.split(begin)[1].split(end)[0].strip()
    assert shown == entries.table()


def test_no_public_name_shadows_a_module():
    folder = ROOT / 'advjax/training'
    modules = {path.stem for path in folder.glob('*.py')} - {'__init__'}
    assert modules & set(training.__all__) == set()
