"""Every public attack on inputs at the edge of what can be asked of it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, data, losses
from tests import contract
from tests.contract import BATCH, KEY, images, margin, network, run

KEYS = contract.STANDARD.keys()
LINF, L2, L1, L0 = balls.linf(0.1), balls.l2(0.4), balls.l1(1.0), balls.l0(3)


BALLS = {'linf': LINF, 'l2': L2, 'l1': L1, 'l0': L0}


def _listed(looks_for):
    """Every attack of the catalogue in its usual norm."""
    return {
        entry.name: (
            functools.partial(
                lambda b, entry: entry.factory(b, **entry.quick), entry=entry
            ),
            BALLS[entry.norms[0]],
        )
        for entry in attacks.catalogue()
        if entry.looks_for == looks_for
    }


# Fixed radius: the worst point of a ball.
FIXED = _listed('fixed radius') | {
    'fgm l2': (attacks.fgm, L2),
    'pgd dlr': (lambda b: attacks.pgd(b, 3, loss=losses.dlr), L2),
    'apgd dlr': (lambda b: attacks.apgd(b, 6, losses.dlr), L2),
    'apgd l1': (lambda b: attacks.apgd(b, 6), L1),
    'square l2': (lambda b: attacks.square(b, 12), L2),
    'random_search l1': (lambda b: attacks.random_search(b, 6), L1),
    'quantised': (lambda b: attacks.quantised(attacks.pgd(b, 3), repairs=1), LINF),
    'restarts': (lambda b: attacks.restarts(attacks.pgd(b, 2), 2), L2),
    'targeted': (lambda b: attacks.targeted(attacks.pgd(b, 2), 1), LINF),
    'worst_of': (lambda b: attacks.worst_of([attacks.fgm(b)]), L2),
}
# Its members are listed themselves, and it is made for a certain number of classes.
del FIXED['autoattack']

# Minimum norm: the closest adversarial example, within a radius.
MINIMUM = _listed('minimum norm') | {
    'fab l2': (lambda b: attacks.fab(b, 6, random_start=True), L2),
    'fab l1': (lambda b: attacks.fab(b, 6), L1),
    'fmn l0': (lambda b: attacks.fmn(b, 12), L0),
    'carlini_wagner linf': (lambda b: attacks.carlini_wagner(b, 10, 2, c=1.0), LINF),
    'carlini_wagner l0': (lambda b: attacks.carlini_wagner(b, 10, 2, c=1.0), L0),
}
ALL = FIXED | MINIMUM
every = pytest.mark.parametrize('name', ALL)
fixed = pytest.mark.parametrize('name', FIXED)
minimal = pytest.mark.parametrize('name', MINIMUM)


@functools.cache
def built(name, factor=1.0):
    make, ball = ALL[name]
    return make(ball.replace(eps=ball.eps * factor))


def ball_of(name):
    return ALL[name][1]


def check_feasible(name, adv, x):
    assert adv.shape == x.shape
    assert adv.dtype == x.dtype
    assert np.isfinite(adv).all()
    assert np.asarray(ball_of(name).contains(adv, x)).all()


# ------------------------------------------------------------------------------- models


def edge(classes=4, tie=False):
    """The network of the contract, in numbers that leave its program as it is."""
    f = network()
    w2 = f.args[0]['w2'][:, :classes]
    w2 = w2.at[:, 1].set(w2[:, 0]) if tie else w2
    return jax.tree_util.Partial(f.func, f.args[0] | {'w2': w2})


def _rounded(f, x):
    return f(x).astype(jnp.bfloat16)


def labels(f, x):
    return jnp.argmax(f(x), axis=1).astype(jnp.int32)


# -------------------------------------------------------------------------------- tests


@every
def test_two_classes_and_logits_of_low_precision(name):
    exact, (x, _) = edge(2), images()
    f, y = jax.tree_util.Partial(_rounded, exact), labels(exact, x)
    assert f(x).dtype == jnp.bfloat16
    if 'dlr' in name:
        message = "'dlr' needs at least 3 classes, the model has 2: use 'margin'"
        with pytest.raises(ValueError, match=message):
            run(built(name), f, KEYS, x, y)
        return
    adv = run(built(name), f, KEYS, x, y)
    check_feasible(name, adv, x)
    # No worse than the images themselves by more than the logits can tell.
    gained = margin(exact, adv, y) - margin(exact, x, y)
    assert (gained >= -0.05).mean() > 0.6
    # Stripes, tiles and draws never look at the image itself.
    if not name.startswith(('square', 'random')):
        assert (gained > -0.05).all(), gained


# One program more for each: three classes only where they are a case of their own.
THREE = ['pgd dlr', 'apgd dlr', 'targeted', 'fab', 'deepfool', 'jsma']


@pytest.mark.parametrize('name', THREE)
def test_three_classes(name):
    f, (x, _) = edge(3), images()
    y = labels(f, x)
    adv = run(built(name), f, KEYS, x, y)
    check_feasible(name, adv, x)
    assert (margin(f, adv, y) >= margin(f, x, y) - 1e-5).mean() > 0.6


@pytest.mark.parametrize(('version', 'classes'), [('plus', 2), ('standard', 3)])
def test_autoattack_knows_few_classes(version, classes):
    f, (x, _) = edge(classes), images()
    y = labels(f, x)
    attack = attacks.autoattack(LINF, version, classes=classes, steps=4, queries=8)
    adv = run(attack, f, KEYS, x, y)
    check_feasible('pgd', adv, x)
    assert (margin(f, adv, y) > margin(f, x, y)).all()
    with pytest.raises(ValueError, match='classes must be an integer >= 2, got 1'):
        attacks.autoattack(LINF, classes=1)


@every
def test_ties(name):
    """Classes 0 and 1 are always equal: a tie is no proof of an error."""
    f, (x, _) = edge(tie=True), images()
    y = labels(f, x)
    adv = run(built(name), f, KEYS, x, y)
    check_feasible(name, adv, x)
    if name in MINIMUM:
        wrong = margin(f, adv, y) > 0
        moved = np.asarray(adv != x).any(axis=(1, 2, 3))
        np.testing.assert_array_equal(wrong, moved)


@minimal
def test_minimum_norm_attacks_leave_errors_as_they_are(name):
    f, (x, y) = network(), images()
    wrong = y.at[1:].set((y[1:] + 1) % 4)
    adv = run(built(name), f, KEYS, x, wrong)
    check_feasible(name, adv, x)
    np.testing.assert_array_equal(adv[1:], x[1:])


@fixed
def test_errors_stay_errors(name):
    f, (x, y) = network(), images()
    wrong = (y + 1) % 4
    adv = run(built(name), f, KEYS, x, wrong)
    check_feasible(name, adv, x)
    assert (margin(f, adv, wrong) > 0).mean() > 0.8


@every
def test_a_constant_model(name):
    f, (x, y) = network(scale=0.0), images()
    adv = run(built(name), f, KEYS, x, y)
    check_feasible(name, adv, x)
    if name in MINIMUM:
        # Class 0 is a tie with the others: nothing is an error, or all is.
        np.testing.assert_array_equal(adv, x)


@every
def test_saturated_logits(name):
    f, (x, y) = network(scale=1e3), images()
    adv = run(built(name), f, KEYS, x, y)
    check_feasible(name, adv, x)


def test_quantised_at_radius_zero_returns_the_image():
    f, (x, y) = network(), images()
    x = data.to_float(np.uint8(np.round(np.asarray(x) * 255)))
    adv = run(built('quantised', 0.0), f, KEYS, x, y)
    np.testing.assert_array_equal(adv, x)


@pytest.mark.parametrize('eps', [1e6, float('inf')])
@every
def test_huge_radii(name, eps):
    f, (x, y) = network(), images()
    make, ball = ALL[name]
    adv = run(make(ball.replace(eps=jnp.float32(eps))), f, KEYS, x, y)
    assert np.isfinite(adv).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (margin(f, adv, y) > margin(f, x, y) - 1e-4).mean() >= 0.5


@pytest.mark.parametrize('dtype', ['int32', 'uint8', 'bfloat16', 'float16'])
@every
def test_images_that_are_no_floats_are_refused(name, dtype):
    f, (x, y) = network(), images()
    with pytest.raises(ValueError, match=f'must be float32 .*got {dtype}'):
        built(name)(f, KEY, jnp.asarray(x * 255).astype(dtype), y)


# --------------------------------------------------------------------------- validation

WRONG_BALL = {
    'fgsm': (L2, 'fgsm is defined on linf balls, got L2'),
    'pgd_l1': (L2, 'ball of pgd_l1 must be one of .*got L2'),
    'pgd_l0': (L1, 'ball of pgd_l0 must be one of .*got L1'),
    'apgd': (L0, 'ball of apgd must be one of .*got L0'),
    'frank_wolfe': (L0, 'ball of frank_wolfe must be one of .*got L0'),
    'square': (L0, 'ball of square must be one of .*got L0'),
    'fab': (L0, 'ball of fab must be one of .*got L0'),
    'deepfool': (L0, 'ball of deepfool must be one of .*got L0'),
    'ddn': (LINF, r"ball of ddn must be one of \['l2'\], got Linf"),
    'fmn': ('l2', 'fmn takes a ball'),
    'carlini_wagner': (L1, 'ball of carlini_wagner must be one of .*got L1'),
    'ead': (L2, r"ball of ead must be one of \['l1'\], got L2"),
    'lbfgs': (L1, 'ball of lbfgs must be one of .*got L1'),
    'jsma': (LINF, 'ball of jsma must be one of .*got Linf'),
    'boundary': (LINF, 'ball of boundary must be one of .*got Linf'),
    'hop_skip_jump': (L0, 'ball of hop_skip_jump must be one of .*got L0'),
    'autoattack': (L0, 'ball of autoattack must be one of .*got L0'),
    'pgd': (-0.1, 'eps must be a radius >= 0, got -0.1'),
    'bim': (float('nan'), 'eps must be a radius >= 0, got nan'),
}


@pytest.mark.parametrize('name', WRONG_BALL)
def test_wrong_balls_are_refused(name):
    ball, message = WRONG_BALL[name]
    with pytest.raises(ValueError, match=message):
        getattr(attacks, name)(ball)


MINIMUM_NORM = [e for e in attacks.catalogue() if e.looks_for == 'minimum norm']


@pytest.mark.parametrize('entry', MINIMUM_NORM, ids=lambda entry: entry.name)
def test_a_bare_number_does_not_change_the_norm(entry):
    wanted = rf'{entry.name} takes a ball, {entry.norms[0]}\(0.5\), got 0.5'
    with pytest.raises(ValueError, match=wanted):
        entry.factory(0.5)


COUNTS = ('steps', 'queries', 'samples', 'searches', 'tries', 'trials', 'memory',
          'classes', 'batch')  # fmt: skip


def default_ball(name):
    found = [ball for key, (_, ball) in ALL.items() if key == name]
    return found[0] if found else LINF


@pytest.mark.parametrize('value', [0, -1, 2.5, True, '3'])
@pytest.mark.parametrize(
    ('option', 'name'),
    [(o, e.name) for e in attacks.catalogue() for o in COUNTS if o in e.options],
)
def test_bad_counts_are_refused(option, name, value):
    message = f'{option} must be an integer >= [0-9]+, got {value!r}'
    with pytest.raises(ValueError, match=message):
        getattr(attacks, name)(default_ball(name), **{option: value})


NUMBERS = [
    ('pgd', 'rate', -0.5, 'rate must be a step size >= 0'),
    ('pgd', 'rate', float('nan'), 'rate must be a step size >= 0'),
    ('bim', 'rate', '0.1', 'rate must be a step size >= 0'),
    ('apgd', 'rho', -0.1, r'rho must lie in \[0, 1\], got -0.1'),
    ('apgd', 'rho', float('nan'), r'rho must lie in \[0, 1\], got nan'),
    ('pgd_l1', 'quantile', 1.0, r'quantile must lie in \[0, 1\), got 1.0'),
    ('frank_wolfe', 'rate', 1.5, r'rate must lie in \[0, 1\], got 1.5'),
    ('frank_wolfe', 'momentum', -0.5, r'momentum must lie in \[0, 1\], got -0.5'),
    ('fab', 'bias', 0.0, 'bias must be a number > 0, got 0.0'),
    ('fab', 'overshoot', -1.0, 'overshoot must be a number > 0, got -1.0'),
    ('fab', 'back', float('nan'), 'back must be a number > 0, got nan'),
    ('fab', 'refine', -1, 'refine must be an integer >= 0, got -1'),
    ('deepfool', 'overshoot', -0.1, 'overshoot must be >= 0, got -0.1'),
    ('ddn', 'gamma', 1.0, r'gamma must lie in \(0, 1\), got 1.0'),
    ('ddn', 'first', 0.0, 'first must be a number > 0, got 0.0'),
    ('fmn', 'gamma', 0.0, r'gamma must lie in \(0, 1\), got 0.0'),
    ('fmn', 'rate', 0.0, 'rate must be a number > 0, got 0.0'),
    ('carlini_wagner', 'kappa', -1.0, 'kappa must be >= 0, got -1.0'),
    ('carlini_wagner', 'c', 0.0, 'c must be a number > 0, got 0.0'),
    ('carlini_wagner', 'rate', 0.0, 'rate must be a number > 0, got 0.0'),
    ('ead', 'beta', -1.0, 'kappa and beta must be >= 0, got 0.0 and -1.0'),
    ('ead', 'rule', 'l2', "rule must be 'l1' or 'elastic', got 'l2'"),
    ('lbfgs', 'c', -1.0, 'c must be a number > 0, got -1.0'),
    ('jsma', 'theta', 0.0, 'theta must not be 0'),
    ('jsma', 'budget', 0.0, r'budget must lie in \(0, 1\], got 0.0'),
    ('square', 'p_init', 0.0, r'p_init must lie in \(0, 1\], got 0.0'),
    ('nes', 'sigma', float('nan'), 'sigma must be a number > 0, got nan'),
    ('spsa', 'rate', 0.0, 'rate must be a number > 0, got 0.0'),
    ('universal', 'most', 0.0, 'most must be a number > 0, got 0.0'),
    ('mi_fgsm', 'decay', float('nan'), 'decay must be .*, got nan'),
    ('vmi_fgsm', 'reach', -1.0, 'reach must be .*, got -1.0'),
    ('autoattack', 'version', 'fast', "version must be one of .*got 'fast'"),
]


@pytest.mark.parametrize(('name', 'option', 'value', 'message'), NUMBERS)
def test_bad_numbers_are_refused(name, option, value, message):
    with pytest.raises(ValueError, match=message):
        getattr(attacks, name)(default_ball(name), **{option: value})


@every
def test_bad_losses_are_refused(name):
    """Where there is a loss to choose, a name of one is not one."""
    factory = getattr(attacks, name.split()[0])
    if 'loss' not in inspect.signature(factory).parameters:
        return
    with pytest.raises(ValueError, match="loss must be a function, got 'dlr'"):
        factory(ball_of(name), loss='dlr')


def test_combinators_refuse_bad_numbers():
    for value in (0, -1, 1.5, '2'):
        with pytest.raises(ValueError, match='count must be an integer >= 1'):
            attacks.restarts(built('pgd'), value)
        with pytest.raises(ValueError, match='classes must be an integer >= 1'):
            attacks.targeted(built('pgd'), value)
    with pytest.raises(ValueError, match='classes must be at most 3'):
        attacks.targeted(built('pgd'), 4)(network(), KEY, *images())
    with pytest.raises(ValueError, match='attacks must hold at least one attack'):
        attacks.worst_of([])
    assert contract.BATCH == BATCH
