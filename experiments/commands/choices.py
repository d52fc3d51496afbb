"""What the names in a configuration stand for: network, method, optimizer, the rest."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from advjax import data, training, zoo
from advjax.balls import Ball
from advjax.data.augment import Augment
from advjax.models import Model
from advjax.training import Method
from advjax.types import LogitsFn
from experiments.commands.configuration import METHODS, Config

Shape = tuple[int, ...]
Teachers = Sequence[LogitsFn]


def _scaled(widths: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(factor * width)) for width in widths)


def _wide(depth: int, width: int) -> Callable[..., Model]:
    def build(shape, classes, factor, **options):
        (channels,) = _scaled((16,), factor)
        return zoo.wide_resnet(
            depth, width, shape, classes, channels=channels, **options
        )

    return build


def _stages(factory: Callable[..., Model], *widths: int) -> Callable[..., Model]:
    def build(shape, classes, factor, stages=None, **options):
        kept = _scaled(widths, factor)[:stages]
        return factory(shape, classes, widths=kept, **options)

    return build


def _vit(shape, classes, factor, **options):
    (each,) = _scaled((64,), factor)
    return zoo.vit_small(shape, classes, width=6 * each, heads=6, **options)


_SMALL = {
    'fast_mnist': zoo.fast_mnist,
    'madry_mnist': zoo.madry_mnist,
    'mlp': lambda s, k, w: zoo.mlp(s, k, _scaled((256, 256), w)),
    'maxout': lambda s, k, w: zoo.maxout(s, k, units=_scaled((240,), w)[0]),
    'softmax_regression': lambda s, k, w: zoo.softmax_regression(s, k),
}
_SPLIT = {
    'split_norm_cnn': lambda s, k, w, branches: zoo.split_norm_cnn(
        s, k, _scaled((16, 32), w), *_scaled((100,), w), branches
    ),
}
_LARGE = {
    'preact_resnet18': _stages(zoo.preact_resnet18, 64, 128, 256, 512),
    'resnet18': _stages(zoo.resnet18, 64, 128, 256, 512),
    'resnet50': _stages(zoo.resnet50, 64, 128, 256, 512),
    'wide_resnet_10_1': _wide(10, 1),
    'wide_resnet_28_10': _wide(28, 10),
    'wide_resnet_34_10': _wide(34, 10),
    'wide_resnet_70_16': _wide(70, 16),
    'vgg11': _stages(zoo.vgg11, 64, 128, 256, 512, 512),
    'vgg16': _stages(zoo.vgg16, 64, 128, 256, 512, 512),
    'vit_small': _vit,
}
MODELS = (*_SMALL, *_SPLIT, *_LARGE)


def branches_of(method: str) -> int:
    """Normalisations per layer that the network of a method must have."""
    return 2 if METHODS[method].network == 'branches' else 1


def network(
    config: Config, shape: Shape, num_classes: int, *, to_train: bool = False
) -> Model:
    """The network of a configuration.

    Args:
      config: says which.
      shape: (H, W, C) of one image.
      num_classes: K.
      to_train: compute in bfloat16 where that is asked for and pays: not on CPU.
        Otherwise in float32, as networks are attacked.

    Raises:
      ValueError: for an option that the network does not have.
    """
    name, branches = config.model, branches_of(config.method)
    asked = {
        'stages': config.stages is not None,
        'layout': config.layout is not None,
        'normalise': config.normalise,
        'bfloat16': config.bfloat16,
    }
    has = set(asked) if name in _LARGE else set()
    if not name.startswith(('preact', 'wide')):
        has -= {'layout'}
    if name.startswith(('wide', 'vit')):
        has -= {'stages'}
    wrong = [option for option, given in asked.items() if given and option not in has]
    if wrong:
        raise ValueError(f'model {name} has no option {wrong[0]}')
    if name in _SMALL:
        if branches > 1:
            raise ValueError(
                f'model must have split normalisation for {config.method}: one of '
                f'{[*_SPLIT, *_LARGE]}, got {name!r}'
            )
        return _SMALL[name](shape, num_classes, config.width)
    if name in _SPLIT:
        return _SPLIT[name](shape, num_classes, config.width, branches)
    options: dict[str, Any] = {'branches': branches}
    for option in ('layout', 'stages'):
        if getattr(config, option) is not None:
            options[option] = getattr(config, option)
    if config.normalise:
        options |= {'mean': zoo.CIFAR10_MEAN, 'std': zoo.CIFAR10_STD}
    if to_train and config.bfloat16 and jax.default_backend() != 'cpu':
        options['dtype'] = jnp.bfloat16
    return _LARGE[name](shape, num_classes, config.width, **options)


def _options(config: Config, entry: training.Entry) -> dict[str, Any]:
    """Options of a method's factory that the configuration sets."""
    given = {
        'rate': config.attack_rate,
        'replays': config.replays,
        'sigma': config.sigma,
        'temperature': config.temperature,
        'amount': config.label_smoothing or None,
        'gamma': config.awp or None,
        entry.weight: config.beta,
    }
    return {
        option: value
        for option, value in given.items()
        if option in entry.options and value is not None
    }


