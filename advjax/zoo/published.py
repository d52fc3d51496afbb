"""Published PyTorch weights as parameters of the networks here.

    model = zoo.wide_resnet_28_10()
    params, state = zoo.load_published('Standard.pt', model)

A file names arrays after the attributes of the saved module. The names of a network are
part of its model (``Model.published``); here are those of RobustBench's files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import models
from advjax.types import HostArray, Params, State

# Prefixes that training scripts and wrappers add to the names.
_WRAPPERS = re.compile(r'^(?:(?:module|model|_orig_mod|state_dict)\.)+')

_NORMALISATION = re.compile(
    r'^(?:normali[sz]er?\.)?(?:new_)?(?:(?P<mean>mean|mu)|(?P<std>std|sigma))$'
)

_COUNTERS = re.compile(r'(?:^|\.)(?:num_batches_tracked|n_averaged)$')

LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
}


class Naming(NamedTuple):
    """What a PyTorch implementation calls the layers of a residual network.

    Attributes:
      block: ``(stage, number) -> name`` of a block.
      layers: our name -> its name of each layer.
      unused: matches the names of arrays that its network saves but never uses.
    """

    block: Callable[[int, int], str]
    layers: Mapping[str, str]
    unused: str = r'(?!)'

    def __call__(self, path: Sequence[Any]) -> str:
        """The name of one of our arrays, from its path in params or state."""
        if path[0] == 'stages':
            _, stage, number, layer, *_ = path
            prefix = f'{self.block(stage, number)}.'
        else:
            prefix, layer = '', path[0]
        return f'{prefix}{self.layers[layer]}.{LEAVES[path[-1]]}'


_BLOCK = {
    **{f'conv{k}': f'conv{k}' for k in (1, 2, 3)},
    **{f'norm{k}': f'bn{k}' for k in (1, 2, 3)},
}

KUANGLIU = Naming(
    lambda stage, number: f'layer{stage + 1}.{number}',
    {
        **_BLOCK,
        'stem': 'conv1',
        'stem_norm': 'bn1',
        'shortcut': 'shortcut.0',
        'shortcut_norm': 'shortcut.1',
        'norm': 'bn',
        'out': 'linear',
    },
)
"""ResNets and PreActResNets of kuangliu/pytorch-cifar, used by most papers."""

TORCHVISION = KUANGLIU._replace(
    layers={
        **KUANGLIU.layers,
        'shortcut': 'downsample.0',
        'shortcut_norm': 'downsample.1',
        'out': 'fc',
    }
)
"""ResNets of torchvision, hence of most ImageNet weights."""

TRADES = Naming(
    lambda stage, number: f'block{stage + 1}.layer.{number}',
    {
        **_BLOCK,
        'stem': 'conv1',
        'shortcut': 'convShortcut',
        'norm': 'bn1',
        'out': 'fc',
    },
    unused=r'sub_block1\.',
)
"""WideResNets of TRADES, whose sub_block1 is built and saved but never called."""

GOWAL_WIDE = Naming(
    lambda stage, number: f'layer.{stage}.block.{number}',
    {
        'conv1': 'conv_0',
        'conv2': 'conv_1',
        'norm1': 'batchnorm_0',
        'norm2': 'batchnorm_1',
        'stem': 'init_conv',
        'shortcut': 'shortcut',
        'norm': 'batchnorm',
        'out': 'logits',
    },
)
"""WideResNets of Gowal et al. 2020, RobustBench's DMWideResNet."""

GOWAL_PREACT = Naming(
    lambda stage, number: f'layer_{stage}.{number}',
    {
        **GOWAL_WIDE.layers,
        'conv1': 'conv_2d_1',
        'conv2': 'conv_2d_2',
        'stem': 'conv_2d',
    },
)
"""PreActResNets of Rebuffi et al. 2021, RobustBench's DMPreActResNet."""


