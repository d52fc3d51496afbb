"""Published CIFAR-10 recipes of adversarial training, by name.

    python -m experiments recipes                        # the table
    python -m experiments recipes fast_cifar10           # one, with its deviations
    python -m experiments train --recipe fast_cifar10    # runs it

A recipe is a configuration of ``experiments train``: any flag beside ``--recipe``
changes one of its settings, such as ``--width 0.25 --epochs 2 --train-images 5000``
for a machine without an accelerator.

A letter after a figure says how sure it is: R read in the paper or its authors' code
or README, C computed from the authors' logs, M well known but not read again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from experiments.commands.configuration import Config
from experiments.frame.findings import aligned

Name = Literal[
    'fast_cifar10', 'pgd_cifar10', 'trades_cifar10', 'awp_cifar10', 'free_cifar10',
    'gradalign_cifar10', 'advprop_cifar10',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
    """Accuracies in per cent.

    Attributes:
      clean: on images as they are.
      robust: under the attack, or None.
      attack: its name, such as 'PGD-50-10': 50 steps, 10 restarts.
      tag: R, C or M (see above); '' for one of our own.
      note: which network it is of.
    """

    clean: float
    robust: float | None = None
    attack: str = ''
    tag: str = ''
    note: str = ''

    def __str__(self) -> str:
        sure = f' ({self.tag})' if self.tag else ''
        robust = '' if self.robust is None else f' / {self.robust:.2f} {self.attack}'
        note = f', {self.note}' if self.note else ''
        return f'{self.clean:.2f}{robust}{sure}{note}'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training as it was published.

    Attributes:
      name: for ``--recipe``.
      source: paper and code.
      config: the settings.
      deviations: in what it differs from the authors', besides ``COMMON``.
      published: figures of the authors; the first is of this very recipe.
      measured: what this command gave, or None where no accelerator was at hand to
        run it to the end.
    """

    name: Name
    source: str
    config: Config
    deviations: tuple[str, ...]
    published: tuple[Figure, ...]
    measured: Figure | None = None

    @property
    def command(self) -> str:
        """What runs it."""
        return f'python -m experiments train --recipe {self.name}'


COMMON = (
    '1,000 training images are held out, and the epoch most robust on them to PGD-20 '
    'is kept',
    'weight decay spares biases and normalisations, the authors decay everything',
    'the last batch of an epoch is filled up with images of others: their loss does '
    'not count, their statistics do',
    'a pass of the attack leaves running statistics of batch normalisation as they '
    'are; where the authors attack in train mode it moves theirs',
    'bfloat16 on accelerators unless said otherwise, float32 weights, pixels and '
    'statistics; attacked in float32',
)
"""Deviations of all recipes; those to which one is an exception say so."""

_CIFAR10 = Config(
    dataset='cifar10',
    model='preact_resnet18',
    batch_size=128,
    optimizer='sgd',
    weight_decay=5e-4,
    augment=('crop', 'flip'),
    bfloat16=True,
    eps=8 / 255,
    held_out=1000,
    baseline=False,
)


def _with(config: Config = _CIFAR10, **settings) -> Config:
    return dataclasses.replace(config, **settings)


FAST = Recipe(
    name='fast_cifar10',
    source='Wong, Rice and Kolter 2020, arXiv 2001.03994, locuslab/fast_adversarial',
    config=_with(
        method='fast',
        layout='wong2020',
        normalise=True,
        attack_rate=10 / 8,
        attack_in_train_mode=True,
        epochs=15,
        learning_rate=0.2,
        schedule='triangular',
        rise=0.5,
        strong_steps=50,
        strong_rate=2 / 8,
        restarts=10,
        on_failure='rollback',
    ),
    deviations=(
        'the random start is not clipped to the pixel range before the gradient is '
        "taken there, as in the authors' MNIST code; their CIFAR-10 code clips it",
        'bfloat16 in place of float16',
    ),
    published=(
        Figure(86.06, 46.06, 'PGD-50-10', 'R'),
        Figure(83.34, 43.21, 'AutoAttack', 'R', 'the weights in RobustBench'),
    ),
)

