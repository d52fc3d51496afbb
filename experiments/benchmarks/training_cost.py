"""The cost of a step of adversarial training: beyond its gradients, and to communicate.

Called by ``python -m experiments benchmark --suite training`` and ``--suite scaling``.
The step is the very program that ``training.fit`` runs, from the rows of indices to the
new weights, without augmentation.

    over bare      images per second of PGD-7 training over those of 7 bare jitted
                   input gradients, one weight gradient and the update
                                                                        goal >= 0.95
    over PyTorch   images per second over the same step in PyTorch, in its default
                   layout and with channels last                        goal >= 1.3
    in loops       collectives inside loops of the step compiled for several devices,
                   that is inside the attack                            goal 0
    bytes          what one device gets from collectives in one step, over the bytes of
                   the parameters; time on forced devices would say nothing. The
                   gradient is summed once; sharded weights are gathered once more
                                                       goal <= 1.05, sharded 2.05
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import data, losses, models, sharding, training, zoo
from advjax.sharding import Placement
from advjax.training import epoch, feed
from experiments.benchmarks import hlo
from experiments.benchmarks.timing import interleaved
from experiments.frame import process


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and what it is trained on.

    Attributes:
      model: the network.
      widths: of its layers, which ``torch_networks`` makes it of.
      shape: (H, W, C) of one image.
      eps: radius of the attack, in pixels.
      batch: images per step.
    """

    model: models.Model
    widths: tuple[int, ...]
    shape: tuple[int, ...]
    eps: float
    batch: int


NETWORKS = ('madry_mnist', 'preact_resnet18')


def cases(
    batch: int,
    deep_batch: int,
    tiny: bool = False,
    networks: tuple[str, ...] = NETWORKS,
) -> dict[str, Case]:
    """The networks of the benchmark, by name; tiny ones to try it out."""
    scale = 1 / 8 if tiny else 1.0
    plain = tuple(int(n * scale) for n in (32, 64, 1024))
    shape, widths = ((8, 8, 3), (8,)) if tiny else ((32, 32, 3), (64, 128, 256, 512))
    every = {
        'madry_mnist': Case(
            zoo.madry_mnist(scale=scale), plain, (28, 28, 1), 0.3, batch
        ),
        'preact_resnet18': Case(
            zoo.preact_resnet18(shape, widths=widths),
            widths,
            shape,
            8 / 255,
            deep_batch,
        ),
    }
    return {name: every[name] for name in networks}


def _optimizer() -> optax.GradientTransformation:
    return optax.sgd(1e-3, momentum=0.9)


def _lowered(case: Case, steps: int, place: Placement, state: Any):
    """The step of ``training.fit``, not yet compiled, and its arguments."""
    rng = np.random.default_rng(0)
    noise = data.Dataset(
        rng.integers(256, size=(2 * case.batch, *case.shape), dtype=np.uint8),
        rng.integers(10, size=2 * case.batch).astype(np.int32),
        tuple('0123456789'),
        'noise',
        'train',
    )
    source = feed.of(noise, case.batch, place)
    key = jax.random.key(0)
    arrays, items = source.epoch(0, key, 0)
    args = training.pgd_at(case.eps, steps), state, arrays, next(items), key
    program = epoch.Program(place, source.take, None)
    return epoch.compiled_step.lower(program, *args), args, source.take


def _create(case: Case) -> Any:
    """The state of training at its start."""
    return training.create(case.model, _optimizer(), key=jax.random.key(0))


def training_step(case: Case, steps: int) -> tuple[Callable[[], Any], Any, Any]:
    """Our step, ready to run, and the images and labels it is run on."""
    place = sharding.placement(case.batch)
    state = _create(case)
    state = place.put(state, place.of_state(state))
    lowered, (method, state, arrays, item, key), take = _lowered(
        case, steps, place, state
    )
    program = lowered.compile()

    def run() -> None:
        nonlocal state
        # The old state is donated, so every run goes on from the last.
        state, metrics = jax.block_until_ready(
            program(method, state, arrays, item, key)
        )
        if not metrics['finite']:
            raise FloatingPointError('the step that is measured does not train')

    batch = jax.jit(take)(arrays, item)
    return run, batch['image'], batch['label']


