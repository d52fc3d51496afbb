"""Section 2: the distribution, its closed forms, linear classifiers that learn it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.frame.findings import Claim, Table, Tag, claim, table
from experiments.frame.work import Work
from experiments.studies.tsipras2019.trade_off import TradeOff, trade_off


def run(config: Any, work: Work) -> dict[str, np.ndarray]:
    """Everything about the distribution, as arrays."""
    return work.keep('distribution', lambda: _run(config))


def made(config: Any) -> TradeOff:
    """The distribution that classifiers are trained on: eta = 4 / sqrt(d)."""
    return trade_off(config.p, 4.0, config.weak)


def _run(config: Any) -> dict[str, Any]:
    truth = made(config)
    eps = 2 * truth.eta
    draw = jax.jit(TradeOff.sample, static_argnums=2)
    weights = {
        'natural': trained(truth, config, jnp.float32(0)),
        'adversarial': trained(truth, config, eps),
    }
    found: dict[str, Any] = {'eps': eps, **weights}
    for name, w in weights.items():
        found[f'{name} clean'] = truth.accuracy(w)
        found[f'{name} robust'] = truth.accuracy(w, eps=eps)

    # Random classifiers, some of which lean on the robust feature.
    normal, lean, offset = jax.random.split(jax.random.key(config.seed), 3)
    count = config.classifiers
    w = 0.3 + jax.random.normal(normal, (count, config.weak + 1))
    w *= 10 ** jax.random.uniform(lean, (count, config.weak + 1), minval=-1, maxval=0)
    first = 10 ** jax.random.uniform(lean, (count,), minval=-2, maxval=3)
    w = w.at[:, 0].multiply(first)
    # Straight lines between the two extremes come closest to the bound.
    mix = jnp.linspace(0, 4, count)[:, None]
    w = jnp.concatenate([w, truth.robust[None] * mix + truth.averaging[None]])
    b = jax.random.normal(offset, (2 * count,)) * (jnp.arange(2 * count) < count)
    accuracy = jax.jit(TradeOff.accuracy)
    found['random clean'] = accuracy(truth, w, b, jnp.float32(0))
    found['random robust'] = accuracy(truth, w, b, eps)
    clean, robust = (
        jnp.append(
            found[f'random {kind}'], jnp.stack([found[f'{n} {kind}'] for n in weights])
        )
        for kind in ('clean', 'robust')
    )
    found['excess'] = jnp.max(robust - truth.bound(clean))

    rows = []
    for strength in (2.0, 3.0, 4.0):
        for weak in (100, 1000):
            case = trade_off(config.p, strength, weak)
            x, y = draw(case, jax.random.key(config.seed), config.samples)
            score = y * (x @ case.averaging)
            turned = 2 * case.eta * jnp.sum(case.averaging)
            rows.append([
                strength, weak, accuracy(case, case.averaging),
                jnp.mean(score > 0), accuracy(case, case.averaging, 0.0, 2 * case.eta),
                jnp.mean(score > turned),
            ])  # fmt: skip
    return {**found, 'table': np.asarray(rows, np.float64)}


def trained(truth: TradeOff, config: Any, eps: jax.Array) -> jax.Array:
    r"""A soft-margin SVM of unit norm, on the worst case of radius eps.

    .. math:: \min_{\|w\|_2 \le 1} E\max(0, 1 - y w^\top x + \epsilon\|w\|_1)

    by projected subgradient steps on samples; ``eps`` 0 is natural training.
    """
    x, y = jax.jit(TradeOff.sample, static_argnums=2)(
        truth, jax.random.key(config.seed + 1), config.samples
    )
    optimizer = optax.adam(optax.linear_schedule(0.03, 0.0, config.svm_steps))

    def loss(w):
        margin = y * (x @ w) - eps * jnp.sum(jnp.abs(w))
        return jnp.mean(jax.nn.relu(1 - margin))

    def step(carry, _):
        w, state = carry
        update, state = optimizer.update(jax.grad(loss)(w), state)
        w = w + update
        w = w / jnp.maximum(jnp.linalg.norm(w), 1)
        return (w, state), None

    start = jnp.full((truth.weak + 1,), 1e-2)
    run = jax.jit(
        lambda w: jax.lax.scan(step, (w, optimizer.init(w)), length=config.svm_steps)
    )
    return run(start)[0][0]


def claims(config: Any, found: dict[str, np.ndarray]) -> list[Claim]:
    """Theorems 2.1 and 2.2, and the closed forms."""
    rows, count = found['table'], config.samples
    errors = []
    for exact, sampled in ((rows[:, 2], rows[:, 3]), (rows[:, 4], rows[:, 5])):
        spread = np.sqrt(np.maximum(exact * (1 - exact), 1e-5) / count)
        errors.append(np.abs(sampled - exact) / spread)

    def share(what, measured, paper, band, tag: Tag = 'R'):
        return claim(what, 100 * float(measured), paper=paper, tag=tag, band=band,
                     unit='%')  # fmt: skip

    p = 100 * config.p
    first = {n: abs(found[n][0]) / np.abs(found[n]).sum() for n in
             ('natural', 'adversarial')}  # fmt: skip
    where = f'eta = 4 / sqrt(d), d = {config.weak}, eps = 2 eta'
    return [
        claim(f'closed forms: largest distance from {count} samples, in standard '
              'errors (12 comparisons)', float(np.max(errors)), band=(0, 4)),
        claim('theorem 2.1: largest excess over the bound, '
              f'{len(found["random clean"])} random and 2 trained classifiers',
              float(found['excess']), paper='<= 0', tag='R', band=(None, 1e-5)),
        share(f'theorem 2.2: SVM trained naturally, accuracy; {where}',
              found['natural clean'], '> 99', (99, None)),
        share('SVM trained naturally, under attack', found['natural robust'],
              '< 1', (None, 1)),
        share('SVM trained adversarially, accuracy', found['adversarial clean'],
              f'p = {p:g}', (p - 0.5, p + 0.5)),
        share('SVM trained adversarially, under attack',
              found['adversarial robust'], f'p = {p:g}', (p - 0.5, p + 0.5)),
        share('weight on the robust feature, |w_1| / |w|_1: adversarial minus natural '
              'training', first['adversarial'] - first['natural'],
              'all against nearly none', (50, None), 'D'),
    ]  # fmt: skip


def closed_forms(found: dict[str, np.ndarray]) -> Table:
    """Closed forms beside samples."""
    return table(
        'The averaging classifier',
        ['eta sqrt(d)', 'd', 'accuracy %', 'sampled %', 'at eps 2 eta %', 'sampled %'],
        [
            [f'{row[0]:g}', int(row[1]), *(f'{100 * v:.3f}' for v in row[2:])]
            for row in found['table']
        ],
        'Exact: Phi(eta sqrt(d)) and Phi(-eta sqrt(d)).',
    )
