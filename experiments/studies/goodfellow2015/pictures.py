"""Figures 2 to 5 of the paper, redrawn from our networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, linf
from advjax.evaluation.verify import logits_of
from advjax.report import charts
from advjax.report.charts import Axis, Line
from experiments.frame.findings import Picture, image_grid, picture
from experiments.studies.goodfellow2015 import linear
from experiments.studies.goodfellow2015.deep import Net

REACH = 15.0
"""The paper follows the logits from -15 to 15 times the sign of the gradient."""


SHORT = {
    'maxout': 'maxout',
    'adversarial': 'trained',
    'sigmoids': 'sigmoids',
    'softmax': 'softmax',
    'rbf': 'RBF',
}
"""Names of the networks that fit beside a chart on a phone."""


def centred(images: np.ndarray) -> np.ndarray:
    """Signed pictures on [0, 1]: zero is grey, each scaled by its largest value."""
    images = np.asarray(images, float)
    axes = tuple(range(1, images.ndim))
    largest = np.abs(images).max(axis=axes, keepdims=True)
    return 0.5 + 0.5 * images / np.where(largest > 0, largest, 1)


def rescaled(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Unclipped pictures on [0, 1]."""
    return ((np.asarray(images, float) - low) / (high - low)).clip(0, 1)


def trace(net: Net, x: np.ndarray, y: int) -> dict[str, np.ndarray]:
    """The logits along the sign of the gradient at one image, eps from -15 to 15."""
    ball = linf(1.0, bounds=None)
    one = jnp.asarray(x)[None]
    step = attacks.fgsm(ball, net.loss)(
        net.logits_fn, jax.random.key(0), one, jnp.asarray([y], jnp.int32)
    )
    direction = np.asarray(step - one)
    eps = np.linspace(-REACH, REACH, 301).astype(np.float32)
    along = np.asarray(x)[None] + eps.reshape(-1, 1, 1, 1) * direction
    logits = logits_of(net.logits_fn, along)
    return {'eps': eps, 'logits': logits, 'right': logits.argmax(axis=1) == y}


def straightness(found: dict[str, np.ndarray]) -> float:
    """The smallest R^2 of a line through a logit, from eps 5 on, on either side."""
    least = 1.0
    for side in (found['eps'] >= 5, found['eps'] <= -5):
        at, values = found['eps'][side], found['logits'][side].astype(float)
        slope, offset = np.polyfit(at, values, 1)
        residual = values - (at[:, None] * slope + offset)
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        least = min(least, float((1 - (residual**2).sum(axis=0) / spread).min()))
    return least


def weights(found: dict[str, Any], shape: tuple[int, ...]) -> Picture:
    """Weights of the same model by objective."""
    captions = {
        'plain': 'plain',
        'adversarial 0.25': 'corrected',
        'printed 0.25': 'printed',
        'L1 0.0025': 'L1 .0025',
        'L1 0.05': 'L1 .05',
    }
    kept = [np.asarray(found[n]['params']['w']).reshape(shape) for n in captions]
    row = {
        'title': 'weights of 3 against 7',
        'images': centred(np.stack(kept)),
        'captions': list(captions.values()),
    }
    return picture(
        'Weights of the logistic regressions (figure 2)',
        'Bright weights speak for a 7, dark ones for a 3. Adversarial training (the '
        'corrected objective, eps .25) leaves a few strokes, the printed one noise.',
        image_grid,
        [row],
        5,
        3,
    )


def trade(found: dict[str, Any]) -> Picture:
    """Clean error against the error in the worst case, by objective."""

    def line(name, names):
        rows = [found[n] for n in names if found[n]['norm'] > 0.1]
        return Line(name, [r['clean'] for r in rows], [r['worst'] for r in rows])

    lines = [
        line('adversarial, eps .05 to .3',
             [f'adversarial {e:g}' for e in linear.TRUE_EPS]),
        line('L1 decay, coefficient .0001 to .1',
             [f'L1 {c:g}' for c in linear.L1_COEFFICIENTS]),
    ]  # fmt: skip
    return picture(
        'L1 weight decay against adversarial training',
        'What each gives up on clean images for what it gains against the adversary. A '
        "coefficient of .25, the adversary's own eps, leaves no weight at all and is "
        'not drawn.',
        charts.lines,
        lines,
        Axis('test error (%)'),
        Axis('error in the worst case, eps .25 (%)', limits=(0, 103)),
    )


