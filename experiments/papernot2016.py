"""Does defensive distillation defend, or does it hide the temperature?

    python -m experiments.papernot2016

Papernot et al. 2016 train a teacher with its softmax at temperature T, a student on
the teacher's soft answers at T, and use the student at temperature 1. Its logits are
then about T times too large: the softmax is saturated and its gradient, with which
the attacks of the time worked, is nothing. Carlini and Wagner showed that only the
gradient had been removed: an attack on the logits, or the old attack on logits divided
by T, does not notice.

The papers, on MNIST: the saliency attack on the softmax reaches its target in 91 % (T =
1), 24 % (T = 5) and 0.5 % (T = 100) of the images, on logits divided by T again in
96.4 % (R). Carlini and Wagner's L2 attack reaches it in 100 % at 2.2 instead of 1.76 on
average over targets, and its distance does not depend on T (correlation -0.05) (R). The
logits grow from 5.8 to 482 (R), gradients shrink by 1e30 (M), accuracy goes from 99.51
(R) to 99.05 % (M). With confidence kappa adversarial examples transfer, to a distilled
net from kappa 40 on (R).

Measured (``--preset cpu``):

                                     undistilled   T = 1   T = 5   T = 20   T = 100
    saliency, softmax (%)                            100      14        0         0
    saliency, logits / T (%)                         100     100       96        94
    FGSM at 0.3, softmax (%)                  97      99      91       12         1
    PGD-40 at 0.3, softmax (%)               100     100      99       31        14
    PGD-40 at 0.3, logits / T (%)            100     100     100      100       100
    Carlini-Wagner L2, targeted (%)          100     100     100      100       100
    its mean distance                       1.97    1.98    2.03     2.05      1.95
    gradient exactly zero (%)                  0       0       1       86        95
    accuracy (%)                            98.6    98.5    98.3     97.7      96.7

Examples of the undistilled net fool one of other images in 10, 82, 99 and 100 % and the
one distilled at T = 100 in 10, 41, 82 and 97 % at kappa 0, 5, 10 and 20.
Correlation of the distance with T -0.03; logits 83 times as large at T = 100; median
gradient 10^-272 of that at T = 1. 251 s of processor time, compilation included; 21
minutes of wall time on 2 CPU cores that other programs were using too.

Deviations: the small network of "Fast is better than free" and Adam instead of the
papers' larger one and momentum; targets are random, one per image.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, charts, data, losses, training, zoo
from advjax.attacks import Capability, ThreatModel
from advjax.balls import l0, linf
from advjax.types import LogitsFn
from experiments import study
from experiments.study import Findings, Study, claim, picture, table
from experiments.work import Sets, Work


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study."""

    dataset: str = 'mnist'
    """Data set; digits stand in for a missing MNIST."""
    temperatures: tuple[float, ...] = (1.0, 5.0, 20.0, 100.0)
    """Temperatures of the distillation; the first must be 1."""
    train_images: int = 29_000
    """Training images; as many others train the net that examples transfer to."""
    epochs: int = 3
    """Passes over them, for every teacher and student."""
    batch_size: int = 200
    """Images per step."""
    learning_rate: float = 1e-2
    """Peak of Adam's triangular schedule."""
    eps: float = 0.3
    """Linf radius of FGSM and PGD."""
    steps: int = 40
    """Steps of PGD."""
    images: int = 300
    """Test images for FGSM, PGD and gradients."""
    saliency_images: int = 50
    """Test images for the saliency attack."""
    aimed_images: int = 100
    """Test images for Carlini and Wagner."""
    cw_steps: int = 200
    """Steps of Adam per constant."""
    cw_searches: int = 6
    """Constants tried."""
    kappas: tuple[float, ...] = (0.0, 5.0, 10.0, 20.0, 40.0)
    """Confidences of the transfer curve."""


