"""The cascade: survivors only, one program, resumable, and AutoAttack through it."""

import dataclasses
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, identity, linf, losses
from advjax.evaluation import OtherEvaluationError, accuracy, evaluate
from advjax.evaluation.progress_file import ProgressFile
from tests.contract import CLASSES, KEY, images, network

X, Y = (np.asarray(a) for a in images(batch=23))
Y = np.where(np.arange(23) % 6 == 0, (Y + 1) % CLASSES, Y)  # Some clean errors.
F = network(scale=2.0)
ENSEMBLE = attacks.autoattack(0.06, classes=CLASSES, steps=8, queries=30)
ROOT = Path(__file__).parent.parent


def cascade(f, x, y, attacks, key, **kwargs):
    options = {'batch_size': 8, 'survivors': True, **kwargs}
    return evaluate(f, x, y, attacks, key=key, **options)


def test_the_cascade_breaks_what_the_members_break_together():
    whole = evaluate(F, X, Y, ENSEMBLE, key=KEY, batch_size=8)
    e = cascade(F, X, Y, ENSEMBLE, KEY)
    assert whole.names == e.names == ('apgd_ce', 'apgd_t', 'fab_t', 'square')
    np.testing.assert_array_equal(e.robust, whole.robust)
    np.testing.assert_array_equal(e.broken_by, whole.broken_by)
    assert 0 < e.robust.sum() < e.clean_correct.sum()
    # After each member, never more than before.
    after = [e.accuracy(name) for name in e.names]
    assert after == sorted(after, reverse=True)
    assert after[-1] == e.robust_accuracy
    assert 'after square' in str(e)
    assert len(set(e.broken_by)) > 2


def test_broken_examples_are_not_attacked_again():
    seen = []

    def counting(name):
        def attack(f, key, x, y):
            jax.debug.callback(lambda x: seen.append((name, np.asarray(x))), x)
            return attacks.fgsm(0.06)(f, key, x, y)

        return attack

    e = cascade(F, X, Y, {'a': counting('a'), 'b': counting('b')}, KEY, ball=linf(0.06))
    jax.effects_barrier()
    broken = X[e.success[0]]
    assert len(broken) > 0
    for name, batch in seen:
        if name == 'b':
            assert not any((row == batch).all((1, 2, 3)).any() for row in broken)
    assert (e.calls[1, e.success[0]] == 0).all()
    assert not e.success[1].any()


def test_targets_and_restarts_are_parts_that_stop_at_success():
    attack = attacks.targeted(attacks.fgsm(0.06, losses.margin), 3)
    e = cascade(F, X, Y, {'t': attack}, KEY)
    each = next(iter(attack.parts().values())).calls
    calls = e.calls[0]
    assert len(set(calls[e.clean_correct])) > 1
    assert (calls[e.robust] == 3 * each).all()
    np.testing.assert_array_equal(
        e.robust, evaluate(F, X, Y, {'t': attack}, key=KEY, batch_size=8).robust
    )
    again = attacks.restarts(attacks.pgd(0.06, 2), 4)
    some = cascade(F, X, Y, {'r': again}, KEY)
    np.testing.assert_array_equal(
        some.robust, evaluate(F, X, Y, {'r': again}, key=KEY, batch_size=8).robust
    )
    assert len(set(some.calls[0][some.clean_correct])) > 1


def test_one_program_serves_a_shrinking_set():
    accuracy._attack.clear_cache()
    members = attacks.autoattack(0.06, classes=CLASSES, steps=8, queries=30).members
    cascade(F, X, Y, members, KEY)
    # One for each member: neither targets nor fewer survivors compile anything.
    assert accuracy._attack._cache_size() == 4
    cascade(F, X[:5], Y[:5], members, KEY)
    assert accuracy._attack._cache_size() == 4


def test_verdicts_do_not_depend_on_company_order_or_padding():
    whole = cascade(F, X, Y, ENSEMBLE, KEY)
    order = np.array([20, 3, 11, 7, 1, 13, 4, 9, 22])
    part = cascade(F, X[order], Y[order], ENSEMBLE, KEY, ids=order)
    np.testing.assert_array_equal(part.broken_by, whole.broken_by[order])
    np.testing.assert_array_equal(part.worst, whole.worst[order])
    np.testing.assert_array_equal(part.calls, whole.calls[:, order])


def test_queries_are_counted_per_example():
    e = evaluate(F, X, Y, {'square': attacks.square(0.06, 30)}, key=KEY, batch_size=8)
    calls = e.calls[0]
    assert (calls[e.robust] == 30).all()
    assert (calls[e.success[0]] < 30).any()
    assert (calls[~e.clean_correct] == 0).all()