def examples(
    net: Net, x: np.ndarray, y: np.ndarray, adv: np.ndarray, eps: float
) -> Picture:
    """Clean images, perturbed ones, and the answers."""
    order = [np.flatnonzero(y == c)[0] for c in np.unique(y)][:8]

    def said(images):
        p = np.asarray(jax.nn.softmax(jnp.asarray(logits_of(net.logits_fn, images))))
        return [f'{a}: {100 * b:.0f} %' for a, b in zip(p.argmax(1), p.max(1),
                                                        strict=True)]  # fmt: skip

    rows = [
        {
            'title': name,
            'images': rescaled(images[order], -eps, 1 + eps),
            'captions': said(images[order]),
        }
        for name, images in (('clean', x), (f'FGSM, eps {eps:g}', adv))
    ]
    return picture(
        'Fast gradient sign examples',
        'One image of each of eight classes, and what the maxout network takes it for. '
        f'Nothing is clipped: black is {-eps:g} and white {1 + eps:g}.',
        image_grid,
        rows,
        8,
        4,
    )


def filters(naive: Net, trained: Net, shape: tuple[int, ...]) -> Picture:
    """The first layer before and after adversarial training."""
    rows = []
    for net, title in ((naive, 'trained normally'), (trained, 'adversarially trained')):
        kernel = np.asarray(net.logits_fn.args[0]['hidden'][0]['kernel'])
        # The largest ones: many units of a short training have hardly moved.
        largest = np.argsort(-np.linalg.norm(kernel, axis=0), kind='stable')[:240:10]
        chosen = kernel.T[largest].reshape(-1, *shape)
        rows.append({'title': title, 'images': centred(chosen)})
    return picture(
        'Weights of the first maxout layer (figure 3)',
        'Every tenth of the 240 largest filters. Adversarial training makes them local '
        'and quiet elsewhere.',
        image_grid,
        rows,
        12,
        6,
    )


def logits(found: dict[str, np.ndarray], y: int) -> Picture:
    """The logits of ``trace``."""
    classes = range(found['logits'].shape[1])
    others = [c for c in classes if c != y]
    # Ten colours cannot be told apart; the label and the strongest rivals can.
    peak = found['logits'].max(axis=0)
    rivals = sorted(others, key=lambda c: -peak[c])[:4]
    quiet = [c for c in others if c not in rivals]
    lines = [Line(f'class {y}, the label', found['eps'], found['logits'][:, y])]
    lines += [Line(f'class {c}', found['eps'], found['logits'][:, c]) for c in rivals]
    lines += [
        Line('the others' if c == quiet[0] else '', found['eps'],
             found['logits'][:, c], dashed=True) for c in quiet
    ]  # fmt: skip
    return picture(
        'Logits along the sign of the gradient (figure 4)',
        f'One test image of class {y} and the naively trained maxout network. Straight '
        'lines almost everywhere, and the label wins only in a thin band around 0.',
        charts.lines,
        lines,
        Axis('eps'),
        Axis('logit'),
        marks={'the image': 0.0},
    )


def transfer(matrix: np.ndarray, names: list[str]) -> Picture:
    """Errors on examples made for each network."""
    return picture(
        'Transfer of fast gradient sign examples',
        'Error in per cent of the network of the column on images made for that of the '
        'row, not clipped. "trained" is the adversarially trained maxout network.',
        charts.matrix,
        matrix,
        [f'made on {n}' for n in names],
        names,
    )


def rubbish(found: dict[str, Any]) -> Picture:
    """Noise taken for classes."""
    return picture(
        'Rubbish class examples',
        'Shares of samples of N(0, I) to which a network gives some class more than '
        'half of the probability. "trained" is the adversarially trained maxout '
        'network, "sigmoids" one whose classes do not compete.',
        charts.bars,
        [SHORT[name] for name in found],
        {
            'noise taken for a class (%)': [100 * r.error for r in found.values()],
            'how surely (%)': [100 * r.confidence for r in found.values()],
        },
        Axis(limits=(0, 100)),
    )


def fooling(images: np.ndarray, rates: np.ndarray) -> Picture:
    """Fooling images of every class."""
    row = {
        'title': 'noise, one step towards each class',
        'images': rescaled(images, -3, 3),
        'captions': [f'{c}: {100 * r:.0f} %' for c, r in enumerate(rates)],
    }
    return picture(
        'Fooling images (figure 5)',
        'Each is taken for the class below it with at least half of the probability; '
        'the share is how often one step from fresh noise is enough.',
        image_grid,
        [row],
        10,
        5,
    )