class Nets:
    """The networks of the study, each trained once."""

    def __init__(self, config: Config, work: Work):
        self.config, self.work = config, work
        whole = work.sets(config.dataset)
        half = min(config.train_images, len(whole.train.labels) // 2)
        rest, own = data.split_held_out(whole.train, half, seed=1)
        other = rest
        if len(rest.labels) > half:
            other = data.split_held_out(rest, half, seed=2)[1]
        self.sets, self.other_sets = (whole._replace(train=t) for t in (own, other))
        self.model = zoo.fast_mnist(whole.shape, whole.classes)
        self._made: dict[str, LogitsFn] = {}

    def _fit(self, name: str, method: training.Method, sets: Sets) -> LogitsFn:
        if name not in self._made:
            self._made[name] = self.work.fit(
                name,
                method,
                self.model,
                sets,
                epochs=self.config.epochs,
                batch_size=self.config.batch_size,
                learning_rate=self.config.learning_rate,
            ).logits_fn
        return self._made[name]

    def teacher(self, temperature: float) -> LogitsFn:
        """Trained on the labels at a temperature; at 1 an ordinary network."""
        method = training.at_temperature(temperature)
        return self._fit(f'teacher-{temperature:g}', method, self.sets)

    def student(self, temperature: float) -> LogitsFn:
        """The distilled network."""
        method = training.distillation(self.teacher(temperature), temperature)
        return self._fit(f'student-{temperature:g}', method, self.sets)

    def other(self) -> LogitsFn:
        """An ordinary network that has seen none of these training images."""
        return self._fit('other', training.at_temperature(1.0), self.other_sets)


@jax.jit
def aimed(attack, logits_fn, key, x, y, target):
    """One compiled call of a targeted attack."""
    return attack(logits_fn, key, x, y, target=target)


@jax.jit
def untargeted(attack, logits_fn, key, x, y):
    """One compiled call of an attack."""
    return attack(logits_fn, key, x, y)


@jax.jit
def answers(logits_fn, x):
    """The classes (B,) that a network answers."""
    return jnp.argmax(logits_fn(x), axis=1)


@jax.jit
def gradient_size(logits_fn, x, y):
    r"""The L1 norm of the softmax's gradient: in float32, and its true logarithm.

    .. math:: \nabla(-\log p_y) = (1 - p_y)\, \nabla\Big(\log \sum_{j \ne y} e^{z_j}
              - z_y\Big)

    Neither factor underflows when the first is kept as a logarithm.

    Returns:
      (B,) norms and (B,) base-10 logarithms.
    """

    def total(x):
        return jnp.sum(losses.cross_entropy(logits_fn(x), y))

    def others(x):
        z = logits_fn(x)
        own = jax.nn.one_hot(y, z.shape[1], dtype=bool)
        lse = jax.nn.logsumexp(jnp.where(own, -jnp.inf, z), axis=1)
        gap = lse - jnp.sum(jnp.where(own, z, 0), axis=1)
        return jnp.sum(gap), gap

    def size(gradient):
        return jnp.sum(jnp.abs(gradient), axis=tuple(range(1, gradient.ndim)))

    (_, gap), gradient = jax.value_and_grad(others, has_aux=True)(x)
    logarithm = (jax.nn.log_sigmoid(gap) + jnp.log(size(gradient))) / jnp.log(10.0)
    return size(jax.grad(total)(x)), logarithm


def targets(y: np.ndarray, classes: int) -> jax.Array:
    """A random wrong class for every image."""
    shift = np.random.default_rng(0).integers(1, classes, len(y))
    return jnp.asarray((y + shift) % classes, jnp.int32)


def correct(f: LogitsFn, x: np.ndarray, y: np.ndarray, count: int):
    """The first images that a network is right on."""
    right = np.flatnonzero(np.asarray(answers(f, x[: 3 * count])) == y[: 3 * count])
    return x[right[:count]], y[right[:count]]


def measure(
    config: Config, work: Work, f: LogitsFn, temperature: float, test: Any, old: bool
) -> dict[str, Any]:
    """All that is measured on one network.

    Args:
      config: settings.
      work: the run.
      f: the network.
      temperature: what its logits are divided by for the adaptive attacks.
      test: all test images and labels, in random order.
      old: also run the saliency attacks, which take the longest.
    """
    x, y = test
    classes, n = int(y.max()) + 1, config.images
    found: dict[str, Any] = {'accuracy': np.mean(np.asarray(answers(f, x)) == y)}
    found['logits'] = np.abs(np.asarray(f(x[:n]))).sum(axis=1)
    size, logarithm = gradient_size(f, x[:n], y[:n])
    found |= {'zero': np.mean(np.asarray(size) == 0), 'gradient': logarithm}
    ball = linf(config.eps)
    named = {'fgsm': attacks.fgsm(ball), 'pgd': attacks.pgd(ball, config.steps)}
    scaled = attacks.rescaled(f, temperature)
    for kind, model in (('softmax', f), ('rescaled', scaled)):
        result = work.evaluate(model, x[:n], y[:n], named)
        broken = result.success.sum(axis=1) / max(result.clean_correct.sum(), 1)
        found |= {f'{a}-{kind}': v for a, v in zip(named, broken, strict=True)}
    if old:
        xs, ys = correct(f, x, y, config.saliency_images)
        to = targets(ys, classes)
        saliency = attacks.jsma(l0(float('inf')), probabilities=True)
        for kind, model in (('softmax', f), ('rescaled', scaled)):
            moved = aimed(saliency, model, work.key, xs, ys, to)
            won = np.asarray(answers(f, moved) == to)
            pixels = np.asarray(jnp.sum(moved != xs, axis=(1, 2, 3)))
            found[f'jsma-{kind}'] = won.mean()
            found[f'pixels-{kind}'] = pixels[won].mean() if won.any() else np.nan
    xs, ys = correct(f, x, y, config.aimed_images)
    to = targets(ys, classes)
    moved = aimed(carlini_wagner(config), f, work.key, xs, ys, to)
    won = np.asarray(answers(f, moved) == to)
    inside = np.asarray(jnp.all((moved >= 0) & (moved <= 1), axis=(1, 2, 3)))
    distance = np.linalg.norm(np.asarray(moved - xs).reshape(len(xs), -1), axis=1)
    found['cw'] = (won & inside).mean()
    found['distance'] = np.where(won & inside, distance, np.nan)
    return found


def carlini_wagner(config: Config, kappa: float = 0.0):
    """The L2 attack, with fewer and longer steps than in the paper."""
    return attacks.carlini_wagner(
        steps=config.cw_steps,
        searches=config.cw_searches,
        kappa=kappa,
        c=1e-2,
        rate=5e-2,
    )


def transfer(config: Config, work: Work, nets: Nets, test: Any) -> dict[str, Any]:
    """How often examples of an ordinary network fool two others, by kappa."""
    source, other = nets.teacher(1.0), nets.other()
    distilled = nets.student(config.temperatures[-1])
    x, y = test
    count = config.aimed_images
    xs, ys = x[: 2 * count], y[: 2 * count]
    right = [np.asarray(answers(f, xs)) == ys for f in (source, other, distilled)]
    kept = np.flatnonzero(np.all(right, axis=0))[:count]
    xs, ys = xs[kept], ys[kept]
    rows = []
    for kappa in config.kappas:
        moved = untargeted(carlini_wagner(config, kappa), source, work.key, xs, ys)
        fooled = [
            np.mean(np.asarray(answers(f, moved)) != ys)
            for f in (source, other, distilled)
        ]
        apart = np.linalg.norm(np.asarray(moved - xs).reshape(len(xs), -1), axis=1)
        rows.append([*fooled, apart.mean()])
    return {'rows': np.array(rows)}


def run(config: Config, work: Work) -> Findings:
    """Trains, attacks and compares."""
    nets = Nets(config, work)
    x, y = work.images(nets.sets.test)
    order = np.random.default_rng(0).permutation(len(y))
    test = x[order], y[order]
    plain = work.keep(
        'undistilled',
        lambda: measure(config, work, nets.teacher(1.0), 1.0, test, old=False),
    )
    rows = {
        t: work.keep(
            f'distilled-{t:g}',
            lambda t=t: measure(config, work, nets.student(t), t, test, old=True),
        )
        for t in config.temperatures
    }
    moved = work.keep('transfer', lambda: transfer(config, work, nets, test))
    curve = moved['rows']
    return Findings(
        claims_of(config, plain, rows, curve),
        pictures_of(config, rows, curve),
        [result_table(config, plain, rows), threat_table(config)],
    )


def _percent(row: Any, name: str) -> float:
    return 100 * float(row[name])


def claims_of(config: Config, plain: Any, rows: Any, curve: np.ndarray) -> list:
    """The scoreboard; bands are those of the papers, set before measuring."""
    first, last = rows[config.temperatures[0]], rows[config.temperatures[-1]]
    top = config.temperatures[-1]
    seen = f'{config.saliency_images} images'
    bands = {1.0: ('91', (80, 100)), 5.0: ('24', (0, 60)), 100.0: ('0.5', (0, 5))}
    claims = []
    for t, row in rows.items():
        paper, band = bands.get(t, ('', None))
        claims.append(
            claim(
                f'T = {t:g}: saliency attack on the softmax reaches its target, {seen}',
                _percent(row, 'jsma-softmax'),
                paper=paper,
                tag='R' if paper else 'D',
                band=band,
                unit='%',
            )
        )
    mean = {t: np.nanmean(row['distance']) for t, row in rows.items()}
    pooled = np.concatenate([row['distance'] for row in rows.values()])
    at = np.concatenate([np.full(len(r['distance']), t) for t, r in rows.items()])
    kept = np.isfinite(pooled)
    slope = np.corrcoef(at[kept], pooled[kept])[0, 1]
    return [
        *claims,
        claim(
            f'T = {top:g}: the same on logits divided by T',
            _percent(last, 'jsma-rescaled'),
            paper='96.4',
            tag='R',
            band=(85, 100),
            unit='%',
        ),
        *(
            claim(
                f'{name.upper()} on the softmax, eps {config.eps:g}, {config.images} '
                f'images: success at T = 1 minus T = {top:g}',
                _percent(first, f'{name}-softmax') - _percent(last, f'{name}-softmax'),
                paper='> 0',
                band=(0, None),
                unit='points',
            )
            for name in ('fgsm', 'pgd')
        ),
        claim(
            f'T = {top:g}: PGD succeeds, logits divided by T',
            _percent(last, 'pgd-rescaled'),
            paper='about 100',
            band=(95, 100),
            unit='%',
        ),
        claim(
            f'T = {top:g}: PGD, logits divided by T minus softmax',
            _percent(last, 'pgd-rescaled') - _percent(last, 'pgd-softmax'),
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
        claim(
            f'T = {top:g}: Carlini-Wagner L2 reaches its target, {config.aimed_images} '
            'images',
            _percent(last, 'cw'),
            paper='100',
            tag='R',
            band=(99, 100),
            unit='%',
        ),
        claim(
            'undistilled: its mean distance, random target',
            np.nanmean(plain['distance']),
            paper='1.76',
            tag='R',
            band=(1.4, 2.4),
        ),
        claim(
            f'T = {top:g}: its mean distance as a multiple of the undistilled',
            mean[top] / np.nanmean(plain['distance']),
            paper='1.25 (2.2 / 1.76)',
            tag='R',
            band=(None, 1.6),
        ),
        claim(
            'correlation of its distance with T, over all images and T',
            slope,
            paper='-0.05',
            tag='R',
            band=(-0.3, 0.3),
        ),
        claim(
            f'mean L1 norm of the logits, T = {top:g} over undistilled',
            np.mean(last['logits']) / np.mean(plain['logits']),
            paper='83 (482 / 5.8)',
            tag='R',
            band=(top / 2, top * 2),
        ),
        claim(
            f'images whose softmax gradient is exactly zero in float32, T = {top:g}',
            _percent(last, 'zero'),
            paper='high',
            band=(50, 100),
            unit='%',
        ),
        claim(
            f'median gradient of the softmax, T = 1 over T = {top:g}: decimal digits',
            np.median(first['gradient']) - np.median(last['gradient']),
            paper='30',
            tag='M',
        ),
        claim(
            f'accuracy, T = {top:g} minus undistilled',
            _percent(last, 'accuracy') - _percent(plain, 'accuracy'),
            paper='-0.46 (99.51 to 99.05)',
            tag='M',
            unit='points',
        ),
        claim(
            f'transfer to an undistilled net of other training images: kappa '
            f'{config.kappas[-1]:g} minus 0',
            100 * (curve[-1, 1] - curve[0, 1]),
            paper='> 0, to about 100 at kappa 20',
            tag='R',
            band=(0, None),
            unit='points',
        ),
        claim(
            f'transfer to the distilled net at kappa {config.kappas[-1]:g}',
            100 * curve[-1, 2],
            paper='about 100',
            tag='R',
            unit='%',
        ),
    ]


ATTACKS = {
    'jsma-softmax': 'saliency, softmax',
    'fgsm-softmax': 'FGSM, softmax',
    'pgd-softmax': 'PGD, softmax',
    'jsma-rescaled': 'saliency, logits / T',
    'pgd-rescaled': 'PGD, logits / T',
    'cw': 'Carlini-Wagner L2',
}


def pictures_of(config: Config, rows: Any, curve: np.ndarray) -> list:
    """The figures of the page."""
    temperatures = list(rows)
    x = charts.Axis('temperature T', 'log')

    def success(width):
        lines = [
            charts.Line(word, temperatures, [_percent(r, name) for r in rows.values()])
            for name, word in ATTACKS.items()
        ]
        y = charts.Axis('attacks that succeed (%)', limits=(-3, 103))
        return charts.lines(lines, x, y, width=width)

    def gradients(width):
        samples = {
            f'T = {t:g} ({_percent(row, "zero"):.0f} % zero in float32)': np.maximum(
                row['gradient'], -200
            )
            for t, row in rows.items()
        }
        x = charts.Axis('log10 of the gradient (L1 norm)')
        return charts.histograms(samples, x, width=width)

    def distances(width):
        low, middle, high = (
            [np.nanquantile(row['distance'], q) for row in rows.values()]
            for q in (0.25, 0.5, 0.75)
        )
        line = charts.Line('median and quartiles', temperatures, middle, (low, high))
        y = charts.Axis('L2 distance to target', limits=(0, 1.1 * max(high)))
        return charts.lines([line], x, y, width=width)

    def transfers(width):
        names = (
            'the network attacked',
            'another, trained on other images',
            f'distilled at T = {config.temperatures[-1]:g}',
        )
        lines = [
            charts.Line(name, config.kappas, 100 * curve[:, i])
            for i, name in enumerate(names)
        ]
        y = charts.Axis('fooled (%)', limits=(-3, 103))
        return charts.lines(lines, charts.Axis('confidence kappa'), y, width=width)

    return [
        picture(
            'What distillation stops',
            'Attacks that follow the gradient of the softmax fail as T grows. The same '
            'attacks on logits divided by T, and one that never used the softmax, do '
            'not notice.',
            success,
        ),
        picture(
            'The gradient that is hidden',
            'Size of the gradient of cross entropy, in exact arithmetic (all below '
            '1e-200 at the left end): what float32 sees of most of it is zero.',
            gradients,
        ),
        picture(
            'How far the nearest target is',
            "Carlini and Wagner's distance to a random target. If distillation had "
            'moved the boundary, it would grow with T.',
            distances,
        ),
        picture(
            'Examples made with confidence transfer',
            'Untargeted examples of an undistilled network that must be wrong by a '
            'margin of kappa, shown to two networks that the attacker has not seen.',
            transfers,
        ),
    ]


def result_table(config: Config, plain: Any, rows: Any):
    """All numbers by temperature."""

    def cells(name, row):
        return [
            name,
            _percent(row, 'accuracy'),
            float(np.mean(row['logits'])),
            float(np.median(row['gradient'])),
            _percent(row, 'zero'),
            *(_percent(row, a) if a in row else None for a in ATTACKS),
            float(np.nanmean(row['distance'])),
            *(float(row[p]) if p in row else None
              for p in ('pixels-softmax', 'pixels-rescaled')),
        ]  # fmt: skip

    columns = [
        'network', 'accuracy (%)', 'logits, L1', 'gradient, log10', 'zero (%)',
        *(f'{word} (%)' for word in ATTACKS.values()),
        'Carlini-Wagner, L2', 'pixels, softmax', 'pixels, logits / T',
    ]  # fmt: skip
    body = [cells('undistilled', plain)]
    body += [cells(f'T = {t:g}', row) for t, row in rows.items()]
    note = (
        f'FGSM and PGD-{config.steps} in Linf at {config.eps:g}, any wrong answer; '
        'saliency and Carlini-Wagner towards a random class. Shares of images that are '
        'right without an attack.'
    )
    return study.table('By temperature', columns, body, note)


def threat_table(config: Config):
    """Who could attack the network, and with what."""
    box = functools.partial(Capability, bounds=(0.0, 1.0))
    threats = [
        ThreatModel('targeted', 'white', box('l0', float('inf'))),
        ThreatModel('targeted', 'white', box('l2')),
        ThreatModel('untargeted', 'white', box('linf', config.eps)),
        ThreatModel('confidence', 'white', box('linf', config.eps, budget=50)),
        ThreatModel('untargeted', 'gray', box('l2')),
        ThreatModel('untargeted', 'transfer', box('linf', config.eps)),
        ThreatModel('untargeted', 'score', box('linf', config.eps, queries=2000)),
        ThreatModel('targeted', 'decision', box('l2', queries=5000)),
    ]
    body = []
    for threat in threats:
        able = threat.capability
        limits = {'eps': able.eps, 'queries': able.queries, 'budget': able.budget}
        words = [f'{k} {v:g}' for k, v in limits.items() if v not in (None, np.inf)]
        entries = [entry.name for entry in threat.entries()]
        body.append(
            [threat.goal, threat.knowledge, ', '.join([able.norm, *words]),
             len(entries), ', '.join(entries)]
        )  # fmt: skip
    return table(
        'Threat models, and the attacks of the catalogue that apply',
        ['goal', 'knowledge', 'capability', 'number', 'attacks'],
        body,
        'The defence was first judged by the saliency attack on the softmax alone, one '
        'attack of the first row.',
    )


STUDY = Study(
    name='papernot2016',
    title='Papernot et al. 2016: Distillation as a defense (defensive distillation)',
    line='distillation hides the temperature, not the adversarial examples',
    run=run,
    presets={
        'cpu': Config(),
        'paper': Config(
            temperatures=(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0),
            epochs=50,
            batch_size=128,
            learning_rate=5e-3,
            images=10_000,
            saliency_images=1000,
            aimed_images=1000,
            cw_steps=1000,
            cw_searches=9,
            kappas=(0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0),
        ),
        'smoke': Config(
            dataset='digits',
            temperatures=(1.0, 100.0),
            train_images=700,
            epochs=6,
            batch_size=32,
            images=40,
            steps=5,
            saliency_images=8,
            aimed_images=8,
            cw_steps=40,
            cw_searches=4,
            kappas=(0.0, 10.0),
        ),
    },
    minutes=5,
)

if __name__ == '__main__':
    study.cli(STUDY)
