"""How fast an attack is, against the bare gradient and against PyTorch.

    python -m experiments.benchmark

Question: does the library's loop cost anything beyond the gradients it needs, for our
networks and for the user's own, and how does that compare with PyTorch?

Every figure is the median of interleaved repetitions in one process, and the claims
are ratios within it: these machines are noisy, absolute times are not to be compared.

    scan over bare      PGD-40 step of the Madry net in the library's loop, over one
                        bare jitted gradient               goal <= 1.05
    user's net          the same attack on an ordinary nnx.Conv net, over the same
                        attack with its loop unrolled      goal <= 1.3
    over PyTorch        the Madry step over PyTorch's      goal <= 0.75

What each attack costs (``--suite attacks`` and ``autoattack``) stands in
``benchmark_attacks``; a step of adversarial training, and what the devices say to each
other in it (``--suite training`` and ``scaling``), in ``benchmark_training``.
"""

import dataclasses
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from advjax import attacks, linf, losses, models, zoo
from experiments import benchmark_attacks, benchmark_training, common


@dataclasses.dataclass(frozen=True)
class Config:
    """How fast an attack is, against the bare gradient and against PyTorch."""

    batch: int = 256
    """Images per step."""
    steps: int = 40
    """Attack steps."""
    unrolled_steps: int = 10
    """Attack steps where the loop is unrolled, whose compile time grows with them."""
    repeats: int = 5
    """Interleaved repetitions of every measurement."""
    torch: bool = True
    """Compare with PyTorch where it is installed."""
    suite: Literal['loop', 'attacks', 'autoattack', 'training', 'scaling', 'all'] = (
        'all'
    )
    """The loop against the bare gradient, each attack, AutoAttack as a whole, a step of
    adversarial training, or what it makes several devices say to each other."""
    weights: Path | None = None
    """Weights of Wong et al. 2020 (.npz) for the attacks; random ones without."""
    images: int = 1000
    """Images for AutoAttack."""
    deep_batch: int = 32
    """Images per training step of PreActResNet-18."""
    attack_steps: int = 7
    """Attack steps in a step of adversarial training."""
    networks: tuple[Literal['madry_mnist', 'preact_resnet18'], ...] = (
        benchmark_training.NETWORKS
    )
    """What the suites 'training' and 'scaling' train."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices that the training step is compiled for."""
    short: bool = False
    """AutoAttack with 5 steps and 20 queries, training of tiny networks: to try the
    benchmark out."""
    output: Path | None = None
    """Write the figures as JSON."""


class UserNet(nnx.Module):
    """The Madry net as a user of flax writes it: nothing of advjax in it."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, (5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (5, 5), rngs=rngs)
        self.full = nnx.Linear(3136, 1024, rngs=rngs)
        self.out = nnx.Linear(1024, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, 10)."""
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        return self.out(nnx.relu(self.full(x.reshape(x.shape[0], -1))))


