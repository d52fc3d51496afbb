"""The catalogue lists every attack, and each entry runs."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls
from advjax.attacks.catalogue import table
from tests.conftest import ROOT

ENTRIES = {entry.name: entry for entry in attacks.catalogue()}

# What is exported without being an attack: parts, combinators, vocabulary.
PARTS = {
    'adam',
    'bpda',
    'catalogue',
    'chain',
    'checkpoints',
    'clean',
    'constant',
    'diverse',
    'ensemble',
    'eot',
    'from_prediction',
    'gaussian',
    'momentum',
    'normalised',
    'perturb',
    'quantised',
    'rescaled',
    'restarts',
    'scales',
    'sparse',
    'steepest',
    'targeted',
    'translation',
    'unclipped',
    'uniform',
    'views',
    'worst_of',
}


def test_every_public_factory_is_listed_or_is_a_part():
    functions = {
        name for name in attacks.__all__ if not inspect.isclass(getattr(attacks, name))
    }
    assert functions - PARTS == set(ENTRIES)


@pytest.mark.parametrize('entry', ENTRIES.values(), ids=ENTRIES)
def test_an_entry_tells_the_truth(entry):
    assert entry.factory is getattr(attacks, entry.name)
    assert entry.knowledge in ('white box', 'scores', 'decisions', 'transfer')
    for norm in entry.norms:
        attack = entry.build(norm)
        found = balls.of(attack)
        assert found
        assert {balls.kind(ball) for ball in found} == {norm}
        infinite = bool(jnp.isinf(found[0].eps))
        assert infinite == (entry.goal == 'minimum norm')
    if entry.norms:
        with pytest.raises(ValueError, match='norm of'):
            entry.build('linf2')
    year = entry.paper.split(',')[0].split()[-1]
    assert entry.paper == 'a baseline' or year.isdigit()


def test_refuses_balls_of_other_norms():
    every = {'linf', 'l2', 'l1', 'l0'}
    for entry in ENTRIES.values():
        for norm in every - set(entry.norms or every):
            with pytest.raises(ValueError, match=norm.capitalize()):
                entry.factory(getattr(balls, norm)(np.float32(0.5)))


def test_the_readme_shows_the_table():
    assert table() in (ROOT / 'README.md').read_text()