PGD = Recipe(
    name='pgd_cifar10',
    source='Rice, Wong and Kolter 2020, arXiv 2002.11569, locuslab/robust_overfitting',
    config=_with(
        method='pgd_at',
        layout='rice2020',
        normalise=True,
        attack_steps=10,
        attack_rate=2 / 8,
        attack_in_train_mode=True,
        epochs=200,
        learning_rate=0.1,
        schedule='piecewise',
        drops=(0.5, 0.75),
        strong_steps=10,
        strong_rate=2 / 8,
        restarts=1,
        on_failure='continue',
    ),
    deviations=(
        'the published figures are the best epoch on test images and the last one; '
        'ours would be the best on held-out images, as in the text of the paper',
        'float32 there, bfloat16 here',
    ),
    published=(
        Figure(82.92, 53.49, 'PGD-10', 'C', 'best epoch'),
        Figure(84.93, 45.59, 'PGD-10', 'C', 'last epoch'),
    ),
)

TRADES = Recipe(
    name='trades_cifar10',
    source='Zhang et al. 2019, arXiv 1901.08573, yaodongyu/TRADES',
    config=_with(
        method='trades',
        model='wide_resnet_34_10',
        layout='trades',
        weight_decay=2e-4,
        eps=0.031,
        attack_steps=10,
        attack_rate=0.007 / 0.031,
        beta=6.0,
        epochs=76,
        learning_rate=0.1,
        schedule='piecewise',
        drops=(74 / 76,),  # From their epoch 75 on, which is counted from 1.
        strong_steps=20,
        strong_rate=0.003 / 0.031,
        restarts=1,
    ),
    deviations=(
        'stopped after epoch 76 as the authors did, so that their drop at 90 is never '
        'reached',
        'float32 there, bfloat16 here',
    ),
    published=(
        Figure(84.92, 56.61, 'PGD-20', 'R'),
        Figure(84.92, 53.08, 'AutoAttack', 'R'),
    ),
)

AWP = Recipe(
    name='awp_cifar10',
    source='Wu, Xia and Wang 2020, arXiv 2004.05884, csdongxian/AWP',
    config=_with(
        PGD.config,
        method='awp',
        awp=0.01,
        strong_steps=20,
    ),
    deviations=(
        'weight decay acts on the weights, there on the perturbed ones',
        'the step size of the test attack is that of the training, 2/255; the log does '
        'not say',
        'the published figures are the best epoch on test images and the last one',
        'float32 there, bfloat16 here',
    ),
    published=(
        Figure(81.18, 55.39, 'PGD-20', 'C', 'best epoch'),
        Figure(81.65, 54.30, 'PGD-20', 'C', 'last epoch'),
    ),
)

FREE = Recipe(
    name='free_cifar10',
    source='Shafahi et al. 2019, arXiv 1904.12843, ashafahi/free_adv_train',
    config=_with(
        method='free',
        model='wide_resnet_34_10',
        layout='trades',
        weight_decay=2e-4,
        replays=8,
        attack_rate=1.0,
        epochs=26,
        learning_rate=0.1,
        schedule='piecewise',
        drops=(0.5, 0.75),
        strong_steps=20,
        strong_rate=2 / 8,
        restarts=10,
    ),
    deviations=(
        '26 passes of 383 batches replayed 8 times, 79,664 updates; the authors make '
        '80,000, with drops at 40,000 and 60,000',
        'their WRN-32-10 has the same five blocks in each of three stages as our '
        'WRN-34-10, shortcuts by average pooling and zeros in place of convolutions, a '
        'leaky ReLU (0.1), and standardises every image',
        'weight decay spares the same arrays as theirs',
        'float32 there, bfloat16 here',
    ),
    published=(
        Figure(85.96, 46.33, 'PGD-20-10', 'R'),
        Figure(86.11, 41.47, 'AutoAttack', 'R', 'the weights in AutoAttack'),
    ),
)

