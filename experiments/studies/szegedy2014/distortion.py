"""Section 4.1: the smallest change that makes a network answer another class.

Szegedy et al. 2014 give a class for every image and minimise the distance to an image
that is answered so; their Table 1 averages the result. Which classes they gave is not
told: here a class is drawn at random for each image, and the likeliest wrong class is
tried beside it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from advjax import attacks, data
from advjax.evaluation.verify import logits_of
from advjax.report import charts
from advjax.training import Fit
from experiments.frame import measures
from experiments.frame.datasets import Sets
from experiments.frame.findings import Findings, claim, image_grid, picture, table
from experiments.frame.work import Work
from experiments.studies.szegedy2014.networks import HARDENED, TABLE_1

PAPER_TABLE_1 = {
    'FC10(1e-4)': (6.7, 7.4, 0.062),
    'FC10(1e-2)': (10.0, 9.4, 0.1),
    'FC10(1)': (21.2, 20.0, 0.14),
    'FC100': (0.0, 1.64, 0.058),
    'FC200': (0.0, 1.54, 0.065),
    'AE400': (0.57, 1.9, 0.086),
}
"""Training error, test error (%) and average minimum distortion of the paper."""

_TEST_ERROR_BANDS = {
    'FC10(1e-4)': (6.4, 8.4),
    'FC10(1e-2)': (8.4, 10.4),
    'FC10(1)': (17, 23),
    'FC100': (1.0, 2.5),
    'FC200': (1.0, 2.5),
    'AE400': (1.0, 3.0),
}

_REASONS = {
    'FC10(1e-2)': 'the strength of lambda rests on a formula tagged M',
    'FC10(1)': 'the strength of lambda rests on a formula tagged M',
    'AE400': 'the paper prints neither rho nor beta; here no label shapes the code',
}
"""Why a test error may lie outside its band, where that is known."""


class Found(NamedTuple):
    """What box-constrained L-BFGS found against one network.

    Attributes:
      drawn: (n, H, W, C) closest images found that answer a class drawn at random.
      nearest: the same for the likeliest wrong class.
      drawn_won: (n,) whether the answer is that class, within [0, 1]: judged here.
      nearest_won: the same.
    """

    drawn: np.ndarray
    nearest: np.ndarray
    drawn_won: np.ndarray
    nearest_won: np.ndarray


def attacked_images(config: Any, work: Work, sets: Sets) -> tuple[np.ndarray, ...]:
    """Random test images, their labels, and a wrong class for each."""
    test = sets.test
    if config.attacked < len(test.labels):
        test = data.split_held_out(test, config.attacked, seed=config.seed)[1]
    x, y = work.images(test)
    shift = np.random.RandomState(config.seed).randint(1, sets.classes, len(y))
    return x, y, ((y + shift) % sets.classes).astype(y.dtype)


def attack(
    config: Any, work: Work, name: str, fit: Fit, x: Any, y: Any, drawn: Any
) -> Found:
    """Attacks one network, towards two classes per image, and checks the result."""
    logits_fn = fit.logits_fn

    def compute():
        logits = np.array(logits_of(logits_fn, x))
        logits[np.arange(len(y)), y] = -np.inf
        targets = np.concatenate([drawn, logits.argmax(axis=1).astype(y.dtype)])
        search = attacks.lbfgs(steps=config.steps, searches=config.searches)
        twice = np.concatenate([x, x]), np.concatenate([y, y])
        adv = np.asarray(
            measures.run_attack(search, logits_fn, work.key, *twice, targets)
        )
        won = measures.answers(logits_fn, adv) == targets
        won &= ((adv >= 0) & (adv <= 1)).all(axis=(1, 2, 3))
        return {'adv': adv, 'won': won}

    found = work.keep(f'lbfgs {name}', compute)
    n = len(y)
    adv, won = found['adv'], found['won']
    return Found(adv[:n], adv[n:], won[:n], won[n:])


def rms(r: np.ndarray) -> np.ndarray:
    r"""The paper's distortion :math:`\sqrt{\sum_i r_i^2 / n}`, in pixels, (B,)."""
    return np.sqrt(np.mean(np.square(r.astype(np.float64)), axis=(1, 2, 3)))


def scaled(r: np.ndarray, size: Any) -> np.ndarray:
    """Every perturbation scaled to an RMS, a number or one per image; zeros stay."""
    now = rms(r)
    factor = np.divide(size, now, out=np.zeros_like(now), where=now > 0)
    return (r * factor[:, None, None, None]).astype(np.float32)


def noise(config: Any, shape: tuple[int, ...], size: Any) -> np.ndarray:
    """Gaussian noise of exactly that RMS on every image."""
    draw = np.random.RandomState(config.seed + 1).normal(size=shape)
    return scaled(draw.astype(np.float32), size)


def mean_sizes(
    found: Mapping[str, Found], x: np.ndarray, kind: str = 'drawn'
) -> dict[str, float]:
    """The mean RMS of the successes by network, of ``drawn`` or ``nearest``."""
    sizes = {}
    for name, f in found.items():
        adv, won = getattr(f, kind), getattr(f, f'{kind}_won')
        sizes[name] = float(rms(adv - x)[won].mean()) if won.any() else np.nan
    return sizes


