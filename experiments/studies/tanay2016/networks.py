"""How linear trained networks are, and at what angle their gradients stand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, geometry, losses
from advjax.types import LogitsFn
from experiments.frame.findings import Findings, claim, table
from experiments.frame.two_classes import Pair
from experiments.frame.work import Work
from experiments.studies.tanay2016.necessary import attacked


@jax.jit
def _linearity(network, ball, key, x, y):
    aligned = geometry.gradient_alignment(
        network, x, y, ball, key=key, loss=losses.margin
    )
    found = geometry.linearisation(network, x, y, ball, key=key, loss=losses.margin)
    return aligned, {
        'mean error': found.mean,
        'worst error': found.worst,
        'predicted': found.predicted,
        'relative': found.relative,
    }


def linearity(work: Work, network: LogitsFn, x: Any, y: Any, ball: balls.Ball):
    """Gradient alignment and linearisation error of the margin over the ball.

    Returns:
      The mean alignment, and medians of the mean error, of the worst error and of the
      change that the gradient predicts, all in logits, and of their ratio.
    """
    aligned, found = _linearity(network, ball, work.key, jnp.asarray(x), jnp.asarray(y))
    medians = {name: np.median(np.asarray(each)) for name, each in found.items()}
    return {'alignment': np.nanmean(np.asarray(aligned)), **medians}


@jax.jit
def _gradients(network: LogitsFn, x: Any) -> Any:
    return geometry.normal(
        lambda z: network(z)[:, jnp.array([3, 7])], x, jnp.zeros(len(x), int)
    )


def _angles(network: LogitsFn, task: Pair) -> dict[str, float]:
    """Deviation angles of a network's gradients for 3 against 7."""
    i, j = task.means
    found = np.asarray(_gradients(network, task.images(task.test_x[:500])))
    found = found.reshape(len(found), -1)
    found = found[np.abs(found).sum(axis=1) > 0]
    degrees = geometry.angle(found.mean(axis=0), j - i)
    each = np.mean([geometry.angle(g, j - i) for g in found])
    return {
        'angle': degrees,
        'strength': 1 / np.cos(np.radians(degrees)),
        'each': float(each),
    }


def findings(
    work: Work, named: dict[str, LogitsFn], x: Any, y: Any, eps: float, task: Pair
) -> Findings:
    """Linearity of networks over the ball they are attacked in, and the attacks."""

    def measure():
        found = {}
        for name, network in named.items():
            for radius in (eps / 3, eps):
                row = linearity(work, network, x, y, balls.linf(radius))
                found |= {f'{name} {radius:.2g} {k}': v for k, v in row.items()}
        found |= attacked(work, named, x, y, balls.linf(eps), 2)
        for name, network in named.items():
            found |= {f'{name} {k}': v for k, v in _angles(network, task).items()}
        return found

    found = work.keep('networks', measure)
    rows = []
    for name in named:
        for radius in (eps / 3, eps):
            start = f'{name} {radius:.2g}'
            rows.append((
                name, radius, *(float(found[f'{start} {k}']) for k in (
                    'alignment', 'mean error', 'worst error', 'predicted', 'relative')),
            ))  # fmt: skip
    gap = {name: 100 * (found[f'{name} fgsm'] - found[f'{name} pgd']) for name in named}
    where = f'{len(y)} test images, eps {eps:g}'
    claims = [
        claim(
            f'gradient alignment of the robust less the natural network ({where})',
            found[f'robust {eps:.2g} alignment']
            - found[f'natural {eps:.2g} alignment'],
        ),
        claim(
            f'worst linearisation error in logits, natural over robust ({where})',
            found[f'natural {eps:.2g} worst error']
            / found[f'robust {eps:.2g} worst error'],
        ),
        claim(
            f'the same over the predicted change, natural over robust ({where})',
            found[f'natural {eps:.2g} relative'] / found[f'robust {eps:.2g} relative'],
        ),
        claim(
            'network trained by FGSM, no random start: accuracy under FGSM above PGD',
            gap['FGSM-trained'], unit='%',
        ),
        claim(
            'network trained by FGSM from random starts: accuracy under FGSM above PGD',
            gap['robust'], unit='%',
        ),
    ]  # fmt: skip
    tables = [
        table(
            'How linear networks are: the margin over the ball',
            ('network', 'eps', 'gradient alignment', 'mean error', 'worst error',
             'predicted change', 'worst / predicted'),
            rows,
            f'{len(y)} test images. Mean alignment; medians of the others, in logits. '
            'The worst error is that of 32 draws and an ascent of 20 steps.',
        ),
        table(
            'The same networks attacked',
            ('network', 'clean %', 'FGSM %', 'PGD %', 'mean gradient: angle',
             'strength', 'image by image: angle'),
            [
                (name,
                 *(100 * float(found[f'{name} {k}']) for k in ('clean', 'fgsm', 'pgd')),
                 *(float(found[f'{name} {k}']) for k in ('angle', 'strength', 'each')))
                for name in named
            ],
            f'Linf {eps:g} in [0, 1], {len(y)} test images of all classes, 2 restarts '
            'of 40 steps. Angles to the line of the means of 3 and 7, of the gradient '
            'of the difference of the two logits: an exploration, not of the paper.',
        ),
    ]  # fmt: skip
    return Findings(claims, [], tables)
