"""The masking report: fires on planted defences, silent on honest networks."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, balls, data, evaluation, training, zoo
from advjax.evaluation import masking
from advjax.evaluation.masking import THRESHOLDS
from tests.contract import KEY
from tests.test_defenses import digits, network

SIGNS = list(THRESHOLDS)
FAST = {'steps': 10, 'queries': 60, 'samples': 20, 'batch_size': 50}


@functools.cache
def honest():
    """A network trained on PGD in Linf of 0.1."""
    train, held_out = data.split_held_out(data.load('digits', 'train'), 100, seed=0)
    return training.fit(
        training.pgd_at(balls.linf(0.1), 5),
        zoo.mlp((8, 8, 1), 10, (64, 64)),
        optax.adam(3e-3),
        train,
        held_out,
        key=KEY,
        epochs=10,
        batch_size=64,
    ).logits_fn


def _model(f, switches, x):
    """One network, its gradients and its output as the switches say.

    All of them are one function of other numbers, so they share compiled programs.
    """
    # Clean images are multiples of 1/255.
    off = jnp.abs(x * 255 - jnp.round(x * 255)).max(axis=(1, 2, 3), keepdims=True)
    slope = jnp.where(off < 1e-2, switches['slope at clean'], switches['slope'])
    slope = jax.lax.stop_gradient(slope)
    # The value of x, and the slope times its gradient.
    logits = f(slope * x + jax.lax.stop_gradient((1 - slope) * x))
    far = jnp.abs(x - 0.5).max(axis=(1, 2, 3)) > switches['right beyond']
    logits = jnp.where(far[:, None], switches['there'], logits)
    probable = jnp.where(switches['softmax'] > 0, jax.nn.softmax(logits), logits)
    return switches['scale'] * probable


HONEST = {
    'slope': 1.0,
    'slope at clean': 1.0,
    'softmax': 0.0,
    'scale': 1.0,
    'right beyond': 1.0,
    'there': np.zeros((1, 10), np.float32),
}


def model(f=None, **switches):
    chosen = {**HONEST, **{name.replace('_', ' '): v for name, v in switches.items()}}
    assert chosen.keys() == HONEST.keys()
    return jax.tree_util.Partial(
        _model, f or network(), jax.tree.map(jnp.float32, chosen)
    )


def report(seen, eps=0.2, **options):
    x, y = digits()
    options = {**FAST, 'substitute': network(), **options}
    return masking(seen, x, y, eps, key=KEY, **options)


def test_an_honest_network_and_an_undefended_one_are_left_in_peace():
    for seen, eps, other in (
        (model(honest()), 0.1, network()),
        (model(), 0.2, honest()),
    ):
        found = report(seen, eps, substitute=other)
        assert found.fired == (), str(found)
        assert [sign.name for sign in found.signs] == SIGNS
        assert found.accuracy.keys() == {
            'one-step', 'iterative', 'random', 'square', 'transfer',
        }  # fmt: skip


def test_gradients_of_zero_are_noticed():
    for seen in (model(slope=0.0, slope_at_clean=0.0), model(scale=1e3)):
        found = report(seen)
        assert found['zero gradients'].value > 0.9
        assert {'zero gradients', 'black-box', 'square'} <= set(found.fired)
        assert 'randomness' not in found.fired


def test_a_larger_radius_that_does_not_help_is_noticed():
    found = report(model(slope=0.0), 0.02)
    assert found['radius'].fired
    gain = found.curve[2] - found.curve[3]
    assert found['radius'].value == pytest.approx(-gain)
    assert not report(model(), 0.02)['radius'].fired


def test_probabilities_are_noticed():
    found = report(model(softmax=1.0))
    assert found['probabilities'].value == 1
    assert found['probabilities'].fired


def test_a_one_step_attack_that_does_better_is_noticed():
    found = report(model(slope=-1.0))
    assert found['one-step'].fired
    assert found['one-step'].value == pytest.approx(
        found.accuracy['iterative'] - found.accuracy['one-step']
    )
    assert {'black-box'} <= set(found.fired)


def test_gradients_that_lead_away_fire_the_signs_of_the_paper():
    found = report(model(slope=-1.0, slope_at_clean=-1.0), 0.35)
    assert {'black-box', 'unbounded', 'random', 'square'} <= set(found.fired)
    assert not {'zero gradients', 'randomness', 'one-step'} & set(found.fired)
    standing = found['unbounded'].value
    assert 0.01 < standing <= found.curve.min()
    assert found['random'].value <= 1 - found.accuracy['random']


def test_curves_that_rise_are_noticed():
    _, y = digits()
    # Points far from grey, which only large radii reach, get the answer 3.
    x = np.float32(0.5 + 0.3 * (np.asarray(digits()[0]) - 0.5))
    there = 9 * np.eye(10, dtype=np.float32)[3:4]
    seen = model(right_beyond=0.45, there=there)
    y = np.full_like(y, 3)
    found = masking(seen, x, y, 0.24, key=KEY, **{**FAST, 'substitute': network()})
    rises = np.diff(found.curve)
    assert found['non-monotone'].value == pytest.approx(rises.max())
    assert found['non-monotone'].fired == bool(rises.max() > 0.01)


def _noisy(f, key, x):
    return f(x + 0.2 * jax.random.normal(key, x.shape))


def test_randomness_is_noticed():
    seen = attacks.eot(jax.tree_util.Partial(_noisy, network()), 2)
    found = report(seen)
    assert found['randomness'].value == 1
    assert found['randomness'].fired


def test_every_figure_is_that_of_a_verified_evaluation():
    x, y = digits()
    found = report(model(), 0.15, substitute=honest())
    ball = balls.linf(0.15)
    again = evaluation.evaluate(
        model(), x, y, {'iterative': attacks.pgd(ball, 10)}, key=KEY, batch_size=50
    )
    assert found.accuracy['iterative'] == again.robust_accuracy
    assert found.clean == again.clean_accuracy
    np.testing.assert_allclose(found.radii, [0.0375, 0.075, 0.15, 0.3, 1.0], 1e-6)
    assert found.curve[2] == again.robust_accuracy
    success = dict(zip(found.evaluation.names, found.evaluation.success, strict=True))
    white = success['one-step'] | success['iterative']
    assert found['square'].value == (success['square'] & ~white).mean()
    assert found['random'].value == (success['random'] & ~white).mean()
    assert found['black-box'].value == pytest.approx(
        found.accuracy['iterative']
        - min(found.accuracy['square'], found.accuracy['transfer'])
    )


def test_the_report_reads_and_is_json():
    found = report(model(), substitute=honest())
    text = str(found)
    assert text.startswith('0 of 10 signs of masked gradients')
    assert all(name in text for name in SIGNS)
    assert json.loads(json.dumps(found.summary()))['fired'] == []
    with pytest.raises(ValueError, match=r"name must be one of \['one-step'"):
        found['nothing']


def test_verdicts_do_not_depend_on_the_order_of_images():
    x, y = digits()
    order = np.arange(len(y))[::-1]
    options = {**FAST, 'substitute': network()}
    one = masking(model(), x, y, 0.1, key=KEY, **options)
    other = masking(model(), x[order], y[order], 0.1, key=KEY, ids=order, **options)
    assert [s.value for s in one.signs] == [s.value for s in other.signs]


def test_other_norms_and_what_is_refused():
    x, y = digits()
    found = masking(model(), x, y, balls.l2(1.5), key=KEY, **FAST)
    assert found.radii[-1] == pytest.approx(8.0)
    assert found.fired == ()
    assert 'transfer' not in found.accuracy
    for ball, options, message in (
        (0.0, {}, 'ball must have one radius > 0'),
        (-1.0, {}, 'eps must be'),
        (balls.l0(3), {}, 'substitute must be given'),
        (0.1, {'steps': 0}, 'steps must be an integer >= 1'),
        (0.1, {'queries': 0}, 'queries must be an integer >= 1'),
        (0.1, {'samples': 0}, 'samples must be an integer >= 1'),
    ):
        with pytest.raises(ValueError, match=message):
            masking(network(), x, y, ball, key=KEY, **{**FAST, **options})
    with pytest.raises(ValueError, match='x must be finite'):
        masking(network(), np.full_like(x, np.nan), y, 0.1, key=KEY, **FAST)