GRADALIGN = Recipe(
    name='gradalign_cifar10',
    source='Andriushchenko and Flammarion 2020, arXiv 2007.02617, '
    'tml-epfl/understanding-fast-adv-training',
    config=_with(
        method='grad_align',
        layout='wong2020',
        bfloat16=False,
        attack_rate=1.0,
        attack_in_train_mode=True,
        beta=0.2,
        epochs=30,
        learning_rate=0.3,
        schedule='triangular',
        rise=0.4,
        strong_steps=50,
        strong_rate=2 / 8,
        restarts=10,
        on_failure='rollback',
    ),
    deviations=(
        'float32, as the authors advise',
        'a step of 1 eps from the clean image is M: the code has 1.25 as its default',
        'linear layers start as in PyTorch, there with a variance of 2 / inputs; '
        'convolutions likewise',
        'an example with a zero gradient counts as aligned, there it is left out',
    ),
    published=(
        Figure(81.00, 47.58, 'PGD-50-10', 'M'),
        Figure(79.84, 43.93, 'AutoAttack', 'R', 'the weights in RobustBench'),
    ),
)

ADVPROP = Recipe(
    name='advprop_cifar10',
    source='Xie et al. 2020, arXiv 1911.09665',
    config=_with(
        method='advprop',
        layout='rice2020',
        normalise=True,
        eps=4 / 255,
        attack_steps=5,
        attack_rate=1 / 4,
        epochs=30,
        learning_rate=0.1,
        schedule='triangular',
        rise=0.4,
        strong_steps=20,
        strong_rate=1 / 4,
        restarts=1,
        baseline=True,
    ),
    deviations=(
        'the paper has EfficientNets on ImageNet and no figure for CIFAR-10 (B7: 84.3 '
        'to 85.2 clean, R); this is its method, attack and radius (M) with network, '
        'optimizer and schedule like those of the other recipes',
        'standard training of the same network runs beside it, for comparison: what '
        'the paper claims is clean accuracy',
        'the epoch best on clean held-out images is kept, not the most robust one',
    ),
    published=(),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (FAST, PGD, TRADES, AWP, FREE, GRADALIGN, ADVPROP)
}


def figures(recipe: Recipe) -> str:
    """What was published, in words."""
    return '; '.join(map(str, recipe.published)) or 'nothing on CIFAR-10'


LEGEND = (
    'Clean / robust accuracy in per cent. The column of what was measured is empty '
    'where no accelerator was at hand to run the recipe to its end. Where the prepared '
    'images say that they are re-encoded JPEGs, figures are near those of the original '
    'images and not equal to them.'
)


def table(markdown: bool = False) -> str:
    """All recipes, as text or as Markdown."""
    head = ('recipe', 'network', 'method', 'epochs', 'published', 'measured')
    rows = [
        (r.name, r.config.model, r.config.method, str(r.config.epochs), figures(r),
         str(r.measured or ''))
        for r in RECIPES.values()
    ]  # fmt: skip
    if markdown:
        rows = [head, ('---',) * len(head), *rows]
        return '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    return aligned([head, *rows])


def described(recipe: Recipe) -> str:
    """One recipe in full."""
    changed = [
        f'  {field.name} = {getattr(recipe.config, field.name)!r}'
        for field in dataclasses.fields(Config)
        if getattr(recipe.config, field.name) != field.default
    ]
    return '\n'.join(
        [
            f'{recipe.name}: {recipe.source}',
            f'published: {figures(recipe)}',
            f'measured: {recipe.measured or "nothing: no accelerator was at hand"}',
            'settings:',
            *changed,
            'deviations:',
            *(f'  - {line}' for line in (*recipe.deviations, *COMMON)),
            recipe.command,
        ]
    )


def cli(arguments: Sequence[str]) -> None:
    """Prints the table, or the recipes that are named."""
    names = [word for word in arguments if word != '--markdown']
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        raise ValueError(f'recipe must be one of {list(RECIPES)}, got {unknown[0]!r}')
    if names:
        print('\n\n'.join(described(RECIPES[name]) for name in names))
    else:
        print(f'{table("--markdown" in arguments)}\n\n{LEGEND}')