def bare_step(case: Case, steps: int, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    """As many gradients, each a program of its own, the last with the update."""
    optimizer, apply = _optimizer(), case.model.apply
    params, model_state = case.model.init(jax.random.key(0))
    held = params, model_state, optimizer.init(params)
    held = sharding.placement(case.batch).put(held)

    def gradient(params, model_state, x, y):
        def total(x):
            logits, _ = apply(params, model_state, x, train=False)
            return jnp.sum(losses.cross_entropy(logits, y))

        return jax.grad(total)(x)

    def update(params, model_state, opt_state, x, y):
        def mean(params):
            key = jax.random.key(1)
            logits, state = apply(params, model_state, x, train=True, key=key)
            return jnp.mean(losses.cross_entropy(logits, y)), state

        found, state = jax.grad(mean, has_aux=True)(params)
        updates, opt_state = optimizer.update(found, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    one = jax.jit(gradient).lower(*held[:2], x, y).compile()
    last = jax.jit(update, donate_argnums=(0, 1, 2)).lower(*held, x, y).compile()

    def run() -> None:
        nonlocal held
        for _ in range(steps):
            # One after the other, as an attack must.
            jax.block_until_ready(one(*held[:2], x, y))
        held = jax.block_until_ready(last(*held, x, y))

    return run


def torch_steps(
    name: str, case: Case, steps: int, x: np.ndarray, y: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """The same step in PyTorch, in both layouts; nothing where it is not installed."""
    try:
        from experiments.benchmarks import torch_networks
    except ImportError:
        return {}
    result = {}
    for words, last in (('PyTorch', False), ('PyTorch, channels last', True)):
        net = getattr(torch_networks, name)(case.shape, case.widths)
        theirs = sum(each.numel() for each in net.parameters())
        params = jax.eval_shape(lambda: _create(case)).params
        ours = sum(leaf.size for leaf in jax.tree.leaves(params))
        if ours != theirs:
            raise AssertionError(f'{ours} parameters here, {theirs} in PyTorch')
        # JAX, too, takes every core on CPU.
        threads = len(process.cores())
        result[words] = torch_networks.step(net, x, y, case.eps, steps, threads, last)
    return result


def _against_others(
    name: str, case: Case, steps: int, repeats: int, torch: bool
) -> dict[str, Any]:
    """Images per second of one network, and their ratios."""
    ours, x, y = training_step(case, steps)
    runs = {'ours': ours, 'bare gradients': bare_step(case, steps, x, y)}
    if torch:
        runs |= torch_steps(name, case, steps, np.asarray(x), np.asarray(y))
    seconds = interleaved(runs, repeats)
    return {
        'batch': case.batch,
        'attack_steps': steps,
        'images_per_second': {k: case.batch / v for k, v in seconds.items()},
        'ratios': {
            name: {
                'measured': seconds[name] / seconds['ours'],
                'goal': 0.95 if name == 'bare gradients' else 1.3,
            }
            for name in runs
            if name != 'ours'
        },
    }


def speed(of: dict[str, Case], steps: int, repeats: int, torch: bool) -> dict[str, Any]:
    """The suite 'training'."""
    return {
        name: _against_others(name, case, steps, repeats, torch)
        for name, case in of.items()
    }


def training_table(figures: dict[str, Any]) -> str:
    """Images per second and their ratios as text."""
    lines = []
    for net, found in figures.items():
        lines.append(
            f'PGD-{found["attack_steps"]} training of {net}, batch {found["batch"]}'
        )
        speed = found['images_per_second']
        lines.append(f'{"  ours":<28}{speed["ours"]:9.1f} images/s')
        for name, ratio in found['ratios'].items():
            met = 'met' if ratio['measured'] >= ratio['goal'] else 'MISSED'
            lines.append(
                f'{"  " + name:<28}{speed[name]:9.1f} images/s   ours over it '
                f'{ratio["measured"]:5.2f}   goal >= {ratio["goal"]}: {met}'
            )
    return '\n'.join(lines)


def communication(case: Case, steps: int, shard_weights: bool) -> dict[str, Any]:
    """Collectives of the step on all devices, and the bytes that each device holds."""
    place = sharding.placement(case.batch, shard_weights=shard_weights)
    state = jax.eval_shape(lambda: _create(case))
    state = jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        state,
        place.of_state(state),
    )
    text = _lowered(case, steps, place, state)[0].compile().as_text()
    assert text is not None
    found = hlo.collectives(text)
    kinds = sorted({each.kind for each in found})
    params = jax.tree.leaves(state.params)
    held = [*params, *jax.tree.leaves(state.opt_state)]
    return {
        'devices': jax.device_count(),
        'shard_weights': shard_weights,
        'collectives': {k: sum(each.kind == k for each in found) for k in kinds},
        'in_loops': sum(each.in_loop for each in found),
        'bytes': sum(each.bytes * each.times for each in found),
        'bytes_in_loops': sum(e.bytes * e.times for e in found if e.in_loop),
        'parameter_bytes': sum(leaf.size * leaf.dtype.itemsize for leaf in params),
        'held_bytes': sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in held
        ),
    }


def scaling(
    devices: tuple[int, ...],
    steps: int,
    tiny: bool = False,
    networks: tuple[str, ...] = NETWORKS,
) -> dict[str, Any]:
    """The suite 'scaling': a process with as many forced devices for each number."""
    result: dict[str, Any] = {}
    for count in devices:
        flags = f'--xla_force_host_platform_device_count={count}'
        # Of two flags of one name the last one counts.
        flags = f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()
        plan = json.dumps({'steps': steps, 'tiny': tiny, 'networks': networks})
        ended = subprocess.run(
            [sys.executable, '-m', 'experiments.benchmarks.training_cost', plan],
            cwd=Path(__file__).parent.parent.parent,
            env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f'{count} devices: {ended.stderr[-3000:]}')
        for net, rows in json.loads(ended.stdout.splitlines()[-1]).items():
            result.setdefault(net, []).extend(rows)
    return result


def _in_this_process(
    steps: int, tiny: bool, networks: tuple[str, ...]
) -> dict[str, Any]:
    """Both placements of the networks on the devices there are."""
    batch = 16 if tiny else 128
    alone = jax.device_count() == 1
    return {
        net: [
            communication(case, steps, sharded)
            for sharded in ((False,) if alone else (False, True))
        ]
        for net, case in cases(batch, batch, tiny, networks).items()
    }


def scaling_table(figures: dict[str, Any]) -> str:
    """Collectives and bytes as text."""
    lines = [
        f'{"one step, one device":<26}{"collectives":>12}{"in loops":>9}'
        f'{"MB":>9}{"/ params":>9}{"held MB":>9}'
    ]
    for net, rows in figures.items():
        lines.append(net)
        for row in rows:
            weights = 'sharded' if row['shard_weights'] else 'replicated'
            name = f'  {row["devices"]} devices, {weights}'
            share = row['bytes'] / row['parameter_bytes']
            goal = 2.05 if row['shard_weights'] else 1.05
            met = share <= goal and not row['in_loops']
            lines.append(
                f'{name:<26}'
                f'{sum(row["collectives"].values()):12d}{row["in_loops"]:9d}'
                f'{row["bytes"] / 1e6:9.2f}{share:9.2f}{row["held_bytes"] / 1e6:9.2f}'
                f'  {"met" if met else "MISSED"}'
            )
    return '\n'.join(lines)


if __name__ == '__main__':
    print(json.dumps(_in_this_process(**json.loads(sys.argv[1]))), flush=True)
