"""Weights in RobustBench's names, against networks of the same layouts.

The first half needs no PyTorch: forward passes are transcribed on arrays by the names
of the modules. The second half loads what PyTorch's own modules save.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from advjax import models, zoo
from advjax.zoo.robustbench import _NAMES

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (3, 8, 8, 3))


class Arrays(dict):
    """PyTorch arrays that are drawn when a forward pass first asks for them."""

    random = np.random.default_rng(0)

    def draw(self, name, *shape):
        if name not in self:
            value = self.random.normal(0, 0.3, shape)
            if name.endswith(('running_var', 'weight')) and len(shape) == 1:
                value = 0.5 + value**2
            self[name] = np.float32(value)
        return jnp.asarray(self[name])

    def conv(self, name, x, features, size=3, stride=1, pad=None):
        w = self.draw(f'{name}.weight', features, x.shape[1], size, size)
        pads = (pad or (size // 2, size // 2),) * 2
        return lax.conv_general_dilated(x, w, (stride, stride), pads)

    def same(self, name, x, features, stride):
        pad = (0, 1) if stride == 2 else (1, 1)
        return self.conv(name, x, features, 3, stride, pad)

    def norm(self, name, x):
        w, b, mean, var = (
            self.draw(f'{name}.{leaf}', x.shape[1])[None, :, None, None]
            for leaf in ('weight', 'bias', 'running_mean', 'running_var')
        )
        self.setdefault(f'{name}.num_batches_tracked', np.array(7))
        return (x - mean) / jnp.sqrt(var + 1e-5) * w + b

    def linear(self, name, x):
        w, b = self.draw(f'{name}.weight', 5, x.shape[1]), self.draw(f'{name}.bias', 5)
        return x.mean((2, 3)) @ w.T + b[None]

    def pixels(self, x):
        self['mean'], self['std'] = (
            np.float32(v).reshape(3, 1, 1) for v in (zoo.CIFAR10_MEAN, zoo.CIFAR10_STD)
        )
        return (x - self['mean'][None]) / self['std'][None]


relu, silu = jax.nn.relu, jax.nn.silu


def preact(a, x, raw=False, last=True):
    """PreActBlock (raw) and PreActBlockV2, in two stages of two."""
    x = a.conv('conv1', x, 4)
    for s, k in ((1, 0), (1, 1), (2, 0), (2, 1)):
        p, stride = f'layer{s}.{k}', 2 if (s, k) == (2, 0) else 1
        y = relu(a.norm(f'{p}.bn1', x))
        if (s, k) == (2, 0):
            x = a.conv(f'{p}.shortcut.0', x if raw else y, 8, 1, 2)
        y = a.conv(f'{p}.conv1', y, 4 * s, stride=stride)
        x = x + a.conv(f'{p}.conv2', relu(a.norm(f'{p}.bn2', y)), 4 * s)
    return a.linear('linear', relu(a.norm('bn', x)) if last else x)


def gowal_preact(a, x):
    """DMPreActResNet in two stages of two."""
    x = a.conv('conv_2d', a.pixels(x), 4)
    for s, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        p, stride, n = f'layer_{s}.{k}', 2 if (s, k) == (1, 0) else 1, 4 * s + 4
        y = silu(a.norm(f'{p}.batchnorm_0', x))
        if (s, k) == (1, 0):
            x = a.same(f'{p}.shortcut', x, n, stride)
        y = a.same(f'{p}.conv_2d_1', y, n, stride)
        x = x + a.conv(f'{p}.conv_2d_2', silu(a.norm(f'{p}.batchnorm_1', y)), n)
    return a.linear('logits', silu(a.norm('batchnorm', x)))


def resnet18(a, x):
    """Of BasicBlocks, in two stages of two."""
    x = relu(a.norm('bn1', a.conv('conv1', x, 4)))
    for s, k in ((1, 0), (1, 1), (2, 0), (2, 1)):
        p, stride, n = f'layer{s}.{k}', 2 if (s, k) == (2, 0) else 1, 4 * s
        y = relu(a.norm(f'{p}.bn1', a.conv(f'{p}.conv1', x, n, stride=stride)))
        y = a.norm(f'{p}.bn2', a.conv(f'{p}.conv2', y, n))
        if (s, k) == (2, 0):
            x = a.norm(f'{p}.shortcut.1', a.conv(f'{p}.shortcut.0', x, n, 1, 2))
        x = relu(x + y)
    return a.linear('linear', x)


def resnet50(a, x):
    """The stem of ImageNet and one stage, in torchvision's names."""
    x = relu(a.norm('bn1', a.conv('conv1', x, 2, 7, 2)))
    pads = ((0, 0), (0, 0), (1, 1), (1, 1))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), pads)
    for k in range(3):
        p = f'layer1.{k}'
        y = relu(a.norm(f'{p}.bn1', a.conv(f'{p}.conv1', x, 2, 1)))
        y = relu(a.norm(f'{p}.bn2', a.conv(f'{p}.conv2', y, 2)))
        y = a.norm(f'{p}.bn3', a.conv(f'{p}.conv3', y, 8, 1))
        if k == 0:
            x = a.norm(f'{p}.downsample.1', a.conv(f'{p}.downsample.0', x, 8, 1))
        x = relu(x + y)
    return a.linear('fc', x)


