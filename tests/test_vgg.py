"""VGG: the published sizes, names and logits, and branches that keep to themselves."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from advjax import models, zoo

KEY = jax.random.key(0)
SHAPE = (32, 32, 3)
WIDTHS = (2, 3, 4, 4, 5)
X = jax.random.uniform(KEY, (3, *SHAPE))

tiny = functools.partial(zoo.vgg11, num_classes=4, widths=WIDTHS)


def count(model):
    params, _ = jax.eval_shape(model.init, KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_sizes_of_the_published_networks():
    assert count(zoo.vgg11()) == 9_231_114
    assert count(zoo.vgg16()) == 14_728_266
    assert count(zoo.vgg16(num_classes=100)) == 14_728_266 + 90 * 513
    # Simonyan and Zisserman, table 1, all 3x3; a bias, a scale and a shift for each.
    features = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    pairs = zip([3, *features], features, strict=False)
    expected = sum(9 * a * b + 3 * b for a, b in pairs) + 5130
    assert count(zoo.vgg16()) == expected


def test_a_normalisation_for_every_branch():
    params, state = jax.eval_shape(tiny(branches=3).init, KEY)
    one, one_state = jax.eval_shape(tiny().init, KEY)
    counts = (1, 1, 2, 2, 2)
    sizes = [w for w, n in zip(WIDTHS, counts, strict=True) for _ in range(n)]
    extra = 2 * 2 * sum(sizes)
    total = functools.partial(jax.tree.reduce, lambda n, leaf: n + leaf.size)
    assert total(params, 0) == total(one, 0) + extra
    assert total(state, 0) == 3 * total(one_state, 0)


@pytest.mark.parametrize('shape', [(32, 32, 3), (64, 32, 1)])
@pytest.mark.parametrize('net', [zoo.vgg11, zoo.vgg16])
def test_shapes(net, shape):
    model = net(shape, 7, widths=WIDTHS)
    assert net(shape, 7, widths=WIDTHS) is model
    params, state = jax.eval_shape(model.init, KEY)
    x = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    for train in (False, True):
        run = functools.partial(model.apply, train=train)
        logits, _ = jax.eval_shape(run, params, state, x)
        assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    assert jax.eval_shape(model.features, params, state, x).shape == (3, 5)


@pytest.fixture(scope='module')
def split():
    """A network of two branches, and what training does through each of them."""
    model = tiny(branches=2)
    params, state = jax.jit(model.init)(KEY)

    @functools.partial(jax.jit, static_argnames='branch')
    def run(branch):
        eval_logits, same = model.apply(params, state, X, branch=branch)
        train_logits, after = model.apply(params, state, X, train=True, branch=branch)
        return eval_logits, same, train_logits, after

    return params, state, [run(branch) for branch in (0, 1)]


def test_training_changes_the_statistics_of_one_branch(split):
    _, state, runs = split
    for branch, (_, same, train_logits, after) in enumerate(runs):
        assert np.isfinite(train_logits).all()
        jax.tree.map(np.testing.assert_array_equal, same, state)
        for norm, before in zip(
            after['norms'].values(), state['norms'].values(), strict=True
        ):
            mine, other = norm['branches'][branch], norm['branches'][1 - branch]
            assert not np.allclose(mine['mean'], before['branches'][branch]['mean'])
            other_before = before['branches'][1 - branch]
            jax.tree.map(np.testing.assert_array_equal, other, other_before)


def test_branches_that_have_learned_the_same_agree(split):
    (one, *_), (other, *_) = split[2]
    np.testing.assert_array_equal(one, other)


def test_bfloat16_and_pixels_normalised_inside():
    params, state = jax.jit(tiny().init)(KEY)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    inside, plain, half = (
        jax.jit(model.apply)(params, state, x)[0]
        for model, x in [
            (tiny(mean=mean, std=std), X),
            (tiny(), (X - jnp.array([[[mean]]])) / jnp.array([[[std]]])),
            (tiny(mean=mean, std=std, dtype=jnp.bfloat16), X),
        ]
    )
    np.testing.assert_allclose(inside, plain, rtol=1e-4, atol=1e-6)
    assert half.dtype == jnp.float32
    gap = np.abs(half - inside).max()
    assert 0 < gap < 0.05 * np.abs(inside).max()
    abstract, stats = jax.eval_shape(tiny(dtype=jnp.bfloat16).init, KEY)
    for leaf in jax.tree.leaves((abstract, stats)):
        assert leaf.dtype == jnp.float32


def test_activation():
    smooth = tiny(activation=nnx.silu)
    params, state = jax.jit(smooth.init)(KEY)
    logits = [
        jax.jit(model.apply)(params, state, X[:1])[0] for model in (smooth, tiny())
    ]
    assert not np.allclose(*logits)


# Positions of convolutions in the authors' nn.Sequential.
POSITIONS = {
    'vgg11': [0, 4, 8, 11, 15, 18, 22, 25],
    'vgg16': [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
}


@pytest.mark.parametrize('name', POSITIONS)
def test_published_names(name):
    """Every array lands where its number says, in every branch."""
    model = getattr(zoo, name)(num_classes=4, widths=WIDTHS, branches=2)
    per_stage = {'vgg11': (1, 1, 2, 2, 2), 'vgg16': (2, 2, 3, 3, 3)}[name]
    sizes = [w for w, n in zip(WIDTHS, per_stage, strict=True) for _ in range(n)]
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    arrays: dict[str, Any]
    arrays = {'classifier.weight': normal(4, 5), 'classifier.bias': normal(4)}
    for at, a, b in zip(POSITIONS[name], [3, *sizes], sizes, strict=False):
        arrays[f'features.{at}.weight'] = normal(b, a, 3, 3)
        arrays[f'features.{at}.bias'] = normal(b)
        for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
            arrays[f'features.{at + 1}.{leaf}'] = normal(b)
        arrays[f'features.{at + 1}.num_batches_tracked'] = np.int64(3)
    params, state = model.published({f'module.{k}': v for k, v in arrays.items()})
    for k, at in enumerate(POSITIONS[name]):
        conv = params['convs'][k]
        expected = arrays[f'features.{at}.weight'].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(conv['kernel'], expected)
        np.testing.assert_array_equal(conv['bias'], arrays[f'features.{at}.bias'])
        for branch in (0, 1):
            norm = {
                **params['norms'][k]['branches'][branch],
                **state['norms'][k]['branches'][branch],
            }
            for ours, theirs in [
                ('scale', 'weight'),
                ('bias', 'bias'),
                ('mean', 'running_mean'),
                ('var', 'running_var'),
            ]:
                expected = arrays[f'features.{at + 1}.{theirs}']
                np.testing.assert_array_equal(norm[ours], expected)
    expected = arrays['classifier.weight'].T
    np.testing.assert_array_equal(params['out']['kernel'], expected)
    del arrays['features.0.bias']
    with pytest.raises(ValueError, match=r'features\.0\.bias'):
        model.published(arrays)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', POSITIONS)
def test_logits_of_pytorch(tmp_path, name, zipped):
    torch = pytest.importorskip('torch')
    if not zipped and name == 'vgg16':
        pytest.skip('one of them in the older format is enough')
    nn = torch.nn
    torch.manual_seed(0)
    plan = {
        'vgg11': [2, 'M', 3, 'M', 4, 4, 'M', 4, 4, 'M', 5, 5, 'M'],
        'vgg16': [2, 2, 'M', 3, 3, 'M', *[4] * 3, 'M', *[4] * 3, 'M', *[5] * 3, 'M'],
    }[name]

    class Vgg(nn.Module):
        def __init__(self):
            super().__init__()
            layers, before = [], 3
            for entry in plan:
                if entry == 'M':
                    layers += [nn.MaxPool2d(2, 2)]
                    continue
                layers += [nn.Conv2d(before, entry, 3, padding=1)]
                layers += [nn.BatchNorm2d(entry), nn.ReLU()]
                before = entry
            self.features = nn.Sequential(*layers, nn.AvgPool2d(1, 1))
            self.classifier = nn.Linear(5, 4)

        def forward(self, x):
            return self.classifier(self.features(x).flatten(1))

    theirs = Vgg()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(0.2 * torch.rand_like(value))
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.add_(1)  # Few units, of which none should be dead.
        for _ in range(30):  # Until the statistics are those of images.
            theirs(torch.rand(16, 3, 32, 32))
    theirs.eval()
    path = tmp_path / 'w.pt'
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=zipped)
    model = getattr(zoo, name)(num_classes=4, widths=WIDTHS)
    params, state = zoo.load_published(path, model)
    with torch.no_grad():
        expected = theirs(torch.tensor(np.array(X)).permute(0, 3, 1, 2)).numpy()
    logits = jax.jit(models.logits_fn(model, params, state))(X)
    assert np.ptp(expected, axis=0).max() > 1e-2  # Or any images would do.
    assert np.abs(expected).max() < 100
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        ({'shape': (31, 32, 3)}, 'shape'),
        ({'shape': (32, 32)}, 'shape'),
        ({'num_classes': 0}, 'num_classes'),
        ({'widths': (1, 2, 3, 4)}, 'widths'),
        ({'widths': (1, 2, 3, 4, 0)}, 'widths'),
        ({'branches': 0}, 'branches'),
        ({'dtype': jnp.int32}, 'dtype'),
        ({'mean': (0.5, 0.5, 0.5)}, 'mean and std'),
        ({'mean': (0.5,), 'std': (0.5,)}, 'mean'),
        ({'mean': (0.5,) * 3, 'std': (0.5, 0.5, 0.0)}, 'std'),
    ],
)
def test_values_out_of_range(options, name):
    for net in (zoo.vgg11, zoo.vgg16):
        with pytest.raises(ValueError, match=name):
            net(**options)
