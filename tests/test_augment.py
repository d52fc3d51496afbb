"""Augmentation: what each one does, by whose key, and how often."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from advjax import data
from advjax.data import augment, distortions

ALONE = {
    'pad_crop': augment.pad_crop(2),
    'pad_crop_reflect': augment.pad_crop(2, 'reflect'),
    'flip': augment.flip(),
    'cutout': augment.cutout(3, (0.1, 0.2, 0.3)),
    'rand_augment': augment.rand_augment(2, 7),
    'chain': augment.chain(augment.pad_crop(2), augment.flip()),
}
COUPLED = {'cutmix': augment.cutmix(1.0, 10), 'mixup': augment.mixup(0.5, 10)}


def _images(n=6, side=8, seed=0, channels=3):
    raw = np.random.RandomState(seed).randint(0, 256, (n, side, side, channels))
    return data.to_float(raw.astype(np.uint8))


def _keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def _run(augmentation, keys, x, y):
    with jax.numpy_dtype_promotion('strict'):
        return jax.jit(augmentation)(keys, x, y)


def _repeated(augmentation, image, n, y=None):
    """One image under n keys."""
    x = jnp.broadcast_to(image[None], (n, *image.shape))
    y = jnp.zeros(n, jnp.int32) if y is None else y
    return jax.tree.map(np.asarray, _run(augmentation, _keys(n), x, y))


def _uniform(values, among):
    """Whether draws come equally often from ``among``, at a level of 1e-4."""
    values = list(map(int, values))
    assert set(values) <= set(among)
    counts = [values.count(value) for value in among]
    return stats.chisquare(counts).pvalue > 1e-4


# Every augmentation.


@pytest.mark.parametrize('name', [*ALONE, *COUPLED])
def test_pixels_stay_pixels(name):
    augmentation = {**ALONE, **COUPLED}[name]
    x, y = _images(), jnp.arange(6) % 10
    x = x.at[0].set(0).at[1].set(1)
    new, labels = _run(augmentation, _keys(6), x, y)
    assert new.shape == x.shape
    assert new.dtype == jnp.float32
    assert 0 <= float(new.min()) <= float(new.max()) <= 1
    assert np.any(np.asarray(new != x))
    if name in ALONE:
        np.testing.assert_array_equal(labels, y)
    else:
        assert labels.shape == (6, 10)
        assert labels.dtype == jnp.float32
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize('name', ALONE)
def test_an_example_is_changed_by_its_key_alone(name):
    x, keys, y = _images(), _keys(6), jnp.arange(6)
    new, _ = _run(ALONE[name], keys, x, y)
    order = jnp.array([4, 1, 5])
    some, labels = _run(ALONE[name], keys[order], x[order], y[order])
    np.testing.assert_allclose(some, new[order], atol=1e-6)
    np.testing.assert_array_equal(labels, order)


def test_factories_are_cached():
    assert augment.pad_crop(4) is augment.pad_crop(4)
    assert augment.cutmix(1.0, 10) is augment.cutmix(1.0, 10)
    assert augment.rand_augment(2, 9.0) is augment.rand_augment(2, 9.0)
    chained = [augment.chain(augment.pad_crop(4), augment.flip()) for _ in range(2)]
    assert chained[0] is chained[1]


def test_one_key_stands_for_a_batch():
    x, y = _images(), jnp.zeros(6, jnp.int32)
    each = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5), jnp.arange(6))
    one, _ = ALONE['flip'](jax.random.key(5), x, y)
    np.testing.assert_array_equal(one, ALONE['flip'](each, x, y)[0])


# Crops and flips.


@pytest.mark.parametrize('mode', ['constant', 'reflect'])
def test_crops_are_windows_of_the_padded_image(mode):
    n, p = 2000, 2
    image = _images(1, 6)[0]
    new, _ = _repeated(augment.pad_crop(p, mode), image, n)
    padded = np.pad(np.asarray(image), ((p, p), (p, p), (0, 0)), mode=mode)
    windows = {
        padded[i : i + 6, j : j + 6].tobytes(): (i, j)
        for i in range(2 * p + 1)
        for j in range(2 * p + 1)
    }
    assert len(windows) == 25
    offsets = np.array([windows[one.tobytes()] for one in new])
    # All 25 equally often: uniform, and independent down and right.
    assert _uniform(offsets @ [5, 1], range(25))


def test_half_are_mirrored_left_to_right():
    image = _images(1)[0]
    new, _ = _repeated(augment.flip(), image, 2000)
    mirrored = np.array([np.array_equal(one, image[:, ::-1]) for one in new])
    assert np.all(mirrored | np.all(new == np.asarray(image), axis=(1, 2, 3)))
    assert _uniform(mirrored, (0, 1))
    for probability in (0, 1):
        new, _ = _repeated(augment.flip(probability), image, 8)
        np.testing.assert_array_equal(
            new, [np.asarray(image)[:, :: 1 - 2 * probability]] * 8
        )


# Cutout.


@pytest.mark.parametrize('size', [3, 4])
def test_cutout_squares_have_their_centre_anywhere(size):
    fill = (0.1, 0.2, 0.3)
    image = jnp.full((6, 7, 3), 0.9)
    new, _ = _repeated(augment.cutout(size, fill), image, 2000)
    squares = {}
    for row in range(6):
        for column in range(7):
            expected = np.asarray(image).copy()
            top, left = row - size // 2, column - size // 2
            expected[max(top, 0) : top + size, max(left, 0) : left + size] = fill
            squares.setdefault(expected.tobytes(), []).append((row, column))
    found = [squares[one.tobytes()] for one in new]
    # Each centre gives another square, so all are equally likely.
    assert all(len(centres) == 1 for centres in squares.values())
    assert _uniform([row * 7 + column for [(row, column)] in found], range(42))
    covered = (new[..., 0] != np.float32(0.9)).sum(axis=(1, 2))
    assert covered.min() == (size - size // 2) ** 2 < covered.max() == size**2


# CutMix and mixup.


def test_cutmix_labels_are_shares_of_pixels():
    n, height, width = 400, 8, 10
    x = jnp.broadcast_to(jnp.arange(n)[:, None, None, None] / n, (n, height, width, 1))
    soft = jax.nn.softmax(jax.random.normal(jax.random.key(1), (n, 5)))
    new, y = map(np.asarray, _run(augment.cutmix(1.0, 5), _keys(n), x, soft))
    for i in range(n):
        index = np.round(new[i, :, :, 0] * n).astype(int)
        other = set(index.ravel()) - {i}
        assert len(other) <= 1
        pasted = index != i
        ratio = 1 - pasted.mean()
        partner = other.pop() if other else i
        expected = ratio * soft[i] + (1 - ratio) * soft[partner]
        np.testing.assert_allclose(y[i], expected, atol=2e-6)
        # A box: the outer product of its rows and columns, without a gap.
        rows, columns = pasted.any(axis=1), pasted.any(axis=0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns[None])
        for side in (rows, columns):
            assert np.abs(np.diff(np.r_[0, side, 0])).sum() in (0, 2)


def _cutmix_shares(alpha, height, width, n):
    """The authors' rule: how much of the image is left."""
    random = np.random.RandomState(0)
    ratio = np.sqrt(1 - random.beta(alpha, alpha, n))
    sides = []
    for length in (height, width):
        cut, centre = (length * ratio).astype(int), random.randint(length, size=n)
        ends = [np.clip(centre + sign * (cut // 2), 0, length) for sign in (-1, 1)]
        sides.append(ends[1] - ends[0])
    return 1 - sides[0] * sides[1] / (height * width)


@pytest.mark.parametrize('alpha', [1.0, 0.3])
def test_cutmix_boxes_are_distributed_as_the_authors(alpha):
    n, height, width = 2000, 16, 12
    x = jnp.broadcast_to(jnp.arange(n)[:, None, None, None] / n, (n, height, width, 1))
    new = _run(augment.cutmix(alpha, 2), _keys(n), x, jnp.zeros(n, jnp.int32))[0]
    index = np.round(np.asarray(new)[..., 0] * n).astype(int).reshape(n, -1)
    pasted = index != np.arange(n)[:, None]
    expected = _cutmix_shares(alpha, height, width, 40_000)
    assert stats.ks_2samp(1 - pasted.mean(axis=1), expected).pvalue > 1e-4
    # The partner is anyone of the batch.
    partner = np.where(pasted, index, -1).max(axis=1)
    partner = partner[partner >= 0]
    assert stats.kstest(partner / n, 'uniform').pvalue > 1e-4


@pytest.mark.parametrize('alpha', [1.0, 0.4])
def test_mixup_blends_images_and_labels_alike(alpha):
    n = 2000
    x = _images(n, 2, channels=1)
    y = jnp.arange(n)
    new, mixed = map(np.asarray, _run(augment.mixup(alpha, n), _keys(n), x, y))
    np.testing.assert_allclose(
        new.reshape(n, -1), mixed @ np.asarray(x).reshape(n, -1), atol=1e-5
    )
    ratio = np.diagonal(mixed)
    assert np.all((mixed > 0).sum(axis=1) <= 2)
    alone = (mixed > 0).sum(axis=1) == 1
    assert stats.kstest(ratio[~alone], stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    assert alone.mean() < 0.05


# RandAugment.


@functools.cache
def _program(magnitude, fill):
    colour = distortions.colour(fill)
    return jax.jit(
        lambda x, which, sign: distortions.distort(x, which, magnitude, sign, colour)
    )


def _distort(name, image, magnitude, sign=1, fill=0.5):
    which = jnp.array([distortions.NAMES.index(name)])
    new = _program(magnitude, fill)(image[None], which, jnp.array([sign]))
    return np.asarray(new[0])


def _pillow(name, image, magnitude, sign):
    """The same by Pillow, on rounded pixels."""
    from PIL import Image, ImageEnhance, ImageOps

    pil = Image.fromarray(np.round(np.asarray(image) * 255).astype(np.uint8))
    share = magnitude / 10
    factor = 1 + sign * 0.9 * share
    made = {
        'identity': lambda: pil,
        'auto_contrast': lambda: ImageOps.autocontrast(pil),
        'equalize': lambda: ImageOps.equalize(pil),
        'solarize': lambda: ImageOps.solarize(pil, 256 * (1 - share)),
        'posterize': lambda: ImageOps.posterize(pil, 8 - round(4 * share)),
        'color': lambda: ImageEnhance.Color(pil).enhance(factor),
        'contrast': lambda: ImageEnhance.Contrast(pil).enhance(factor),
        'brightness': lambda: ImageEnhance.Brightness(pil).enhance(factor),
        'sharpness': lambda: ImageEnhance.Sharpness(pil).enhance(factor),
    }[name]()
    return np.asarray(made).astype(np.float32) / 255


@pytest.fixture(scope='module')
def photo():
    """Smooth, of few and unequal values: every operation changes it."""
    noise = np.random.RandomState(3).uniform(size=(32, 24, 3))
    smooth = ndimage.gaussian_filter(noise, (1, 1, 0))
    smooth = 0.1 + 0.7 * (smooth - smooth.min()) / np.ptp(smooth)
    return data.to_float(np.round(smooth * 255).astype(np.uint8))


@pytest.mark.parametrize('name', distortions.NAMES[:9])
@pytest.mark.parametrize(('magnitude', 'sign'), [(4, 1), (10, -1)])
def test_colour_operations_are_those_of_pillow(photo, name, magnitude, sign):
    pytest.importorskip('PIL.Image')
    got = _distort(name, photo, magnitude, sign)
    expected = _pillow(name, photo, magnitude, sign)
    # Pillow rounds what it blends with, and then again.
    loose = name in ('color', 'contrast', 'brightness', 'sharpness', 'auto_contrast')
    np.testing.assert_allclose(got, expected, atol=(2 / 255 if loose else 1e-6))
    if name != 'identity':
        assert np.abs(got - np.asarray(photo)).max() > 2.5 / 255


@pytest.mark.parametrize('name', distortions.NAMES[9:])
@pytest.mark.parametrize('sign', [1, -1])
def test_geometry_is_one_affine_map(photo, name, sign):
    magnitude, fill = 6, (0.2, 0.5, 0.8)
    share = sign * magnitude / 10
    down, right = np.mgrid[:32, :24].astype(float)
    if name == 'rotate':
        angle = np.pi / 6 * share
        row = 15.5 + np.cos(angle) * (down - 15.5) + np.sin(angle) * (right - 11.5)
        column = 11.5 - np.sin(angle) * (down - 15.5) + np.cos(angle) * (right - 11.5)
    else:
        row = down + {'shear_y': 0.3 * share * right}.get(name, 0)
        row = row - {'translate_y': share * 10}.get(name, 0)
        column = right + {'shear_x': 0.3 * share * down}.get(name, 0)
        column = column - {'translate_x': share * 7.5}.get(name, 0)
    expected = np.stack(
        [
            ndimage.map_coordinates(
                np.asarray(photo)[..., c],
                [row, column],
                order=1,
                mode='grid-constant',
                cval=fill[c],
            )
            for c in range(3)
        ],
        axis=-1,
    )
    got = _distort(name, photo, magnitude, sign, fill)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_a_whole_number_of_pixels_is_shifted_exactly(photo):
    got = _distort('translate_y', photo, 3, 1, 0.25)
    np.testing.assert_allclose(got[3:], photo[:-3], atol=1e-6)
    np.testing.assert_array_equal(got[:3], 0.25)


@pytest.mark.parametrize('name', distortions.NAMES)
def test_magnitude_zero_changes_nothing(photo, name):
    got = _distort(name, photo, 0)
    if name in ('auto_contrast', 'equalize'):
        assert np.abs(got - np.asarray(photo)).max() > 0.05
    else:
        np.testing.assert_allclose(got, photo, atol=1e-7)


@pytest.mark.parametrize('value', [0.0, 0.4, 1.0])
def test_a_flat_image_is_no_division_by_zero(value):
    flat = jnp.full((4, 4, 1), value)
    for name in ('auto_contrast', 'equalize', 'contrast', 'color', 'sharpness'):
        np.testing.assert_allclose(_distort(name, flat, 8), flat, atol=1e-6)


def test_rounds_draw_among_fourteen_equally():
    n, magnitude = 560, 6.0
    # Equalize does nothing to fewer than 256 pixels.
    image = _images(1, 17, seed=2)[0]
    new, _ = _repeated(augment.rand_augment(1, magnitude), image, n)
    each = jnp.repeat(jnp.arange(14), 2)
    x = jnp.broadcast_to(image[None], (28, *image.shape))
    sign = jnp.tile(jnp.array([1.0, -1.0]), 14)
    made = np.asarray(_program(magnitude, 0.5)(x, each, sign))
    far = np.abs(new[:, None] - made[None]).max(axis=(2, 3, 4))
    nearest = far.argmin(axis=1)
    assert far.min(axis=1).max() < 1e-5
    assert _uniform(nearest // 2, range(14))
    # Both directions, where there are two.
    directed = nearest[nearest // 2 >= 5]
    assert _uniform(directed % 2, (0, 1))
    # Two rounds are two draws.
    twice, _ = _repeated(augment.rand_augment(2, magnitude), image, 50)
    unlike = np.abs(twice[:, None] - made[None]).max(axis=(2, 3, 4)).min(axis=1)
    assert (unlike > 1e-3).mean() > 0.5


# Chains.


def test_links_of_a_chain_draw_for_themselves():
    image, n = _images(1)[0], 2000
    flip = augment.flip()
    new, _ = _repeated(augment.chain(flip, flip), image, n)
    same = np.all(new == np.asarray(image), axis=(1, 2, 3))
    assert _uniform(same, (0, 1))  # with one draw for both, all would be
    shared, _ = flip(
        jax.vmap(jax.random.fold_in, (0, None))(_keys(n), 0), *_x_y(image, n)
    )
    chained, _ = _repeated(augment.chain(flip), image, n)
    np.testing.assert_array_equal(chained, shared)
    nothing, _ = _repeated(augment.chain(), image, 3)
    np.testing.assert_array_equal(nothing, [image] * 3)


def _x_y(image, n):
    return jnp.broadcast_to(image[None], (n, *image.shape)), jnp.zeros(n, jnp.int32)


def test_a_function_of_ones_own_is_an_augmentation():
    def darker(keys, x, y):
        return x / 2, y

    x, y = _images(), jnp.arange(6) % 10
    new, labels = augment.chain(darker, augment.cutmix(1.0, 10))(_keys(6), x, y)
    assert float(new.max()) <= 0.5
    assert labels.shape == (6, 10)


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: augment.pad_crop(-1), r'^padding must be an integer >= 0, got -1'),
        (lambda: augment.pad_crop(1.5), r'^padding .* got 1.5'),
        (lambda: augment.pad_crop(1, 'wrap'), r"^mode must be .* got 'wrap'"),
        (lambda: augment.flip(1.5), r'^probability must be from 0 to 1, got 1.5'),
        (lambda: augment.cutout(0), r'^size must be an integer >= 1, got 0'),
        (lambda: augment.cutout(3, 2.0), r'^fill must be .* got 2.0'),
        (lambda: augment.cutmix(0, 10), r'^alpha must be a positive number, got 0'),
        (lambda: augment.cutmix(1.0, 1), r'^num_classes must be an integer >= 2'),
        (lambda: augment.mixup(float('nan'), 10), r'^alpha .* got nan'),
        (lambda: augment.rand_augment(0), r'^count must be an integer >= 1, got 0'),
        (lambda: augment.rand_augment(1, 11), r'^magnitude must be .* got 11'),
        (lambda: augment.chain(augment.flip(), 3), r'^augments .* got 3 at position 1'),
    ],
)
def test_factories_refuse(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ('augmentation', 'x', 'y', 'match'),
    [
        (augment.flip(), jnp.zeros((2, 8, 8)), None, r'^x must be \(B, height'),
        (augment.flip(), jnp.zeros((2, 8, 8, 3), jnp.uint8), None, 'float32'),
        (augment.flip(), jnp.zeros((3, 8, 8, 3)), None, '^key must be'),
        (augment.pad_crop(8, 'reflect'), jnp.zeros((2, 8, 8, 3)), None, '^padding'),
        (augment.cutout(2, (0.1, 0.2)), jnp.zeros((2, 8, 8, 3)), None, '^fill'),
        (
            augment.rand_augment(1, 2, (0.1, 0.2)),
            jnp.zeros((2, 8, 8, 3)),
            None,
            '^fill',
        ),
        (augment.cutmix(1, 5), jnp.zeros((2, 8, 8, 3)), jnp.ones((2, 4)), '^num_cl'),
    ],
)
def test_augmentations_refuse(augmentation, x, y, match):
    y = jnp.zeros(2, jnp.int32) if y is None else y
    with pytest.raises(ValueError, match=match):
        augmentation(_keys(2), x, y)