def test_a_minimum_norm_attack_reports_distances():
    e = evaluate(F, X, Y, attacks.fmn(steps=60), key=KEY, batch_size=8)
    found = e.success[0]
    assert (e.norm[0][found] > 0).all()
    np.testing.assert_array_equal(found, e.clean_correct)
    # Within a radius: those, and only those, that are closer.
    eps = float(np.median(e.norm[0][found]))
    near = balls.l2(eps)
    inside = evaluate(F, X, Y, attacks.fmn(near, 60), key=KEY, batch_size=8)
    np.testing.assert_array_equal(inside.success[0], found & (e.norm[0] <= eps + 1e-6))
    assert not inside.rejected.any()


class StoppedError(Exception):
    """Stands for SIGKILL between two batches."""


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path, monkeypatch):
    expected = cascade(F, X, Y, ENSEMBLE, KEY)
    original, calls = accuracy._attack, []

    def interrupted(limit):
        def attack(*args):
            calls.append(1)
            if len(calls) > limit:
                raise StoppedError
            return original(*args)

        return attack

    monkeypatch.setattr(
        accuracy.ProgressFile, '__init__', _eager(accuracy.ProgressFile)
    )
    spent = 0
    for limit in (2, 3, 4):
        calls.clear()
        monkeypatch.setattr(accuracy, '_attack', interrupted(limit))
        with pytest.raises(StoppedError):
            cascade(F, X, Y, ENSEMBLE, KEY, folder=tmp_path / 'a b')
        spent += limit
    calls.clear()
    monkeypatch.setattr(accuracy, '_attack', interrupted(10**6))
    e = cascade(F, X, Y, ENSEMBLE, KEY, folder=tmp_path / 'a b')
    for field in dataclasses.fields(e):
        was, now = getattr(expected, field.name), getattr(e, field.name)
        if isinstance(was, np.ndarray):
            np.testing.assert_array_equal(now, was, err_msg=field.name)
    rest = len(calls)
    calls.clear()
    cascade(F, X, Y, ENSEMBLE, KEY, folder=tmp_path / 'a b')
    assert calls == []  # A finished evaluation is read.
    cascade(F, X, Y, ENSEMBLE, KEY)
    # At most one batch of every interruption was lost, and rows pack differently.
    assert rest < len(calls)


def _eager(cls):
    init = cls.__init__
    return lambda self, path, identity: init(self, path, identity, seconds=0.0)


def test_the_folder_of_another_evaluation_is_refused(tmp_path):
    cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    other = network(5)
    for changed, words in (
        ((other, X, Y, PGD, KEY), 'model'),
        ((F, X[::-1], Y, PGD, KEY), 'images'),
        ((F, X, Y, attacks.pgd(linf(0.06), 4), KEY), 'attacks, threat model'),
        ((F, X, Y, PGD, jax.random.key(8)), 'key'),
    ):
        with pytest.raises(OtherEvaluationError, match=f'another {words}'):
            cascade(*changed, folder=tmp_path)
    with pytest.raises(OtherEvaluationError, match='cascade'):
        evaluate(F, X, Y, PGD, key=KEY, batch_size=8, folder=tmp_path)


