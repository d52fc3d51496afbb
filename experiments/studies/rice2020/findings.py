"""Claims, figures and tables."""

from typing import Any

import numpy as np

from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import claim, picture, table
from experiments.studies.rice2020.networks import AVERAGED, DROPS, PLAIN


def mean(runs: list, name: str) -> float:
    """Mean of a figure over seeds."""
    return float(np.mean([run[name] for run in runs]))


def lost(runs: list) -> float:
    """Robust test accuracy of the best epoch less that of the last, in points."""
    return mean(runs, 'best') - mean(runs, 'last')


def fall(run: dict) -> float:
    """Points of robust held-out accuracy between its peak and its end, smoothed.

    Without smoothing, scatter between epochs would raise the peak.
    """
    curve = smooth(100 * run['held_out_robust'])
    return float(curve.max() - curve[-1])


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Running mean; shorter where there are fewer values."""
    width = min(width, len(values))
    return np.convolve(values, np.full(width, 1 / width), 'valid')


def claims_of(config: Any, dataset: str, found: dict) -> list:
    """The scoreboard."""
    plain, averaged = found[PLAIN], found[AVERAGED]
    seeds = f'{config.seeds} seeds' if config.seeds > 1 else '1 seed'
    # A standard error of a share of so many images, at its widest.
    least = 100 * 0.5 / config.held_out**0.5
    where = f'{dataset}, {config.images} training images, {seeds}:'
    return [
        claim(
            f'{where} robust accuracy on the training images after the last epoch',
            mean(plain, 'last fitted'), paper='100', band=(99, 100), unit='%',
            reason='a longer training, or a larger network, would get there',
        ),
        claim(
            f'{where} robust test accuracy, best epoch on held-out images - last',
            lost(plain), paper='+7.9 (CIFAR-10)', tag='C', band=(0, None),
            unit='points',
        ),
        claim(
            f'{where} robust held-out accuracy, peak - end of the smoothed curve',
            np.mean([fall(run) for run in plain]), paper='peaks, then falls',
            band=(least, None), unit='points',
            reason='it rises and levels off; nothing is lost again',
        ),
        claim(
            f'{where} robust accuracy, training - test images, last epoch',
            mean(plain, 'last fitted') - mean(plain, 'last'),
            paper='+35.5 (CIFAR-10)', tag='C', band=(0, None), unit='points',
        ),
        claim(
            f'{where} clean test accuracy, last epoch - best epoch',
            mean(plain, 'last clean') - mean(plain, 'best clean'),
            paper='+2.0 (CIFAR-10)', tag='C', band=(0, None), unit='points',
        ),
        claim(
            f'{where} share of the training after which the best epoch comes',
            np.mean([run['held_out_robust'].argmax() + 1 for run in plain])
            / config.epochs,
            paper='106 of 200 epochs', tag='C', band=(0, 0.9),
        ),
        claim(
            f'{where} averaged weights: robust test accuracy, best epoch - last',
            lost(averaged), unit='points',
        ),
        claim(
            f'{where} what the peak is above the end, plain - averaged',
            np.mean([fall(run) for run in plain])
            - np.mean([fall(run) for run in averaged]),
            paper='> 0 (Gowal et al. 2020)', tag='M', unit='points',
        ),
        claim(
            f'{where} robust test accuracy after the last epoch, averaged - plain',
            mean(averaged, 'last') - mean(plain, 'last'), unit='points',
        ),
    ]  # fmt: skip


def pictures_of(config: Any, dataset: str, found: dict) -> list:
    """The figures of the page."""
    drops = {
        'lower learning rate': DROPS[0] * config.epochs,
        'lower again': DROPS[1] * config.epochs,
    }

    def line(name, runs, column):
        values = np.stack([100 * run[column] for run in runs])
        spread = (values.min(axis=0), values.max(axis=0)) if len(runs) > 1 else None
        return Line(name, runs[0]['epoch'], values.mean(axis=0), spread)

    plain = found[PLAIN]
    low = min(100 * np.median(run['held_out_robust']) for run in plain) - 15
    return [
        picture(
            f'Robust overfitting: {dataset}',
            'PGD training on few images: training images are ever better withstood, '
            'new ones are not. Bands: least and most of the seeds.',
            charts.lines,
            [
                line('training images, robust', plain, 'train_accuracy'),
                line('held-out images, robust', plain, 'held_out_robust'),
                line('held-out images, clean', plain, 'held_out_clean'),
            ],
            Axis('epoch'),
            Axis('accuracy (%)', limits=(0, 101)),
            marks=drops,
        ),
        picture(
            f'With averaged weights: {dataset}',
            'Robust accuracy on held-out images of the network itself, and of the '
            'moving average of its weights.',
            charts.lines,
            [line(name, runs, 'held_out_robust') for name, runs in found.items()],
            Axis('epoch'),
            Axis('robust held-out accuracy (%)', limits=(max(low, 0), None)),
        ),
    ]


def tables_of(config: Any, every: dict) -> list:
    """The tables of the page."""
    rows = [
        [
            dataset, name, seed,
            int(run['epoch'][run['held_out_robust'].argmax()]),
            *(run[column] for column in (
                'best clean', 'best', 'last clean', 'last', 'last fitted'
            )),
        ]
        for dataset, found in every.items()
        for name, runs in found.items()
        for seed, run in enumerate(runs)
    ]  # fmt: skip
    return [
        table(
            'Best epoch on held-out images, and last',
            ['images', 'training', 'seed', 'best epoch', 'clean %, best',
             'robust %, best', 'clean %, last', 'robust %, last',
             'robust on training images %, last'],
            rows,
            f'Test images unless said otherwise; robust: PGD-50, on {config.attacked} '
            'random ones.',
        )
    ]  # fmt: skip
