"""Margins, distances and slices of a naturally and a robustly trained network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, geometry, losses
from advjax.report import charts
from advjax.report.charts import Axis
from advjax.types import LogitsFn
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.work import Work

NORMS = {'Linf': balls.linf, 'L2': balls.l2}


@jax.jit
def _margin(network: LogitsFn, x: Any, y: Any) -> Any:
    return -losses.margin(network(x), y)


@jax.jit
def _random(network: LogitsFn, key: Any, x: Any, y: Any) -> Any:
    """Distance along one random direction of each image, and along the gradient."""
    drawn = balls.l2(1.0, bounds=None).sample(key, jnp.zeros_like(x))
    reach = jnp.float32(30.0)
    return tuple(
        geometry.distance_along(network, x, y, d, reach, grid=60, halvings=8)
        for d in (drawn, geometry.normal(network, x, y))
    )


def distances(
    work: Work, named: dict[str, LogitsFn], x: Any, y: Any, eps: float, steps: int
) -> Findings:
    """Distributions of margins and of distances to the decision boundary."""

    def measure() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, network in named.items():
            margin = np.asarray(_margin(network, jnp.asarray(x), jnp.asarray(y)))
            found[f'{name} margin'] = margin
            for norm, ball in NORMS.items():
                e = work.evaluate(network, x, y, attacks.fmn(ball(float('inf')), steps))
                # Verified; 0 for images that are wrong without any change.
                far = np.where(e.success[0], e.norm[0], np.inf)
                found[f'{name} {norm}'] = np.where(e.clean_correct, far, 0)
            lost, along = _random(network, work.key, jnp.asarray(x), jnp.asarray(y))
            found[f'{name} random'] = np.asarray(lost)
            found[f'{name} gradient'] = np.asarray(along)
        return found

    found = work.keep('distances', measure)

    def median(name, kind):
        return float(np.median(found[f'{name} {kind}']))

    claims = [
        claim(
            f'median {norm} distance to the boundary: robust less natural network '
            f'({len(y)} test images)',
            median('robust', norm) - median('natural', norm),
            paper='> 0', band=(0, None),
        )
        for norm in NORMS
    ] + [
        claim(
            f'natural network: images with an error within Linf {eps:g}',
            100 * np.mean(found['natural Linf'] <= eps), unit='%',
        ),
        claim(
            f'robust network: images with an error within Linf {eps:g} (FMN alone)',
            100 * np.mean(found['robust Linf'] <= eps), unit='%',
        ),
        claim(
            'natural network: L2 distance along a random direction over the shortest '
            'found, medians (at least; 30 where nothing is met)',
            min(median('natural', 'random'), 30.0) / median('natural', 'L2'),
            paper='> 1', band=(1, None),
        ),
    ]  # fmt: skip

    panels = [
        functools.partial(
            charts.histograms_on,
            samples={name: found[f'{name} {kind}'] for name in named},
            x=Axis(label),
            bins=30,
            title=title,
        )
        for kind, label, title in (
            ('margin', 'logit of the class less the best other', 'Margins'),
            ('Linf', 'Linf distance', 'Distance to the boundary'),
            ('L2', 'L2 distance', 'Distance to the boundary'),
        )
    ]
    shown = table(
        'Distances to the decision boundary, medians',
        ('network', 'margin (logits)', 'Linf', 'L2', 'L2 along the gradient',
         'L2 along a random direction'),
        [
            (name, *(median(name, k) for k in (
                'margin', 'Linf', 'L2', 'gradient', 'random')))
            for name in named
        ],
        f'{len(y)} test images, 0 where the answer is wrong already. Linf and L2: the '
        f'shortest that FMN finds in {steps} steps, verified, within the range of '
        'pixels; along a direction: the first change, in any range; a dash where '
        'more than half of the images meet none up to 30.',
    )  # fmt: skip
    drawn = picture(
        'Margins and distances',
        'The shortest perturbation that turns each test image, and the margin of the '
        'logits, which says little about it.',
        charts.panels,
        panels,
    )
    return Findings(claims, [drawn], [shown])


@jax.jit
def _cut(network: LogitsFn, key: Any, x: Any, y: Any, at: Any, eps: Any) -> Any:
    first, second = geometry.gradient_plane(
        network, x, y, balls.linf(eps), key=key, loss=losses.margin
    )
    found = geometry.cut(network, x, first, second, at, at)
    return found.loss(y), found.answers


def slices(
    work: Work, named: dict[str, LogitsFn], x: Any, y: Any, eps: float, points: int
) -> Findings:
    """Loss surfaces and decision regions in the plane of gradient and random signs."""
    at = np.linspace(-eps, eps, points).astype(np.float32)

    def measure() -> dict[str, Any]:
        found: dict[str, Any] = {}
        right = [np.asarray(_margin(network, x, y)) > 0 for network in named.values()]
        shared = np.flatnonzero(np.all(right, axis=0))
        # One image on a fine grid, and many on a coarse one.
        one, some = shared[:1], shared[:100]
        coarse, radius = np.linspace(-eps, eps, 9, dtype=np.float32), jnp.float32(eps)
        for name, network in named.items():
            loss, answers = _cut(network, work.key, x[one], y[one], at, radius)
            found |= {f'{name} loss': loss[0], f'{name} answers': answers[0]}
            _, answers = _cut(network, work.key, x[some], y[some], coarse, radius)
            found[f'{name} share'] = np.mean(
                np.asarray(answers) == y[some][:, None, None]
            )
        return found

    found = work.keep('slices', measure)
    claims = [
        claim(
            f'{name} network: share of the plane within {eps:g} that is answered '
            'rightly, 100 test images',
            100 * found[f'{name} share'], unit='%',
        )
        for name in named
    ] + [
        claim(
            'share of the plane answered rightly: robust less natural network',
            100 * (found['robust share'] - found['natural share']),
            paper='> 0', band=(0, None), unit='%',
        )
    ]  # fmt: skip
    extent = (-1.0, 1.0, -1.0, 1.0)
    # Colours are few: the class that is right has the first, others in turn.
    seen = np.unique([found[f'{name} answers'] for name in named])
    middle = found['natural answers'][points // 2, points // 2]
    codes = {c: n for n, c in enumerate([middle, *seen[seen != middle]])}
    for name in named:
        answers = found[f'{name} answers']
        found[f'{name} answers'] = np.vectorize(codes.get)(answers)

    panels = [
        functools.partial(
            charts.surface_on,
            values=found[f'{name} {kind}'],
            x=Axis('signs of the gradient'),
            y=Axis('random signs'),
            extent=extent,
            regions=kind == 'answers',
            title=f'{name}: {title}',
        )
        for kind, title in (('loss', 'cross entropy'), ('answers', 'class answered'))
        for name in named
    ]

    def draw(width):
        return charts.panels(panels, width=min(width, 9.5), height=3.4)

    drawn = picture(
        'Loss surface and decision regions',
        'Around one test image, which is the centre: to the right along the signs of '
        'the gradient of the margin, upwards along random signs, both in units '
        f'of the radius of the attack, {eps:g}. Above, the cross entropy (each with '
        'its own scale); below, the class that is answered, the right one in the '
        'colour of the centre.',
        draw,
    )
    return Findings(claims, [drawn])