def _built(config: Config, name: str, ball: Ball, teachers: Teachers) -> Method:
    entry = METHODS[name]
    options = _options(config, entry)
    parts: dict[str, Any] = {}
    if 'method' in entry.needs:
        parts['method'] = _built(config, 'pgd_at', ball, ())
    elif entry.steps is not None:
        parts['steps'] = config.attack_steps
    if {'teacher', 'sources'} & set(entry.needs) and not teachers:
        raise ValueError(f'teacher must name the run of a trained network for {name}')
    if 'teacher' in entry.needs:
        parts['teacher'] = teachers[0]
    if 'sources' in entry.needs:
        parts['sources'] = teachers
    if 'ball' in entry.needs:
        parts['ball'] = ball
    published = config.norm == 'linf' and float(config.eps or 0) <= 16 / 255
    if name == 'grad_align' and not published:
        # The authors have no weight there: that of 8/255 on CIFAR-10.
        options.setdefault('coefficient', 0.2)
    return entry.build(**parts, **options)


@functools.cache
def growing(updates: int) -> optax.Schedule:
    """From 0 to 1; cached, because it is static structure of the compiled step."""
    return optax.linear_schedule(0.0, 1.0, max(1, updates))


def method(config: Config, ball: Ball, updates: int, teachers: Teachers = ()) -> Method:
    """The training method that a configuration names.

    Args:
      config: complete.
      ball: the threat model.
      updates: the length of the training, which schedules are shares of.
      teachers: networks of ``config.teacher``.

    Raises:
      ValueError: if a teacher is missing, or a number is out of range.
    """
    built = _built(config, config.method, ball, teachers)
    if config.awp and config.method != 'awp':
        built = training.awp(built, config.awp)
    if config.attack_in_train_mode:
        built = dataclasses.replace(built, train_mode=True)
    if config.label_smoothing and config.method != 'smooth_labels':
        built = training.smooth_labels(built, config.label_smoothing)
    if config.eps_warmup:
        warm = growing(round(config.eps_warmup * updates))
        built = training.scheduled(built, eps=warm)
    return built


def learning_rate(config: Config, updates: int) -> optax.Schedule:
    """The learning rate after each update."""
    peak = config.learning_rate
    if config.schedule == 'triangular':
        return training.triangular(peak, updates, config.rise)
    if config.schedule == 'piecewise':
        return training.piecewise(peak, updates, tuple(config.drops))
    if config.schedule == 'cosine':
        rising = round(config.rise * updates)
        return optax.warmup_cosine_decay_schedule(0.0, peak, rising, updates)
    return optax.constant_schedule(peak)


@functools.cache
def optimizer(config: Config, updates: int) -> optax.GradientTransformation:
    """The optimizer; cached, because it is static structure of the compiled step."""
    rate = learning_rate(config, updates)
    if config.optimizer == 'adam':
        last = optax.adam(rate)
    else:
        last = optax.sgd(rate, momentum=0.9, nesterov=config.optimizer == 'nesterov')
    if not config.weight_decay:
        return last
    return optax.chain(training.weight_decay(config.weight_decay), last)


AUGMENTS = {
    'crop': lambda: data.augment.pad_crop(4),
    'flip': lambda: data.augment.flip(),
    'cutout': lambda: data.augment.cutout(16),
    'rand_augment': lambda: data.augment.rand_augment(),
}


def augmentation(config: Config) -> Augment | None:
    """What is done to training images, or None."""
    if not config.augment:
        return None
    return data.augment.chain(*(AUGMENTS[name]() for name in config.augment))


def averaging(config: Config) -> Any:
    """The average of the weights that is used, or None."""
    return training.ema(config.ema) if config.ema else None
