"""Networks of growing width, each trained normally, on FGSM and on PGD.

Scale 1 is two filters, four filters and 64 units; every further scale doubles all.

The trainings here stop after a given number of steps, whatever became of the network:
``training.fit`` would begin again after a collapse and go back to the epoch before
catastrophic overfitting, which are the very things to be looked at.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, data, losses, models, training
from advjax.attacks.search import calls_of
from advjax.balls import Ball
from advjax.data import Dataset
from advjax.models import Model
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame import measures
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.work import Work

UNIT = 1 / 16
"""The scale of ``zoo.madry_mnist`` that is the paper's scale 1."""

TRAINED_ON = {'natural': 'clean images', 'FGSM': 'FGSM', 'PGD': 'PGD'}
FIELDS = {
    'clean': 'no attack (%)', 'fgsm': 'FGSM (%)', 'pgd': 'PGD (%)',
    'top_class': 'top class (%)', 'loss': 'PGD loss (nats)',
}  # fmt: skip


class Plan(NamedTuple):
    """How long and how a network is trained.

    Attributes:
      images: random training images.
      steps: updates.
      batch_size: images of each.
      learning_rate: peak of Adam's triangular schedule.
    """

    images: int
    steps: int
    batch_size: int
    learning_rate: float = 2e-3


class Standing(NamedTuple):
    """What became of one network; shares of the test images in per cent.

    Attributes:
      clean: right without an attack.
      fgsm: right under FGSM.
      pgd: right under PGD.
      top_class: share of the class answered most often.
      loss: mean cross entropy at the ends of PGD.
    """

    clean: float
    fgsm: float
    pgd: float
    top_class: float
    loss: float


def methods(ball: Ball, steps: int) -> dict[str, training.Method]:
    """The paper's three ways to train; both attacks without clean images mixed in."""
    return {
        'natural': training.standard(),
        'FGSM': training.fgsm_at(ball, clean_weight=0.0),
        'PGD': training.pgd_at(ball, steps),
    }


@functools.partial(jax.jit, donate_argnums=1)
def _step(method, state, on_device, index, key):
    batch = {
        'image': data.to_float(on_device.images[index]),
        'label': on_device.labels[index],
    }
    return training.step(method, state, batch, key)


def _train(
    method: training.Method, model: Model, dataset: Dataset, plan: Plan, seed: int
) -> Any:
    """The parameters after the last step."""
    optimizer = optax.adam(training.triangular(plan.learning_rate, plan.steps))
    key = jax.random.key(seed)
    state = jax.jit(training.create, static_argnums=(0, 1))(model, optimizer, key=key)
    on_device = data.device_data(dataset)
    draw = np.random.default_rng(seed)
    order = np.zeros(0, np.int64)
    for _ in range(plan.steps):
        if len(order) < plan.batch_size:
            order = np.append(order, draw.permutation(len(dataset.labels)))
        index, order = np.split(order, [plan.batch_size])
        state, _ = _step(method, state, on_device, index, key)
    return state.params


def train_all(
    work: Work,
    name: str,
    runs: Mapping[str, training.Method],
    model: Model,
    dataset: Dataset,
    plan: Plan,
    seed: int = 0,
) -> dict[str, LogitsFn]:
    """Trains one architecture in several ways, two at a time; once per run folder.

    Programs for networks this small keep one core busy, so two cores train two.
    """
    if plan.images < len(dataset.labels):
        dataset = data.split_held_out(dataset, plan.images, seed=1)[1]

    def cost(way):
        return calls_of(runs[way].inner) or 0

    def compute():
        with ThreadPoolExecutor(2) as pool:
            # The most expensive first, or one core would wait for it at the end.
            waiting = {
                way: pool.submit(_train, runs[way], model, dataset, plan, seed)
                for way in sorted(runs, key=cost, reverse=True)
            }
            return {way: future.result() for way, future in waiting.items()}

    like = jax.eval_shape(model.init, jax.random.key(0))[0]
    kept = work.keep_tree(name, compute, dict.fromkeys(runs, like))
    return {way: models.logits_fn(model, kept[way]) for way in runs}


@jax.jit
def _loss(logits_fn, x, y):
    return jnp.mean(losses.cross_entropy(logits_fn(x), y))


def examine(
    work: Work, logits_fn: LogitsFn, x: np.ndarray, y: np.ndarray, ball: Ball
) -> Standing:
    """Attacks a network by FGSM and PGD-20."""
    search = attacks.pgd(ball, 20, keep_best=False)
    found = work.evaluate(logits_fn, x, y, {'FGSM': attacks.fgm(ball), 'PGD': search})
    ends = measures.run_attack(search, logits_fn, work.key, x, y)
    left = 100 * (found.clean_correct & ~found.success).mean(axis=1)
    most = np.bincount(found.clean_prediction).max() / len(y)
    return Standing(
        clean=100 * found.clean_accuracy,
        fgsm=left[0],
        pgd=left[1],
        top_class=100 * most,
        loss=float(_loss(logits_fn, ends, y)),
    )


