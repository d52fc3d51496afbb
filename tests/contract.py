"""What every attack must satisfy, as functions that raise AssertionError.

They are run on every attack by ``test_contract.py`` and, on attacks broken on
purpose, by ``test_mutations.py``: a check that nothing can break checks nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, keys, losses
from advjax.masks import masked

SHAPE, CLASSES, BATCH = (4, 5, 1), 4, 6
KEY = jax.random.key(7)


def _network(params, x):
    flat = x.reshape(x.shape[0], -1)
    logits = jnp.tanh(flat @ params['w1'] + params['b1']) @ params['w2']
    bright = jnp.mean(flat, axis=1, keepdims=True) > params['nan_above']
    return jnp.where(bright, jnp.nan, logits)


def network(seed: int = 0, scale: float = 1.0, nan_above: float = 2.0):
    """A smooth two-layer network: no gradient coordinate is exactly zero.

    With scale 0 it is constant; above a mean brightness its logits are NaN. All of
    them are one function of other parameters, so they share compiled programs.
    """
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    size = int(np.prod(SHAPE))
    params = {
        'w1': jax.random.normal(one, (size, 16)) / size**0.5,
        'b1': jax.random.normal(three, (1, 16)) * 0.1,
        'w2': scale * jax.random.normal(two, (16, CLASSES)),
        'nan_above': jnp.float32(nan_above),
    }
    return jax.tree_util.Partial(_network, params)


def images(seed: int = 1, batch: int = BATCH):
    """Images in the open range, labelled as the network sees them."""
    x = jax.random.uniform(
        jax.random.key(seed), (batch, *SHAPE), minval=0.05, maxval=0.95
    )
    return x, jnp.argmax(network()(x), axis=1).astype(jnp.int32)


def _margin(f, x, y):
    return losses.margin(f(x), y)


def _divergence(f, x, y):
    """From the prediction at the clean images, which is what is attacked."""
    del y
    return losses.kl(f(x), f(images()[0][: x.shape[0]]))


@dataclasses.dataclass(frozen=True)
class Case:
    """An attack family: ``build(ball, steps=..., count=...)``.

    ``steps`` and ``restarts`` are False where the family has no such number; ``sees``
    is what stands between the attack and the network; ``judge`` what it raises;
    ``minimum`` marks attacks that return the clean image where nothing was found, and
    the closest success elsewhere.
    """

    name: str
    build: Callable[..., Any]
    ball: Any
    steps: bool = True
    restarts: bool = False
    sees: Callable[..., Any] = lambda f: f
    judge: Callable[..., Any] = _margin
    minimum: bool = False

    def attack(self, **options):
        """The attack, with a step size that does not depend on the steps."""
        return self.build(self.ball, **options)

    def run(self, f, key, x, y, **options):
        """One compiled call against the network f."""
        return run(self.attack(**options), self.sees(f), key, x, y)

    def at(self, ball):
        """The same attack in another ball."""
        return dataclasses.replace(self, ball=ball)


run = jax.jit(lambda attack, f, key, x, y: attack(f, key, x, y))


def _pgd(ball, steps=5, **options):
    return attacks.pgd(ball, steps, rate=0.3, **options)


def _noisy(f, key, image):
    return f(image + 0.01 * jax.random.normal(key, image.shape))


_LINF, _L2, _L1, _L0 = balls.linf(0.1), balls.l2(0.4), balls.l1(0.15), balls.l0(3)

_FAR = {
    'linf': balls.linf(0.15),
    'l2': balls.l2(0.6),
    'l1': balls.l1(1.2),
    'l0': balls.l0(4),
}
_HALF = np.arange(20).reshape(1, *SHAPE) % 3 > 0


def _minimum(name, build, kinds):
    """A minimum-norm attack in some norms, with a radius that not all need."""
    return [
        Case(f'{name} {kind}', build, _FAR[kind], steps=False, minimum=True)
        for kind in kinds.split()
    ]


CASES = [
    Case('fgsm', lambda b: attacks.fgsm(b), _LINF, steps=False),
    Case('rand_fgsm', lambda b: attacks.rand_fgsm(b), _LINF, steps=False),
    *(
        Case(f'fgm {n}', lambda b: attacks.fgm(b), ball, steps=False)
        for n, ball in (('l2', _L2), ('l1', _L1), ('l0', _L0))
    ),
    Case('bim', lambda b, steps=5: attacks.bim(b, steps, rate=0.3), _LINF),
    *(
        Case(f'pgd {n}', _pgd, ball)
        for n, ball in (('linf', _LINF), ('l2', _L2), ('l1', _L1), ('l0', _L0))
    ),
    Case('pgd unbounded', _pgd, balls.linf(0.1, bounds=None)),
    Case('pgd l2 per example', _pgd, balls.l2(np.linspace(0.1, 0.6, BATCH))),
    Case('pgd margin', lambda b, steps=5: _pgd(b, steps, loss=losses.margin), _LINF),
    Case('pgd dlr', lambda b, steps=5: _pgd(b, steps, loss=losses.dlr), _LINF),
    Case('mi_fgsm', lambda b, steps=5: attacks.mi_fgsm(b, steps, rate=0.3), _LINF),
    Case('ni_fgsm', lambda b, steps=5: attacks.ni_fgsm(b, steps, rate=0.3), _LINF),
    Case('adam_pgd', lambda b, steps=5: attacks.adam_pgd(b, steps, rate=0.3), _L2),
    Case(
        'restarts',
        lambda b, steps=3, count=2: attacks.restarts(_pgd(b, steps), count),
        _LINF,
        restarts=True,
    ),
    Case(
        'restarts side by side',
        lambda b, steps=3, count=2: attacks.restarts(
            _pgd(b, steps), count, parallel=True
        ),
        _L2,
        restarts=True,
    ),
    Case('targeted', lambda b, steps=4: attacks.targeted(_pgd(b, steps), 2), _LINF),
    Case(
        'worst_of',
        lambda b, steps=4: attacks.worst_of([attacks.fgm(b), _pgd(b, steps)]),
        _L2,
    ),
    Case(
        'from_prediction',
        lambda b, steps=4: attacks.from_prediction(
            attacks.pgd(
                b, steps, 0.3, losses.kl, start=attacks.gaussian, keep_best=False
            )
        ),
        _LINF,
        judge=_divergence,
    ),
    Case(
        'eot',
        _pgd,
        _LINF,
        sees=lambda f: attacks.eot(jax.tree_util.Partial(_noisy, f), 3),
    ),
    Case(
        'ensemble',
        _pgd,
        _LINF,
        sees=lambda f: attacks.ensemble([f, network(5)], [3.0, 1.0]),
    ),
    *(
        Case(f'apgd {n}', lambda b, steps=8: attacks.apgd(b, steps), ball)
        for n, ball in (('linf', _LINF), ('l2', _L2), ('l1', balls.l1(0.5)))
    ),
    Case('apgd dlr', lambda b, steps=8: attacks.apgd(b, steps, losses.dlr), _LINF),
    *(
        Case(f'frank_wolfe {n}', lambda b, steps=9: attacks.frank_wolfe(b, steps), ball)
        for n, ball in (('linf', _LINF), ('l2', _L2))
    ),
    Case(
        'pgd_l1',
        lambda b, steps=5: attacks.pgd_l1(b, steps, 0.3, quantile=0.8),
        balls.l1(0.5),
    ),
    Case('pgd_l0', lambda b, steps=5: attacks.pgd_l0(b, steps), _L0),
    Case(
        'vmi_fgsm',
        lambda b, steps=5: attacks.vmi_fgsm(b, steps, 0.3, samples=2),
        _LINF,
    ),
    Case(
        'views',
        lambda b, steps=5: attacks.mi_fgsm(b, steps, 0.3),
        _LINF,
        sees=lambda f: attacks.views(f, attacks.diverse(0.8), attacks.scales(2)),
    ),
    *(
        Case(f'square {n}', lambda b, steps=40: attacks.square(b, steps), ball)
        for n, ball in (('linf', _LINF), ('l2', balls.l2(0.8)))
    ),
    Case('nes', lambda b, steps=3: attacks.nes(b, 21 * steps + 1, 10), _LINF),
    Case('spsa', lambda b, steps=3: attacks.spsa(b, 41 * steps + 1, 20, rate=0.3), _L2),
    *_minimum('deepfool', attacks.deepfool, 'l2 linf l1'),
    *_minimum('fab', attacks.fab, 'linf l2 l1'),
    *_minimum('fmn', attacks.fmn, 'l2 linf l1 l0'),
    *_minimum('ddn', attacks.ddn, 'l2'),
    *_minimum(
        'carlini_wagner', lambda b: attacks.carlini_wagner(b, 100, 20, c=0.1), 'l2 linf'
    ),
    *_minimum('ead', lambda b: attacks.ead(b, 60, 3, c=0.1), 'l1'),
    *_minimum('lbfgs', lambda b: attacks.lbfgs(b, 20, 5), 'l2'),
    *_minimum('jsma', lambda b: attacks.jsma(b, budget=0.5), 'l0'),
    *_minimum('boundary', lambda b: attacks.boundary(b, 300), 'l2'),
    *_minimum('hop_skip_jump', lambda b: attacks.hop_skip_jump(b, 600, 50), 'l2'),
    Case('masked', _pgd, masked(_LINF, _HALF)),
    Case(
        'autoattack',
        lambda b: attacks.autoattack(b, classes=CLASSES, steps=5, queries=20),
        _LINF,
        steps=False,
    ),
]


def margin(f, x, y):
    return np.asarray(losses.margin(f(x), y))


def feasible(case: Case) -> None:
    """Inside the ball and the range, and not the clean image again."""
    f, (x, y) = network(), images()
    adv = case.run(f, KEY, x, y)
    delta = np.asarray(adv, np.float64) - np.asarray(x, np.float64)
    flat = np.abs(delta.reshape(BATCH, -1))
    eps = np.asarray(case.ball.eps, np.float64)
    norm = {
        'Linf': flat.max(1),
        'L2': np.sqrt((flat**2).sum(1)),
        'L1': flat.sum(1),
        'L0': (flat > 0).sum(1),
    }[balls.kind(case.ball).capitalize()]
    assert (norm <= eps + balls.TOLERANCE * np.maximum(eps, 1)).all(), norm - eps
    # A minimum-norm attack returns the clean image where it found nothing.
    assert (norm > 0).mean() >= (0.3 if case.minimum else 1)
    if case.ball.bounds is not None:
        assert adv.min() >= 0
        assert adv.max() <= 1


def worse_for_the_model(case: Case) -> None:
    """The attack raises what it is judged by; noise of that size does not."""
    f, (x, y) = network(), images()
    noise = case.ball.sample(KEY, x)
    before = np.asarray(case.judge(f, x, y))
    adv = case.run(f, KEY, x, y)
    if case.minimum:
        moved = np.asarray((adv != x).any(axis=(1, 2, 3)))
        assert (margin(f, adv, y)[moved] > 0).all()
        return
    gained = np.asarray(case.judge(f, adv, y)) - before
    by_chance = np.asarray(case.judge(f, noise, y)) - before
    assert gained.mean() > 0
    assert gained.mean() > 2 * by_chance.mean()


def reaches_the_boundary(case: Case) -> None:
    """On a linear model enough steps end on the ball's boundary."""
    scale_free = 'dlr' in case.name  # May well have its maximum inside.
    early = ('nes', 'spsa', 'square', 'autoattack')  # Stop at the first success.
    if balls.kind(case.ball) == 'l0' or scale_free or case.minimum:
        return
    if case.name.split()[0] in early:
        return
    w = jax.random.normal(jax.random.key(3), (int(np.prod(SHAPE)), CLASSES))
    f = jax.tree_util.Partial(_linear, w)
    x, y = jnp.full_like(images()[0], 0.5), images()[1]
    options = {'steps': 8} if case.steps else {}
    adv = case.run(f, KEY, x, y, **options)
    assert np.asarray(case.ball.norm(adv - x)).min() >= 0.9 * np.min(case.ball.eps)


