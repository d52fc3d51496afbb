"""Vision transformers: sizes, a transcription in NumPy, names, and split norms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from advjax import losses, models, training, zoo

KEY = jax.random.key(0)
SHAPE = (8, 12, 3)
X = jax.random.uniform(KEY, (3, *SHAPE))

tiny = functools.partial(zoo.vit_small, SHAPE, 5, patch=4, width=12, depth=2, heads=3)


def count(model):
    params, _ = jax.eval_shape(model.init, KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_sizes_of_the_published_networks():
    imagenet = zoo.vit_small((224, 224, 3), 1000, patch=16)
    assert count(imagenet) == 22_050_664
    # Fewer positions, smaller patches, fewer classes.
    less = (197 - 65) * 384 + (16 * 16 - 4 * 4) * 3 * 384 + 990 * 385
    assert count(zoo.vit_small()) == 22_050_664 - less
    # Two norms in each of 12 blocks and one at the end.
    assert count(zoo.vit_small(branches=3)) == count(zoo.vit_small()) + 2 * 25 * 768


@pytest.fixture(scope='module')
def weights():
    """Far from their start, where no part of the network is without effect."""
    params, state = jax.jit(tiny().init)(KEY)
    assert state == {}
    rng = np.random.default_rng(0)

    def moved(leaf):
        return leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(moved, params)


def normed(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * layer['branches'][0]['scale'] + layer['branches'][0]['bias']


def affine(layer, x):
    return x @ layer['kernel'] + layer['bias']


def transcription(p, image, heads):
    """One image, one patch, one head and one query at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    image = np.asarray(image, np.float64)
    tokens = [p['token'][0, 0]]
    for top in range(0, image.shape[0], 4):
        for left in range(0, image.shape[1], 4):
            patch = image[top : top + 4, left : left + 4]
            tokens.append(
                np.einsum('hwc,hwcd->d', patch, p['patches']['kernel'])
                + p['patches']['bias']
            )
    z = np.array(tokens) + p['positions'][0]
    size = z.shape[1] // heads
    for block in p['blocks'].values():
        q, k, v = np.split(affine(block['qkv'], normed(block['norm1'], z)), 3, axis=1)
        y = np.zeros_like(z)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(z)):
                score = np.exp(k[:, part] @ q[i, part] / math.sqrt(size))
                y[i, part] = (score / score.sum()) @ v[:, part]
        z = z + affine(block['proj'], y)
        y = affine(block['fc1'], normed(block['norm2'], z))
        y = y * np.vectorize(lambda t: (1 + math.erf(t / math.sqrt(2))) / 2)(y)
        z = z + affine(block['fc2'], y)
    features = normed(p['norm'], z)[0]
    return features, affine(p['out'], features)


def test_it_is_what_the_paper_says(weights):
    model = tiny()
    logits = jax.jit(models.logits_fn(model, weights))(X)
    features = jax.jit(models.features_fn(model, weights))(X)
    for n, x in enumerate(X):
        expected_features, expected = transcription(weights, x, 3)
        np.testing.assert_allclose(features[n], expected_features, atol=2e-5)
        np.testing.assert_allclose(logits[n], expected, atol=2e-5)


def test_training_is_evaluation_without_dropout(weights):
    model = tiny()
    answer = jax.jit(model.apply)(weights, {}, X)[0]
    train = functools.partial(model.apply, train=True)
    np.testing.assert_array_equal(jax.jit(train)(weights, {}, X, key=KEY)[0], answer)


def test_dropout_is_of_training_alone(weights):
    model = tiny(dropout=0.2)
    answer = jax.jit(tiny().apply)(weights, {}, X)[0]
    np.testing.assert_allclose(jax.jit(model.apply)(weights, {}, X)[0], answer)
    train = jax.jit(functools.partial(model.apply, train=True))
    one, other = (train(weights, {}, X, key=jax.random.key(k))[0] for k in (1, 2))
    assert not np.allclose(one, other)
    assert not np.allclose(one, answer)
    np.testing.assert_array_equal(train(weights, {}, X, key=jax.random.key(1))[0], one)


def test_examples_do_not_see_each_other(weights):
    run = jax.jit(models.logits_fn(tiny(), weights))
    np.testing.assert_allclose(run(X)[:1], run(X[:1]), rtol=2e-5, atol=1e-5)