def trades(a, x):
    """WideResNet of depth 10."""
    x = a.conv('conv1', x, 4)
    for s, n in ((1, 8), (2, 16), (3, 32)):
        p, stride = f'block{s}.layer.0', 1 if s == 1 else 2
        x = relu(a.norm(f'{p}.bn1', x))
        y = relu(a.norm(f'{p}.bn2', a.conv(f'{p}.conv1', x, n, stride=stride)))
        y = a.conv(f'{p}.conv2', y, n)
        x = y + a.conv(f'{p}.convShortcut', x, n, 1, stride)
    return a.linear('fc', relu(a.norm('bn1', x)))


def gowal_wide(a, x):
    """DMWideResNet of depth 10."""
    x = a.conv('init_conv', a.pixels(x), 4)
    for s, n in ((0, 8), (1, 16), (2, 32)):
        p, stride = f'layer.{s}.block.0', 2 if s else 1
        x = silu(a.norm(f'{p}.batchnorm_0', x))
        y = silu(a.norm(f'{p}.batchnorm_1', a.same(f'{p}.conv_0', x, n, stride)))
        y = a.conv(f'{p}.conv_1', y, n)
        x = y + a.conv(f'{p}.shortcut', x, n, 1, stride)
    return a.linear('logits', silu(a.norm('batchnorm', x)))


CIFAR = {'mean': zoo.CIFAR10_MEAN, 'std': zoo.CIFAR10_STD}
GOWAL = {'activation': nnx.silu, **CIFAR}
PREACT = functools.partial(zoo.preact_resnet18, (8, 8, 3), 5, widths=(4, 8))
WIDE = functools.partial(zoo.wide_resnet, 10, 2, (8, 8, 3), 5, channels=4)
NETWORKS = {
    'rice2020': (PREACT(), preact),
    'kuangliu': (PREACT(layout='kuangliu'), functools.partial(preact, last=False)),
    'wong2020': (
        PREACT(layout='wong2020'),
        functools.partial(preact, last=False, raw=True),
    ),
    'gowal2021': (PREACT(layout='gowal2021', **GOWAL), gowal_preact),
    'resnet18': (zoo.resnet18((8, 8, 3), 5, widths=(4, 8)), resnet18),
    'torchvision': (
        zoo.resnet50((8, 8, 3), 5, widths=(2,), stem='imagenet'),
        resnet50,
    ),
    'trades': (WIDE(), trades),
    'gowal2020': (WIDE(layout='gowal2020', **GOWAL), gowal_wide),
}


@functools.cache
def drawn(name):
    """The arrays of a transcription and its logits."""
    arrays = Arrays()
    logits = NETWORKS[name][1](arrays, X.transpose(0, 3, 1, 2))
    return arrays, np.asarray(logits)


def saved(tmp_path, arrays):
    path = tmp_path / 'weights.npz'
    np.savez(path, **arrays)
    return path


def answers(model, path, x=X, **view):
    params, state = zoo.load_published(path, model)
    for leaf in jax.tree.leaves((params, state)):
        assert leaf.dtype == jnp.float32
    return jax.jit(models.logits_fn(model, params, state, **view))(x)


@pytest.mark.parametrize('name', NETWORKS)
def test_logits_are_those_of_the_transcription(name, tmp_path):
    arrays, logits = drawn(name)
    got = answers(NETWORKS[name][0], saved(tmp_path, arrays))
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 1e-2


def test_arrays_are_where_they_belong():
    arrays, _ = drawn('resnet18')
    model = NETWORKS['resnet18'][0]
    params, state = model.published(arrays)
    like = jax.eval_shape(model.init, KEY)
    assert jax.tree.structure(like) == jax.tree.structure((params, state))
    block, kept = params['stages'][1][0], state['stages'][1][0]
    theirs = arrays['layer2.0.shortcut.0.weight'][:, :, 0, 0]
    np.testing.assert_array_equal(block['shortcut']['kernel'][0, 0], theirs.T)
    mean = arrays['layer2.0.shortcut.1.running_mean']
    np.testing.assert_array_equal(kept['shortcut_norm']['branches'][0]['mean'], mean)
    np.testing.assert_array_equal(params['out']['kernel'], arrays['linear.weight'].T)


