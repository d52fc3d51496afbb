"""The catalogue lists every attack, and each entry runs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls
from experiments.commands import readme
from tests.conftest import ROOT

ENTRIES = {entry.name: entry for entry in attacks.catalogue()}

# What is exported without being an attack: parts, combinators, vocabulary.
PARTS = {
    'bpda',
    'catalogue',
    'directions',
    'diverse',
    'ensemble',
    'eot',
    'from_prediction',
    'goal',
    'gradients',
    'perturb',
    'quantised',
    'rescaled',
    'restarts',
    'scales',
    'schedules',
    'starts',
    'surrogate',
    'targeted',
    'transforms',
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
        assert {ball.norm_name for ball in found} == {norm}
        infinite = bool(jnp.isinf(found[0].eps))
        assert infinite == (entry.looks_for == 'minimum norm')
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


def test_the_readme_shows_the_tables():
    text = (ROOT / 'README.md').read_text()
    assert readme.written(text) == text
    with pytest.raises(ValueError, match='no marks <!-- catalogue -->'):
        readme.written('')


@pytest.mark.parametrize('entry', attacks.catalogue(), ids=lambda entry: entry.name)
def test_no_attack_calls_the_model_more_often_than_it_says(entry):
    made = []
    weights = jax.random.normal(jax.random.key(0), (36, 3))

    def logits_fn(x):
        jax.debug.callback(lambda: made.append(1))
        return x.reshape(x.shape[0], 36) @ weights

    few = {
        name: value
        for name, value in {
            'steps': 3, 'queries': 40, 'searches': 2, 'tries': 2, 'bisections': 2,
            'refine': 2, 'samples': 2, 'restarts': 2,
        }.items()
        if name in inspect.signature(entry.factory).parameters
    }  # fmt: skip
    if not entry.norms:
        attack = entry.factory(**few)
    elif entry.name == 'autoattack':
        return  # Thousands of calls of members that are counted here themselves.
    else:
        built = entry.build()
        attack = entry.factory(balls.of(built)[0], **few)
    x, y = jnp.full((1, 6, 6, 1), 0.5), jnp.argmax(jnp.sum(weights, axis=0))[None]
    run = jax.jit(lambda key, x, y: attack(logits_fn, key, x, y))
    jax.block_until_ready(run(jax.random.key(1), x, y))
    jax.effects_barrier()
    calls = attack.calls
    assert made
    assert calls is None or len(made) <= calls, (len(made), calls)