def _linear(w, x):
    return x.reshape(x.shape[0], -1) @ w


def zero_radius_is_identity(case: Case) -> None:
    """A ball of radius 0 returns the clean image bit for bit."""
    f, (x, y) = network(), images()
    still = case.at(balls.with_eps(case.ball, case.ball.eps * 0))
    np.testing.assert_array_equal(still.run(f, KEY, x, y), x)


def few_tiny_steps_stay_inside(case: Case) -> None:
    """Clip, do not normalise: two small steps from the clean image end near it."""
    if type(case.build(case.ball)) is not attacks.Ascent or not case.steps:
        return
    f, (x, y) = network(), images()
    attack = case.attack().replace(rate=jnp.float32(0.004), start=attacks.clean)
    moved = np.asarray(case.ball.norm(run(attack, f, KEY, x, y) - x))
    if balls.kind(case.ball) != 'l0':
        assert (moved <= 0.021 * np.asarray(case.ball.eps)).all()


def examples_are_independent(case: Case) -> None:
    """Example i alone = example i in any batch, order or padding.

    Values are compared, not pixels: a sign of a rounding error flips a pixel.
    """
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, BATCH)
    whole = case.run(f, each, x, y)
    scores = np.asarray(_margin(f, whole, y))
    for index in ([4, 2, 0, 5, 3, 1], [3], [1, 4, 1, 4, 1, 4]):
        index = np.array(index)
        part = case.at(balls.take(case.ball, index, BATCH))
        adv = part.run(f, each[index], x[index], y[index])
        np.testing.assert_allclose(
            _margin(f, adv, y[index]), scores[index], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(adv, whole[index], atol=1e-4)


def same_key_same_result(case: Case) -> None:
    """One key means one result, and labels are left as they were."""
    f, (x, y) = network(), images()
    before = np.array(y)
    first = case.run(f, KEY, x, y)
    np.testing.assert_array_equal(first, case.run(f, KEY, x, y))
    np.testing.assert_array_equal(y, before)


def jit_equals_eager(case: Case) -> None:
    """Compilation changes rounding at most."""
    f, (x, y) = network(), images()
    eager = case.attack()(case.sees(f), KEY, x, y)
    np.testing.assert_allclose(
        _margin(f, case.run(f, KEY, x, y), y),
        _margin(f, eager, y),
        rtol=1e-4,
        atol=1e-5,
    )


def sweeps_compile_once(case: Case) -> None:
    """Radii share one program; and vmap over radii is the loop over them."""
    f, (x, y) = network(), images()
    attack, sees = case.attack(), case.sees(f)
    whole = balls.kind(case.ball) == 'l0'
    factors = [1 / 3, 1.0, 2.0] if whole else [0.5, 1.0, 2.0]
    radii = [jnp.asarray(case.ball.eps * k, jnp.float32) for k in factors]
    run(attack, sees, KEY, x, y)
    before = run._cache_size()
    alone = [run(balls.with_eps(attack, eps), sees, KEY, x, y) for eps in radii]
    assert run._cache_size() == before
    together = jax.jit(
        jax.vmap(lambda eps: balls.with_eps(attack, eps)(sees, KEY, x, y))
    )(jnp.stack(radii))
    for one, swept in zip(alone, together, strict=True):
        if case.minimum:  # Its margin is rounding, its distance is not.
            norms = [np.asarray(case.ball.norm(a - x)) for a in (one, swept)]
            np.testing.assert_allclose(*norms, rtol=1e-3, atol=1e-4)
            continue
        np.testing.assert_allclose(
            _margin(f, one, y), _margin(f, swept, y), rtol=1e-3, atol=1e-4
        )


def more_is_never_weaker(case: Case) -> None:
    """More steps or restarts at the same step size never lower the margin."""
    f, (x, y) = network(), images()
    for option in ['steps'] * case.steps + ['count'] * case.restarts:
        keeps = getattr(case.attack(), 'keep_best', case.restarts)
        if not keeps or case.name == 'eot':
            return  # The last iterate, or one ranked through noise, may be worse.
        scores = []
        for amount in (2, 3, 5):
            attack = case.attack(**{option: amount})
            if type(attack) is attacks.Ascent:
                # Steps this long overshoot, so that the last iterate is not the best.
                attack = attack.replace(rate=jnp.float32(1.7))
            adv = run(attack, case.sees(f), KEY, x, y)
            scores.append(np.asarray(_margin(case.sees(f), adv, y)))
        assert (np.diff(scores, axis=0) >= -1e-5).all()


def larger_radius_is_not_weaker(case: Case) -> None:
    """Averaged over examples, a larger ball holds a worse point, or more of them."""
    f, (x, y) = network(), images()
    means = []
    for factor in (1, 2, 3):
        larger = case.at(balls.with_eps(case.ball, case.ball.eps * factor))
        if case.minimum:
            found = larger.run(f, KEY, x, y) != x
            means.append(float(found.any(axis=(1, 2, 3)).mean()))
            continue
        means.append(np.mean(case.judge(f, larger.run(f, KEY, x, y), y)))
    if case.minimum:
        assert means == sorted(means)
        assert means[-1] > 0.5
    else:
        assert means[0] < means[1] < means[2]


def nan_logits_do_not_spread(case: Case) -> None:
    """Examples whose logits are NaN stay feasible; the others are as without them."""
    x, y = images()
    f = network(nan_above=0.8)
    bright, dark = x.at[2].set(0.9), x.at[2].set(0.1)
    case = case.at(balls.with_eps(case.ball, jnp.minimum(case.ball.eps, 0.01)))
    adv = case.run(f, KEY, bright, y)
    expected = case.run(f, KEY, dark, y)
    assert np.isfinite(adv).all()
    assert np.asarray(case.ball.contains(adv, bright)).all()
    others = np.array([0, 1, 3, 4, 5])
    np.testing.assert_allclose(adv[others], expected[others], atol=1e-6)


def constant_model_is_survived(case: Case) -> None:
    """Without a gradient the result is still feasible and finite."""
    x, y = images()
    adv = case.run(network(scale=0.0), KEY, x, y)
    assert np.isfinite(adv).all()
    assert np.asarray(case.ball.contains(adv, x)).all()


CHECKS = [
    feasible,
    worse_for_the_model,
    reaches_the_boundary,
    zero_radius_is_identity,
    few_tiny_steps_stay_inside,
    examples_are_independent,
    same_key_same_result,
    jit_equals_eager,
    sweeps_compile_once,
    more_is_never_weaker,
    larger_radius_is_not_weaker,
    nan_logits_do_not_spread,
    constant_model_is_survived,
]
