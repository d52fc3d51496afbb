"""The robust network at radii, and in a norm, that it was not trained for."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from advjax import attacks, balls, evaluation
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame.findings import Findings, claim, picture
from experiments.frame.work import Work


def accuracy_at(found: evaluation.Evaluation, radii: np.ndarray) -> np.ndarray:
    """Accuracy in per cent at radii, from the distances of a minimum-norm attack."""
    norm = np.where(found.success, found.norm, np.inf).min(axis=0)
    return np.array([100 * (found.clean_correct & (norm > r)).mean() for r in radii])


def measure(
    work: Work,
    logits_fn: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    *,
    linf: np.ndarray,
    l2: np.ndarray,
    steps: int,
    queries: int,
    at: Sequence[int],
) -> dict[str, np.ndarray]:
    """Accuracy in per cent over radii that the network was not trained for.

    Returns:
      'linf' and 'l2' (under PGD at those radii), 'decisions' (under the boundary
      attack, at those of ``l2``), 'square' (at ``l2[at]``), and 'distance', the median
      of the boundary attack's distances.
    """

    def curve(ball, radii):
        found = evaluation.robustness_curve(
            logits_fn, x, y, attacks.pgd(ball, steps), radii, key=work.key,
            batch_size=50,
        )  # fmt: skip
        return 100 * found.accuracy

    walk = work.evaluate(logits_fn, x, y, attacks.boundary(queries=queries))
    norm = walk.norm[0, walk.success[0]]
    squares = [
        work.evaluate(
            logits_fn, x, y, attacks.square(balls.l2(float(l2[i])), queries)
        ).robust_accuracy
        for i in at
    ]
    return {
        'linf': curve(balls.linf(0.1), linf),
        'l2': curve(balls.l2(1.0), l2),
        'decisions': accuracy_at(walk, l2),
        'square': 100 * np.array(squares),
        'distance': np.asarray(np.median(norm) if len(norm) else np.nan),
    }


def findings(
    curves: Mapping[str, np.ndarray],
    linf: np.ndarray,
    l2: np.ndarray,
    at: Sequence[int],
    queries: int,
    images: int,
) -> Findings:
    """What ``curves``, found by ``measure`` on so many images, say."""
    at = list(at)
    by_walk = curves['l2'] - curves['decisions']
    by_square = curves['l2'][at] - curves['square']
    most, widest = np.argmax(by_walk), np.argmax(by_square)
    trained = np.searchsorted(linf, linf[-1] * 2 / 3)
    high = int(np.searchsorted(l2, 0.75 * l2[-1]))
    claims = [
        claim(
            f'robust net under Linf PGD at {linf[trained]:.3g}, the radius of '
            f'training, {images} images', curves['linf'][trained], unit='%',
        ),
        claim(
            f'robust net under Linf PGD at {linf[-1]:.3g}',
            curves['linf'][-1], unit='%',
        ),
        claim(
            f'robust net under L2 PGD at {l2[high]:g}', curves['l2'][high],
            paper='good accuracy', tag='R', unit='%',
        ),
        claim(
            f'the boundary attack ({queries} decisions) breaks what L2 PGD leaves at '
            f'{l2[most]:g}: points of accuracy', by_walk[most],
            paper='L2 PGD is masked', tag='R', band=(0, None), unit='%',
        ),
        claim(
            f'Square ({queries} scores) breaks what L2 PGD leaves at '
            f'{l2[at][widest]:g}: points of accuracy', by_square[widest],
            paper='L2 PGD is masked', tag='R', band=(0, None), unit='%',
        ),
        claim(
            'median L2 distance found by the boundary attack', curves['distance'],
        ),
    ]  # fmt: skip
    panel = functools.partial(
        charts.lines_on, y=Axis('right answers (%)', limits=(-2, 102))
    )
    in_linf = functools.partial(
        panel,
        lines=[Line('PGD', linf, curves['linf'])],
        x=Axis('Linf radius'),
        marks={'radius of training': linf[trained]},
        title='Linf',
    )
    in_l2 = functools.partial(
        panel,
        lines=[
            Line('PGD', l2, curves['l2']),
            Line('boundary attack (decisions)', l2, curves['decisions']),
            Line('Square (scores)', l2[at], curves['square']),
        ],
        x=Axis('L2 radius'),
        title='L2',
    )
    drawn = picture(
        'Beyond the trained radius',
        'The robust net beyond the ball it was trained in. In L2 gradient attacks '
        'suggest robustness that attacks without gradients show not to be there: the '
        'gradient is masked.',
        charts.panels,
        [in_linf, in_l2],
    )
    return Findings(claims, [drawn])
