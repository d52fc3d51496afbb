"""Do adversarial images improve clean accuracy, once they are normalised apart?

    python -m experiments.xie2020

Xie et al. 2020 train on clean and adversarial images together and gain clean accuracy,
where the same training through one batch normalisation is said to lose it. Here one
small network with split batch normalisation learns MNIST from 300 to 3,000 images:
on clean images alone, jointly, and by AdvProp; same images, same order, same start.

The paper, on ImageNet: EfficientNet-B7 84.3 -> 85.2 % and all of B0 to B7 gain 0.3 to
0.9 points (R); joint training without a second normalisation loses against clean
training (M). The radius is 4/255 there and weaker for smaller networks (M); here 0.2,
chosen by AdvProp's clean accuracy on held-out images, and a sweep of it, because how
much the second normalisation matters depends on how strong the adversary is.

Measured (``--preset cpu``, five seeds, clean test accuracy in %):

    images   clean   joint   AdvProp   AdvProp - clean   AdvProp - joint
       300    83.8    90.8      90.6       6.8 +- 0.7       -0.1 +- 0.5
     1,000    91.9    93.9      94.3       2.4 +- 0.3        0.4 +- 0.1
     3,000    95.0    94.2      94.7      -0.3 +- 0.6        0.4 +- 0.1

So adversarial images help most where there are few others. The paper's warning, that
joint training costs clean accuracy, comes true at 3,000 images, and there AdvProp
makes up for half of it; with fewer images joint training gains almost as much as
AdvProp does. How much the second normalisation matters depends on the adversary: at
1,000 images the two trainings are alike at a radius of 0.1 and 0.5 points apart at
0.3, and the auxiliary branch answers clean images ever worse (94.2 % at 0.1, 90.0 % at
0.4). It is 55 % robust to PGD-20 at 0.2, but 5 % when training attacks the main branch
instead of its own.

At 3,000 images it is the short training that decides: with 600 updates instead of 200
(``--updates 600``, two seeds) clean training reaches 96.0, joint 96.8, AdvProp 97.1 %.

189 s of processor time, compilation included; 17 minutes of wall time on 2 CPU cores
that other programs were using too.

One compiled program per method serves every seed and size: a run is a ``scan`` over
``training.step`` whose batches are an argument. Mapped over seeds by ``vmap`` it would
be one program too, but XLA:CPU runs the grouped convolutions that this makes 5 times
slower per seed, so seeds take turns.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, charts, data, models, training, zoo
from advjax.attacks import pgd
from advjax.balls import linf
from experiments import study
from experiments.study import Findings, Study, claim, picture, table
from experiments.work import Work


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """Data set; digits stand in for a missing MNIST."""
    sizes: tuple[int, ...] = (300, 1000, 3000)
    """Numbers of training images."""
    seeds: int = 5
    """Networks per method and size, each with its own images, start and order."""
    updates: int = 200
    """Steps of the optimizer, the same for every size."""
    batch_size: int = 64
    """Clean images per step."""
    learning_rate: float = 5e-3
    """Peak of Adam's triangular schedule."""
    eps: float = 0.2
    """Linf radius of the adversary."""
    steps: int = 2
    """Its steps."""
    sweep: tuple[float, ...] = (0.1, 0.3, 0.4)
    """Other radii, at the middle size."""
    sweep_seeds: int = 3
    """Networks per radius of the sweep."""
    widths: tuple[int, ...] = (8, 16)
    """Channels of the convolutions."""
    hidden: int = 64
    """Units of the dense layer."""
    test_images: int | None = None
    """Test images for clean accuracy; all by default."""
    attacked: int = 500
    """Test images for robust accuracy."""


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(model, optimizer, method, dataset, key, batches):
    """Trains one network; pure. ``batches`` (S, B) are positions in the data set."""
    order = jax.random.fold_in(key, 1)

    def update(state, index):
        batch = data.take(dataset, data.Batch(index, jnp.ones(index.shape, bool)))
        return training.step(method, state, batch, order)[0], None

    state = jax.lax.scan(update, training.create(model, optimizer, key), batches)[0]
    return state.params, state.model_state


@jax.jit
def accuracy(logits_fn, x, y):
    """Share of right answers."""
    return jnp.mean(jnp.argmax(logits_fn(x), axis=1) == y)


