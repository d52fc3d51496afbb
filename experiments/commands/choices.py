"""What the names in a configuration stand for: network, method, optimizer, the rest."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advjax import data, training, zoo
from advjax.balls import Ball
from advjax.data.augment import Augment
from advjax.models import Model
from advjax.training import Method
from advjax.types import LogitsFn
from experiments.commands.configuration import Config

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
    name, branches = config.model, METHODS[config.method].branches
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


class Choice(NamedTuple):
    """A method by its name.

    Attributes:
      words: what it does, to be read after the network's name.
      build: makes it.
      branches: normalisations per layer that the network must have.
      teachers: the least number of other networks it needs.
    """

    words: str
    build: Callable[[Config, Ball, Teachers], Method]
    branches: int = 1
    teachers: int = 0


def _given(config: Config, **names: str) -> dict[str, Any]:
    """Arguments that the configuration sets, by what the method calls them."""
    found = {argument: getattr(config, field) for argument, field in names.items()}
    return {argument: value for argument, value in found.items() if value is not None}


def _search(config: Config, **names: str) -> dict[str, Any]:
    return _given(config, steps='attack_steps', rate='attack_rate', **names)


def _alignment(config: Config) -> float | None:
    """Lambda of GradAlign, where the authors have none: that of 8/255 on CIFAR-10."""
    published = config.norm == 'linf' and config.eps <= 16 / 255
    return 0.2 if config.beta is None and not published else config.beta


METHODS = {
    'standard': Choice('trained on clean images', lambda c, b, t: training.standard()),
    'fgsm_at': Choice(
        'trained on clean and one-step adversarial images',
        lambda c, b, t: training.fgsm_at(b),
    ),
    'pgd_at': Choice(
        'trained on adversarial images',
        lambda c, b, t: training.pgd_at(b, **_search(c)),
    ),
    'fast': Choice(
        'trained on one-step adversarial images from random starts',
        lambda c, b, t: training.fast(b, **_given(c, rate='attack_rate')),
    ),
    'trades': Choice(
        'trained to answer alike on clean and adversarial images',
        lambda c, b, t: training.trades(b, **_search(c, beta='beta')),
    ),
    'free': Choice(
        'trained by one backward pass for weights and noise',
        lambda c, b, t: training.free(
            b, c.replays, **_given(c, rate='attack_rate')
        ),
    ),
    'grad_align': Choice(
        'trained on one-step adversarial images, gradients aligned',
        lambda c, b, t: training.grad_align(
            b, _alignment(c), **_given(c, alpha='attack_rate')
        ),
    ),
    'mart': Choice(
        'trained on adversarial images, more on misclassified ones',
        lambda c, b, t: training.mart(b, **_search(c, beta='beta')),
    ),
    'alp': Choice(
        'trained to pair logits of clean and adversarial images',
        lambda c, b, t: training.adversarial_logit_pairing(
            b, **_search(c, coefficient='beta')
        ),
    ),
    'clp': Choice(
        'trained on noise to pair logits of random images',
        lambda c, b, t: training.clean_logit_pairing(
            **_given(c, sigma='sigma', coefficient='beta')
        ),
    ),
    'squeezing': Choice(
        'trained on noise to have small logits',
        lambda c, b, t: training.logit_squeezing(
            **_given(c, sigma='sigma', coefficient='beta')
        ),
    ),
    'llr': Choice(
        'trained to have a locally linear loss',
        lambda c, b, t: training.llr(b, **_search(c, lambda_='beta')),
    ),
    'awp': Choice(
        'trained on adversarial images at adversarial weights',
        lambda c, b, t: training.pgd_at(b, **_search(c)),
    ),
    'advprop': Choice(
        'trained on clean images, and on adversarial ones by another normalisation',
        lambda c, b, t: training.advprop(b, **_search(c)),
        branches=2,
    ),
    'joint': Choice(
        'trained on clean and adversarial images in one batch',
        lambda c, b, t: training.joint(b, **_search(c)),
    ),
    'ensemble_at': Choice(
        'trained on images that are adversarial to other networks',
        lambda c, b, t: training.ensemble_at(b, t),
        teachers=1,
    ),
    'vat': Choice(
        'trained to be smooth where its answer is least so',
        lambda c, b, t: training.virtual_adversarial(b, **_given(c, alpha='beta')),
    ),
    'spatial': Choice(
        'trained on the worst of ten rotations and shifts',
        lambda c, b, t: training.spatial_at(),
    ),
    'gaussian': Choice(
        'trained on Gaussian noise',
        lambda c, b, t: training.gaussian_augmentation(
            0.25 if c.sigma is None else c.sigma
        ),
    ),
    'noise': Choice(
        'trained on random points of the ball', lambda c, b, t: training.noise(b)
    ),
    'at_temperature': Choice(
        'trained on clean images at a high temperature',
        lambda c, b, t: training.at_temperature(
            20.0 if c.temperature is None else c.temperature
        ),
    ),
    'distillation': Choice(
        "trained on a teacher's answers at a high temperature",
        lambda c, b, t: training.distillation(
            t[0], **_given(c, temperature='temperature')
        ),
        teachers=1,
    ),
    'ard': Choice(
        'trained to keep the answers of a robust teacher under attack',
        lambda c, b, t: training.adversarially_robust_distillation(
            t[0], b, **_search(c, temperature='temperature')
        ),
        teachers=1,
    ),
    'rslad': Choice(
        'trained on the soft labels of a robust teacher under attack',
        lambda c, b, t: training.rslad(t[0], b, **_search(c)),
        teachers=1,
    ),
}  # fmt: skip
"""Every method of ``advjax.training`` that ``--method`` knows."""

AWP_GAMMA = 0.01
"""Of the method awp unless the configuration says otherwise (Wu et al. 2020)."""


@functools.cache
def _growing(updates: int) -> optax.Schedule:
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
    choice = METHODS[config.method]
    if len(teachers) < choice.teachers:
        raise ValueError(
            f'teacher must name the run of a trained network for {config.method}'
        )
    built = choice.build(config, ball, teachers)
    gamma = config.awp or (AWP_GAMMA if config.method == 'awp' else 0.0)
    if gamma:
        built = training.awp(built, gamma)
    if config.attack_in_train_mode:
        built = dataclasses.replace(built, train_mode=True)
    if config.label_smoothing:
        built = training.smooth_labels(built, config.label_smoothing)
    if config.eps_warmup:
        built = training.scheduled(
            built, eps=_growing(round(config.eps_warmup * updates))
        )
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


def averaging(config: Config) -> training.Ema | None:
    """The average of the weights that is used, or None."""
    return training.ema(config.ema) if config.ema else None
