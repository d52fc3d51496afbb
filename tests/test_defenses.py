"""Defences: what each computes, against independent oracles, and what breaks it."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import fft, optimize

from advjax import attacks, data, defenses, evaluation, losses, models, training, zoo
from advjax.defenses.activations import with_noise
from advjax.defenses.bit_depth import Rounded
from advjax.defenses.jpeg import Compressed, cosines, table
from advjax.defenses.pruning import kept_with
from advjax.defenses.resize_pad import Resized
from advjax.defenses.thermometer import Code, Ramp
from advjax.defenses.total_variation import Smoothed, objective
from tests.contract import KEY

EPS = 0.25


@functools.cache
def digits():
    """Test images in [0, 1] and labels."""
    test = data.load('digits', 'test')
    return jnp.asarray(data.to_float(test.images[:50])), test.labels[:50]


def _trained(model, name):
    train, held_out = data.split_held_out(data.load('digits', 'train'), 100, seed=0)
    return training.fit(
        training.standard(),
        model,
        optax.adam(3e-3),
        train,
        held_out,
        key=KEY,
        epochs=10,
        batch_size=64,
    ).logits_fn


@functools.cache
def network():
    """A ReLU network that was trained on digits without any defence."""
    return _trained(zoo.mlp((8, 8, 1), 10, (64, 64)), 'plain')


@functools.cache
def on_codes():
    """A network that was trained on thermometer codes of digits."""
    inner = zoo.mlp((8, 8, 8), 10, (64, 64))
    fit = _trained(defenses.thermometer_model(inner, 8), 'codes')
    params, state = fit.args
    return models.logits_fn(inner, params, state)


@functools.cache
def generator():
    images = jnp.asarray(data.to_float(data.load('digits', 'train').images))
    train = functools.partial(defenses.train_decoder, latent=10, hidden=64, steps=1500)
    return jax.jit(train)(images, key=KEY)


DEFENSES = {
    'thermometer': lambda: defenses.thermometer(on_codes(), 8),
    'bit_depth': lambda: defenses.bit_depth(network(), 2),
    'jpeg': lambda: defenses.jpeg(network(), 50),
    'total_variation': lambda: defenses.total_variation(
        network(), 0.01, 0.9, 8, answers=3, draws=4
    ),
    'resize_pad': lambda: defenses.resize_pad(network(), 0.9, answers=3, draws=4),
    'activation_pruning': lambda: defenses.activation_pruning(
        network(), 1.0, answers=3, draws=4
    ),
    'dropout': lambda: defenses.dropout(network(), 0.3, answers=3, draws=4),
    'saturated': lambda: defenses.saturated(network(), 1000.0),
    'projection': lambda: defenses.projection(network(), generator(), steps=40),
}


@jax.jit
def slope(f, x, y):
    goal = attacks.goal(f, y, loss=losses.cross_entropy)
    return jax.grad(lambda x: jnp.sum(goal.value(x, KEY)))(x)


logits_of = jax.jit(lambda f, x: f(x))

# ------------------------------------------------------------------------- all of them


@pytest.mark.parametrize('name', DEFENSES)
def test_the_adaptive_attack_breaks_what_the_naive_one_leaves(name):
    defended, (x, y) = DEFENSES[name](), digits()
    attack = attacks.pgd(EPS, 10)
    both = {
        'naive': defended.naively(attack),
        'adaptive': defended.adaptively(attack),
    }
    found = evaluation.evaluate(defended.deployed, x, y, both, key=KEY, batch_size=50)
    assert found.clean_accuracy > 0.75
    assert found.accuracy('adaptive') < 0.25
    if name in ('resize_pad', 'activation_pruning', 'dropout'):
        # On so easy a network one draw leads nearly as far as many.
        assert found.accuracy('naive') >= found.accuracy('adaptive')
    else:
        assert found.accuracy('naive') > 0.5


@pytest.mark.parametrize('name', DEFENSES)
def test_an_example_is_answered_alone_as_in_any_batch(name):
    defended, (x, _) = DEFENSES[name](), digits()
    order = np.array([5, 3, 3, 0, 9, 8])
    whole = np.asarray(logits_of(defended.deployed, x[:6]))
    np.testing.assert_array_equal(whole, logits_of(defended.deployed, x[:6]))
    part = np.asarray(logits_of(defended.deployed, x[order]))
    alike = [0, 1, 2, 3]
    np.testing.assert_allclose(
        part[alike], whole[order[alike]], rtol=1e-4, atol=1e-3 * np.abs(whole).max()
    )


@pytest.mark.parametrize('name', ['thermometer', 'bit_depth', 'jpeg', 'projection'])
def test_deterministic_ones_have_no_gradient_until_it_is_swapped(name):
    defended, (x, y) = DEFENSES[name](), digits()
    np.testing.assert_array_equal(
        logits_of(defended.deployed, x[:9]), logits_of(defended.adaptive, x[:9])
    )
    assert not np.asarray(slope(defended.naive, x[:9], y[:9])).any()
    followed = np.asarray(slope(defended.adaptive, x[:9], y[:9]))
    assert (np.abs(followed).max(axis=(1, 2, 3)) > 0).all()


# ------------------------------------------------------------------ the two combinators


def test_preprocessed_puts_any_transformation_in_front():
    f, (x, y) = network(), digits()
    defended = defenses.preprocessed(f, jnp.sqrt, lambda x: 3 * x)
    np.testing.assert_array_equal(
        logits_of(defended.deployed, x), logits_of(f, jax.jit(jnp.sqrt)(x))
    )
    expected = 3 * np.asarray(slope(f, jnp.sqrt(x), y))
    np.testing.assert_allclose(
        slope(defended.adaptive, x, y), expected, rtol=1e-4, atol=1e-6
    )


def _noisy(f, key, x):
    return f(x + 0.1 * jax.random.normal(key, x.shape))


def test_randomised_models_answer_by_draws_of_their_own():
    f, (x, _) = network(), digits()
    fn = jax.tree_util.Partial(_noisy, f)
    defended = defenses.randomised(fn, answers=7, draws=5)
    assert defended.deployed.samples == 7
    assert defended.adaptive.samples == 5
    np.testing.assert_array_equal(
        logits_of(defended.deployed, x), logits_of(attacks.eot(fn, 7), x)
    )
    # The frozen draw is one for all images, and none of those that answer.
    noise = logits_of(defended.naive, jnp.zeros_like(x))
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:1], noise.shape), 1e-4)
    fixed = jnp.broadcast_to(jax.random.key(0), (1,))
    answers = attacks.eot(fn, 7).sample(fixed, jnp.zeros_like(x[:1]))
    assert (np.abs(answers[:, 0] - noise[:1]).max(axis=1) > 1e-3).all()
    seen = defenses.randomised(fn, lambda key, x: 2 * _noisy(f, key, x), draws=1)
    np.testing.assert_allclose(
        seen.adaptive.sample(KEY, x), 2 * attacks.eot(fn, 1).sample(KEY, x), 1e-5
    )


def test_numbers_of_draws_are_checked():
    for option in ('answers', 'draws'):
        with pytest.raises(ValueError, match=f'{option} must be an integer >= 1'):
            defenses.randomised(_noisy, **{option: 0})


def test_surrogates_see_no_other_model_and_pass_targets_on():
    f, (x, y) = network(), digits()
    attack = attacks.surrogate(attacks.fgsm(0.1), f)
    expected = attacks.fgsm(0.1)(f, KEY, x, y)
    # pyrefly: ignore[division-by-zero]
    np.testing.assert_array_equal(attack(lambda x: x / 0, KEY, x, y), expected)
    aimed = attack(lambda x: x, KEY, x, y, target=(y + 1) % 10)
    np.testing.assert_array_equal(
        aimed, attacks.fgsm(0.1)(f, KEY, x, y, target=(y + 1) % 10)
    )
    assert attack.calls == 1
    assert (np.asarray(aimed) != np.asarray(expected)).any()


# ---------------------------------------------------------------- bit depth, saturation


def test_bits():
    x = np.linspace(0, 1, 101, dtype=np.float32)[:, None]
    for bits in (1, 3):
        steps = 2**bits - 1
        found = np.asarray(Rounded(jnp.float32(steps))(jnp.asarray(x)))
        assert len(np.unique(found)) == 2**bits
        assert np.abs(found - x).max() <= 0.5 / steps + 1e-6
    with pytest.raises(ValueError, match='bits must be an integer >= 1, got 0'):
        defenses.bit_depth(network(), 0)


def test_saturated_logits_keep_answers_and_lose_gradients():
    f, (x, y) = network(), digits()
    defended = defenses.saturated(f, 1000.0)
    right = np.asarray(logits_of(f, x)).argmax(1) == y
    np.testing.assert_allclose(
        logits_of(defended.deployed, x), 1000 * logits_of(f, x), 1e-4
    )
    lost = ~np.asarray(slope(defended.naive, x, y)).any(axis=(1, 2, 3))
    assert lost[right].mean() > 0.9
    np.testing.assert_allclose(
        slope(defended.adaptive, x, y), slope(f, x, y), rtol=1e-3, atol=1e-5
    )
    for factor in (0, float('inf'), float('nan')):
        with pytest.raises(ValueError, match='factor must be a finite number > 0'):
            defenses.saturated(f, factor)


# -------------------------------------------------------------------------------- JPEG


def test_cosines_are_the_orthonormal_transform():
    x = np.random.default_rng(0).normal(size=(8, 8))
    d = cosines()
    np.testing.assert_allclose(d @ x @ d.T, fft.dctn(x, norm='ortho'), atol=1e-5)


@pytest.mark.parametrize('quality', [10, 50, 75, 95])
def test_jpeg_is_that_of_the_reference_implementation(quality):
    image = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(quality)
    blocks = np.kron(rng.uniform(20, 235, (6, 5)), np.ones((4, 4)))
    # Sides of 24 and 20: the last blocks have to be filled up.
    levels = np.uint8(np.clip(blocks + rng.normal(0, 6, blocks.shape), 0, 255))
    file = io.BytesIO()
    image.fromarray(levels).save(file, 'JPEG', quality=quality)
    opened = image.open(io.BytesIO(file.getvalue()))
    np.testing.assert_array_equal(
        np.asarray(opened.quantization[0]).reshape(8, 8), table(quality)
    )
    compressed = Compressed(jnp.asarray(table(quality)))
    ours = compressed(jnp.asarray(data.to_float(levels[None, ..., None])))
    difference = np.asarray(ours)[0, ..., 0] * 255 - np.asarray(opened, float)
    assert np.median(np.abs(difference)) <= 1
    # The reference computes in integers: a coefficient that lies halfway between two
    # steps may go the other way. None goes further, and few do.
    whole = difference[:, :16].reshape(3, 8, 2, 8).swapaxes(1, 2)
    off = cosines() @ whole @ cosines().T / table(quality)
    rounded = np.abs(off) > 0.5 + 1 / table(quality)
    assert rounded.mean() < 0.01
    assert (np.abs(off) <= 1 + 2 / table(quality)).all()


def test_qualities_are_checked():
    for quality in (0, 101, 50.5):
        with pytest.raises(
            ValueError, match='quality must be an integer from 1 to 100'
        ):
            defenses.jpeg(network(), quality)


# ------------------------------------------------------------------------- thermometer


def test_codes_fill_up_to_the_level():
    x = jnp.asarray([[[0.0, 0.24], [0.26, 0.5]], [[0.74, 1.0], [0.1, 0.9]]])
    code = Code(4)(x)
    assert code.shape == (2, 2, 8)
    levels = np.minimum(np.floor(np.asarray(x) * 4), 3)
    np.testing.assert_array_equal(code.reshape(2, 2, 2, 4).sum(-1), levels + 1)
    assert (np.diff(code.reshape(2, 2, 2, 4), axis=-1) <= 0).all()


def test_ramps_rise_in_the_level_of_the_pixel():
    x = jnp.asarray([[0.3], [0.9]])
    jacobian = jax.vmap(jax.jacobian(lambda x: Ramp(4)(x[None])[0]))(x)
    np.testing.assert_allclose(jacobian[..., 0], [[0, 4, 0, 0], [0, 0, 0, 4]])
    assert np.abs(Ramp(4)(x) - Code(4)(x)).max() <= 1


def test_a_model_on_codes_is_trained_as_any_other():
    inner = zoo.mlp((8, 8, 8), 10, (64, 64))
    model = defenses.thermometer_model(inner, 8)
    assert model is defenses.thermometer_model(inner, 8)
    params, state = model.init(KEY)
    x, _ = digits()
    whole = models.logits_fn(model, params, state)(x)
    apart = defenses.thermometer(models.logits_fn(inner, params, state), 8)
    np.testing.assert_array_equal(whole, apart.deployed(x))
    with pytest.raises(ValueError, match='levels must be an integer >= 2, got 1'):
        defenses.thermometer_model(inner, 1)
    with pytest.raises(ValueError, match='levels must be an integer >= 2, got 1'):
        defenses.thermometer(network(), 1)


# --------------------------------------------------------------------- total variation


def test_total_variation_reaches_the_minimum():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(1, 5, 6, 1)).astype(np.float32)
    kept = (rng.uniform(size=(1, 5, 6, 1)) < 0.6).astype(np.float32)
    weight, mu = 0.05, 0.05

    def energy(flat):
        z = flat.reshape(5, 6)
        down = np.vstack([z[1:] - z[:-1], np.zeros((1, 6))])
        across = np.hstack([z[:, 1:] - z[:, :-1], np.zeros((5, 1))])
        fit = (kept[0, ..., 0] * (z - x[0, ..., 0])) ** 2
        return fit.sum() / 2 + weight * np.sqrt(down**2 + across**2 + mu**2).sum()

    best = optimize.minimize(energy, x.ravel(), method='L-BFGS-B').fun
    smoothed = Smoothed(*map(jnp.float32, (weight, 0.6, mu)), steps=400)
    z = np.asarray(smoothed.solve(jnp.asarray(x), jnp.asarray(kept)), float)
    assert energy(z.ravel()) <= 1.002 * best
    found = objective(jnp.asarray(z), jnp.asarray(x), jnp.asarray(kept), weight, mu)
    np.testing.assert_allclose(found, energy(z.ravel()), rtol=1e-4)


def test_total_variation_smooths_noise_and_drops_pixels():
    noisy = 0.5 + 0.1 * jax.random.normal(KEY, (1, 8, 8, 1))
    smoothed = Smoothed(*map(jnp.float32, (0.1, 0.7, 0.05)), steps=60)
    one, two = (smoothed(jax.random.key(i), noisy) for i in range(2))
    assert np.std(one) < 0.5 * np.std(noisy)
    assert np.abs(one - two).max() > 1e-3
    assert not np.asarray(jax.grad(lambda x: smoothed(KEY, x).sum())(noisy)).any()


def test_arguments_of_total_variation_are_checked():
    for options, message in (
        ({'weight': 0.0}, 'weight must be a number > 0, got 0.0'),
        ({'keep': 0.0}, r'keep must lie in \(0, 1\], got 0.0'),
        ({'keep': 1.5}, r'keep must lie in \(0, 1\], got 1.5'),
        ({'steps': 0}, 'steps must be an integer >= 1, got 0'),
        ({'mu': -1.0}, 'mu must be a number > 0, got -1.0'),
    ):
        with pytest.raises(ValueError, match=message):
            defenses.total_variation(network(), **options)


# ---------------------------------------------------------------------- random resizing


def test_resizing_keeps_everything_inside_and_moves_it():
    x = jnp.ones((1, 20, 20, 1))
    half = Resized(jnp.float32(0.5))
    for seed in range(5):
        small = np.asarray(half(jax.random.key(seed), x))
        area = small.sum() / 400
        assert 0.25 * 0.8 < area < 1
        # Black around one bright rectangle: rows and columns are intervals.
        rows = np.flatnonzero(small[0, :, :, 0].max(1) > 0.5)
        assert len(rows) == rows[-1] - rows[0] + 1
        np.testing.assert_allclose(len(rows) ** 2 / 400, area, atol=0.1)
    images, _ = digits()
    same = Resized(jnp.float32(1.0))(KEY, images)
    np.testing.assert_allclose(same, images, atol=1e-6)
    for low in (0.0, 1.1):
        with pytest.raises(ValueError, match=r'low must lie in \(0, 1\]'):
            defenses.resize_pad(network(), low)


# -------------------------------------------------------------------------- activations


def _relu_net(w, x):
    h = jax.nn.relu(x @ w)
    h = jax.jit(lambda h: jnp.maximum(h @ w, 0) + 1)(h)
    return jnp.where(h > 1.5, h, 2 * h)


def test_activations_are_changed_in_order_and_nothing_else():
    w = jax.random.normal(KEY, (5, 5))
    x = jax.random.normal(jax.random.key(1), (3, 5))
    f = jax.tree_util.Partial(_relu_net, w)
    same = defenses.with_activations(f, lambda i, h: h)
    np.testing.assert_array_equal(same(x), f(x))

    def change(i, h):
        return 10 * h if i == 0 else h - 2

    h = np.maximum(10 * np.maximum(x @ w, 0) @ w, 0) - 2 + 1
    expected = np.where(h > 1.5, h, 2 * h)
    changed = defenses.with_activations(f, change)
    np.testing.assert_allclose(jax.jit(changed)(x), expected, rtol=1e-5)
    # Differentiates and batches like any function.
    slow = jax.vmap(jax.grad(lambda x: changed(x[None]).sum()))(x)
    np.testing.assert_allclose(slow, jax.grad(lambda x: changed(x).sum())(x), 1e-5)
    with pytest.raises(ValueError, match='logits_fn must have a ReLU'):
        defenses.with_activations(jnp.tanh, change)(x)


def test_noise_reaches_every_layer_and_is_its_own():
    seen = []

    def note(h, noise):
        seen.append(noise)
        return h + noise

    w = jax.random.normal(KEY, (5, 5))
    f = jax.tree_util.Partial(_relu_net, w)
    x = jax.random.normal(jax.random.key(1), (3, 5))
    noisy = with_noise(f, note)
    one, again = noisy(KEY, x), noisy(KEY, x)
    np.testing.assert_array_equal(one, again)
    assert np.abs(noisy(jax.random.key(9), x) - one).max() > 1e-3
    first, second = (np.asarray(noise) for noise in seen[:2])
    assert first.shape == second.shape == (3, 5)
    assert len(np.unique(np.concatenate([first, second]))) == 30
    assert 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) < 1


def test_networks_of_the_zoo_have_their_relus_found():
    for model, shape, count in (
        (zoo.fast_mnist(), (28, 28, 1), 3),
        (zoo.madry_mnist(scale=1 / 32), (28, 28, 1), 3),
        (zoo.mlp((8, 8, 1)), (8, 8, 1), 2),
    ):
        f = models.logits_fn(model, *model.init(KEY))
        seen = []

        def note(i, h, seen=seen):
            seen.append(i)
            return h

        x = jax.random.uniform(KEY, (2, *shape))
        same = jax.jit(defenses.with_activations(f, note))(x)
        np.testing.assert_allclose(same, logits_of(f, x), rtol=1e-5, atol=1e-6)
        assert seen == list(range(count))


def test_pruning_keeps_units_by_their_size():
    h = jnp.asarray([[1.0, -3.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    chance = np.asarray(kept_with(h, 6))
    expected = 1 - (1 - np.array([1, 3, 0, 4]) / 8) ** 6
    np.testing.assert_allclose(chance[0], expected, rtol=1e-5)
    assert (chance[1] == 0).all()


@pytest.mark.parametrize('name', ['activation_pruning', 'dropout'])
def test_random_activations_have_the_expectation_of_the_layer(name):
    w = jnp.eye(6)
    f = jax.tree_util.Partial(_one_layer, w)
    x = jnp.asarray([[0.1, 0.5, 1.0, 2.0, 0.0, -1.0]])
    fn = getattr(defenses, name)(f, 0.5).adaptive.fn
    draws = jax.jit(jax.vmap(lambda k: fn(k, x)[0]))(jax.random.split(KEY, 20_000))
    np.testing.assert_allclose(draws.mean(0), f(x)[0], atol=0.03)
    assert (np.asarray(draws)[:, 1] == 0).any()
    # A dropped unit takes no other with it.
    here = np.asarray(draws)[:, 1:4] == 0
    assert np.abs(np.corrcoef(here.T) - np.eye(3)).max() < 0.05


def _one_layer(w, x):
    return jax.nn.relu(x) @ w


def test_without_randomness_nothing_changes():
    f, (x, _) = network(), digits()
    for defended in (
        defenses.dropout(f, 0.0, answers=2),
        defenses.activation_pruning(f, 1e6, answers=2),
    ):
        # In a batch of its own, so that only rounding differs.
        expected = jax.nn.log_softmax(logits_of(f, x))
        np.testing.assert_allclose(
            logits_of(defended.deployed, x), expected, rtol=1e-3, atol=1e-3
        )
    with pytest.raises(ValueError, match=r'rate must lie in \[0, 1\), got 1.0'):
        defenses.dropout(f, 1.0)
    with pytest.raises(ValueError, match='fraction must be > 0, got 0'):
        defenses.activation_pruning(f, 0)


# --------------------------------------------------------------------------- projection


def _draw(w, middle, z):
    return (middle + z @ w.T).reshape(-1, 4, 4, 1)


def test_projection_on_a_linear_generator_is_the_orthogonal_one():
    rng = np.random.default_rng(0)
    w, _ = np.linalg.qr(rng.normal(size=(16, 3)))
    w *= [2.0, 1.0, 0.5]  # Not orthonormal: the damped pseudo-inverse has to show.
    w, middle = np.float32(w), np.float32(rng.uniform(size=(1, 16)))
    x = jnp.asarray(rng.uniform(size=(5, 4, 4, 1)), jnp.float32)
    f = jax.tree_util.Partial(_first_two, jnp.asarray(rng.normal(size=(16, 4)), 'f4'))
    draw = jax.tree_util.Partial(_draw, jnp.asarray(w), jnp.asarray(middle))
    defended = defenses.projection(f, draw, 3, steps=400, rate=0.05, damping=1e-6)
    onto = w @ np.linalg.inv(w.T @ w) @ w.T
    flat = np.asarray(x).reshape(5, 16)
    expected = middle + (flat - middle) @ onto.T
    projected = np.asarray(logits_of(defended.deployed.transform, x)).reshape(5, 16)
    np.testing.assert_allclose(projected, expected, atol=2e-3)
    # The gradient that follows the solution is the projected gradient.
    y = jnp.zeros(5, jnp.int32)
    plain = np.asarray(slope(f, jnp.asarray(projected).reshape(x.shape), y))
    np.testing.assert_allclose(
        np.asarray(slope(defended.adaptive, x, y)).reshape(5, 16),
        plain.reshape(5, 16) @ onto,
        rtol=1e-3,
        atol=1e-4,
    )


def _first_two(w, x):
    return x.reshape(len(x), 16) @ w


def test_a_generator_learns_to_draw():
    x, _ = digits()
    decode = generator()
    assert decode.latent == 10
    drawn = decode(jax.random.normal(KEY, (4, 10)))
    assert drawn.shape == (4, 8, 8, 1)
    assert 0 <= drawn.min() < drawn.max() <= 1
    defended = defenses.projection(network(), decode, steps=60)
    projected = logits_of(defended.deployed.transform, x)
    error = float(jnp.mean((projected - x) ** 2))
    assert error < 0.3 * float(jnp.mean((x.mean(0, keepdims=True) - x) ** 2))


def test_arguments_of_projection_are_checked():
    f = network()
    with pytest.raises(ValueError, match='latent must be given'):
        defenses.projection(f, jnp.tanh)
    for options, message in (
        ({'latent': 0}, 'latent must be an integer >= 1, got 0'),
        ({'steps': 0}, 'steps must be an integer >= 1, got 0'),
        ({'rate': 0.0}, 'rate must be a number > 0, got 0.0'),
        ({'damping': -1.0}, 'damping must be a number > 0, got -1.0'),
    ):
        with pytest.raises(ValueError, match=message):
            defenses.projection(f, generator(), **options)
    x, _ = digits()
    for options, message in (
        ({'latent': 0}, 'latent must be an integer >= 1'),
        ({'batch_size': 0}, 'batch_size must be an integer >= 1'),
        ({'learning_rate': 0.0}, 'learning_rate must be a number > 0'),
        ({'penalty': -1.0}, 'penalty must be >= 0, got -1.0'),
    ):
        with pytest.raises(ValueError, match=message):
            defenses.train_decoder(x, key=KEY, **options)
    with pytest.raises(ValueError, match='images must be float32'):
        defenses.train_decoder(jnp.zeros((3, 8, 8, 1), jnp.uint8), key=KEY)


def test_a_generator_learns_from_arrays_of_numpy_too():
    x = np.asarray(digits()[0])
    options = {'latent': 2, 'hidden': 4, 'steps': 2}
    ours = defenses.train_decoder(x, key=KEY, **options)
    same = defenses.train_decoder(jnp.asarray(x), key=KEY, **options)
    jax.tree.map(np.testing.assert_array_equal, ours.params, same.params)
    for wrong, message in (
        (x[:0], r'images must be \(N, ...\), N >= 1, got shape \(0, 8, 8, 1\)'),
        (x + 2, r'images must lie in \[0, 1\], got values in \[2'),
        (x * np.float32(np.nan), r'images must lie in \[0, 1\], got values in \[nan'),
    ):
        with pytest.raises(ValueError, match=message):
            defenses.train_decoder(wrong, key=KEY, **options)


@pytest.mark.parametrize('name', ['jpeg', 'resize_pad', 'total_variation'])
def test_what_needs_height_and_width_says_so(name):
    defended = getattr(defenses, name)(lambda x: x.reshape(len(x), -1))
    with pytest.raises(ValueError, match=r'images \(B, H, W, C\), got shape \(1, 64\)'):
        defended.deployed(jnp.zeros((1, 64)))