def batches(config: Config, size: int, seed: int, available: int) -> jax.Array:
    """Positions (S, B): ``size`` images of the training set, in shuffled epochs."""
    draw = np.random.default_rng((seed, size))
    mine = draw.permutation(available)[: min(size, available)]
    needed = config.updates * config.batch_size
    epochs = [draw.permutation(mine) for _ in range(-(-needed // len(mine)))]
    order = np.concatenate(epochs)[:needed].astype(np.int32)
    return jnp.asarray(order.reshape(config.updates, config.batch_size))


class Bench:
    """Trains and measures networks, each once."""

    def __init__(self, config: Config, work: Work):
        self.config, self.work = config, work
        self.sets = work.sets(config.dataset, test_images=config.test_images)
        self.x, self.y = (jnp.asarray(a) for a in work.images(self.sets.test))
        self.images = data.device_data(self.sets.train)
        self.model = zoo.split_norm_cnn(
            self.sets.shape, self.sets.classes, config.widths, config.hidden
        )
        rate = training.triangular(config.learning_rate, config.updates)
        self.optimizer = optax.adam(rate)

    def fit(self, method: training.Method, size: int, seed: int) -> tuple[Any, Any]:
        """The trained parameters and statistics."""
        order = batches(self.config, size, seed, len(self.images.labels))
        key = jax.random.key(seed)
        return train(self.model, self.optimizer, method, self.images, key, order)

    def logits_fn(self, trained: tuple[Any, Any], branch: int):
        """A trained network seen through a branch."""
        return models.logits_fn(self.model, *trained, branch=branch)

    def result(self, name: str, method: training.Method, size: int, seed: int):
        """Clean accuracies through both branches, and the branches' statistics."""

        def compute():
            trained = self.fit(method, size, seed)
            main, aux = (
                accuracy(self.logits_fn(trained, b), self.x, self.y) for b in (0, 1)
            )
            return {'main': main, 'aux': aux, **statistics(trained[1])}

        return self.work.keep(f'{name}-{size}-{seed}', compute)

    def mean(self, name: str, method: training.Method, size: int, seeds: int):
        """Per cent (seeds,) through the main and through the auxiliary branch."""
        found = [self.result(name, method, size, seed) for seed in range(seeds)]
        return tuple(100 * np.array([f[key] for f in found]) for key in ('main', 'aux'))


def statistics(state: Any) -> dict[str, np.ndarray]:
    """Running means and variances of every layer and branch, (C,) each."""
    return {
        f'{kind}{layer}{"ab"[branch]}': np.asarray(norm[kind])
        for layer, norms in state['norms'].items()
        for branch, norm in norms['branches'].items()
        for kind in ('mean', 'var')
    }


def distances(found: dict[str, np.ndarray]) -> list[float]:
    r"""Per layer, the mean over channels of :math:`|\mu_a - \mu_b| / \bar\sigma`."""
    layers = sum(name.startswith('mean') for name in found) // 2
    return [
        float(
            np.mean(
                np.abs(found[f'mean{i}a'] - found[f'mean{i}b'])
                / np.sqrt((found[f'var{i}a'] + found[f'var{i}b']) / 2 + 1e-5)
            )
        )
        for i in range(layers)
    ]


def methods(config: Config, eps: float) -> dict[str, training.Method]:
    """What is compared, at a radius."""
    ball = linf(eps)
    return {
        'clean': training.standard(),
        'joint': training.joint(ball, config.steps),
        'advprop': training.advprop(ball, steps=config.steps),
    }


@dataclasses.dataclass(frozen=True)
class Crafted:
    """The mistake: the images for the auxiliary branch, made through the main one."""

    attack: Any

    def __call__(self, logits_fn, key, x, y):
        """Returns the images for branch 1."""
        return (self.attack(logits_fn, key, x, y),)


def run(config: Config, work: Work) -> Findings:
    """Trains all networks and compares them."""
    bench = Bench(config, work)
    grid = {}
    for size in config.sizes:
        for name, method in methods(config, config.eps).items():
            grid[name, size] = bench.mean(name, method, size, config.seeds)
    middle = config.sizes[len(config.sizes) // 2]
    radii = sorted({*config.sweep, config.eps})
    sweep = {}
    for eps in radii:
        for name in ('joint', 'advprop'):
            method = methods(config, eps)[name]
            label = name if eps == config.eps else f'{name}-{eps}'
            seeds = min(config.sweep_seeds, config.seeds)
            sweep[name, eps] = bench.mean(label, method, middle, seeds)
    own = bench.result('advprop', methods(config, config.eps)['advprop'], middle, 0)
    still = bench.result('advprop-0', methods(config, 0.0)['advprop'], middle, 0)
    attacked = work.keep('branches', lambda: robust(bench, middle))
    claims = [
        *order_claims(config, grid),
        *branch_claims(config, grid, distances(own), distances(still), attacked),
    ]
    return Findings(
        claims,
        pictures_of(config, grid, sweep, own, middle),
        tables_of(config, grid, sweep, distances(own), distances(still), attacked),
    )


def robust(bench: Bench, size: int) -> dict[str, float]:
    """Robust accuracy through each branch, by where the training's attack looked."""
    config, work = bench.config, bench.work
    ball = linf(config.eps)
    inner = pgd(ball, config.steps, 1 / max(config.steps - 1, 1), keep_best=False)
    wrong = training.method(
        jax.tree_util.Partial(Crafted(inner)), training.clean_and_branches
    )
    trainings = {'own': methods(config, config.eps)['advprop'], 'main': wrong}
    some = np.random.default_rng(0).permutation(len(bench.y))[: config.attacked]
    x, y = np.asarray(bench.x)[some], np.asarray(bench.y)[some]
    found = {}
    for name, method in trainings.items():
        trained = bench.fit(method, size, 0)
        for branch in (0, 1):
            f = bench.logits_fn(trained, branch)
            result = work.evaluate(f, x, y, {'pgd-20': attacks.pgd(ball, 20)})
            found[f'{name}{branch}'] = 100 * result.robust_accuracy
    return found


WORDS = {'clean': 'clean images', 'joint': 'joint training', 'advprop': 'AdvProp'}


def order_claims(config: Config, grid: dict) -> list:
    """Who is more accurate on clean images, at every size."""
    claims = []
    for size in config.sizes:
        clean, joint, advprop = (grid[n, size][0] for n in WORDS)
        where = f'{size} training images, {config.seeds} seeds: clean accuracy,'
        claims += [
            claim(
                f'{where} AdvProp - clean training',
                np.mean(advprop - clean),
                paper='+0.9 (B7), +0.3 to +0.9 (B0 to B7)',
                tag='R',
                band=(0, None),
                unit='points',
                reason=chance(advprop - clean),
            ),
            claim(
                f'{where} AdvProp - joint training',
                np.mean(advprop - joint),
                paper='> 0',
                band=(0, None),
                unit='points',
                reason=chance(advprop - joint),
            ),
            claim(
                f'{where} joint - clean training',
                np.mean(joint - clean),
                paper='< 0',
                tag='M',
                unit='points',
            ),
        ]
    return claims


def chance(differences: np.ndarray) -> str:
    """Says so where a mean difference is no more than chance."""
    count = len(differences)
    error = np.std(differences, ddof=1) / np.sqrt(count) if count > 1 else np.inf
    if abs(np.mean(differences)) > 2 * error:
        return ''
    return f'no difference to speak of: its standard error is {error:.2f} points'


def branch_claims(config, grid, own, still, attacked) -> list:
    """What the two branches are."""
    main, aux = (
        np.concatenate([grid['advprop', size][b] for size in config.sizes])
        for b in (0, 1)
    )
    return [
        claim(
            'AdvProp, clean images, all sizes: main - auxiliary branch',
            np.mean(main - aux),
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
        claim(
            'distance of the statistics of the two branches, mean over layers',
            np.mean(own),
            paper='differ',
            band=(0.1, None),
            unit='standard deviations',
        ),
        claim(
            'the same at eps 0, where both branches see the same images',
            np.mean(still),
            paper='0',
            band=(0, 1e-6),
            unit='standard deviations',
        ),
        claim(
            f'PGD-20, eps {config.eps:g}, {config.attacked} images: robust accuracy of '
            'the auxiliary branch when training attacks it',
            attacked['own1'],
            paper='48 (own earlier figure)',
            tag='C',
            unit='%',
        ),
        claim(
            'the same, minus that of a training whose attack looks through the main '
            'branch',
            attacked['own1'] - attacked['main1'],
            paper='48 (own earlier figure)',
            tag='C',
            band=(10, None),
            unit='points',
        ),
        claim(
            'robust accuracy, auxiliary - main branch, of AdvProp',
            attacked['own1'] - attacked['own0'],
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
    ]


def _line(name: str, at: Any, values: list[np.ndarray], dashed: bool = False):
    mean, sd = (np.array([f(v) for v in values]) for f in (np.mean, np.std))
    return charts.Line(name, at, mean, (mean - sd, mean + sd), dashed)


def pictures_of(config, grid, sweep, own, middle) -> list:
    """The figures of the page."""
    y = charts.Axis('clean accuracy (%)')

    def by_size(width):
        lines = [
            _line(word, config.sizes, [grid[name, s][0] for s in config.sizes])
            for name, word in WORDS.items()
        ]
        aux = [grid['advprop', s][1] for s in config.sizes]
        lines.append(_line('AdvProp, auxiliary branch', config.sizes, aux, True))
        x = charts.Axis('training images', 'log')
        return charts.lines(lines, x, y, width=width)

    radii = sorted({eps for _, eps in sweep})

    def by_radius(width):
        lines = [
            _line(WORDS[name], radii, [sweep[name, eps][0] for eps in radii])
            for name in ('joint', 'advprop')
        ]
        aux = [sweep['advprop', eps][1] for eps in radii]
        lines.append(_line('AdvProp, auxiliary branch', radii, aux, True))
        # First, so that every training has the colour it has above.
        lines.insert(
            0, _line('clean images', radii, [grid['clean', middle][0]] * len(radii))
        )
        x = charts.Axis('radius of the adversary (Linf)')
        return charts.lines(lines, x, y, width=width)

    def branches(width):
        return charts.panels(
            [
                functools.partial(_compare, own, kind, word)
                for kind, word in (
                    ('mean', 'running mean'),
                    ('var', 'running variance'),
                )
            ],
            width=width,
        )

    return [
        picture(
            'Clean accuracy by size of the training set',
            f'Mean and standard deviation of {config.seeds} networks per point. All '
            'three trainings see the same images in the same order. The dashed line is '
            'AdvProp asked through the branch of the adversarial images.',
            by_size,
        ),
        picture(
            'What a stronger adversary does',
            f'Clean accuracy at {middle} training images. A weak adversary is as good '
            'a teacher through one normalisation as through two; the stronger it is, '
            'the more it helps to keep the two kinds of images apart.',
            by_radius,
        ),
        picture(
            'Statistics of the two branches',
            'Every point is a channel. On the dashed line both branches would agree.',
            branches,
        ),
    ]


def _compare(found, kind, word, axes):
    """One statistic of the auxiliary branch against the main one."""
    layers = len(distances(found))
    points = {
        f'layer {i + 1}': (found[f'{kind}{i}a'], found[f'{kind}{i}b'])
        for i in range(layers)
    }
    every = np.concatenate([np.concatenate(pair) for pair in points.values()])
    scale = 'log' if kind == 'var' else 'linear'
    ends = [every.min(), every.max()]
    x, y = (charts.Axis(f'{word}, {b}', scale) for b in ('main', 'auxiliary'))
    charts.scatter_on(axes, points, x, y)
    axes.plot(ends, ends, color='gray', ls='--', lw=1.2, zorder=1)


def tables_of(config, grid, sweep, own, still, attacked) -> list:
    """The numbers behind the figures."""

    def text(values):
        return f'{np.mean(values):.2f} ± {np.std(values):.2f}'

    def row(size):
        clean, joint, advprop = (grid[n, size][0] for n in WORDS)
        gain = advprop - clean, advprop - joint
        return [size, *map(text, (clean, joint, advprop, grid['advprop', size][1])),
                *map(text, gain)]  # fmt: skip

    return [
        table(
            f'Clean accuracy (%), eps {config.eps:g}, mean ± standard deviation of '
            f'{config.seeds} seeds',
            ['training images', 'clean', 'joint', 'AdvProp', 'AdvProp, auxiliary',
             'AdvProp - clean', 'AdvProp - joint'],
            [row(size) for size in config.sizes],
            'Differences are of pairs with the same images, start and order.',
        ),
        table(
            'Clean accuracy (%) by radius',
            ['eps', 'joint', 'AdvProp', 'AdvProp, auxiliary'],
            [
                [eps, text(sweep['joint', eps][0]), *map(text, sweep['advprop', eps])]
                for eps in sorted({eps for _, eps in sweep})
            ],
        ),
        table(
            'Distance of the statistics of the two branches, in standard deviations',
            ['layer', f'eps {config.eps:g}', 'eps 0'],
            [[i + 1, a, b] for i, (a, b) in enumerate(zip(own, still, strict=True))],
            'Mean over channels of |difference of means| / pooled standard deviation.',
        ),
        table(
            f'Robust accuracy (%) through each branch, PGD-20, eps {config.eps:g}',
            ["training's attack looks through", 'main branch', 'auxiliary branch'],
            [
                [words, *(float(attacked[f'{name}{branch}']) for branch in (0, 1))]
                for name, words in (
                    ('own', 'the auxiliary branch (AdvProp)'),
                    ('main', 'the main branch (a mistake)'),
                )
            ],
            'Each branch is attacked through itself.',
        ),
    ]  # fmt: skip


STUDY = Study(
    name='xie2020',
    title='Xie et al. 2020: Adversarial examples improve image recognition (AdvProp)',
    line='a batch normalisation of their own lets adversarial images help clean ones',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            sizes=(300, 1000, 3000, 10000),
            seeds=20,
            updates=2000,
            sweep=(0.05, 0.1, 0.3, 0.4, 0.5),
            sweep_seeds=10,
            widths=(16, 32),
            hidden=100,
            steps=5,
            attacked=10_000,
        ),
        'smoke': Config(
            dataset='digits',
            sizes=(100, 300),
            seeds=2,
            updates=30,
            batch_size=32,
            eps=0.15,
            sweep=(0.05,),
            sweep_seeds=1,
            widths=(4,),
            hidden=16,
            attacked=50,
        ),
    },
    minutes=4,
)

if __name__ == '__main__':
    study.cli(STUDY)