def load_published(path: str | Path, model: models.Model) -> tuple[Params, State]:
    """Reads PyTorch weights of a network.

    Names may have the prefixes 'module.' or 'model.'. All branches get the one
    normalisation of the file. A normalisation of pixels in the file must agree with
    that of the model; where the file has none, that of the model is not checked, so
    look up what the weights were trained with.

    Args:
      path: a .pt or .safetensors file.
      model: the network, such as ``zoo.preact_resnet18(layout='wong2020')``.

    Returns:
      Its params and state, in float32.

    Raises:
      ValueError: for a missing or unknown array, one of another shape, or another
        normalisation of pixels; also for a network without published names.
    """
    from advjax.zoo.weight_files import read_state_dict

    if model.published is None:
        raise ValueError(
            f'model must be a network of the zoo with published weights, got {model}'
        )
    arrays = read_state_dict(path)
    try:
        return model.published(arrays)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def with_published(
    model: models.Model,
    namings: Sequence[Callable[[Sequence[Any]], str]],
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> models.Model:
    """The model with the names of its published weights.

    Args:
      model: the network.
      namings: functions from the path of an array in params or state to its name in a
        file; the one that fits the file best is used.
      mean: what the network subtracts from pixels.
      std: what it then divides them by.
    """

    def published(arrays):
        arrays = _unwrapped(arrays)
        _check_pixels(arrays, mean, std)
        like = jax.eval_shape(model.init, jax.random.key(0))
        leaves, structure = jax.tree_util.tree_flatten_with_path(like)
        # The first entry tells params from state.
        paths = [[entry.key for entry in path[1:]] for path, _ in leaves]
        shapes = [leaf.shape for _, leaf in leaves]

        def found(naming):
            return sum(naming(path) in arrays for path in paths)

        naming = max(namings, key=found)
        names = [naming(path) for path in paths]
        unused = naming.unused if isinstance(naming, Naming) else r'(?!)'
        given = {k: v for k, v in arrays.items() if not re.match(unused, k)}
        _check_names(given, dict(zip(names, shapes, strict=True)))
        values = [jnp.asarray(_as_ours(given[k]), jnp.float32) for k in names]
        return jax.tree.unflatten(structure, values)

    return model._replace(published=published)


def _unwrapped(arrays: Mapping[str, HostArray]) -> dict[str, np.ndarray]:
    """Arrays by their names within the network."""
    inner = {}
    for name, value in arrays.items():
        short = _WRAPPERS.sub('', name)
        if _COUNTERS.search(short):
            continue
        if short in inner:
            raise ValueError(
                f'two arrays are called {short!r}: the file holds more than one network'
            )
        inner[short] = np.asarray(value)
    return inner


def _check_pixels(
    arrays: dict[str, np.ndarray],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> None:
    """Takes the normalisation of pixels out of the arrays and compares it."""
    for name in list(arrays):
        match = _NORMALISATION.match(name)
        if match is None:
            continue
        word, ours, none = ('mean', mean, 0) if match['mean'] else ('std', std, 1)
        theirs = arrays.pop(name).astype(np.float32).ravel()
        wanted = np.full(theirs.shape, none) if ours is None else np.array(ours)
        if theirs.shape != wanted.shape or not np.allclose(theirs, wanted, atol=1e-4):
            raise ValueError(
                f'{name} of the file is {theirs.tolist()}, the model has '
                f'{word}={ours}: make it with that {word}'
            )


def _as_ours(array: np.ndarray) -> np.ndarray:
    """OIHW as HWIO, (out, in) as (in, out); the tokens of a transformer stay."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim < 3 else array


def _check_names(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    wrong = {
        name: f'{name} {arrays[name].shape} instead of {_as_theirs(shapes[name])}'
        for name in shapes.keys() & arrays.keys()
        if _as_ours(arrays[name]).shape != shapes[name]
    }
    problems = {
        'missing': sorted(shapes.keys() - arrays.keys()),
        'unknown': sorted(arrays.keys() - shapes.keys()),
        'of wrong shape': [wrong[name] for name in sorted(wrong)],
    }
    said = [
        f'{len(names)} {kind}: {", ".join(names[:5])}{", ..." if names[5:] else ""}'
        for kind, names in problems.items()
        if names
    ]
    if said:
        raise ValueError('the arrays are not those of the model; ' + '; '.join(said))


def _as_theirs(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        height, width, features_in, features_out = shape
        return features_out, features_in, height, width
    return shape[::-1] if len(shape) < 3 else shape
