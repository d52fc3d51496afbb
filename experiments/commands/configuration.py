"""The settings of a training run, and what a data set decides about them."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from advjax import training

METHODS = {e.name: e for e in training.catalogue() if e.network != 'own loss'}
"""Every method of the library that a network of the zoo can be trained by."""

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
ModelName = Literal[
    'fast_mnist', 'madry_mnist', 'mlp', 'maxout', 'softmax_regression',
    'split_norm_cnn', 'preact_resnet18', 'resnet18', 'resnet50', 'wide_resnet_10_1',
    'wide_resnet_28_10', 'wide_resnet_34_10', 'wide_resnet_70_16', 'vgg11', 'vgg16',
    'vit_small',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run; those left at None depend on the data set or the method."""

    dataset: str = 'digits'
    """digits, or any image-classification set of tensorflow-datasets."""
    method: MethodName = 'pgd_at'
    """How the second network is trained."""
    model: ModelName = 'fast_mnist'
    """The network, from advjax.zoo."""
    width: float = 1.0
    """Factor of all its widths; below 1 for a network that a laptop trains."""
    stages: int | None = None
    """Only this many stages of a ResNet or VGG, for a shallow one; all by default."""
    layout: str | None = None
    """Details of preact_resnet18 and wide_resnet, named after a paper."""
    normalise: bool = False
    """Subtract CIFAR-10's mean and divide by its deviation, within the network."""
    bfloat16: bool = False
    """Train in bfloat16 on accelerators; weights and pixels stay float32."""
    norm: Literal['linf', 'l2', 'l1'] = 'linf'
    """Norm of the perturbation."""
    eps: float | None = None
    """Radius of the perturbation, pixels in [0, 1]."""
    eps_warmup: float = 0.0
    """Share of training during which the radius grows from 0."""
    epochs: int | None = None
    """Passes over the training images."""
    batch_size: int | None = None
    """Images per step, over all devices and processes."""
    optimizer: Literal['adam', 'sgd', 'nesterov'] = 'adam'
    """The last two with momentum 0.9."""
    learning_rate: float = 5e-3
    """Peak of the schedule."""
    schedule: Literal['triangular', 'piecewise', 'cosine', 'constant'] = 'triangular'
    """Of the learning rate, over all updates."""
    rise: float = 0.4
    """Share of training during which a triangular or cosine schedule rises."""
    drops: tuple[float, ...] = (0.5, 0.75)
    """Shares of training after which a piecewise schedule falls to a tenth."""
    weight_decay: float = 0.0
    """L2, of kernels alone: biases and normalisations are spared."""
    augment: tuple[Literal['crop', 'flip', 'cutout', 'rand_augment'], ...] = ()
    """What is done to training images before they are attacked, in this order."""
    label_smoothing: float = 0.0
    """Share of the label's probability that goes to all classes."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is used; 0 for none."""
    attack_steps: int | None = None
    """Attack steps in training, for iterative methods."""
    attack_rate: float | None = None
    """Step size in training, in radii; the method's own by default."""
    attack_in_train_mode: bool = False
    """Attack with the batch's own statistics, as many authors' codes do."""
    beta: float | None = None
    """Weight of what a method adds to cross entropy (TRADES: 6); the paper's."""
    awp: float = 0.0
    """Perturb weights by this much of their norm, around any method."""
    replays: int = 8
    """Updates in a row on every batch, for free."""
    sigma: float | None = None
    """Standard deviation of noise, for gaussian (0.25), clp and squeezing (0.5)."""
    temperature: float | None = None
    """Of at_temperature and distillation (20) and ard (30)."""
    teacher: tuple[Path, ...] = ()
    """Runs whose networks teach (distillation, ard, rslad) or attack (ensemble_at)."""
    baseline: bool = True
    """Train the same network on clean images, too, and compare."""
    seed: int = 0
    """Of everything random."""
    seeds: int = 1
    """Adversarial trainings to choose from by robust accuracy on held-out images."""
    held_out: int | None = None
    """Training images kept apart to choose and to watch by."""
    train_images: int | None = None
    """Train on only this many random training images."""
    test_images: int | None = None
    """Attack only this many random test images."""
    strong_steps: int = 50
    """Steps of the strongest attack."""
    strong_rate: float = 1 / 30
    """Its step size, in radii."""
    restarts: int = 3
    """Its restarts."""
    on_failure: Literal['restart', 'rollback', 'continue'] = 'restart'
    """After catastrophic overfitting or collapse: next seed, or back to the best."""
    shard_weights: bool = False
    """Shard the weights and the optimizer's state over the devices, too."""


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What depends on the data set."""

    eps: float = 8 / 255
    epochs: int = 15
    batch_size: int = 128
    attack_steps: int = 7
    held_out: int = 1000


DEFAULTS = {
    'digits': Defaults(eps=0.15, epochs=30, batch_size=64, held_out=200),
    'mnist': Defaults(eps=0.3, epochs=10, batch_size=100, attack_steps=10),
    'fashion_mnist': Defaults(eps=0.1, batch_size=100),
}
L2_EPS = {'digits': 0.75, 'mnist': 2.0}


def complete(config: Config) -> Config:
    """Fills in what the data set decides.

    Raises:
      ValueError: for a setting that is out of range.
    """
    known: dict[str, Any] = dataclasses.asdict(DEFAULTS.get(config.dataset, Defaults()))
    if config.norm == 'l2':
        known['eps'] = L2_EPS.get(config.dataset, 0.5)
    if config.norm == 'l1' and config.eps is None:
        raise ValueError('eps must be given for norm l1: no radius is customary')
    if not METHODS[config.method].long_search:
        del known['attack_steps']
    for name, value, least in (
        ('eps', config.eps, 0),
        ('width', config.width, 0),
        ('learning_rate', config.learning_rate, 0),
        ('strong_rate', config.strong_rate, 0),
        ('seeds', config.seeds, 1),
        ('stages', config.stages, 1),
        ('strong_steps', config.strong_steps, 1),
        ('train_images', config.train_images, 1),
        ('test_images', config.test_images, 1),
        ('held_out', config.held_out, 1),
    ):
        # Zero is no radius and no rate to train with; 0 < inf < inf is false.
        if value is not None and not (least <= value < math.inf and value > 0):
            allowed = f'at least {least}' if least else 'positive and finite'
            raise ValueError(f'{name} must be {allowed}, got {value}')
    for name, share in (
        ('eps_warmup', config.eps_warmup),
        ('rise', config.rise),
        *(('drops', share) for share in config.drops),
    ):
        if not 0 <= share <= 1:
            raise ValueError(f'{name} must lie in [0, 1], got {share}')
    left = {k: v for k, v in known.items() if getattr(config, k) is None}
    return dataclasses.replace(config, **left)
