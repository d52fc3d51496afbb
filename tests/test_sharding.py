"""One device, eight, two processes: the same training, and nothing talks in a loop."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import hlo

ROOT = Path(__file__).parent.parent


_started = []


@pytest.fixture(autouse=True)
def _none_left():
    """Processes of a test that failed do not outlive it."""
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def start(plan):
    command = [sys.executable, '-W', 'error', '-m', 'tests.sharded', json.dumps(plan)]
    env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    _started.append(process)
    return process


def wait_for(process, words):
    """Reads what a process says until it says some words."""
    while words not in (line := process.stdout.readline()):
        assert line, process.communicate()[1][-3000:]


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def launch(plan, processes=1):
    """Starts all processes of a run."""
    port = free_port()
    each = {'processes': processes, 'port': port}
    return [start({**plan, **each, 'index': i}) for i in range(processes)]


def end(running):
    """Waits for processes, which must all end well; returns what they said."""
    ended = [process.communicate(timeout=120) for process in running]
    errors = '\n'.join(err[-3000:] for _, err in ended)
    assert [process.returncode for process in running] == [0] * len(running), errors
    return [out for out, _ in ended]


def run(job, processes=1, **plan):
    said = end(launch({'job': job, **plan}, processes))
    return [json.loads(out.splitlines()[-1]) for out in said]


@pytest.fixture(scope='module')
def alone():
    """The run that all others must repeat: one process, one device."""
    return run('fit')[0]


def same(result, expected):
    np.testing.assert_allclose(result['losses'], expected['losses'], rtol=1e-5)
    assert result['robust'] == expected['robust']
    assert result['clean'] == expected['clean']
    assert result['outside'] == expected['outside']


def test_eight_devices_train_as_one_does(alone):
    result = run('fit', devices=8)[0]
    assert result['devices'] == 8
    same(result, alone)


def test_two_processes_train_as_one_does(alone):
    one, two = run('fit', processes=2, devices=1)
    assert one['devices'] == 2
    assert one['losses'] == two['losses']
    assert one['digest'] == two['digest']
    same(one, alone)


def test_two_processes_read_a_stream_as_one_does():
    one, two = run('fit', processes=2, devices=1, stream=True)
    assert one['losses'] == two['losses']
    same(one, run('fit', stream=True)[0])


def test_weights_can_be_sharded_over_devices(alone):
    result = run('fit', devices=4, shard_weights=True)[0]
    assert any('data' in spec for spec in result['sharded'])
    same(result, alone)


def test_sharded_weights_in_two_processes_with_averaging(tmp_path):
    plan = {'shard_weights': True, 'averaging': True, 'epochs': 1}
    one, two = run(
        'fit', processes=2, devices=2, directory=str(tmp_path / 'a b'), **plan
    )
    assert one['digest'] == two['digest']
    same(one, run('fit', averaging=True, epochs=1)[0])


def test_attacks_give_the_same_verdicts_on_eight_devices():
    one, eight = run('verdicts')[0], run('verdicts', devices=8)[0]
    assert one['success'] == eight['success']
    np.testing.assert_allclose(one['norm'], eight['norm'], atol=1e-6)


@pytest.mark.parametrize(
    ('plan', 'in_loop'),
    [
        ({'method': 'pgd_at', 'net': 'norm'}, False),
        ({'method': 'trades', 'net': 'conv'}, False),
        ({'method': 'free', 'net': 'conv'}, False),
        ({'method': 'pgd_at', 'net': 'conv', 'shard_weights': True}, False),
        # The control: batch statistics inside the attack do make devices talk.
        ({'method': 'pgd_at', 'net': 'norm', 'train_mode': True}, True),
    ],
)
def test_no_collective_inside_the_attack(plan, in_loop):
    found = [hlo.Collective(*each) for each in run('program', devices=8, **plan)[0]]
    assert any(each.in_loop for each in found) == in_loop
    outside = [each for each in found if not each.in_loop]
    assert outside
    if 'shard_weights' not in plan:
        assert {each.kind for each in outside} == {'all-reduce'}


def test_a_checkpoint_of_two_devices_goes_on_on_one_and_on_two_processes(tmp_path):
    whole = run('fit', epochs=3)[0]
    plan = {'directory': str(tmp_path), 'epochs': 3, 'wait': 60, 'job': 'fit'}
    stopped = start({**plan, 'devices': 2, 'wait_at': 30})
    wait_for(stopped, 'waiting')
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    first = run('fit', directory=str(tmp_path), epochs=3, processes=2, devices=1)
    # At most what came after the last save, the end of epoch 1, is made again.
    assert len(first[0]['losses']) == 63 - 21
    np.testing.assert_allclose(first[0]['losses'], whole['losses'][21:], rtol=1e-4)
    assert first[0]['robust'] == whole['robust']
    assert (tmp_path / 'metrics.jsonl').read_text().count('\n') == 3
    again = run('fit', directory=str(tmp_path), epochs=3)[0]
    assert again['losses'] == []
    assert again['digest'] == first[0]['digest']


def test_sigterm_saves_and_ends_cleanly(tmp_path):
    plan = {'job': 'fit', 'directory': str(tmp_path), 'save_seconds': 1e6}
    stopped = start({**plan, 'wait_at': 30, 'wait': 2})
    wait_for(stopped, 'waiting')
    stopped.send_signal(signal.SIGTERM)
    end([stopped])
    rest = run('fit', directory=str(tmp_path), save_seconds=1e6)[0]
    assert len(rest['losses']) == 42 - 30
    whole = run('fit')[0]
    assert rest['digest'] == whole['digest']


def test_sigterm_to_one_of_two_processes_stops_both(tmp_path):
    plan = {'job': 'fit', 'directory': str(tmp_path), 'save_seconds': 1e6, 'devices': 1}
    running = launch({**plan, 'wait_at': 30, 'wait': 2}, processes=2)
    wait_for(running[1], 'waiting')
    running[1].send_signal(signal.SIGTERM)
    end(running)
    rest = run('fit', processes=2, **{k: v for k, v in plan.items() if k != 'job'})
    assert 0 < len(rest[0]['losses']) <= 42 - 30
    np.testing.assert_allclose(
        rest[0]['losses'], run('fit')[0]['losses'][-len(rest[0]['losses']) :], rtol=1e-5
    )
