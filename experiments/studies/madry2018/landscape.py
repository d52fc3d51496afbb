"""PGD as the inner maximum: are the ends of restarts equally high, and far apart?"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from advjax import attacks
from advjax.balls import Ball
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame.findings import Claim, Findings, Picture, claim, picture
from experiments.frame.measures import answers
from experiments.frame.work import Work
from experiments.studies.madry2018 import maxima

Arrays = Mapping[str, np.ndarray]

_PAIRED = 200
"""Restarts of an image of which all pairs are looked at."""

_ANGLE = (
    'all starts find a part of the same direction, on the architecture of the paper '
    'too (46 to 63 degrees at scale 4); from where the paper saw them is not known'
)


def measure(
    config: Any,
    work: Work,
    both: Mapping[str, LogitsFn],
    x: np.ndarray,
    y: np.ndarray,
    ball: Ball,
) -> dict[str, np.ndarray]:
    """Climbs from many starts on the first images that both networks get right.

    Steps of PGD are of eps / 30, as in the paper's code.

    Returns:
      'labels' and, by network, arrays with the image as first axis: the 'curves'
      (steps + 1, 20), the loss at the 'final' and at 'random' points, 'segments', and
      distances and angles between pairs of ends, and of uniform points of the box.
    """
    eps = float(ball.eps)
    search = attacks.pgd(ball, config.climb_steps, rate=1 / 30, keep_best=False)
    right = [answers(net, x) == y for net in both.values()]
    chosen = np.flatnonzero(np.all(right, axis=0))[: config.climbed]
    found: dict[str, np.ndarray] = {'labels': y[chosen]}
    for name, net in both.items():
        parts: dict[str, list] = {}
        for number in chosen:
            image, label = x[number], int(y[number])
            key = jax.random.fold_in(work.key, int(number))
            climb = maxima.climbs(search, net, key, image, label, config.starts)
            box = maxima.box(image, eps)
            centre = (box[0] + box[1]) / 2
            ends = climb.end[:_PAIRED]
            anywhere = np.random.default_rng(number).uniform(*box, ends.shape)
            measured = {
                'curves': climb.values[:, :20],
                'final': climb.values[-1],
                'random': climb.values[0],
                'segments': maxima.between(net, climb.end, label, config.segments),
            }
            for kind, points in (('end', ends), ('box', anywhere)):
                measured |= {
                    f'{kind} distance': maxima.distances(points),
                    f'{kind} angle': maxima.angles(points, centre),
                    f'{kind} angle from image': maxima.angles(points, image),
                }
            for measure_name, value in measured.items():
                parts.setdefault(measure_name, []).append(value)
        found |= {f'{name} {k}': np.stack(values) for k, values in parts.items()}
    return found


def findings(found: Arrays) -> Findings:
    """What the paper says of the maxima, and its figures."""
    claims, final = [], {}
    for net, height in (('natural', '50 to 150'), ('robust', '1 to 5')):
        part = {
            name.removeprefix(f'{net} '): values
            for name, values in found.items()
            if name.startswith(net)
        }
        claims += _heights(net, part, height) + _shape(net, part)
        final[net] = part['final'].mean()
    claims.append(
        claim(
            'final loss on the natural net / on the robust net',
            final['natural'] / final['robust'],
            paper='10 or more (50 to 150 against 1 to 5)',
            tag='R',
            band=(10, None),
        )
    )
    return Findings(claims, _pictures(found))


def _heights(net: str, part: Arrays, paper: str) -> list[Claim]:
    images, starts = part['final'].shape
    curve = part['curves'].mean(axis=(0, 2))
    first, second = np.diff(curve[[0, len(curve) // 2, -1]])
    return [
        claim(
            f'{net} net: mean loss where {starts} restarts end, {images} images',
            part['final'].mean(),
            paper=paper,
            tag='R',
            unit='nats',
        ),
        claim(
            f'{net} net: gain of the first half of the steps less that of the second',
            first - second,
            paper='rises, then a plateau',
            tag='R',
            band=(0, None),
            unit='nats',
        ),
        claim(
            f'{net} net: restarts that end beyond the outer fence (Q3 + 3 IQR)',
            100 * np.mean([maxima.outliers(values) for values in part['final']]),
            paper='no outliers',
            tag='R',
            band=(0, 1),
            unit='%',
        ),
    ]


def _shape(net: str, part: Arrays) -> list[Claim]:
    segments = part['segments']
    ends = segments[..., [0, -1]].mean()
    middle = segments[..., segments.shape[-1] // 2].mean()
    return [
        claim(
            f'{net} net: angle between two maxima, from the centre of the box '
            f'(random points: {part["box angle"].mean():.1f})',
            part['end angle'].mean(),
            paper='about 90',
            tag='R',
            band=(80, 100),
            unit='degrees',
            reason=_ANGLE,
        ),
        claim(
            f'{net} net: angle between two maxima, from the image '
            f'(random points: {part["box angle from image"].mean():.1f})',
            part['end angle from image'].mean(),
            unit='degrees',
        ),
        claim(
            f'{net} net: distance of two maxima / of two random points',
            part['end distance'].mean() / part['box distance'].mean(),
            paper='alike',
            tag='R',
            band=(0.5, 2),
        ),
        claim(
            f'{net} net: loss at two maxima less halfway between them',
            ends - middle,
            paper='dips',
            tag='R',
            band=(0, None),
            unit='nats',
        ),
        claim(
            f'{net} net: lowest loss between two maxima less that of a random point',
            segments.min(axis=-1).mean() - part['random'].mean(),
            paper='far above',
            tag='R',
            band=(0, None),
            unit='nats',
        ),
    ]


def _pictures(found: Arrays) -> list[Picture]:
    names = [f'image {i + 1} (a {y})' for i, y in enumerate(found['labels'])]

    def climbing(net, axes):
        lines = []
        for name, runs in zip(names, found[f'{net} curves'], strict=True):
            spread = runs.min(axis=1), runs.max(axis=1)
            lines.append(Line(name, range(len(runs)), np.median(runs, axis=1), spread))
        charts.lines_on(
            axes, lines, Axis('step'), Axis('loss (nats)'), title=f'{net} net'
        )

    def heights(net, axes):
        samples = dict(zip(names, found[f'{net} final'], strict=True))
        charts.histograms_on(
            axes, samples, Axis('final loss (nats)'), bins=60, title=f'{net} net'
        )

    def angles(net, axes):
        samples = {
            'maxima': found[f'{net} end angle'].ravel(),
            'random points': found[f'{net} box angle'].ravel(),
        }
        charts.histograms_on(
            axes, samples, Axis('angle (degrees)'), bins=60, title=f'{net} net'
        )

    def segments(net, axes):
        values = found[f'{net} segments']
        share = np.linspace(0, 1, values.shape[-1])
        lines = [
            Line(name, share, v.mean(axis=0), tuple(np.percentile(v, [10, 90], axis=0)))
            for name, v in zip(names, values, strict=True)
        ]
        levels = {'a random point': found[f'{net} random'].mean()}
        y = Axis('loss (nats)', limits=(0, None))
        charts.lines_on(
            axes, lines, Axis('from one maximum to the next'), y,
            levels=levels, title=f'{net} net',
        )  # fmt: skip

    def per_net(title, caption, draw):
        panels = [functools.partial(draw, net) for net in ('natural', 'robust')]
        return picture(title, caption, charts.panels, panels)

    return [
        per_net(
            'The loss while PGD climbs',
            'Twenty runs from random starts on each image: the median, and the band '
            'from the lowest to the highest run. All runs of an image end at about '
            'the same height.',
            climbing,
        ),
        per_net(
            'Where all restarts end',
            'The final loss of every restart. A narrow hill without stragglers means '
            'that one more restart will hardly find anything worse.',
            heights,
        ),
        per_net(
            'They are equally high but not the same point',
            'Angles between the ends of two restarts, seen from the centre of the '
            'allowed box. In so many dimensions two independent points stand at a '
            'right angle.',
            angles,
        ),
        per_net(
            'Between two maxima',
            'The loss along straight lines from one end to another: the mean and the '
            'middle 80 % of all segments.',
            segments,
        ),
    ]