@pytest.mark.parametrize('prefix', ['module.', 'model.', 'module.model.', '_orig_mod.'])
def test_wrappers_leave_their_names(prefix, tmp_path):
    arrays, logits = drawn('trades')
    wrapped = {prefix + name: value for name, value in arrays.items()}
    wrapped['n_averaged'] = np.array(3)
    # TRADES builds this block, saves it and never calls it.
    wrapped[f'{prefix}sub_block1.layer.0.bn1.weight'] = np.ones(4, np.float32)
    got = answers(WIDE(), saved(tmp_path, wrapped))
    np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)


def test_half_precision_is_read_as_float32():
    arrays, _ = drawn('trades')
    half = {name: np.asarray(value, np.float16) for name, value in arrays.items()}
    params, _ = WIDE().published(half)
    assert params['stem']['kernel'].dtype == jnp.float32


def test_all_branches_start_from_the_published_ones(tmp_path):
    arrays, logits = drawn('rice2020')
    for branch in (0, 1):
        got = answers(PREACT(branches=2), saved(tmp_path, arrays), branch=branch)
        np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'names', [('mean', 'std'), ('mu', 'sigma'), ('normalize.mean', 'normalize.std')]
)
def test_the_pixels_of_file_and_model_are_normalised_alike(names):
    arrays, _ = drawn('resnet18')
    constants = zip(names, (zoo.CIFAR10_MEAN, zoo.CIFAR10_STD), strict=True)
    arrays = arrays | {k: np.float32(v).reshape(1, 3, 1, 1) for k, v in constants}
    zoo.resnet18((8, 8, 3), 5, widths=(4, 8), **CIFAR).published(arrays)
    with pytest.raises(ValueError, match=f'{names[0]} of the file is .0.49.*make it'):
        NETWORKS['resnet18'][0].published(arrays)
    other = zoo.resnet18((8, 8, 3), 5, widths=(4, 8), mean=(0.5,) * 3, std=CIFAR['std'])
    with pytest.raises(ValueError, match=r'the model has mean=\(0.5, 0.5, 0.5\)'):
        other.published(arrays)
    with pytest.raises(ValueError, match=r'the file is .0.5, 0.5., the model has mean'):
        other.published(arrays | {names[0]: np.full(2, 0.5)})


def changed(name, **changes):
    arrays = dict(drawn(name)[0])
    for key, value in changes.items():
        key = key.replace('__', '.')
        if value is None:
            del arrays[key]
        else:
            arrays[key] = value
    return arrays


@pytest.mark.parametrize(
    ('model', 'arrays', 'words'),
    [
        (PREACT(), {'conv1__weight': None}, '1 missing: conv1.weight$'),
        (
            PREACT(),
            {'bn__running_var': None, 'bn__scale': np.zeros(8)},
            '1 missing: bn.running_var; 1 unknown: bn.scale',
        ),
        (
            PREACT(),
            {'linear__weight': np.zeros((6, 8))},
            r'1 of wrong shape: linear.weight \(6, 8\) instead of \(5, 8\)',
        ),
        (
            PREACT(),
            {'conv1__weight': np.zeros((4, 1, 3, 3))},
            r'conv1.weight \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)',
        ),
        (
            PREACT(layout='kuangliu'),
            {},
            '4 unknown: bn.bias, bn.running_mean, bn.running_var, bn.weight',
        ),
        (WIDE(layout='gowal2020'), {}, r'missing: .*batchnorm.*; .*unknown: bn.*, ...'),
        (
            PREACT(),
            {'module__conv1__weight': np.zeros(1)},
            "two arrays are called 'conv1.weight'",
        ),
    ],
)
def test_files_of_other_networks_are_refused(model, arrays, words, tmp_path):
    path = saved(tmp_path, changed('rice2020', **arrays))
    with pytest.raises(ValueError, match=rf'weights.npz: .*{words}'):
        zoo.load_published(path, model)


def test_networks_without_published_weights_say_so(tmp_path):
    path = saved(tmp_path, drawn('trades')[0])
    with pytest.raises(ValueError, match='model must be a network of the zoo with'):
        zoo.load_published(path, zoo.madry_mnist())


def described(model):
    """Parameters, and the activations and constants of a traced network."""
    params, state = jax.eval_shape(model.init, KEY)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    text = str(jax.make_jaxpr(model.apply)(params, state, x))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return count, 'logistic' in text, text.split('conv_general')[0].count(' div ')


