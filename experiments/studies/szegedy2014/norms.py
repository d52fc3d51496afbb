"""Section 4.3: how far each layer can stretch, and the whole net, for our networks."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import certify
from advjax.evaluation.verify import logits_of
from advjax.report import charts
from advjax.training import Fit
from experiments.frame import nets
from experiments.frame.datasets import Sets
from experiments.frame.findings import Findings, claim, picture, table
from experiments.frame.work import Work
from experiments.studies.szegedy2014.distortion import Found


class Norm(NamedTuple):
    """One linear layer of one network: its operator norm by each way there is.

    Attributes:
      network: whose it is.
      layer: which of its linear layers.
      svd: of the layer's matrix, written out column by column.
      power: by power iteration on the layer itself.
      fourier: the bound by frequencies; NaN for a dense layer.
      circular_svd: ``svd`` of the same kernel under circular padding; NaN if dense.
      circular_fourier: ``fourier`` under circular padding, which is exact.
    """

    network: str
    layer: str
    svd: float
    power: float
    fourier: float
    circular_svd: float
    circular_fourier: float


def _largest(matrix: Any) -> float:
    """The largest singular value of a large matrix, through the smaller Gram matrix."""
    matrix = np.asarray(matrix, np.float64)
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.linalg.eigvalsh(gram)[-1]))


@functools.partial(jax.jit, static_argnums=1)
def _matrix(layer: Any, shape: tuple[int, ...]) -> jax.Array:
    """The matrix of a layer, written out column by column."""
    size = math.prod(shape)
    unit = jnp.eye(size).reshape(size, *shape)
    return layer.linear(unit).reshape(size, -1).T


def of_network(
    work: Work, name: str, layers: Sequence[Any], shape: tuple[int, ...]
) -> list[Norm]:
    """The norms of all linear layers of a network."""

    def compute():
        rows, inside = [], shape
        for layer in layers:
            if hasattr(layer, 'linear'):
                rows.append(_of_layer(layer, inside, work))
            like = jax.ShapeDtypeStruct((1, *inside), jnp.float32)
            inside = jax.eval_shape(layer, like).shape[1:]
        return {'rows': np.array(rows)}

    rows = work.keep(f'norms {name}', compute)['rows']
    linear = [layer for layer in layers if hasattr(layer, 'linear')]
    kinds = [type(layer).__name__.lower() for layer in linear]
    return [
        Norm(name, f'{i + 1} ({kind})', *map(float, row))
        for i, (kind, row) in enumerate(zip(kinds, rows, strict=True))
    ]


def _of_layer(layer: Any, shape: tuple[int, ...], work: Work) -> tuple[float, ...]:
    svd = _largest(_matrix(layer, shape))
    run = jax.jit(lambda layer: certify.power_norm(layer.linear, shape, work.key))
    power = float(run(layer))
    if isinstance(layer, certify.Dense):
        return svd, power, np.nan, np.nan, np.nan
    around = layer.replace(padding='CIRCULAR')
    return (
        svd,
        power,
        float(layer.lipschitz(shape)),
        _largest(_matrix(around, shape)),
        float(around.lipschitz(shape)),
    )


@jax.jit
def _jacobians(logits_fn, x):
    return jax.vmap(jax.jacrev(lambda one: logits_fn(one[None])[0]))(x)


def stretches(fit: Fit, x: np.ndarray, moved: Mapping[str, np.ndarray]) -> Any:
    """The ratios of distances that a network shows on samples.

    Args:
      fit: the network.
      x: (n, ...) images.
      moved: more images of that shape, by name.

    Returns:
      {name: (n,)} of ||f(x + r) - f(x)|| / ||r||, and under 'infinitesimal' the largest
      singular value of the Jacobian at every x; images that did not move are left out.
    """
    base = np.float64(logits_of(fit.logits_fn, x))
    jacobians = np.asarray(_jacobians(fit.logits_fn, x)).reshape(*base.shape, -1)
    ratios = {'infinitesimal': np.linalg.norm(jacobians, ord=2, axis=(1, 2))}
    for name, other in moved.items():
        way = np.linalg.norm((other - x).reshape(len(x), -1).astype(np.float64), axis=1)
        gone = np.linalg.norm(logits_of(fit.logits_fn, other) - base, axis=1)
        ratios[name] = gone[way > 0] / way[way > 0]
    return ratios


def findings(
    config: Any,
    work: Work,
    sets: Sets,
    fits: Mapping[str, Fit],
    found: Mapping[str, Found],
    x: np.ndarray,
    y: np.ndarray,
) -> Findings:
    """Section 4.3: operator norms, and their product over the net."""
    taken = {
        'FC10(1e-4)': (fits['FC10(1e-4)'], certify.of_softmax_regression),
        'FC100': (fits['FC100'], lambda p: certify.of_mlp(p, 'sigmoid')),
    }
    if config.conv_nets:
        taken['conv, natural'] = nets.natural(work, sets), certify.of_fast_mnist
        taken['conv, robust'] = nets.robust(work, sets), certify.of_fast_mnist
    rows, ratios, bounds, radii = [], {}, {}, {}
    random = np.random.RandomState(config.seed)
    for name, (fit, layers_of) in taken.items():
        layers = layers_of(fit.params)
        rows += of_network(work, name, layers, sets.shape)
        moved = {
            f'Gaussian, RMS {s}': (x + s * random.normal(size=x.shape)).astype('f4')
            for s in (0.01, 0.1, 1)
        }
        moved |= {f'made for {n}': found[n].drawn for n in ('FC10(1e-4)', 'FC100')}
        ratios[name] = stretches(fit, x, moved)
        bounds[name] = float(certify.lipschitz_bound(layers, sets.shape))
        radii[name] = np.asarray(
            certify.margin_radius(
                fit.logits_fn(jnp.asarray(x)), jnp.asarray(y), bounds[name]
            )
        )
    return _report(rows, ratios, bounds, radii, found, x, y)


def _report(rows, ratios, bounds, radii, found, x, y) -> Findings:
    largest = {n: max(v.max(initial=0) for v in r.values()) for n, r in ratios.items()}
    conv = [r for r in rows if np.isfinite(r.fourier)]
    claims = [
        claim('SVD and power iteration disagree on a layer by at most',
              100 * max(abs(r.power / r.svd - 1) for r in rows), band=(0, 0.5),
              unit='%'),
        claim('largest stretch of a sample, in product bounds (a linear net: 1)',
              max(largest[n] / bounds[n] for n in bounds), band=(0, 1.0001)),
    ]  # fmt: skip
    if conv:
        claims += [
            claim('SVD and Fourier disagree on a circular convolution by at most',
                  100 * max(abs(r.circular_fourier / r.circular_svd - 1) for r in conv),
                  band=(0, 0.01), unit='%'),
            claim('Fourier bound of a zero-padded convolution over its norm, least',
                  min(r.fourier / r.svd for r in conv), band=(1 - 1e-5, None)),
            claim('the same, most', max(r.fourier / r.svd for r in conv)),
        ]  # fmt: skip
    broken = 0
    for name in ('FC10(1e-4)', 'FC100'):
        for adv, won in ((found[name].drawn, found[name].drawn_won),
                         (found[name].nearest, found[name].nearest_won)):  # fmt: skip
            way = np.linalg.norm((adv - x).reshape(len(x), -1), axis=1)
            broken += int(np.sum(won & (way < radii[name] * (1 - 1e-5))))
    claims.append(
        claim('images fooled within the radius that the bound certifies', broken,
              band=(0, 0))
    )  # fmt: skip
    claims += [
        claim(f'product bound over the largest stretch seen, {n}', b / largest[n])
        for n, b in bounds.items()
    ]
    cells = [
        [r.network, r.layer, r.svd, r.power, r.fourier, r.circular_svd,
         r.circular_fourier]
        for r in rows
    ]  # fmt: skip
    kinds = list(next(iter(ratios.values())))
    whole = [
        [n, bounds[n], largest[n], *(ratios[n][k].max(initial=0) for k in kinds),
         float(np.median(radii[n][radii[n] > 0])) if (radii[n] > 0).any() else 0.0]
        for n in bounds
    ]  # fmt: skip
    return Findings(
        claims,
        [
            picture(
                'How far networks stretch small changes',
                f'The largest singular value of the Jacobian at each of {len(x)} test '
                'images. The product of the operator norms of the layers bounds it: '
                + ', '.join(f'{n} {b:.3g}' for n, b in bounds.items()) + '.',
                charts.histograms,
                {n: r['infinitesimal'] for n, r in ratios.items()},
                charts.Axis('stretch: change of the logits per pixel change', 'log'),
            )
        ],
        [
            table(
                'Operator norms of the linear layers (Table 5 and section 4.3)',
                ['network', 'layer', 'SVD', 'power iteration', 'Fourier bound',
                 'circular: SVD', 'circular: Fourier'], cells,
                'For AlexNet the paper bounds its convolutions by 2.75, 10, 7, 7.5 and '
                '11, and its dense layers by 3.12, 4 and 4.',
            ),
            table(
                'The product bound, and what samples show',
                ['network', 'product bound', 'largest stretch seen', *kinds,
                 'median certified L2 radius'], whole,
                'Sigmoid layers count with their steepest slope, 1/4.',
            ),
        ],
    )  # fmt: skip