def compiled(fn: Callable, *args: Any) -> tuple[Callable, float]:
    """Compiles without the persistent cache; returns the program and the seconds."""
    lowered = jax.jit(fn).lower(*args)
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    jax.config.update('jax_enable_compilation_cache', cache)
    return program, seconds


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each run; taking turns spreads the noise evenly."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def torch_step(x: np.ndarray, y: np.ndarray) -> Callable[[], Any] | None:
    """One PGD step of the Madry net in PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    x0 = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(y.astype(np.int64))

    def step() -> Any:
        z = x0.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(net(z), labels, reduction='sum')
        (gradient,) = torch.autograd.grad(loss, z)
        moved = z.detach() + 0.01 * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, x0 - 0.3), x0 + 0.3)
        return moved.clamp(0, 1)

    return step


def main(config: Config) -> dict[str, Any]:
    """Measures what the configuration asks for and returns the figures."""
    figures: dict[str, Any] = {'environment': common.environment()}
    if config.suite in ('loop', 'all'):
        figures['loop'] = loop(config)
    f = benchmark_attacks.network(config.weights)
    if config.suite in ('attacks', 'all'):
        x, y = map(jnp.asarray, benchmark_attacks.images(config.batch))
        figures['attacks'] = {
            'efficiency': benchmark_attacks.efficiency(
                f, x, y, 5 * config.steps, interleaved, config.repeats
            ),
            'sweep': benchmark_attacks.sweep(
                f, x[:64], y[:64], interleaved, config.repeats
            ),
            'memory': benchmark_attacks.memory(f, x.shape[1:]),
        }
    if config.suite in ('autoattack', 'all'):
        figures['autoattack'] = benchmark_attacks.autoattack(
            f, config.weights, config.images, config.torch, config.short
        )
    if config.suite in ('training', 'all'):
        figures['training'] = benchmark_training.speed(
            benchmark_training.cases(
                config.batch, config.deep_batch, config.short, config.networks
            ),
            config.attack_steps,
            interleaved,
            config.repeats,
            config.torch,
        )
    if config.suite in ('scaling', 'all'):
        figures['scaling'] = benchmark_training.scaling(
            config.devices, config.attack_steps, config.short, config.networks
        )
    return figures


def loop(config: Config) -> dict[str, Any]:
    """The library's loop over the bare gradient, and over PyTorch."""
    key = jax.random.key(0)
    x = jax.random.uniform(key, (config.batch, 28, 28, 1))
    y = jax.random.randint(key, (config.batch,), 0, 10)
    nets = {
        'Madry net': zoo.madry_mnist(),
        "user's nnx.Conv net": models.from_nnx(UserNet),
    }
    long = attacks.pgd(linf(0.3), config.steps, 0.01 / 0.3, keep_best=False)
    short = attacks.pgd(linf(0.3), config.unrolled_steps, 0.01 / 0.3, keep_best=False)

    runs, compile_seconds, per = {}, {}, {}

    def add(name: str, steps: int, fn: Callable, *args: Any) -> None:
        program, compile_seconds[name] = compiled(fn, *args)
        runs[name] = lambda: jax.block_until_ready(program(*args))
        per[name] = steps

    def attack(attack, f, key, x, y):
        return attack(f, key, x, y)

    def gradient(f, x, y):
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(f(x), y)))(x)

    for net, model in nets.items():
        f = models.logits_fn(model, *model.init(key))
        add(f'{net}: bare gradient', 1, gradient, f, x, y)
        add(f'{net}: PGD-{config.steps}', config.steps, attack, long, f, key, x, y)
        unrolled = dataclasses.replace(short, unroll=config.unrolled_steps)
        for words, each in (('', short), (' unrolled', unrolled)):
            name = f'{net}: PGD-{config.unrolled_steps}{words}'
            add(name, config.unrolled_steps, attack, each, f, key, x, y)
        bare = _unrolled_without_us(f, key, x, y, config.unrolled_steps)
        name = f'{net}: PGD-{config.unrolled_steps} unrolled, plain jax.grad'
        add(name, config.unrolled_steps, bare, x)
    theirs = torch_step(np.asarray(x), np.asarray(y)) if config.torch else None
    if theirs is not None:
        # As many steps in a row as ours: a lone step pays for cold caches and threads.
        runs['PyTorch: one step'] = lambda: [theirs() for _ in range(config.steps)]
        per['PyTorch: one step'] = config.steps

    seconds = interleaved(runs, config.repeats)
    step = {name: seconds[name] / per[name] for name in runs}
    ours, bare = f'Madry net: PGD-{config.steps}', 'Madry net: bare gradient'
    user = f"user's nnx.Conv net: PGD-{config.unrolled_steps}"
    ratios = {
        'scan over bare gradient, Madry net': (step[ours] / step[bare], 1.05),
        "in scan over unrolled, user's nnx.Conv net": (
            step[user] / step[f'{user} unrolled'],
            1.3,
        ),
        "in scan over unrolled plain jax.grad, user's nnx.Conv net": (
            step[user] / step[f'{user} unrolled, plain jax.grad'],
            1.3,
        ),
    }
    if theirs is not None:
        ratios['over PyTorch, Madry net'] = (
            step[ours] / step['PyTorch: one step'],
            0.75,
        )
    return {
        'batch': config.batch,
        'milliseconds_per_step': {k: 1e3 * v for k, v in step.items()},
        'compile_seconds': compile_seconds,
        'ratios': {k: {'measured': v, 'goal': g} for k, (v, g) in ratios.items()},
    }


def _unrolled_without_us(f, key, x0, y, steps: int) -> Callable:
    """The attack written out by hand with jax.grad alone, every step in line."""

    def run(x):
        for _ in range(steps):
            g = jax.grad(lambda x: jnp.sum(losses.cross_entropy(f(x), y)))(x)
            x = jnp.clip(x + 0.01 * jnp.sign(g), x0 - 0.3, x0 + 0.3)
            x = jnp.clip(x, 0, 1)
        return x

    return run


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f'{"milliseconds per step":<62}{"run":>9}{"compile":>10}']
    for name, value in figures['milliseconds_per_step'].items():
        compiling = figures['compile_seconds'].get(name)
        note = f'{compiling:8.2f} s' if compiling is not None else ''
        lines.append(f'{name:<62}{value:9.2f}{note}')
    lines.append('')
    for name, ratio in figures['ratios'].items():
        verdict = 'met' if ratio['measured'] <= ratio['goal'] else 'MISSED'
        lines.append(
            f'{name:<62}{ratio["measured"]:9.2f}   goal <= {ratio["goal"]}: {verdict}'
        )
    return '\n'.join(lines)


def cli() -> None:
    """Entry point of ``python -m experiments.benchmark``."""
    import tyro

    config = tyro.cli(Config, description=__doc__)
    figures = main(config)
    if 'loop' in figures:
        print(table(figures['loop']))
    for part in ('attacks', 'autoattack'):
        if part in figures:
            print('\n' + getattr(benchmark_attacks, f'{part}_table')(figures[part]))
    for part in ('training', 'scaling'):
        if part in figures:
            print('\n' + getattr(benchmark_training, f'{part}_table')(figures[part]))
    if config.torch and importlib.util.find_spec('torch') is None:
        print('PyTorch is not installed: not compared.', file=sys.stderr)
    if config.output is not None:
        common.write_json(config.output, figures)


if __name__ == '__main__':
    cli()