PGD = attacks.pgd(linf(0.05), 4)


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'empty'])
def test_a_damaged_file_is_set_aside(tmp_path, damage):
    expected = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    path = tmp_path / 'evaluation.npz'
    content = bytearray(path.read_bytes())
    if damage == 'flipped':
        content[len(content) // 2] ^= 0xFF
    content = {'truncated': content[: len(content) // 2], 'empty': b''}.get(
        damage, content
    )
    path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match='damaged'):
        e = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    np.testing.assert_array_equal(e.success, expected.success)
    assert (tmp_path / 'evaluation.damaged').exists()


def _rewritten(path, change):
    """The file with arrays changed, and a digest that agrees with them."""
    arrays = dict(np.load(path))
    change(arrays)
    del arrays['digest']
    arrays['digest'] = np.array(identity.of(arrays))
    np.savez(path, **arrays)


@pytest.mark.parametrize('field', ['success', 'norm', 'clean', 'worst', 'parts'])
@pytest.mark.parametrize('damage', ['missing', 'shape', 'dtype', 'digest'])
def test_a_record_is_complete_or_set_aside(tmp_path, field, damage):
    expected = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    path = tmp_path / 'evaluation.npz'

    def change(arrays):
        if damage == 'missing':
            del arrays[field]
        elif damage == 'shape':
            arrays[field] = arrays[field][:-1]
        else:
            arrays[field] = arrays[field].astype(np.float16)

    if damage == 'digest':
        arrays = dict(np.load(path))
        arrays[field] = np.zeros_like(arrays[field])
        np.savez(path, **arrays)
    else:
        _rewritten(path, change)
    with pytest.warns(UserWarning, match='damaged'):
        e = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    np.testing.assert_array_equal(e.success, expected.success)
    np.testing.assert_array_equal(e.norm, expected.norm)


def test_a_damaged_file_never_loads_as_another(tmp_path):
    """Flipped, cut and overwritten bytes, wherever they are in the archive."""
    path, rng = tmp_path / 'evaluation.npz', np.random.default_rng(0)
    arrays = {'success': rng.random((2, 9)) < 0.5, 'norm': rng.random((2, 9))}
    ProgressFile(path, {'model': 'a'}).save(arrays, now=True)
    content, refused = path.read_bytes(), 0
    for trial in range(300):
        damaged = bytearray(content)
        place = rng.integers(len(content))
        if trial % 3 == 0:
            damaged[place] ^= 1 << rng.integers(8)
        elif trial % 3 == 1:
            damaged[place : place + 9] = rng.bytes(9)
        else:
            del damaged[place:]
        path.write_bytes(bytes(damaged))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            found = ProgressFile(path, {'model': 'a'}).load(arrays)
        if found is None:
            refused += 1
            assert 'is damaged' in str(told[0].message)
            continue
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    assert refused > 200


@pytest.mark.parametrize('field', ['success', 'correct', 'worst'])
def test_a_finished_record_is_verified_again(tmp_path, field):
    expected = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    assert expected.success.any()

    def change(arrays):
        arrays[field] = X if field == 'worst' else np.zeros_like(arrays[field])

    _rewritten(tmp_path / 'evaluation.npz', change)
    with pytest.warns(UserWarning, match='says what the model does not do'):
        e = cascade(F, X, Y, PGD, KEY, folder=tmp_path)
    np.testing.assert_array_equal(e.success, expected.success)


def _model(w):
    return lambda x: x.reshape(len(x), -1) @ w


def _own_attack(strength):
    return lambda logits_fn, key, x, y: jnp.clip(x + strength, 0, 1)


def test_functions_of_one_name_are_not_one(tmp_path):
    """A model or an attack whose strength sits in a closure."""
    rng = np.random.default_rng(0)
    one, two = (_model(rng.normal(size=(20, CLASSES))) for _ in range(2))
    weak, strong = _own_attack(0.0), _own_attack(0.05)
    ball = linf(0.05)
    cascade(one, X, Y, weak, KEY, folder=tmp_path, ball=ball)
    cascade(one, X, Y, weak, KEY, folder=tmp_path, ball=ball)
    with pytest.raises(OtherEvaluationError, match='another model:'):
        cascade(two, X, Y, weak, KEY, folder=tmp_path, ball=ball)
    with pytest.raises(OtherEvaluationError, match='another attacks:'):
        cascade(one, X, Y, strong, KEY, folder=tmp_path, ball=ball)


def test_names_and_ids_that_would_collapse_are_refused():
    named: Any = {1: PGD, '1': PGD}
    with pytest.raises(ValueError, match='attacks must be named by texts, got 1'):
        evaluate(F, X, Y, named, key=KEY)
    ids = np.arange(len(X)) + 2**31
    with pytest.raises(ValueError, match=r'ids must lie in 0..2147483647'):
        evaluate(F, X, Y, PGD, key=KEY, ids=ids)


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'):
        cascade(F, X, Y, PGD, KEY, folder=tmp_path / 'file' / 'x')


SCRIPT = """
import sys
import jax, numpy as np
from advjax.evaluation import accuracy
from experiments.frame import process
from tests import test_cascade as t
process.use_compilation_cache()
t.accuracy.ProgressFile.__init__ = t._eager(t.accuracy.ProgressFile)
made, original = [], accuracy._attack
def counted(*args):
    made.append(1)
    print('batch', flush=True)
    return original(*args)
accuracy._attack = counted
e = t.cascade(t.F, t.X, t.Y, t.ENSEMBLE, t.KEY, folder=sys.argv[1], batch_size=4)
print('broken', e.broken_by.tolist(), float(e.worst.sum()), flush=True)
"""


def test_a_killed_process_goes_on(tmp_path):
    """SIGKILL in the middle; what was found is kept, and the result is the same."""
    expected = cascade(F, X, Y, ENSEMBLE, KEY, batch_size=4)
    words = f'broken {expected.broken_by.tolist()} {float(expected.worst.sum())}'
    command = [sys.executable, '-c', SCRIPT, str(tmp_path / 'run')]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for count, _ in enumerate(process.stdout, 1):
        if count == 5:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stdout.close()
    time.sleep(0.1)
    out = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert words in out
    whole = evaluation_batches()
    assert out.count('batch\n') <= whole - 3


def evaluation_batches():
    """Batches that the whole cascade takes without interruption."""
    count, original = [], accuracy._attack
    # pyrefly: ignore[bad-assignment]
    accuracy._attack = lambda *args: count.append(1) or original(*args)
    try:
        cascade(F, X, Y, ENSEMBLE, KEY, batch_size=4)
    finally:
        accuracy._attack = original
    return len(count)


def test_autoattack_as_an_attack_is_the_worst_of_its_members():
    x, y = jnp.asarray(X), jnp.asarray(Y)
    adv = jax.jit(lambda a, x, y: a(F, KEY, x, y))(ENSEMBLE, x, y)
    assert np.asarray(balls.linf(0.06).contains(adv, x)).all()
    right = np.asarray(jnp.argmax(F(x), axis=1)) == Y
    broken = np.asarray(losses.margin(F(adv), y)) > 0
    e = cascade(F, X, Y, ENSEMBLE, KEY)
    # Other draws, the same strength.
    assert (right & ~broken).sum() <= e.robust.sum() + 1


def test_versions_of_autoattack():
    for version, names in {
        'standard': ['apgd_ce', 'apgd_t', 'fab_t', 'square'],
        'plus': ['apgd_ce', 'apgd_dlr', 'fab', 'square', 'apgd_t', 'fab_t'],
        'rand': ['apgd_ce', 'apgd_dlr'],
    }.items():
        assert list(attacks.autoattack(0.1, version).members) == names
    plus = attacks.autoattack(0.1, 'plus').members
    assert [plus[n].count for n in ('apgd_ce', 'apgd_dlr', 'fab')] == [5, 5, 5]
    assert plus['fab'].attack.random_start  # Else five runs would be one.
    standard = attacks.autoattack(0.1).members
    assert len(standard['apgd_t'].parts()) == len(standard['fab_t'].parts()) == 9
    assert standard['apgd_ce'].steps == 100
    assert standard['square'].queries == 5000
    sparse = attacks.autoattack(balls.l1(3.0)).members
    assert len(sparse['apgd_ce'].parts()) == 5
    assert len(sparse['apgd_t'].parts()) == 5
    members: dict[str, Any] = {'square': None, 'mine': attacks.fgsm(0.1)}
    own = attacks.autoattack(0.1, 'custom', members=members)
    assert list(own.members) == ['square', 'mine']


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((balls.l0(3),), 'linf'),
        ((0.1, 'strong'), "version must be one of .*'strong'"),
        ((0.1, 'custom'), 'members must name'),
    ],
)
def test_autoattack_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        attacks.autoattack(*arguments)