def findings(
    config: Any,
    fits: Mapping[str, Fit],
    errors: Mapping[str, Any],
    found: Mapping[str, Found],
    x: np.ndarray,
    mnist: bool,
) -> Findings:
    """Table 1, and what adversarial training changes in it; bands are for MNIST."""
    sizes, nearest = mean_sizes(found, x), mean_sizes(found, x, 'nearest')
    on = f'{len(x)} random test images'
    won = {
        name: 100 * float(np.mean([f.drawn_won, f.nearest_won]))
        for name, f in found.items()
    }
    claims = [
        claim(
            f'L-BFGS reaches its class: the hardest network, {on}',
            min(won[name] for name in TABLE_1), paper='100', band=(99, 100), unit='%',
        )
    ]  # fmt: skip
    claims += [
        claim(
            f'test error of {name}', errors[name][2], paper=f'{row[1]:g}', tag='R',
            band=_TEST_ERROR_BANDS[name] if mnist else None, unit='%',
            reason=_REASONS.get(name, ''),
        )
        for name, row in PAPER_TABLE_1.items()
    ]  # fmt: skip
    claims += [
        claim(
            f'mean distortion of {name}, {on}, random class', sizes[name],
            paper=f'{row[2]:g}', tag='R', band=(0.05, 0.15) if mnist else None,
        )
        for name, row in PAPER_TABLE_1.items()
    ]  # fmt: skip
    claims += [
        claim(
            f'distortion of {strong} above that of {weak}',
            sizes[strong] - sizes[weak], band=(0, None),
            paper=f'{PAPER_TABLE_1[strong][2] - PAPER_TABLE_1[weak][2]:.3f}',
        )
        for weak, strong in (TABLE_1[:2], TABLE_1[1:3])
    ]  # fmt: skip
    order, theirs = (
        np.argsort(np.argsort([source[name] for name in TABLE_1]))
        for source in (sizes, {n: row[2] for n, row in PAPER_TABLE_1.items()})
    )
    claims.append(
        claim(
            'rank correlation of the six distortions with those of the paper',
            np.corrcoef(order, theirs)[0, 1], paper='1', tag='R',
        )
    )  # fmt: skip
    plain, hard = errors['FC100'][2], errors[HARDENED][2]
    claims += [
        claim(
            f'test error of FC100 with one-step L2 adversaries of {config.eps:g}', hard,
            paper='< 1.2', tag='R', band=(0, 1.2) if mnist else None, unit='%',
            reason='one step on the input, not a pool of L-BFGS images per layer',
        ),
        claim(
            'test error that adversarial training takes off FC100', plain - hard,
            paper='0.4', band=(0, None), unit='%',
        ),
        claim(
            'distortion of FC100 trained so, above that of FC100',
            sizes[HARDENED] - sizes['FC100'],
        ),
    ]  # fmt: skip
    named = [*TABLE_1, HARDENED]
    rows = [
        [
            name, np.mean(errors[name][:2]), errors[name][2], won[name], sizes[name],
            nearest[name], *PAPER_TABLE_1.get(name, (None, 1.2, None)),
        ]
        for name in named
    ]  # fmt: skip
    columns = [
        'network', 'training error (%)', 'test error (%)', 'reached (%)',
        'distortion, random class', 'likeliest wrong class', 'paper: training error',
        'paper: test error', 'paper: distortion',
    ]  # fmt: skip
    bars = {
        'towards a random class': [sizes[n] for n in named],
        'towards the likeliest wrong class': [nearest[n] for n in named],
        'paper': [PAPER_TABLE_1.get(n, (0, 0, np.nan))[2] for n in named],
    }

    return Findings(
        claims,
        [
            picture(
                'How small a change is enough',
                f'The mean root-mean-square change per pixel (pixels lie in [0, 1]) of '
                f'the closest images that L-BFGS found, over {on}. Weight decay makes '
                'the linear networks FC10 need larger changes, at the price of errors.',
                charts.bars,
                named,
                bars,
                charts.Axis('distortion, RMS per pixel'),
            ),
            _examples(fits, found, x),
        ],
        [table('Networks and distortions (Table 1)', columns, rows)],
    )


def _examples(fits: Mapping[str, Fit], found: Mapping[str, Found], x: Any) -> Any:
    """Images, changes and the images that fool, for two networks."""
    two = {name: found[name] for name in ('FC10(1e-4)', 'FC100')}
    moved = [f.drawn_won & (rms(f.drawn - x) > 0) for f in two.values()]
    some = np.argsort(~np.logical_and(*moved), kind='stable')[:8]
    rows = [{'title': 'test images', 'images': x[some]}]
    for name, f in two.items():
        change = f.drawn[some] - x[some]
        largest = np.abs(change).max(axis=(1, 2, 3), keepdims=True)
        answers = measures.answers(fits[name].logits_fn, f.drawn[some])
        rows += [
            {
                'title': f'{name}: the change, at full contrast',
                'images': 0.5 + change / np.maximum(2 * largest, 1e-6),
            },
            {
                'title': f'{name}: changed, and its answer',
                'images': f.drawn[some],
                'captions': [str(answer) for answer in answers],
            },
        ]
    return picture(
        'Adversarial examples by box-constrained L-BFGS',
        'Each image was changed as little as L-BFGS could until the network answered a '
        'class drawn at random. Grey means no change; the largest change of each image '
        'is drawn black or white.',
        image_grid,
        rows,
        8,
        4,
    )
