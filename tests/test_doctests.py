"""The examples in docstrings run, and the main path has one each."""

import doctest
import importlib
import inspect

import pytest

import advjax
from advjax import attacks, evaluation, testing, training
from tests.conftest import ROOT

WITH_EXAMPLES = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for path in (ROOT / 'advjax').rglob('*.py')
    if '>>>' in path.read_text()
)

MAIN_PATH = (
    advjax.linf, advjax.masks.masked, attacks.goal, attacks.pgd, attacks.restarts,
    attacks.targeted, attacks.worst_of, attacks.catalogue, evaluation.evaluate,
    testing.check_attack, testing.check_method, training.method, training.step,
    training.scheduled,
)  # fmt: skip


@pytest.mark.parametrize('name', WITH_EXAMPLES)
def test_the_examples_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize('function', MAIN_PATH, ids=lambda f: f.__name__)
def test_the_main_path_has_an_example(function):
    assert '>>>' in (inspect.getdoc(function) or '')
