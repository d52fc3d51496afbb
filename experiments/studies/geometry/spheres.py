"""Adversarial spheres: how far errors can be, of known and of trained networks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

from advjax import attacks, balls, models, training, zoo
from advjax.report import charts
from advjax.report.charts import Axis, Line
from advjax.types import LogitsFn
from experiments.frame.findings import Claim, Findings, claim, picture, table
from experiments.frame.work import Work
from experiments.studies.geometry import concentration, two_spheres

OUTER = 1.3
"""Radius of the outer sphere."""

BOUNDS = {1e-2: 0.104, 1e-4: 0.166, 1e-6: 0.213, 1e-8: 0.251}
"""Distance to a cap of this measure in 500 dimensions, for large n: tag D."""


def quadratic_network(dimension: int, count: int, error: float) -> np.ndarray:
    """Coefficients with a given rate of errors on the inner sphere.

    ``count`` of them are above 1, the others 0.8; the height is solved for.
    """

    def excess(high):
        alphas = two_spheres.two_levels(dimension, count, high, 0.8)
        return np.log(two_spheres.exact_error(alphas) + 1e-300) - np.log(error)

    high: Any = optimize.brentq(excess, 1.0 + 1e-9, 200.0)
    return two_spheres.two_levels(dimension, count, float(high), 0.8)


PART = 10_000
"""Points drawn at a time."""


def rounded_up(samples: int) -> int:
    """How many points are drawn where at least ``samples`` are asked for."""
    return -(-samples // PART) * PART


@functools.partial(jax.jit, static_argnames='dimension')
def _errors(networks: LogitsFn, key: Any, radius: Any, dimension: int) -> Any:
    x = two_spheres.sample(key, PART, dimension, radius)
    answers = jax.vmap(lambda network: jnp.argmax(network(x), axis=1))(networks)
    return jnp.sum(answers != (radius > 1), axis=1)


def errors_seen(
    networks: list[LogitsFn], dimension: int, radius: float, samples: int
) -> np.ndarray:
    """Errors among ``samples`` common points of a sphere, in steps of ``PART``."""
    stacked: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    return np.sum(
        [
            _errors(
                stacked, jax.random.fold_in(jax.random.key(1), i),
                jnp.float32(radius), dimension,
            )
            for i in range(rounded_up(samples) // PART)
        ],
        axis=0,
    )  # fmt: skip


@jax.jit
def _nearest(network: LogitsFn, x: Any, y: Any, radius: Any):
    attack = attacks.fmn(balls.l2(float('inf'), bounds=None), 100)
    found = attack(two_spheres.on_sphere(network, radius), jax.random.key(0), x, y)
    found = two_spheres.to_sphere(found, radius)
    wrong = jnp.argmax(network(found), axis=1) != y
    return jnp.where(wrong, jnp.linalg.norm(found - x, axis=1), jnp.inf)


def distance_found(
    network: LogitsFn, dimension: int, radius: float, points: int
) -> np.ndarray:
    """Distances to the nearest error that an attack on the sphere finds, (points,)."""
    x = two_spheres.sample(jax.random.key(2), points, dimension, radius)
    y = jnp.full(points, int(radius > 1))
    return np.asarray(_nearest(network, x, y, jnp.float32(radius)))


def quadratic_spheres(
    work: Work, dimension: int, samples: int, points: int
) -> Findings:
    """Quadratic networks: closed forms against simulation, and against the bound."""
    targets = list(BOUNDS)
    counts = (1, dimension // 10)

    def measure() -> dict[str, Any]:
        rows = []
        settings = [(count, target) for count in counts for target in targets]
        every = [quadratic_network(dimension, *setting) for setting in settings]
        networks = [two_spheres.quadratic(alphas) for alphas in every]
        seen = errors_seen(networks, dimension, 1.0, samples)
        for k, (count, target) in enumerate(settings):
            found = distance_found(networks[k], dimension, 1.0, points)
            rows.append((
                count, every[k][0], two_spheres.clt_error(every[k]),
                two_spheres.exact_error(every[k]), seen[k],
                concentration.cap_distance(target, dimension),
                two_spheres.exact_distance(every[k]), found.mean(),
                found.std() / np.sqrt(points),
            ))  # fmt: skip
        return {'rows': np.array(rows)}

    rows = work.keep('quadratic', measure)['rows']
    exact, seen = rows[:, 3], rows[:, 4]
    samples = rounded_up(samples)
    noise = np.sqrt(np.maximum(samples * exact * (1 - exact), 1))
    wide = rows[len(targets) :]
    caps = {m: concentration.cap_distance(m, 500) for m in targets}
    claims = [
        claim(
            f'cap bound in 500 dimensions at an error rate of {m:g}',
            caps[m], paper=f'{value}', band=(0.98 * value, 1.02 * value),
        )
        for m, value in BOUNDS.items()
    ] + [
        claim(
            f'quadratic networks, n = {dimension}: errors among {samples} samples less '
            'the closed form, in standard deviations, at most',
            np.abs((seen - samples * exact) / noise).max(), paper='0', band=(0, 4),
        ),
        claim(
            f'central limit with {counts[-1]} raised coordinates, error rate 1e-2: '
            'over the exact rate',
            wide[0, 2] / wide[0, 3], paper='1', tag='D', band=(0.5, 2),
        ),
        claim(
            'mean distance to the nearest error over the cap bound: at most',
            (rows[:, 6] / rows[:, 5]).max(), paper='<= 1', band=(0, 1 + 1e-6),
        ),
        claim(
            'mean distance that FMN finds on the sphere less the closed form: largest '
            'difference, in standard errors, beyond 1 %',
            (np.abs(rows[:, 7] - rows[:, 6]) - 0.01 * rows[:, 6]).max()
            / rows[:, 8].max(),
            paper='0', band=(None, 4),
        ),
    ]  # fmt: skip
    measures = np.geomspace(1e-9, 0.5, 60)

    bound = [concentration.cap_distance(m, dimension) for m in measures]
    lines = [Line('bound for any model (cap)', measures, bound)]
    for count in counts:
        those = rows[rows[:, 0] == count]
        name = f'quadratic network, {count:g} of {dimension} raised'
        lines.append(Line(name, those[:, 3], those[:, 6]))
    shown = table(
        f'Quadratic networks on the inner sphere, {dimension} dimensions',
        ('raised', 'height', 'central limit', 'exact rate', f'seen in {samples:,}',
         'cap bound', 'mean distance', 'found by FMN'),
        [row[:8] for row in rows],
        'All coefficients are 0.8 but the raised ones. Distance: chord to the nearest '
        f'error, mean over the sphere; FMN on {points} points.',
    )  # fmt: skip
    drawn = picture(
        'Adversarial spheres: how far errors can be',
        'However rare errors are, they cannot be far from most points: the curve '
        'bounds every model.',
        charts.lines,
        lines,
        Axis('rate of errors', 'log'),
        Axis('mean distance'),
        levels={'two random points': 2**0.5},
    )
    return Findings(claims, [drawn], [shown])


def _batch(key: Any, size: int, dimension: int) -> dict[str, Any]:
    which, where = jax.random.split(key)
    y = jax.random.bernoulli(which, shape=(size,)).astype(jnp.int32)
    x = two_spheres.sample(where, size, dimension, jnp.where(y > 0, OUTER, 1.0))
    # Coordinates of size about 1, as initialisations expect.
    return {'image': x * dimension**0.5, 'label': y}


@functools.partial(jax.jit, static_argnums=2)
def _train(state: Any, key: Any, dimension: int):
    def one(state, _):
        batch = _batch(jax.random.fold_in(key, state.step), 200, dimension)
        return training.step(training.standard(), state, batch, key)[0], None

    return jax.lax.scan(one, state, length=250)[0]


def _scaled(network: LogitsFn, scale: Any, x: Any) -> Any:
    return network(x * scale)


def trained_spheres(
    work: Work, dimension: int, width: int, steps: int, samples: int, points: int
) -> Findings:
    """A ReLU network trained on fresh samples until errors are hardly seen."""

    def measure() -> dict[str, Any]:
        model = zoo.mlp((dimension,), 2, (width, width))
        optimizer = optax.adam(training.triangular(3e-3, steps))
        state = training.create(model, optimizer, key=jax.random.key(0))
        for _ in range(steps // 250):
            state = _train(state, jax.random.key(3), dimension)
        network = models.logits_fn(model, state.params, state.model_state)
        scaled: Any = jax.tree_util.Partial(
            _scaled, network, jnp.float32(dimension**0.5)
        )
        found: dict[str, Any] = {}
        for name, radius in (('inner', 1.0), ('outer', OUTER)):
            found[f'{name} errors'] = errors_seen([scaled], dimension, radius, samples)[
                0
            ]
            distance = distance_found(scaled, dimension, radius, points)
            found[f'{name} found'] = np.isfinite(distance).mean()
            found[f'{name} distance'] = distance[np.isfinite(distance)].mean() / radius
        return found

    found = work.keep('trained-spheres', measure)
    samples = rounded_up(samples)
    claims: list[Claim] = []
    for name in ('inner', 'outer'):
        seen = int(found[f'{name} errors'])
        bound = (
            concentration.most_distant(seen, samples, dimension)
            if seen
            else concentration.cap_distance(1 / samples, dimension)
        )
        rate = (
            'at the lower 95 % limit of its rate'
            if seen
            else f'at a rate of 1 / {samples}'
        )
        what = f'trained ReLU network, n = {dimension}, {name} sphere'
        claims += [
            claim(f'{what}: errors among {samples} samples', seen),
            claim(
                f'{what}: points with an error found near them',
                100 * found[f'{name} found'], unit='%',
            ),
            claim(
                f'{what}: mean distance to it over the cap bound {rate}',
                found[f'{name} distance'] / bound, paper='<= 1', band=(0, 1),
            ),
            claim(
                f'{what}: mean distance to it, in radii',
                found[f'{name} distance'], paper='0.18 (n = 500)', tag='M',
            ),
        ]  # fmt: skip
    return Findings(claims)
