"""The benchmark of the training step: what it measures is what fit runs."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import command, hlo, training_cost

PLAIN = ('madry_mnist',)


@pytest.fixture(scope='module')
def case():
    return training_cost.cases(4, 4, True, PLAIN)['madry_mnist']


def test_the_step_measured_is_the_one_of_fit(case, monkeypatch):
    seen = []
    lower = training_cost.epoch.compiled_step.lower

    class Heard:
        def lower(self, program, *args):
            seen.append(program)
            return lower(program, *args)

    monkeypatch.setattr(training_cost.epoch, 'compiled_step', Heard())
    run, x, y = training_cost.training_step(case, 2)
    run()
    run()
    assert seen[0].augment is None
    assert x.shape == (4, 28, 28, 1)
    assert x.dtype == jnp.float32
    assert y.shape == (4,)


def test_speed_is_a_ratio_of_times_to_ours(case, monkeypatch):
    calls = {'ours': 0, 'bare gradients': 0}

    def clock(runs, repeats):
        for name in runs:
            calls[name] += repeats
        return {'ours': 2.0, 'bare gradients': 1.0}

    monkeypatch.setattr(training_cost, 'training_step', lambda *_: (None,) * 3)
    monkeypatch.setattr(training_cost, 'bare_step', lambda *_: None)
    monkeypatch.setattr(training_cost, 'interleaved', clock)
    figures = training_cost.speed({'net': case}, 7, 3, torch=False)
    assert calls == {'ours': 3, 'bare gradients': 3}
    assert figures['net']['images_per_second'] == {'ours': 2.0, 'bare gradients': 4.0}
    ratio = figures['net']['ratios']['bare gradients']
    assert ratio == {'measured': 0.5, 'goal': 0.95}
    assert 'MISSED' in training_cost.training_table(figures)
    ratio['measured'] = 0.96
    assert 'MISSED' not in training_cost.training_table(figures)


def test_bare_gradients_train_and_are_as_many_as_the_steps(case, monkeypatch):
    made = []
    compile_ = jax.stages.Lowered.compile

    def counted(self, *args):
        program = compile_(self, *args)
        calls = []
        made.append(calls)

        def call(*args):
            calls.append(args)
            return program(*args)

        return call

    monkeypatch.setattr(jax.stages.Lowered, 'compile', counted)
    x, y = jnp.full((4, 28, 28, 1), 0.5), jnp.arange(4)
    run = training_cost.bare_step(case, 3, x, y)
    run()
    assert [len(calls) for calls in made] == [3, 1]


def test_communication_of_two_devices():
    config = command.Config(
        suite='scaling', devices=(2,), networks=PLAIN, short=True, attack_steps=3
    )
    figures = command.main(config)['scaling']
    replicated, sharded = figures['madry_mnist']
    assert (replicated['devices'], replicated['shard_weights']) == (2, False)
    assert set(replicated['collectives']) == {'all-reduce'}
    assert replicated['in_loops'] == 0
    # The gradient, and a few sums.
    extra = replicated['bytes'] - replicated['parameter_bytes']
    assert 0 <= extra < 100
    assert sharded['shard_weights']
    assert sharded['collectives']['all-gather'] >= 1
    assert sharded['held_bytes'] < 0.6 * replicated['held_bytes']
    text = training_cost.scaling_table(figures)
    assert '2 devices, replicated' in text
    assert 'met' in text


def test_a_process_that_fails_says_why(monkeypatch):
    def failing(*args, **kwargs):
        return subprocess.CompletedProcess(args, 1, '', 'no such device')

    monkeypatch.setattr(subprocess, 'run', failing)
    with pytest.raises(RuntimeError, match='2 devices: no such device'):
        training_cost.scaling((2,), 1, True, PLAIN)


def test_collectives_in_loops_are_counted_as_often_as_they_run():
    text = """
%inner (p: f32[4]) -> f32[4] {
  %g = f32[4]{0} all-gather(%p), dimensions={0}
}

%body (p: f32[4]) -> f32[4] {
  %r = f32[2]{0} all-reduce(%p), to_apply=%add
  %w = f32[4] while(%p), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %a = f32[] all-reduce(%p), to_apply=%add
  %w = f32[4] while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""  # noqa: E501
    found = {each.bytes: each for each in hlo.collectives(text)}
    assert found[16] == hlo.Collective('all-gather', 16, True, 21)
    assert found[8] == hlo.Collective('all-reduce', 8, True, 7)
    assert found[4] == hlo.Collective('all-reduce', 4, False, 1)


@pytest.mark.parametrize('name', training_cost.NETWORKS)
def test_pytorch_trains_the_same_network(name):
    pytest.importorskip('torch')
    case = training_cost.cases(4, 4, True, (name,))[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4, *case.shape)).astype(np.float32)
    steps = training_cost.torch_steps(name, case, 2, x, np.arange(4))
    assert list(steps) == ['PyTorch', 'PyTorch, channels last']
    for step in steps.values():
        step()
