"""The loop: it learns, keeps the best, survives being killed, and says what failed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, data, evaluation, models, training, zoo
from advjax.training import assess
from advjax.training.checkpoint import Checkpoints
from tests import killable

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
TRAIN, HELD_OUT = data.split_held_out(data.load('digits', 'train'), 100, 0)
MODEL = zoo.fast_mnist((8, 8, 1))
ADAM = optax.adam(2e-3)


def fit(method=None, optimizer=ADAM, model=MODEL, train=TRAIN, held_out=HELD_OUT, **kw):
    options = {'epochs': 2, 'batch_size': 64, **kw}
    return training.fit(
        method or training.fast(0.15),
        model,
        optimizer,
        train,
        held_out,
        key=KEY,
        **options,
    )


def test_adversarial_training_makes_a_network_robust():
    normal = fit(training.standard(), epochs=8)
    robust = fit(training.pgd_at(0.15, 5), epochs=8)
    test = data.load('digits', 'test')
    x, y = np.asarray(data.to_float(test.images)), test.labels
    attack = attacks.pgd(0.15, 20)
    one, two = (
        evaluation.evaluate(f.logits_fn, x, y, attack, key=KEY)
        for f in (normal, robust)
    )
    assert one.clean_accuracy > 0.9
    assert two.clean_accuracy > 0.85
    assert one.robust_accuracy < 0.3
    assert two.robust_accuracy > 0.5


def test_the_best_epoch_is_kept_and_is_what_it_was_measured_as(tmp_path):
    result = fit(epochs=4, checkpoints=tmp_path)
    best = max(result.history, key=lambda row: row['held_out_robust'])
    x = np.asarray(data.to_float(HELD_OUT.images))
    again = evaluation.evaluate(
        result.logits_fn,
        x,
        HELD_OUT.labels,
        {'held out': attacks.pgd(0.15, 10)},
        key=jax.random.fold_in(KEY, 2**31 - 1),
        batch_size=100,
    )
    assert again.robust_accuracy == best['held_out_robust']
    assert again.clean_accuracy == best['held_out_clean']
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == [dict(row) for row in result.history]
    assert [row['epoch'] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]['step'] == 4 * 21


def test_every_training_image_is_used_once_an_epoch():
    result = fit(epochs=1, batch_size=64)
    assert len(TRAIN.labels) % 64 != 0
    assert result.history[0]['step'] == -(-len(TRAIN.labels) // 64)


def finished(folder):
    out = subprocess.run(
        [sys.executable, '-m', 'tests.killable', str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return dict(line.split() for line in out.stdout.splitlines())


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments of a real process, until it gets through."""
    expected = killable.digest(killable.run(tmp_path / 'uninterrupted'))
    folder = tmp_path / 'killed and resumed'
    random.seed(3)
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, '-m', 'tests.killable', str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        checkpoints = folder / 'checkpoints'
        before = _numbers(checkpoints)
        deadline = time.monotonic() + 120
        # Once it has got further than the last one did, it may die any moment.
        while _numbers(checkpoints) <= before and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.3))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 2
    result = finished(folder)
    assert result['digest'] == expected
    assert result['epochs'] == '12'
    assert 0 <= int(result['steps']) < 11 * 21  # It went on, it did not start over.
    rows = (folder / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(row)['epoch'] for row in rows] == list(range(1, 13))


def _numbers(folder):
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def damage(folder, how):
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            if how == 'truncate':
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            elif how == 'flip' and path.stat().st_size > 0:
                raw = bytearray(path.read_bytes())
                raw[len(raw) // 2] ^= 0xFF
                path.write_bytes(bytes(raw))
            else:
                path.unlink()


@pytest.mark.parametrize('how', ['truncate', 'empty', 'flip'])
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path, how):
    killable.run(tmp_path)
    folder = tmp_path / 'checkpoints'
    newest = _numbers(folder)
    damage(folder / str(newest), how)
    with pytest.warns(UserWarning, match=f'checkpoint {newest} .* is skipped'):
        again = killable.run(tmp_path)
    expected = killable.digest(killable.run(tmp_path.parent / f'{how}-whole'))
    assert killable.digest(again) == expected


def test_all_checkpoints_damaged_starts_over(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'c')
    checkpoints.save(1, {'a': jnp.arange(3)}, {'n': 1})
    checkpoints.close()
    shutil.rmtree(tmp_path / 'c' / '1' / 'tree')
    checkpoints = Checkpoints(tmp_path / 'c')
    with pytest.warns(UserWarning, match='checkpoint 1'):
        assert checkpoints.restore({'a': jnp.arange(3)}) is None
    checkpoints.save(1, {'a': jnp.arange(3)}, {'n': 2})
    checkpoints.close()
    restored: Any = Checkpoints(tmp_path / 'c').restore({'a': jnp.arange(3)})
    tree, record = restored
    assert record == {'n': 2}
    np.testing.assert_array_equal(tree['a'], np.arange(3))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    fit(checkpoints=tmp_path, epochs=1)
    with pytest.raises(ValueError, match='belongs to another run'):
        fit(checkpoints=tmp_path, epochs=1, model=zoo.mlp((8, 8, 1), 10, (4,)))