def grid(
    work: Work,
    scales: tuple[int, ...],
    build: Callable[[int], Model],
    ways: Mapping[str, training.Method],
    ball: Ball,
    dataset: Dataset,
    plan: Plan,
    x: np.ndarray,
    y: np.ndarray,
) -> dict[str, dict[str, np.ndarray]]:
    """Trains and attacks every network: {method: {field of Standing: (scales,)}}."""
    kept = []
    for scale in scales:
        nets = train_all(work, f'capacity-{scale}', ways, build(scale), dataset, plan)

        def compute(nets=nets):
            return {
                name: np.array(examine(work, net, x, y, ball))
                for name, net in nets.items()
            }

        kept.append(work.keep(f'capacity-{scale}-attacked', compute))
    return {
        name: dict(
            zip(Standing._fields, np.stack([k[name] for k in kept], axis=1),
                strict=True)
        )
        for name in ways
    }  # fmt: skip


def findings(
    found: Mapping[str, Mapping[str, np.ndarray]], scales: Sequence[int], steps: int
) -> Findings:
    """What width does to natural, FGSM and PGD training; ``found`` by ``grid``."""
    by_pgd, by_fgsm = found['PGD'], found['FGSM']
    widest = scales[-1]
    claims = [
        claim(
            f'PGD training at scale {scale}: accuracy without an attack',
            by_pgd['clean'][i],
            paper='11, a constant class',
            tag='R',
            band=(5, 15),
            unit='%',
        )
        for i, scale in enumerate(scales)
        if scale <= 2
    ]
    claims += [
        claim(
            f'natural training at scale {scales[0]}: accuracy without an attack',
            found['natural']['clean'][0],
            unit='%',
        ),
        claim(
            'FGSM training: best accuracy under PGD of all scales',
            by_fgsm['pgd'].max(),
            paper='about 0',
            tag='R',
            band=(0, 5),
            unit='%',
        ),
        claim(
            f'FGSM training at scale {widest}: accuracy under FGSM less under PGD',
            by_fgsm['fgsm'][-1] - by_fgsm['pgd'][-1],
            paper='high against 0',
            tag='R',
            band=(50, None),
            unit='%',
        ),
        claim(
            f'PGD training: PGD loss at scale {scales[0]} less at scale {widest}, nats',
            by_pgd['loss'][0] - by_pgd['loss'][-1],
            paper='falls with capacity',
            tag='R',
            band=(0, None),
        ),
        claim(
            f'PGD training at scale {widest}: accuracy under PGD',
            by_pgd['pgd'][-1],
            unit='%',
        ),
    ]

    def accuracy(method, axes):
        values = found[method]
        lines = [
            Line('no attack', at, values['clean']),
            Line('FGSM', at, values['fgsm']),
            Line('PGD', at, values['pgd']),
        ]
        charts.lines_on(
            axes, lines, widths, Axis('right answers (%)', limits=(-2, 102)),
            title=f'trained on {TRAINED_ON[method]}',
        )  # fmt: skip
        axes.set_xticks(at, list(map(str, scales)))

    def loss(axes):
        lines = [
            Line(f'trained on {TRAINED_ON[name]}', at, values['loss'])
            for name, values in found.items()
        ]
        charts.lines_on(
            axes, lines, widths, Axis('loss (nats)', 'log'), title='loss under PGD'
        )
        axes.set_xticks(at, list(map(str, scales)))

    at, widths = range(len(scales)), Axis('scale (1: two filters)')
    rows = [
        [TRAINED_ON[name], scale, *(float(f'{values[k][i]:.4g}') for k in FIELDS)]
        for name, values in found.items()
        for i, scale in enumerate(scales)
    ]
    return Findings(
        claims,
        [
            picture(
                'Capacity',
                'The same net at growing width, trained in three ways. The smallest '
                'ones learn clean images and fail on the worst case altogether; '
                'training on FGSM teaches to defeat FGSM.',
                charts.panels,
                [functools.partial(accuracy, name) for name in found],
            ),
            picture(
                'The value of the min-max problem',
                'Loss on test images where PGD ends.',
                charts.panels,
                [loss],
            ),
        ],
        [
            table(
                'Capacity',
                ['trained on', 'scale', *FIELDS.values()],
                rows,
                f'{steps} updates each: far from converged.',
            )
        ],
    )