def test_rand_attacks_a_randomised_model():
    def noisy(f, key, x):
        return f(x + 0.02 * jax.random.normal(key, x.shape))

    seen = attacks.eot(jax.tree_util.Partial(noisy, F), 4)
    ensemble = attacks.autoattack(0.06, 'rand', classes=CLASSES, steps=6)
    e = cascade(seen, X, Y, ensemble, KEY)
    assert e.robust_accuracy < e.clean_accuracy


@pytest.mark.slow
def test_autoattack_on_the_golden_network(golden, mnist_test):
    """The original leaves 212 of images 0:250; more of it is in ``test_figures``."""
    x, y = (a[:250] for a in mnist_test)
    e = evaluate(
        golden,
        x,
        y,
        attacks.autoattack(0.3),
        key=jax.random.key(0),
        batch_size=250,
        survivors=True,
    )
    assert e.robust.sum() <= 212 + 1  # Half a point.
    assert e.clean_correct.sum() == 247


def test_the_margin_of_what_stands_is_that_of_the_part_that_came_closest():
    """Two restarts move the image by different shares of the way; none breaks it."""

    @balls.dataclass
    class Moved:
        ball: balls.Ball
        share: jax.Array

        def __call__(self, f, key, x, y):
            return jnp.clip(x + self.share * self.ball.eps * jnp.sign(x - 0.5), 0, 1)

    @balls.dataclass
    class Parts:
        ball: balls.Ball
        shares: jax.Array

        def parts(self):
            return {str(i): Moved(self.ball, self.shares[i]) for i in range(3)}

        def __call__(self, f, key, x, y):
            return x

    ball = linf(1e-3)
    for order in ([0.0, 1.0, 0.5], [1.0, 0.5, 0.0]):
        shares = jnp.array(order, jnp.float32)
        alone = [
            cascade(F, X, Y, Moved(ball, share), KEY, ball=ball) for share in shares
        ]
        together = cascade(F, X, Y, Parts(ball, shares), KEY, ball=ball)
        stands = together.robust
        assert stands.sum() > 10
        margins = np.stack([e.margin[0] for e in alone])
        assert len(np.unique(margins.argmax(axis=0)[stands])) > 1
        np.testing.assert_array_equal(
            together.margin[0][stands], margins.max(axis=0)[stands]
        )