def test_bfloat16_and_pixels_normalised_inside(weights):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    inside, plain, half = (
        jax.jit(model.apply)(weights, {}, x)[0]
        for model, x in [
            (tiny(mean=mean, std=std), X),
            (tiny(), (X - jnp.array([[[mean]]])) / jnp.array([[[std]]])),
            (tiny(mean=mean, std=std, dtype=jnp.bfloat16), X),
        ]
    )
    np.testing.assert_allclose(inside, plain, rtol=1e-4, atol=1e-5)
    assert half.dtype == jnp.float32
    gap = np.abs(half - inside).max()
    assert 0 < gap < 0.1 * np.abs(inside).max()
    for leaf in jax.tree.leaves(jax.eval_shape(tiny(dtype=jnp.bfloat16).init, KEY)):
        assert leaf.dtype == jnp.float32


def test_the_softmax_of_bfloat16_is_float32(weights):
    model = tiny(dtype=jnp.bfloat16)
    text = str(jax.make_jaxpr(model.apply)(weights, {}, X))
    exponentials = [line for line in text.splitlines() if '= exp ' in line]
    assert exponentials
    assert all(line.split(':')[1].startswith('f32') for line in exponentials)


def test_it_has_a_forward_mode(weights):
    logits_fn = models.logits_fn(tiny(), weights)
    forward = jax.jit(lambda x: jax.jvp(logits_fn, (x,), (x,))[1])(X)
    back = jax.jit(lambda x: jax.vjp(logits_fn, x)[1](jnp.ones((3, 5)))[0])(X)
    np.testing.assert_allclose(forward.sum(), (back * X).sum(), rtol=1e-3)


# Split layer normalisation.


def test_a_branch_is_a_layer_norm_of_its_own():
    x = jax.random.normal(KEY, (2, 7, 6))
    layer = zoo.SplitLayerNorm(6, 2, rngs=nnx.Rngs(0))
    plain = nnx.LayerNorm(6, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer(x, 1), plain(x), atol=1e-5)
    layer.branches[1].bias[...] += 1.0
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-5)
    np.testing.assert_allclose(layer(x, branch=1), plain(x) + 1, atol=1e-5)
    for branch in (-1, 2):
        with pytest.raises(ValueError, match='branch'):
            layer(x, branch)
    with pytest.raises(ValueError, match='branches'):
        zoo.SplitLayerNorm(6, 0, rngs=nnx.Rngs(0))


def test_gradients_reach_the_branch_that_was_run_and_what_is_shared():
    model = tiny(branches=2)
    params, state = jax.jit(model.init)(KEY)
    y = jnp.array([0, 1, 2], jnp.int32)

    @functools.partial(jax.jit, static_argnames='branch')
    def gradient(params, branch):
        def loss(params):
            logits, _ = model.apply(params, state, X, train=True, branch=branch)
            return losses.cross_entropy(logits, y).sum()

        return jax.grad(loss)(params)

    for branch in (0, 1):
        leaves, _ = jax.tree_util.tree_flatten_with_path(gradient(params, branch))
        for path, leaf in leaves:
            names = [entry.key for entry in path]
            of = names[names.index('branches') + 1] if 'branches' in names else branch
            assert bool(np.any(leaf)) == (of == branch), names


def test_advprop_trains_it():
    """Both kinds of norm take the method as it is."""
    import optax

    from advjax import attacks, linf

    model = tiny(branches=2)
    method = training.advprop(attacks.fgsm(linf(0.1)))
    state = training.create(model, optax.sgd(0.1), key=KEY)
    batch = {'image': X, 'label': jnp.array([0, 1, 2], jnp.int32)}
    after, metrics = jax.jit(training.step)(method, state, batch, KEY)
    assert np.isfinite(metrics['loss'])
    for branch in (0, 1):
        before, now = (
            s.params['norm']['branches'][branch]['bias'] for s in (state, after)
        )
        assert not np.allclose(before, now)


# Published weights.