def test_a_nan_loss_stops_with_the_step_and_the_last_good_state(tmp_path):
    def treacherous(params, x):
        w, fuse = params['w'], params['fuse']
        logits = x.reshape(x.shape[0], -1) @ w + 0 * fuse
        # The optimizer counts the fuse down; at zero the logarithm fails.
        return logits + jnp.log(jnp.maximum(fuse, 0)) * 0

    model = models.from_function(
        lambda key: {
            'w': 0.01 * jax.random.normal(key, (64, 10)),
            'fuse': jnp.full((1, 1), 7.5),
        },
        treacherous,
    )

    def count_down(updates, state, params=None):
        return {'w': -0.1 * updates['w'], 'fuse': -jnp.ones((1, 1))}, state

    optimizer = optax.GradientTransformation(lambda _: optax.EmptyState(), count_down)
    with pytest.raises(training.NonFiniteLossError, match='step 8') as caught:
        fit(training.standard(), optimizer, model, checkpoints=tmp_path, epochs=3)
    assert caught.value.step == 8
    good = caught.value.fit
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good.params))
    assert float(good.last.params['fuse'][0, 0]) == -0.5
    assert np.abs(good.last.params['w']).max() > 0.01


class Scripted:
    """Held-out accuracies from a script, to see what the loop makes of them."""

    def __init__(self, monkeypatch, rows):
        self.rows = iter(rows)
        monkeypatch.setattr(
            assess, 'held_out_accuracy', lambda *_: dict(next(self.rows))
        )


def row(robust, top=0.1):
    return {'held_out_clean': 0.9, 'held_out_robust': robust, 'held_out_top_class': top}


def test_catastrophic_overfitting_rolls_back(monkeypatch, tmp_path):
    Scripted(monkeypatch, [row(0.5), row(0.7), row(0.1)])
    result = fit(epochs=9, recovery='rollback', checkpoints=tmp_path / 'a')
    assert len(result.history) == 3
    assert 'catastrophic overfitting at epoch 3' in result.events[0]
    assert 'went back to epoch 2' in result.events[0]
    Scripted(monkeypatch, [row(0.5), row(0.7)])
    expected = fit(epochs=2, checkpoints=tmp_path / 'b')
    for a, b in zip(
        jax.tree.leaves(result.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_catastrophic_overfitting_restarts_with_the_next_seed(monkeypatch):
    Scripted(monkeypatch, [row(0.7), row(0.1), row(0.6), row(0.8), row(0.7)])
    result = fit(epochs=3, recovery='restart')
    assert [(r['attempt'], r['epoch']) for r in result.history] == [
        (0, 1), (0, 2), (1, 1), (1, 2), (1, 3),
    ]  # fmt: skip
    assert 'began again with seed 1' in result.events[0]
    assert result.history[0]['train_loss'] != result.history[2]['train_loss']


def test_collapse_restarts_until_seeds_run_out(monkeypatch):
    Scripted(monkeypatch, [row(0.1, 1.0)] * 6)
    result = fit(epochs=9, recovery=training.Recovery('restart', 2))
    assert [r['attempt'] for r in result.history] == [0, 0, 1, 1, 2, 2]
    assert len(result.events) == 3
    assert all('collapse to a constant class' in event for event in result.events)
    assert 'went back to epoch' in result.events[-1]


def test_a_real_collapse_is_detected():
    """A learning rate far too high: one class for everything."""
    result = fit(training.standard(), optax.adam(30.0), epochs=6, recovery='rollback')
    assert any('collapse' in event for event in result.events)
    assert len(result.history) < 6


def test_progress_bar_shows_held_out_accuracy(capsys):
    fit(epochs=2, batch_size=16, progress=True)
    shown = capsys.readouterr().err
    assert 'epoch 2/2' in shown
    assert 'robust=' in shown
    assert 'clean=' in shown


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'epochs': 0}, 'epochs must be an integer >= 1, got 0'),
        ({'batch_size': 1.5}, 'batch_size must be an integer >= 1, got 1.5'),
        ({'recovery': 'panic'}, "'restart' or 'continue', got 'panic'"),
        ({'checkpoints': 3}, 'directory must be a path, got 3'),
        ({'train': [1, 2]}, 'train must be a data.Dataset.*got list'),
    ],
)
def test_bad_arguments_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        fit(**change)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (lambda: training.Recovery('panic'), "'restart' or 'continue', got 'panic'"),
        (lambda: training.Recovery(max_restarts=-1), 'max_restarts must be .* got -1'),
        (lambda: training.Recovery(max_restarts=0.5), 'max_restarts must be'),
        (lambda: training.Checkpointing('runs', -1.0), 'save_seconds must be >= 0'),
        (lambda: training.Checkpointing('runs', np.nan), 'save_seconds must be >= 0'),
        (lambda: training.Checkpointing(''), "directory must be a path, got ''"),
    ],
)
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        settings()


def test_a_method_without_a_ball_needs_an_attack():
    method = training.method(lambda f, k, x, y: x + 0.1, training.on_adversarial)
    with pytest.raises(ValueError, match='attack must be given'):
        fit(method)
    assert fit(method, attack=attacks.pgd(0.1, 2), epochs=1).history


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'method': training.fast(0.3)}, 'its method, attack differ'),
        ({'method': training.trades(0.15)}, 'its method differ'),
        ({'epochs': 2}, 'its epochs differ'),
        ({'batch_size': 32}, 'its batch_size differ'),
        ({'optimizer': optax.adam(0.5)}, 'its optimizer differ'),
        ({'train': HELD_OUT}, 'its training images differ'),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path_factory, change, words):
    folder = tmp_path_factory.getbasetemp() / 'one run'
    fit(checkpoints=folder, epochs=1)
    with pytest.raises(ValueError, match=words):
        fit(**{'checkpoints': folder, 'epochs': 1, **change})


def test_keys_in_the_state_of_an_optimizer_are_saved(tmp_path):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1))
    one = fit(checkpoints=tmp_path, epochs=1, optimizer=noisy)
    two = fit(checkpoints=tmp_path, epochs=1, optimizer=noisy)
    for a, b in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
