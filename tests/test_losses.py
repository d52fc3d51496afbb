"""Losses against independent formulas, and where floating point is hard on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import losses
from tests import reference

BATCH = 6


def draw_logits(classes, seed=0, scale=3.0):
    """Logits without ties, labels, and targets that are not the labels."""
    rng = np.random.default_rng(seed + 100 * classes)
    z = (scale * rng.normal(size=(BATCH, classes))).astype(np.float32)
    y = rng.integers(0, classes, BATCH)
    y[:2] = z[:2].argmax(1)  # Both right and wrong answers.
    y[2:4] = z[2:4].argmin(1)
    target = (y + rng.integers(1, classes, BATCH)) % classes
    return z, y, target


def value_and_gradient(loss, *args):
    """Values (B,) and the gradient of their sum in the first argument, compiled."""

    def total(first, *rest):
        value = loss(first, *rest)
        return jnp.sum(value), value

    (_, value), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(*args)
    return value, gradient


def agree(loss, args, value, gradient):
    got, slope = value_and_gradient(loss, *args)
    assert got.dtype == jnp.float32
    assert got.shape == (BATCH,)
    np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('classes', [2, 10])
def test_cross_entropy(classes):
    z, y, target = draw_logits(classes)
    agree(
        losses.cross_entropy,
        (z, y),
        reference.cross_entropy(z, y),
        reference.cross_entropy_gradient(z, y),
    )
    agree(
        losses.cross_entropy,
        (z, y, target),
        reference.targeted_cross_entropy(z, target),
        reference.targeted_cross_entropy_gradient(z, target),
    )


@jax.jit
def margins(z, y, target, kappa):
    """Untargeted and targeted margin, each with its gradient."""

    def total(z, aim):
        value = losses.margin(z, y, aim, kappa=kappa)
        return jnp.sum(value), value

    slope = jax.grad(total, has_aux=True)
    return slope(z, None)[::-1], slope(z, target)[::-1]


@pytest.mark.parametrize('classes', [2, 4])
@pytest.mark.parametrize('kappa', [np.inf, 0.5, 0.0])
def test_margin(classes, kappa):
    z, y, target = draw_logits(classes)
    untargeted, targeted = margins(z, y, target, kappa)
    expected = (
        reference.cw_margin(z, y, kappa),
        reference.cw_margin_gradient(z, y, kappa),
        reference.targeted_cw_margin(z, target, kappa),
        reference.targeted_cw_margin_gradient(z, target, kappa),
    )
    for got, wanted in zip((*untargeted, *targeted), expected, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_margin_without_kappa_is_positive_where_the_model_is_wrong():
    z, y, target = draw_logits(4)
    wrong, reached = z.argmax(1) != y, z.argmax(1) == target
    np.testing.assert_array_equal(losses.margin(z, y) > 0, wrong)
    np.testing.assert_array_equal(losses.margin(z, y, target) > 0, reached)
    assert 0 < wrong.sum() < BATCH
    np.testing.assert_allclose(
        losses.margin(z, y), reference.cw_margin(z, y), rtol=1e-5
    )


@pytest.mark.parametrize('classes', [3, 4, 10])
def test_dlr(classes):
    z, y, _ = draw_logits(classes)
    agree(losses.dlr, (z, y), reference.dlr(z, y), reference.dlr_gradient(z, y))


@pytest.mark.parametrize('classes', [4, 5, 10])
def test_targeted_dlr(classes):
    z, y, target = draw_logits(classes)
    agree(
        losses.dlr,
        (z, y, target),
        reference.targeted_dlr(z, y, target),
        reference.targeted_dlr_gradient(z, y, target),
    )


def test_targeted_dlr_of_three_classes_divides_by_the_untargeted_denominator():
    z = np.array([[3.0, 1.0, -1.0]] * 2, np.float32)
    y, target = np.array([0, 2]), np.array([1, 1])
    np.testing.assert_allclose(losses.dlr(z, y, target), [-0.5, 0.5], rtol=1e-6)


def test_dlr_of_two_classes_is_refused():
    z, y, target = draw_logits(2)
    message = "'dlr' needs at least 3 classes, the model has 2: use 'margin'"
    for aim in ((), (target,)):
        with pytest.raises(ValueError, match=message):
            losses.dlr(z, y, *aim)


@pytest.mark.parametrize('classes', [3, 4, 10])
@pytest.mark.parametrize('aimed', [False, True])
def test_dlr_does_not_care_about_scale_or_shift(classes, aimed):
    z, y, target = draw_logits(classes)
    aim = (target,) if aimed else ()
    value = losses.dlr(z, y, *aim)
    for changed in (z * 1000, z / 1000, z + 5, z - 5):
        np.testing.assert_allclose(losses.dlr(changed, y, *aim), value, rtol=1e-4)
    assert np.abs(value).max() > 0.1


def test_kl():
    q, _, _ = draw_logits(5, seed=1)
    p, _, _ = draw_logits(5, seed=2)
    agree(losses.kl, (q, p), reference.kl(p, q), reference.kl_gradient_q(p, q))
    agree(
        lambda p, q: losses.kl(q, p),
        (p, q),
        reference.kl(p, q),
        reference.kl_gradient_p(p, q),
    )
    np.testing.assert_allclose(losses.kl(p, p + 7), np.zeros(BATCH), atol=1e-6)


def test_softplus():
    rng = np.random.default_rng(3)
    s = (3 * rng.normal(size=BATCH)).astype(np.float32)
    y = np.array([1, -1, 1, -1, 1, -1])
    expected = reference.binary_softplus(s, y), reference.binary_softplus_gradient(s, y)
    agree(losses.softplus, (s, y), *expected)
    agree(losses.softplus, (s[:, None], y), expected[0], expected[1][:, None])
    pair = np.stack([-s, s], axis=1) / 2
    slope = np.stack([-expected[1], expected[1]], axis=1)
    agree(losses.softplus, (pair, y), expected[0], slope)


def test_softplus_is_the_two_class_cross_entropy_in_float64():
    rng = np.random.default_rng(4)
    z, y = 9 * rng.normal(size=(BATCH, 2)), rng.integers(0, 2, BATCH)
    with jax.enable_x64(True):
        logits = jnp.asarray(z, jnp.float64)
        one = losses.softplus(logits, 2 * jnp.asarray(y) - 1)
        other = losses.cross_entropy(logits, jnp.asarray(y))
        assert one.dtype == jnp.float64
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)
        expected = reference.binary_softplus(z[:, 1] - z[:, 0], 2 * y - 1)
        np.testing.assert_allclose(one, expected, rtol=1e-13)


UNTARGETED = {
    'cross entropy': losses.cross_entropy,
    'margin': losses.margin,
    'dlr': losses.dlr,
}


def _aimed(loss):
    return lambda z, y: loss(z, y, (y + 1) % z.shape[1])


ALL = {
    **UNTARGETED,
    **{f'targeted {name}': _aimed(loss) for name, loss in UNTARGETED.items()},
    'kl': lambda z, y: losses.kl(z, z[::-1]),
}


@jax.jit
def everything(z, y):
    """Value and gradient of every loss by name, in one program."""

    def both(loss):
        def total(z):
            value = loss(z, y)
            return jnp.sum(value), value

        slope, value = jax.grad(total, has_aux=True)(z)
        return value, slope

    return {name: both(loss) for name, loss in ALL.items()}


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16])
def test_logits_of_low_precision_are_computed_on_in_float32(dtype):
    z, y, _ = draw_logits(4, scale=1e4)
    z = jnp.asarray(z, dtype)
    exact = everything(z.astype(jnp.float32), y)
    for name, (value, gradient) in everything(z, y).items():
        assert value.dtype == jnp.float32, name
        assert gradient.dtype == dtype
        assert np.isfinite(value).all()
        assert np.isfinite(np.asarray(gradient, np.float32)).all()
        np.testing.assert_allclose(value, exact[name][0], rtol=1e-6)


def test_low_precision_keeps_the_differences_that_attacks_live_on():
    # 1 and 1 + 2^-10 are float16 numbers; their log-softmax differs beyond float16.
    z = jnp.array([[1.0, 0.0], [1 + 2**-10, 0.0]], jnp.float16)
    value = np.asarray(losses.cross_entropy(z, jnp.array([0, 0])))
    expected = reference.cross_entropy(np.asarray(z, np.float64), np.array([0, 0]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize('classes', [3, 5])
def test_ties_and_constant_logits_are_finite(classes):
    z = np.zeros((4, classes), np.float32)
    z[1], z[2, :2], z[3, -1] = 7.0, 2.0, 1.0
    for name, pair in everything(z, np.array([0, 1, 0, 0])).items():
        for array in pair:
            assert np.isfinite(array).all(), name


def test_nan_stays_in_its_row():
    z, y, _ = draw_logits(4)
    expected = everything(z, y)
    z[1], z[4, 2] = np.nan, np.nan
    # The divergence compares row i with row 5 - i, so 1 and 4 are its victims as well.
    others = np.array([0, 2, 3, 5])
    for name, pair in everything(z, y).items():
        for got, was in zip(pair, expected[name], strict=True):
            np.testing.assert_allclose(got[others], was[others], rtol=1e-6)
        assert np.isnan(pair[0][1])


def test_jit_and_vmap_change_nothing():
    z, y, _ = draw_logits(4)
    compiled = everything(z, y)
    mapped = jax.jit(jax.vmap(everything, (0, None)))(jnp.stack([2 * z, z]), y)
    for name, loss in ALL.items():
        np.testing.assert_allclose(loss(z, y), compiled[name][0], rtol=1e-5)
        for one, two in zip(compiled[name], mapped[name], strict=True):
            np.testing.assert_allclose(two[1], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', UNTARGETED)
def test_losses_belong_to_rows(name):
    loss = jax.jit(UNTARGETED[name])
    z, y, target = draw_logits(4)
    for aim in ((), (target,)):
        whole = np.asarray(loss(z, y, *aim))
        for i in range(BATCH):
            part = [array[i : i + 1] for array in (z, y, *aim)]
            np.testing.assert_allclose(loss(*part)[0], whole[i], rtol=1e-5)


def test_where_the_gradient_of_a_saturated_sigmoid_ends():
    """Softmax at 17, softplus at 88, the margin nowhere: as the README says."""

    def slope(loss, score, y):
        def of(s):
            return loss(jnp.stack([jnp.zeros(1), s], axis=1), jnp.array([y]))[0]

        return float(jax.grad(of)(jnp.array([float(score)]))[0])

    def softmax(z, y):
        return 1 - jax.nn.softmax(z)[:, 1]

    for score in (10, 16):
        assert slope(softmax, score, 1) < 0
    for score in (17, 80, 87):
        assert slope(losses.softplus, score, 1) < 0
    for score in (18, 80):
        assert slope(softmax, score, 1) == 0
    for score in (104, 1000):
        assert slope(losses.softplus, score, 1) == 0
        assert slope(losses.margin, score, 1) == -1