def test_published_names():
    model = tiny(branches=2)
    rng = np.random.default_rng(0)
    shapes = {
        'cls_token': (1, 1, 12),
        'pos_embed': (1, 7, 12),
        'patch_embed.proj.weight': (12, 3, 4, 4),
        'patch_embed.proj.bias': (12,),
        **{f'norm.{leaf}': (12,) for leaf in ('weight', 'bias')},
        'head.weight': (5, 12),
        'head.bias': (5,),
    }
    for k in (0, 1):
        for name, shape in [
            ('norm1', (12,)),
            ('attn.qkv', (36, 12)),
            ('attn.proj', (12, 12)),
            ('norm2', (12,)),
            ('mlp.fc1', (48, 12)),
            ('mlp.fc2', (12, 48)),
        ]:
            shapes[f'blocks.{k}.{name}.weight'] = shape
            shapes[f'blocks.{k}.{name}.bias'] = shape[:1]
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params, state = model.published(arrays)
    assert state == {}
    sizes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, KEY)[0])
    assert jax.tree.map(jnp.shape, params) == sizes

    def equal(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    equal(params['token'], arrays['cls_token'])
    equal(params['positions'], arrays['pos_embed'])
    patches = arrays['patch_embed.proj.weight'].transpose(2, 3, 1, 0)
    equal(params['patches']['kernel'], patches)
    equal(params['blocks'][1]['qkv']['kernel'], arrays['blocks.1.attn.qkv.weight'].T)
    equal(params['blocks'][0]['fc2']['bias'], arrays['blocks.0.mlp.fc2.bias'])
    for branch in (0, 1):
        norm = params['blocks'][1]['norm2']['branches'][branch]
        equal(norm['scale'], arrays['blocks.1.norm2.weight'])
        equal(params['norm']['branches'][branch]['bias'], arrays['norm.bias'])
    arrays['pos_embed'] = np.zeros((1, 8, 12))
    with pytest.raises(ValueError, match='pos_embed'):
        model.published(arrays)


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_logits_of_pytorch(tmp_path, suffix):
    torch = pytest.importorskip('torch')
    nn = torch.nn
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x):
            b, n, d = x.shape
            qkv = self.qkv(x).reshape(b, n, 3, 3, d // 3).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
            return self.proj(y.transpose(1, 2).reshape(b, n, d))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(12, 48), nn.Linear(48, 12)

        def forward(self, x):
            return self.fc2(nn.functional.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(12, eps=1e-6) for _ in range(2))
            self.attn, self.mlp = Attention(), Mlp()

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class PatchEmbed(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(3, 12, 4, stride=4)

        def forward(self, x):
            return self.proj(x).flatten(2).transpose(1, 2)

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = nn.Parameter(torch.randn(1, 1, 12))
            self.pos_embed = nn.Parameter(torch.randn(1, 7, 12))
            self.patch_embed = PatchEmbed()
            self.blocks = nn.Sequential(Block(), Block())
            self.norm, self.head = nn.LayerNorm(12, eps=1e-6), nn.Linear(12, 5)

        def forward(self, x):
            x = self.patch_embed(x)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
            x = self.blocks(x + self.pos_embed)
            return self.head(self.norm(x)[:, 0])

    theirs = Vit().eval()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(0.2 * torch.randn_like(value))
        expected = theirs(torch.tensor(np.array(X)).permute(0, 3, 1, 2)).numpy()
    path = tmp_path / f'w{suffix}'
    if suffix == '.pt':
        torch.save({'model': theirs.state_dict()}, path)
    else:
        save = pytest.importorskip('safetensors.torch').save_file
        save(theirs.state_dict(), path)
    params, state = zoo.load_published(path, tiny())
    logits = jax.jit(models.logits_fn(tiny(), params, state))(X)
    assert np.ptp(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        ({'shape': (30, 32, 3)}, 'patch'),
        ({'shape': (32, 32)}, 'shape'),
        ({'patch': 0}, 'patch'),
        ({'width': 385}, 'heads'),
        ({'heads': 5}, 'heads'),
        ({'depth': 0}, 'depth'),
        ({'dropout': 1.0}, 'dropout'),
        ({'branches': 0}, 'branches'),
        ({'num_classes': 2.0}, 'num_classes'),
        ({'dtype': jnp.int32}, 'dtype'),
        ({'std': (0.5, 0.5, 0.5)}, 'mean and std'),
    ],
)
def test_values_out_of_range(options, name):
    with pytest.raises(ValueError, match=name):
        zoo.vit_small(**options)


def test_images_of_another_size(weights):
    with pytest.raises(ValueError, match='positions'):
        jax.eval_shape(tiny().apply, weights, {}, jnp.zeros((1, 12, 8, 3)))