@pytest.mark.parametrize(
    ('name', 'threat_model', 'expected'),
    [
        ('Standard', 'Linf', (36_479_194, False, 0)),
        ('Wong2020Fast', 'Linf', (11_171_146, False, 1)),
        ('Andriushchenko2020Understanding', 'Linf', (11_171_146, False, 0)),
        ('Rice2020Overfitting', 'L2', (11_172_170, False, 1)),
        ('Rebuffi2021Fixing_R18_ddpm', 'Linf', (12_548_426, True, 1)),
        ('Wang2023Better_WRN-28-10', 'L2', (36_479_194, True, 1)),
        ('Engstrom2019Robustness', 'Linf', (23_520_842, False, 1)),
        ('Sehwag2021Proxy_R18', 'L2', (11_173_962, False, 0)),
    ],
)
def test_names_of_robustbench(name, threat_model, expected):
    assert described(zoo.robustbench(name, threat_model)) == expected


def test_every_entry_of_robustbench_is_a_network():
    for entries in _NAMES.values():
        for entry in entries.values():
            inspect.signature(entry).bind(shape=(32, 32, 3), num_classes=10)
    wider = zoo.robustbench('Sehwag2021Proxy_R18', branches=2)
    assert wider is zoo.robustbench('Sehwag2021Proxy_R18', branches=2)
    assert wider is not zoo.robustbench('Sehwag2021Proxy_R18')
    with pytest.raises(ValueError, match=r"such as .*'Wong2020Fast'.*'Wong2020'"):
        zoo.robustbench('Wong2020')
    with pytest.raises(ValueError, match=r"threat_model must be one of .*'Linf'.*'L1'"):
        zoo.robustbench('Standard', 'L1')


WIDTHS = (8, 16, 16, 24)
SMALL = {'widths': WIDTHS}
EVERY = {
    'rice2020': (
        lambda: zoo.preact_resnet18(**SMALL, **CIFAR),
        lambda nets: nets.PreActResNet(WIDTHS, **CIFAR),
    ),
    'kuangliu': (
        lambda: zoo.preact_resnet18(layout='kuangliu', **SMALL),
        lambda nets: nets.PreActResNet(WIDTHS, bn_before_fc=False),
    ),
    'wong2020 in full': (
        lambda: zoo.preact_resnet18(layout='wong2020', **CIFAR),
        lambda nets: nets.PreActResNet(
            (64, 128, 256, 512), raw=True, bn_before_fc=False, **CIFAR
        ),
    ),
    'gowal2021': (
        lambda: zoo.preact_resnet18(layout='gowal2021', **GOWAL, **SMALL),
        lambda nets: nets.DMPreActResNet(WIDTHS, **CIFAR),
    ),
    'resnet18': (
        lambda: zoo.resnet18(**SMALL),
        lambda nets: nets.ResNet(nets.BasicBlock, (2, 2, 2, 2), WIDTHS),
    ),
    'resnet50': (
        lambda: zoo.resnet50(**SMALL),
        lambda nets: nets.ResNet(nets.Bottleneck, (3, 4, 6, 3), WIDTHS),
    ),
    'imagenet, resnet18': (
        lambda: zoo.resnet18(stem='imagenet', num_classes=7, **SMALL),
        lambda nets: nets.ResNet(nets.BasicBlock, (2, 2, 2, 2), WIDTHS, 7, True),
    ),
    'imagenet, resnet50': (
        lambda: zoo.resnet50(stem='imagenet', **SMALL),
        lambda nets: nets.ResNet(nets.Bottleneck, (3, 4, 6, 3), WIDTHS, imagenet=True),
    ),
    'trades': (
        lambda: zoo.wide_resnet(16, 2),
        lambda nets: nets.WideResNet(16, 2, sub_block1=True),
    ),
    'gowal2020': (
        lambda: zoo.wide_resnet(16, 2, layout='gowal2020', **GOWAL),
        lambda nets: nets.DMWideResNet(16, 2, **CIFAR),
    ),
}


def weights_alone(torch, module, path):
    torch.save(module.state_dict(), path)


def checkpoint(torch, module, path):
    names = {f'module.{k}': v for k, v in module.state_dict().items()}
    torch.save({'epoch': 3, 'state_dict': names, 'optimizer': {'lr': 0.1}}, path)


@pytest.mark.parametrize('name', EVERY)
def test_logits_are_those_of_the_pytorch_module(name, tmp_path):
    torch = pytest.importorskip('torch')
    from tests import torch_networks

    make, build = EVERY[name]
    model, module = make(), torch_networks.randomised(build(torch_networks))
    x = np.asarray(jax.random.uniform(KEY, (3, 32, 32, 3)))
    with torch.no_grad():
        expected = module(torch.tensor(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-3
    save = (weights_alone, checkpoint)[sorted(EVERY).index(name) % 2]
    path = tmp_path / f'{name}.pt'
    save(torch, module, path)
    got = answers(model, path, x)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    # As many parameters, but for the block that is never called.
    count = sum(
        value.numel()
        for key, value in module.named_parameters()
        if not key.startswith('sub_block1')
    )
    params, _ = jax.eval_shape(model.init, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
