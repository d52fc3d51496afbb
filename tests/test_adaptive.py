"""Tools of the adaptive attacker, and attacks beyond one array in one norm ball."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from advjax import attacks, balls, data, keys, losses, masks
from advjax.attacks.spatial import move
from tests.contract import BATCH, CLASSES, KEY, SHAPE, images, margin, network, run

SIZE = int(np.prod(SHAPE))

# -------------------------------------------------------------------------------- BPDA


def steps(x):
    return jnp.round(x * 7) / 7


def test_bpda_has_the_value_of_one_and_the_gradient_of_another():
    x, _ = images()
    for backward, slope in ((None, jnp.ones_like), (jnp.sin, jnp.cos)):
        swapped = attacks.bpda(steps, backward)
        np.testing.assert_array_equal(jax.jit(swapped)(x), jax.jit(steps)(x))
        value, pull = jax.vjp(jax.jit(swapped), x)
        np.testing.assert_array_equal(value, jax.jit(steps)(x))
        np.testing.assert_allclose(pull(jnp.full_like(x, 3.0))[0], 3 * slope(x), 1e-6)
    assert not np.asarray(jax.grad(lambda x: jnp.sum(steps(x)))(x)).any()


def test_bpda_refuses_another_shape():
    x, _ = images()
    swapped = attacks.bpda(steps, lambda x: x[:, :2])
    message = (
        r'backward must return the shape of fn, \(6, 4, 5, 1\), got \(6, 2, 5, 1\)'
    )
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda x: jnp.sum(swapped(x)))(x)


def _defended(f, x):
    return f(steps(x))


def _circumvented(f, x):
    return f(attacks.bpda(steps)(x))


def test_bpda_breaks_a_defence_without_gradients():
    f, (x, _) = network(), images()
    shielded, opened = (jax.tree_util.Partial(g, f) for g in (_defended, _circumvented))
    y = jnp.argmax(shielded(x), axis=1)
    attack = attacks.pgd(balls.linf(0.15), 10, start=attacks.starts.clean)
    blind = run(attack, shielded, KEY, x, y)
    np.testing.assert_array_equal(blind, x)
    seeing = run(attack, opened, KEY, x, y)
    gained = margin(shielded, seeing, y) - margin(shielded, x, y)
    assert (gained > 0).all()
    assert (margin(shielded, seeing, y) > 0).any()


# ---------------------------------------------------------------------- scale of logits


@jax.jit
def slope_of(f, x, y):
    return jax.grad(lambda x: jnp.sum(losses.cross_entropy(f(x), y)))(x)


def test_rescaling_brings_back_the_gradient():
    f, (x, y) = network(), images()
    saturated = network(scale=1e4)
    assert (np.asarray(slope_of(saturated, x, y)) == 0).all()
    again = attacks.rescaled(saturated, 1e4)
    expected = np.asarray(slope_of(f, x, y))
    np.testing.assert_allclose(slope_of(again, x, y), expected, atol=1e-5)
    attack = attacks.fgsm(0.1)
    np.testing.assert_array_equal(run(attack, saturated, KEY, x, y), x)
    adv = run(attack, again, KEY, x, y)
    assert (np.abs(adv - run(attack, f, KEY, x, y)) > 1e-3).mean() < 0.02
    with pytest.raises(ValueError, match='temperature must be > 0, got 0'):
        attacks.rescaled(f, 0.0)


# --------------------------------------------------------------------------------- EOT


def _noisy(f, key, image):
    return f(image + 0.3 * jax.random.normal(key, image.shape))


def test_eot_averages_loss_and_gradient_over_an_examples_own_draws():
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, BATCH)
    randomised = attacks.eot(jax.tree_util.Partial(_noisy, f), 5)

    @jax.jit
    def seen(f, key, x, y):
        goal = attacks.goal(f, y, loss=losses.cross_entropy)
        return jax.value_and_grad(lambda x: jnp.sum(goal.value(x, key)))(x)

    value, slope = seen(randomised, each, x, y)
    total, gradient = 0.0, np.zeros(x.shape)
    for draw in range(5):
        own = keys.fold(each, draw)
        noise = 0.3 * keys.draw(lambda k: jax.random.normal(k, (1, *SHAPE)), own)[:, 0]
        total += float(jnp.sum(losses.cross_entropy(f(x + noise), y))) / 5
        gradient += np.asarray(slope_of(f, x + noise, y)) / 5
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(slope, gradient, atol=1e-5)


# --------------------------------------------------------------------------- quantised


def levels_of(x):
    return np.round(np.asarray(x, np.float64) * 255).astype(np.uint8)


@functools.cache
def whole_images():
    """Images of whole levels, as decoded ones are."""
    x, _ = images(seed=9)
    x = jnp.asarray(np.float32(levels_of(x)) / np.float32(255))
    return x, jnp.argmax(network()(x), axis=1).astype(jnp.int32)


INNER = {
    'pgd linf': attacks.pgd(balls.linf(8 / 255), 8),
    'pgd l2': attacks.pgd(balls.l2(0.3), 8),
    'apgd l1': attacks.apgd(balls.l1(0.8), 10),
    'ddn': attacks.ddn(balls.l2(1.0), 30),
    'fab': attacks.fab(balls.linf(0.3), 10),
}


@pytest.mark.parametrize('name', INNER)
def test_quantised_results_survive_the_round_trip(name):
    f, (x, y) = network(), whole_images()
    attack = INNER[name]
    ball = balls.of(attack)[0]
    plain = run(attack, f, KEY, x, y)
    adv = run(attacks.quantised(attack), f, KEY, x, y)
    np.testing.assert_allclose(adv, levels_of(adv) / 255.0, atol=1e-6)
    decoded = jnp.asarray(np.float32(levels_of(adv)) / np.float32(255))
    assert np.asarray(ball.contains(adv, x)).all()
    assert np.asarray(ball.contains(decoded, x)).all()
    np.testing.assert_array_equal(
        jnp.argmax(f(decoded), axis=1), jnp.argmax(f(adv), axis=1)
    )
    # Where there is room to speak of, the grid costs no success.
    before, after = margin(f, plain, y), margin(f, decoded, y)
    assert before.max() > 0
    if name in ('ddn', 'fab'):
        assert (before > 0).all()
        assert (after > 0).all()
    else:
        assert (after[before > 0.05] > 0).all()


def test_levels_are_those_of_decoded_images_to_the_last_bit():
    """So that a pixel that did not move is the same number as before."""
    f = network()
    levels = np.random.default_rng(0).permutation(np.arange(BATCH * SIZE) % 256)
    x = jnp.asarray(data.to_float(np.uint8(levels.reshape(BATCH, *SHAPE))))
    y = jnp.argmax(f(x), axis=1).astype(jnp.int32)
    adv = run(attacks.quantised(INNER['pgd linf']), f, KEY, x, y)
    np.testing.assert_array_equal(adv, data.to_float(levels_of(adv)))


def test_few_levels():
    f = network()
    x = jnp.asarray(np.round(np.asarray(images()[0]) * 3) / 3, jnp.float32)
    y = jnp.argmax(f(x), axis=1)
    attack = attacks.quantised(attacks.pgd(balls.linf(0.5), 10), levels=4)
    adv = np.asarray(run(attack, f, KEY, x, y))
    np.testing.assert_allclose(adv * 3, np.round(adv * 3), atol=1e-5)
    assert (margin(f, adv, y) > margin(f, x, y)).all()


def test_quantised_needs_a_range_and_counts_its_calls():
    f, (x, y) = network(), whole_images()
    free = attacks.quantised(attacks.pgd(balls.linf(0.1, bounds=None), 2))
    with pytest.raises(ValueError, match='attack must have a ball with bounds'):
        free(f, KEY, x, y)
    with pytest.raises(ValueError, match='levels must be an integer >= 2, got 1'):
        attacks.quantised(INNER['ddn'], levels=1)
    seen = []

    def counting(x):
        jax.debug.callback(lambda: seen.append(1))
        return f(x)

    attack = attacks.quantised(attacks.pgd(balls.linf(0.1), 2), repairs=2)
    jax.jit(lambda: attack(counting, KEY, x, y))()
    jax.effects_barrier()
    assert len(seen) == attack.calls


# ------------------------------------------------------------------------------- masks

MASK = np.zeros((1, *SHAPE), bool)
MASK[0, 1:, :3] = True


def masked(ball):
    return masks.masked(ball, MASK)


MASKED = {
    'pgd linf': lambda: attacks.pgd(masked(balls.linf(0.3)), 8),
    'pgd l2': lambda: attacks.pgd(masked(balls.l2(0.8)), 8),
    'pgd_l1': lambda: attacks.pgd_l1(masked(balls.l1(1.5)), 8),
    'pgd_l0': lambda: attacks.pgd_l0(masked(balls.l0(4)), 8),
    'adam_pgd': lambda: attacks.adam_pgd(masked(balls.linf(0.3)), 8),
    'mi_fgsm': lambda: attacks.mi_fgsm(masked(balls.linf(0.3)), 8),
    'apgd linf': lambda: attacks.apgd(masked(balls.linf(0.3)), 10),
    'apgd l2': lambda: attacks.apgd(masked(balls.l2(0.8)), 10),
    'apgd l1': lambda: attacks.apgd(masked(balls.l1(1.5)), 10),
    'frank_wolfe': lambda: attacks.frank_wolfe(masked(balls.l2(0.8)), 8),
    'fab linf': lambda: attacks.fab(masked(balls.linf(0.9)), 15),
    'fab l2': lambda: attacks.fab(masked(balls.l2(2.0)), 15, random_start=True),
    'ddn': lambda: attacks.ddn(masked(balls.l2(2.0)), 40),
    'fmn': lambda: attacks.fmn(masked(balls.l2(2.0)), 40),
    'deepfool': lambda: attacks.deepfool(masked(balls.l2(2.0)), 10),
    'cw': lambda: attacks.carlini_wagner(masked(balls.l2(2.0)), 40, 3, c=1.0),
    'ead': lambda: attacks.ead(masked(balls.l1(5.0)), 40, 3, c=1.0, rate=0.05),
    'lbfgs': lambda: attacks.lbfgs(masked(balls.l2(2.0)), 10, 3, c=1.0),
    'jsma': lambda: attacks.jsma(masked(balls.l0(8)), budget=0.5),
    'square linf': lambda: attacks.square(masked(balls.linf(0.3)), 60),
    'square l2': lambda: attacks.square(masked(balls.l2(1.0)), 60),
    'nes': lambda: attacks.nes(masked(balls.linf(0.3)), 200, samples=8, rate=0.3),
    'random_search': lambda: attacks.random_search(masked(balls.linf(0.9)), 50),
    'boundary': lambda: attacks.boundary(masked(balls.l2(3.0)), 200),
    'hop_skip_jump': lambda: attacks.hop_skip_jump(masked(balls.l2(3.0)), 300, 20),
}  # fmt: skip


@pytest.mark.parametrize('name', MASKED)
def test_masked_pixels_are_never_touched(name):
    f, (x, y) = network(), images()
    attack = MASKED[name]()
    adv = np.asarray(run(attack, f, KEY, x, y))
    kept = np.broadcast_to(~MASK, x.shape)
    np.testing.assert_array_equal(adv[kept], np.asarray(x)[kept])
    assert np.asarray(balls.of(attack)[0].contains(jnp.asarray(adv), x)).all()
    gained = margin(f, adv, y) - margin(f, x, y)
    assert gained.mean() > 0.05
    assert (adv != np.asarray(x)).any(axis=(1, 2, 3)).sum() >= 2


def test_masks_per_example_and_bad_ones():
    f, (x, y) = network(), images()
    each = np.random.default_rng(0).uniform(size=x.shape) > 0.5
    adv = run(attacks.fgsm(masks.masked(balls.linf(0.1), each)), f, KEY, x, y)
    np.testing.assert_array_equal(np.asarray(adv != x), each)
    with pytest.raises(ValueError, match='mask must be an array of bool'):
        masks.masked(0.1, np.ones((1, *SHAPE)))
    with pytest.raises(ValueError, match='mask must have the rank of x, 4'):
        attacks.fgsm(masks.masked(0.1, MASK[0]))(f, KEY, x, y)


# ----------------------------------------------------------------------------- spatial


@pytest.mark.parametrize('pose', [(0, 0, 0), (0, 1.5, -2.25), (30, 0, 0), (-75, 0, 0)])
def test_moves_are_those_of_scipy(pose):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.uniform(size=(2, 9, 7, 2)))
    got = jax.jit(move)(x, jnp.float32([pose, pose]))
    degrees, down, right = pose
    # Also beyond the edges: what lies there is zero, interpolated as any pixel.
    options = {'order': 1, 'mode': 'grid-constant', 'prefilter': False}
    for image, moved in zip(np.float64(x), np.asarray(got), strict=True):
        if degrees:
            expected = ndimage.rotate(image, degrees, reshape=False, **options)
        else:
            expected = ndimage.shift(image, (down, right, 0), **options)
        np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_turns_are_counter_clockwise_and_shifts_down_and_right():
    x = jnp.zeros((1, 5, 5, 1)).at[0, 0, 2].set(1.0)
    turned = np.asarray(move(x, jnp.float32([[90.0, 0, 0]])))[0, :, :, 0]
    np.testing.assert_allclose(turned[2, 0], 1, atol=1e-5)
    shifted = np.asarray(move(x, jnp.float32([[0, 2.0, -1.0]])))[0, :, :, 0]
    np.testing.assert_allclose(shifted[2, 1], 1, atol=1e-6)


SEARCHES = {
    'grid': attacks.spatial(25.0, 1.0, counts=(5, 3, 3)),
    'random': attacks.spatial(25.0, 1.0, 'random', 20),
    'gradient': attacks.spatial(25.0, 1.0, 'gradient', 15),
}


@pytest.mark.parametrize('name', SEARCHES)
def test_poses_stay_within_their_ranges(name):
    f, (x, y) = network(), images()
    attack = SEARCHES[name]
    pose = np.asarray(jax.jit(lambda f, x, y: attack.find(f, x, y, key=KEY))(f, x, y))
    assert (np.abs(pose) <= np.array([[25, 1, 1]]) * (1 + 1e-6)).all()
    adv = run(attack, f, KEY, x, y)
    np.testing.assert_allclose(adv, move(x, jnp.asarray(pose)), atol=1e-5)
    assert adv.min() >= 0
    assert adv.max() <= 1 + 1e-6
    if name == 'grid':
        # By hand: the pose of largest margin among all 45.
        axes = [np.linspace(-25, 25, 5), *[np.linspace(-1, 1, 3)] * 2]
        poses = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
        look = jax.jit(lambda x, p: losses.margin(f(move(x, p)), y))
        scores = [
            look(x, jnp.broadcast_to(jnp.float32(p)[None], (BATCH, 3))) for p in poses
        ]
        np.testing.assert_allclose(margin(f, adv, y), np.max(scores, 0), atol=1e-4)
    else:
        assert len({tuple(p) for p in pose.round(4).tolist()}) == BATCH
    # Not worse than the image itself, which a grid of odd counts contains.
    if name != 'random':
        assert (margin(f, adv, y) >= margin(f, x, y) - 1e-5).all()


BAD_SPATIAL = [
    ({'search': 'best'}, "search must be one of .*got 'best'"),
    ({'counts': 7}, "counts must be 3 numbers for 'grid'"),
    ({'counts': (3, 0, 3)}, 'counts must be an integer >= 1, got 0'),
    ({'degrees': -1.0}, 'degrees and pixels must be >= 0, got -1.0 and 3.0'),
]


@pytest.mark.parametrize(('options', 'message'), BAD_SPATIAL)
def test_bad_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attacks.spatial(**options)


# --------------------------------------------------------------------------- universal


@pytest.mark.parametrize('ball', [balls.linf(0.2), balls.l2(0.8)], ids=['linf', 'l2'])
def test_one_perturbation_for_all(ball):
    f, (x, y) = network(), images(batch=40)
    attack = attacks.universal(ball, 60, batch=16)
    delta = jax.jit(lambda f, x, y: attack.fit(f, x, y, key=KEY))(f, x, y)
    assert delta.shape == (1, *SHAPE)
    assert float(ball.norm(delta)[0]) <= float(ball.eps) * (1 + 1e-6)
    adv = run(attack, f, KEY, x, y)
    assert np.asarray(ball.contains(adv, x)).all()
    np.testing.assert_allclose(adv, np.clip(x + delta, 0, 1), atol=1e-6)
    # It carries over to images it has not seen, and beats noise of its size.
    other, labels = images(seed=8, batch=40)
    hit = margin(f, attack.apply(other, delta), labels).mean()
    noise = margin(f, ball.sample(KEY, other), labels).mean()
    clean = margin(f, other, labels).mean()
    assert hit - clean > 4 * abs(noise - clean)


def test_the_cut_limits_what_an_image_counts():
    f, (x, y) = network(scale=3.0), images(batch=8)
    wrong = y.at[0].set((y[0] + 1) % CLASSES)
    ball = balls.linf(0.2)
    fits = [
        attacks.universal(ball, 20, batch=8, most=most).fit(f, x, wrong, key=KEY)
        for most in (float('inf'), 1e-6)
    ]
    assert np.abs(fits[0]).max() > 0.1
    # With the cut below every loss there is nothing left to gain.
    start = attacks.universal(ball.unbounded(), 20, batch=8).ascent.replace(steps=0)
    first = keys.per_example(KEY, 8)[0]
    start = start.maximize(lambda d: jnp.zeros(1), first, jnp.zeros((1, *SHAPE)))
    np.testing.assert_allclose(fits[1], start, atol=1e-6)
    with pytest.raises(ValueError, match='most must be a number > 0, got 0'):
        attacks.universal(0.1, most=0.0)


# -------------------------------------------------------------------------------- tree


def tree():
    rng = np.random.default_rng(0)
    return {
        'a': jnp.float32(rng.normal(size=(3, 2))),
        'b': {'kernel': jnp.float32(rng.normal(size=(4,))), 'count': jnp.array(7)},
        'c': [jnp.float32(rng.normal(size=(2, 2, 2)))],
    }


def slopes():
    rng = np.random.default_rng(1)
    return {'a': rng.normal(size=(3, 2)), 'kernel': rng.normal(size=4)}


def linear(leaves):
    w = slopes()
    return (
        jnp.sum(jnp.float32(w['a']) * leaves['a'])
        + jnp.sum(jnp.float32(w['kernel']) * leaves['b']['kernel'])
        + jnp.sum(leaves['c'][0] ** 2)
    )


def test_chosen_leaves_share_one_ball():
    """The maximum of <w, delta> over a joint L2 ball is eps w / |w|."""
    before, w, eps = tree(), slopes(), 0.7
    attack = attacks.pgd(balls.l2(eps, bounds=None), 5, start=attacks.starts.clean)
    seen = []

    def chosen(path, leaf):
        seen.append((path, leaf.shape))
        return path in ("['a']", "['b']['kernel']")

    after = attacks.perturb(attack, linear, before, chosen, key=KEY)
    assert ("['c'][0]", (2, 2, 2)) in seen
    assert jax.tree.structure(after) == jax.tree.structure(before)
    length = np.sqrt(sum(np.sum(v**2) for v in w.values()))
    for name, new, old in (
        ('a', after['a'], before['a']),
        ('kernel', after['b']['kernel'], before['b']['kernel']),
    ):
        np.testing.assert_allclose(new - old, eps * w[name] / length, atol=1e-5)
    np.testing.assert_array_equal(after['c'][0], before['c'][0])
    np.testing.assert_array_equal(after['b']['count'], 7)
    assert after['b']['count'].dtype == before['b']['count'].dtype


def test_batched_leaves_have_balls_of_their_own():
    rng = np.random.default_rng(2)
    before = {k: jnp.float32(rng.normal(size=(3, n))) for k, n in (('u', 2), ('v', 4))}
    w = {k: rng.normal(size=v.shape) for k, v in before.items()}

    def objective(leaves):
        return sum(jnp.sum(jnp.float32(w[k]) * leaves[k], axis=1) for k in w)

    eps = np.float32([0.1, 0.5, 1.0])
    attack = attacks.fgm(balls.l2(eps, bounds=None))
    after = attacks.perturb(attack, objective, before, key=KEY, batched=True)
    length = np.sqrt(sum((v**2).sum(1) for v in w.values()))
    for k in w:
        expected = (eps / length)[:, None] * w[k]
        np.testing.assert_allclose(after[k] - before[k], expected, atol=1e-5)


def test_trees_keep_their_types_and_bad_ones_are_refused():
    half = {'w': jnp.ones((3,), jnp.bfloat16), 'v': jnp.ones((2,))}
    attack = attacks.fgm(balls.linf(0.25, bounds=None))
    after = attacks.perturb(
        attack,
        lambda t: jnp.sum(t['w'].astype(jnp.float32)) - jnp.sum(t['v']),
        half,
        key=KEY,
    )
    assert after['w'].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(after['w']), 1.25)
    np.testing.assert_allclose(after['v'], 0.75)
    with pytest.raises(ValueError, match='where must choose at least one leaf'):
        attacks.perturb(attack, linear, tree(), lambda path, leaf: False, key=KEY)
    with pytest.raises(ValueError, match='batched leaves must agree'):
        attacks.perturb(
            attack, linear, tree(), lambda p, leaf: leaf.ndim, key=KEY, batched=True
        )
