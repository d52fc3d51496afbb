"""The contract can fail: attacks broken on purpose break at least one clause."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import balls, keys, rows
from advjax.attacks import gradients, search
from advjax.testing import LawBrokenError, check_attack
from tests import contract

PGD = next(case for case in contract.CASES if case.name == 'pgd linf')
PGD_L2 = next(case for case in contract.CASES if case.name == 'pgd l2')
RESTARTS = next(case for case in contract.CASES if case.name == 'restarts')


def broken(case):
    """Names of the laws that fail."""
    jax.clear_caches()  # A cached program would hide the mutation.
    failed = []
    for law in contract.LAWS:
        try:
            case.check(law)
        except LawBrokenError:
            failed.append(law.__name__)
    return failed


@pytest.fixture(autouse=True)
def _fresh_programs():
    yield
    jax.clear_caches()


def test_nothing_is_broken_without_a_mutation():
    assert broken(PGD) == []


def test_flipped_sign(monkeypatch):
    monkeypatch.setattr(balls.Linf, 'steepest', lambda self, grad: -jnp.sign(grad))
    assert 'worse_for_the_model' in broken(PGD)


def test_dropped_projection(monkeypatch):
    monkeypatch.setattr(balls.Linf, 'project', lambda self, x, x0: x)
    assert 'feasible' in broken(PGD)


def test_zeroed_gradient(monkeypatch):
    monkeypatch.setattr(
        gradients, 'canonical', lambda f: lambda x: (jnp.zeros_like(x), f(x)[1])
    )
    assert 'worse_for_the_model' in broken(PGD)


def test_projection_that_normalises(monkeypatch):
    def onto_the_sphere(self, x, x0):
        delta = x - x0
        norm = jnp.sqrt(jnp.sum(delta**2, axis=(1, 2, 3), keepdims=True)) + 1e-12
        return jnp.clip(x0 + rows.wide(self.eps, x) * delta / norm, 0, 1)

    monkeypatch.setattr(balls.L2, 'project', onto_the_sphere)
    assert 'few_tiny_steps_stay_inside' in broken(PGD_L2)


def test_projection_of_the_whole_batch(monkeypatch):
    def jointly(self, x, x0):
        delta = x - x0
        norm = jnp.sqrt(jnp.sum(delta**2))
        return jnp.clip(x0 + delta * jnp.minimum(1, self.eps / norm), 0, 1)

    monkeypatch.setattr(balls.L2, 'project', jointly)
    assert 'examples_are_independent' in broken(PGD_L2)


def test_randomness_of_the_position_in_the_batch(monkeypatch):
    def by_position(key, batch_size):
        key = keys.typed(key)
        return jax.random.split(key if key.ndim == 0 else key[0], batch_size)

    monkeypatch.setattr(keys, 'per_example', by_position)
    assert 'examples_are_independent' in broken(PGD)


@pytest.mark.parametrize('case', [PGD, RESTARTS], ids=lambda case: case.name)
def test_the_last_instead_of_the_worst(monkeypatch, case):
    monkeypatch.setattr(
        search.Worst, 'update', lambda self, x, rank: search.Worst(x, rank)
    )
    assert 'more_is_never_weaker' in broken(case)


def test_a_broken_law_is_told_with_the_smallest_input():
    def outside(logits_fn, key, x, y):
        return x + 0.5

    with pytest.raises(LawBrokenError, match='broken: feasible: Results lie') as told:
        check_attack(outside, balls.linf(0.1))
    shown = re.search(r'^x = (.*)$', str(told.value), re.MULTILINE)
    assert np.asarray(ast.literal_eval(shown[1])).shape == (1, 2, 2, 1)
    with pytest.raises(ValueError, match='ball must be given'):
        check_attack(outside)
