"""The nearest point of a hyperplane in the range, against sorting and bisection."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import halfspaces
from tests import reference, reference_attacks

P = {'linf': np.inf, 'l2': 2, 'l1': 1}
BOX = (0.0, 1.0)
SHAPES = [(6,), (4, 5, 1), (3, 2, 2)]

every_norm = pytest.mark.parametrize('norm', P)
every_box = pytest.mark.parametrize('box', [BOX, None])


@functools.partial(jax.jit, static_argnums=(0, 4))
def nearest(norm, x, w, offset, box):
    return halfspaces.nearest(norm, x, w, offset, box)


def points(seed, batch, shape, box):
    """Points of the range, some on its ends; normals with zeros among them."""
    rng = np.random.default_rng(seed)
    low, high = BOX if box is None else box
    x = rng.uniform(low, high, (batch, *shape))
    kind = rng.uniform(size=x.shape)
    x = np.where(kind < 0.2, low, np.where(kind > 0.8, high, x)).astype(np.float32)
    w = rng.normal(size=x.shape)
    w = np.where(rng.uniform(size=x.shape) < 0.1, 0, w).astype(np.float32)
    return x, w


def value(w, z):
    """<w, z> in float64, (B,)."""
    product = np.float64(w) * np.float64(z)
    return product.sum(axis=tuple(range(1, product.ndim)))


def reach(w, x, box):
    """How far <w, z> can fall and rise within the range."""
    w, x = np.float64(w), np.float64(x)
    up = np.maximum(w * (box[1] - x), w * (box[0] - x))
    down = np.minimum(w * (box[1] - x), w * (box[0] - x))
    axes = tuple(range(1, x.ndim))
    return down.sum(axis=axes), up.sum(axis=axes)


def offsets(w, x, box, share):
    """Values a share of the way to what the range allows."""
    down, up = (-1, 1) if box is None else reach(w, x, box)
    return (value(w, x) + np.where(share > 0, share * up, -share * down)).astype(
        np.float32
    )


def oracle(norm, x, w, offset, box):
    rows = [
        reference_attacks.fab_projection(a.ravel(), b.ravel(), c, norm, box)
        for a, b, c in zip(x, w, np.float64(offset), strict=True)
    ]
    return np.stack(rows).reshape(x.shape)


def sizes(norm, delta):
    return reference.norm(np.float64(delta).reshape(len(delta), -1), P[norm])


@every_norm
@pytest.mark.parametrize(('batch', 'box'), [(8, BOX), (1, (-0.5, 2.0)), (8, None)])
@pytest.mark.parametrize('shape', SHAPES)
def test_is_the_nearest_point(norm, box, shape, batch):
    x, w = points(0, batch, shape, box)
    share = np.resize([0.3, -0.3, 0.02, -0.8, 0.95, -0.97, 0.6, -0.1], batch)
    offset = offsets(w, x, box, share)
    answer = np.asarray(nearest(norm, x, w, offset, box))
    assert answer.shape == x.shape
    assert answer.dtype == x.dtype
    if box is not None:
        assert ((answer >= box[0]) & (answer <= box[1])).all()
    np.testing.assert_allclose(value(w, answer), offset, atol=3e-6 * w[0].size)
    np.testing.assert_allclose(answer, oracle(norm, x, w, offset, box), atol=1e-5)
    for i in range(batch):
        a, gap = np.float64(w[i]).ravel(), offset[i] - value(w, x)[i]
        best = reference.nearest_in_halfspace(
            np.sign(gap) * a, abs(gap), np.float64(x[i]).ravel(), P[norm], box
        )
        size = sizes(norm, (answer - x)[i : i + 1])[0]
        exact = reference.norm(best[None], P[norm])[0]
        np.testing.assert_allclose(size, exact, rtol=1e-4, atol=1e-6)


@every_norm
def test_stays_on_its_own_hyperplane(norm):
    x, w = points(1, 8, (6,), BOX)
    answer = np.asarray(nearest(norm, x, w, value(w, x).astype(np.float32), BOX))
    np.testing.assert_allclose(answer, x, atol=1e-6)
    assert ((answer == x) | (w != 0)).all()


@every_norm
@pytest.mark.parametrize('share', [1.0, 1.001, 1.5, 100.0])
def test_unreachable_hyperplanes_are_approached(norm, share):
    x, w = points(2, 8, (3, 2, 2), BOX)
    share = share * np.resize([1.0, -1.0], 8)
    offset = offsets(w, x, BOX, share)
    answer = np.asarray(nearest(norm, x, w, offset, BOX))
    corner = np.where(w * share[:, None, None, None] > 0, 1.0, 0.0)
    expected = np.where(w == 0, x, corner)
    tolerance = 1e-5 if abs(share[0]) == 1 else 0
    np.testing.assert_allclose(answer, expected, atol=tolerance)


@every_norm
@every_box
def test_without_a_normal_nothing_moves(norm, box):
    x, w = points(3, 3, (6,), box)
    w[1] = 0
    for offset in (0.0, 1.0, -3.0, np.inf):
        answer = np.asarray(
            nearest(norm, x, w, np.array([0.1, offset, 0.1], np.float32), box)
        )
        np.testing.assert_array_equal(answer[1], x[1])
        assert np.isfinite(answer).all()


@every_norm
@every_box
@pytest.mark.parametrize('scale', [1e-30, 1e-20, 1e-6, 1e6, 1e20, 1e30])
def test_the_length_of_the_normal_does_not_matter(norm, box, scale):
    x, w = points(4, 8, (6,), box)
    share = np.resize([0.3, -0.3, 0.02, -0.8], 8)
    offset = offsets(w, x, box, share)
    scaled = (np.float64(w) * scale).astype(np.float32)
    far = (np.float64(offset) * scale).astype(np.float32)
    answer = np.asarray(nearest(norm, x, scaled, far, box))
    np.testing.assert_allclose(
        answer, np.asarray(nearest(norm, x, w, offset, box)), atol=1e-5
    )


@every_norm
@every_box
def test_tiny_parts_of_a_normal_do_no_harm(norm, box):
    x, w = points(5, 8, (6,), box)
    x[:, 0], w[:, 0] = (BOX if box is None else box)[0], 1
    w[:, 2:] *= np.float32(1e-30)
    w[:4, 1] *= np.float32(1e-8)
    offset = (value(w, x) + 0.25).astype(np.float32)
    answer = np.asarray(nearest(norm, x, w, offset, box))
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(value(w, answer), offset, atol=1e-5)
    exact = sizes(norm, oracle(norm, x, w, offset, box) - x)
    np.testing.assert_allclose(sizes(norm, answer - x), exact, rtol=1e-4)


@every_norm
@every_box
@pytest.mark.parametrize('share', [0.1, -0.35, 0.5, -0.9])
def test_equal_weights(norm, box, share):
    # Not unique in L1: any that is as short will do.
    x, w = points(6, 8, (4, 5, 1), box)
    w = np.sign(w) * np.where(np.abs(w) > 1, 2, 1).astype(np.float32)
    offset = offsets(w, x, box, np.full(8, share))
    answer = np.asarray(nearest(norm, x, w, offset, box))
    np.testing.assert_allclose(value(w, answer), offset, atol=3e-5)
    best = oracle(norm, x, w, offset, box)
    np.testing.assert_allclose(
        sizes(norm, answer - x), sizes(norm, best - x), rtol=1e-4
    )
    if norm != 'l1':
        np.testing.assert_allclose(answer, best, atol=1e-5)


@every_norm
@every_box
def test_weights_equal_but_for_rounding(norm, box):
    x, w = points(7, 8, (6,), box)
    w = np.sign(w) * (1 + 1e-7 * np.arange(6)).astype(np.float32)
    offset = offsets(w, x, box, np.resize([0.4, -0.6], 8))
    answer = np.asarray(nearest(norm, x, w, offset, box))
    np.testing.assert_allclose(value(w, answer), offset, atol=2e-5)
    best = oracle(norm, x, w, offset, box)
    np.testing.assert_allclose(
        sizes(norm, answer - x), sizes(norm, best - x), rtol=1e-4
    )


@every_norm
@every_box
def test_rows_do_not_see_each_other(norm, box):
    x, w = points(8, 8, (3, 2, 2), box)
    offset = offsets(w, x, box, np.resize([0.3, -0.9, 0.01, -0.5], 8))
    w[2] = 0
    offset[3] = 1e6
    w[5] *= np.float32(1e-25)
    offset[5] *= np.float32(1e-25)
    together = np.asarray(nearest(norm, x, w, offset, box))
    for i in range(8):
        one = slice(i, i + 1)
        alone = np.asarray(nearest(norm, x[one], w[one], offset[one], box))
        np.testing.assert_allclose(
            alone, together[one], atol=1e-6 * max(1, np.abs(alone).max())
        )


@every_norm
@every_box
def test_vmap_and_jit_change_nothing(norm, box):
    many = [points(9 + i, 3, (6,), box) for i in range(4)]
    x, w = (np.stack(part) for part in zip(*many, strict=True))
    share = np.array([0.3, -0.9, 0.02])
    offset = np.stack([offsets(b, a, box, share) for a, b in zip(x, w, strict=True)])
    mapped = jax.vmap(lambda x, w, b: halfspaces.nearest(norm, x, w, b, box))
    together = np.asarray(jax.jit(mapped)(x, w, offset))
    for i in range(4):
        plain = np.asarray(
            halfspaces.nearest(
                norm, jnp.asarray(x[i]), jnp.asarray(w[i]), jnp.asarray(offset[i]), box
            )
        )
        np.testing.assert_allclose(together[i], plain, atol=1e-6)
        compiled = nearest(norm, x[i], w[i], offset[i], box)
        np.testing.assert_allclose(compiled, plain, atol=1e-6)


@every_norm
def test_large_images_are_exact_too(norm):
    x, w = points(20, 2, (28, 28, 1), BOX)
    offset = offsets(w, x, BOX, np.array([0.2, -0.7]))
    answer = np.asarray(nearest(norm, x, w, offset, BOX))
    exact = sizes(norm, oracle(norm, x, w, offset, BOX) - x)
    np.testing.assert_allclose(sizes(norm, answer - x), exact, rtol=1e-4)
    np.testing.assert_allclose(value(w, answer), offset, rtol=1e-5)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'l3'"):
        halfspaces.nearest('l3', jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones(1), None)
