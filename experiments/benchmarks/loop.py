"""The loop of an attack against the bare gradient, and against PyTorch.

Called by ``python -m experiments benchmark --suite loop``.

    scan over bare      PGD-40 step of the Madry net in the library's loop, over one
                        bare jitted gradient               goal <= 1.05
    user's net          the same attack on an ordinary nnx.Conv net, over the same
                        attack with its loop unrolled      goal <= 1.3
    over PyTorch        the Madry step over PyTorch's      goal <= 0.75
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from advjax import attacks, linf, losses, models, zoo
from experiments.benchmarks.timing import compiled, interleaved


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


def measure(config: Any) -> dict[str, Any]:
    """The library's loop over the bare gradient, and over PyTorch.

    Args:
      config: of the benchmark.
    """
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
