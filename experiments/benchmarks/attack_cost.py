"""What each attack costs beyond the model.

Called by ``python -m experiments benchmark --suite attacks`` and ``--suite
autoattack``. All figures are ratios within one process, on the same weights and images:

    efficiency     model calls per second inside an attack over those of the bare jitted
                   gradient (forward pass for Square)      goal >= 0.9, Square >= 0.7
    sweep          16 radii of APGD by vmap over 16 calls  goal <= 1
    memory         temporary bytes per image of each attack, and their growth when the
                   steps double                            goal 1.0
    AutoAttack     1,000 images, compile time included, over the original on PyTorch
                   where it is installed                   goal <= 0.5
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, data, evaluation, losses, models, zoo
from advjax.attacks.gradients import jacobian
from experiments.benchmarks.timing import interleaved
from experiments.frame.measures import run_attack


def network(weights: Path | None) -> Any:
    """The MNIST network of Wong et al. 2020, with its weights if they are at hand."""
    model = zoo.fast_mnist()
    if weights is not None:
        return models.logits_fn(model, zoo.load_fast_mnist(weights))
    return models.logits_fn(model, *model.init(jax.random.key(0)))


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first MNIST test images, or noise where MNIST is missing."""
    try:
        test = data.load('mnist', 'test')
    except data.DatasetNotFound:
        rng = np.random.default_rng(0)
        x = rng.uniform(size=(count, 28, 28, 1)).astype(np.float32)
        return x, rng.integers(10, size=count).astype(np.int32)
    return np.asarray(data.to_float(test.images[:count])), test.labels[:count]


def _cases(steps: int) -> dict[str, tuple[Any, int, str]]:
    """Attack, model calls, and the bare call that is its unit."""
    inf = float('inf')
    nearest = {'l2': balls.l2(inf), 'linf': balls.linf(inf)}
    return {
        'PGD-100': (attacks.pgd(0.3, 100), 100, 'gradient'),
        'APGD-100': (attacks.apgd(0.3, 100), 101, 'gradient'),
        'APGD-100 L2': (attacks.apgd(balls.l2(2.0), 100), 101, 'gradient'),
        'APGD-100 L1': (attacks.apgd(balls.l1(10.0), 100), 103, 'gradient'),
        'FMN-100 L2': (attacks.fmn(nearest['l2'], 100, refine=0), 100, 'gradient'),
        'FMN-100 Linf': (attacks.fmn(nearest['linf'], 100, refine=0), 100, 'gradient'),
        'DDN-100': (attacks.ddn(steps=100, refine=0), 100, 'gradient'),
        f'C&W L2 (2 x {steps})': (
            # An unreachable margin keeps every example running to the end.
            attacks.carlini_wagner(
                steps=steps, searches=2, kappa=1e6, c=10.0, refine=0
            ),
            2 * steps,
            'gradient',
        ),
        'DeepFool-20': (
            attacks.deepfool(nearest['l2'], 20, overshoot=0.0, classes=9, refine=0),
            20,
            'Jacobian',
        ),
        f'Square-{5 * steps}': (attacks.square(0.3, 5 * steps), 5 * steps, 'forward'),
    }


def efficiency(
    f: Any, x: jax.Array, y: jax.Array, steps: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Calls per second of each attack over those of the bare program."""
    key = jax.random.key(0)

    @jax.jit
    def gradient(f, x, y):
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(f(x), y)))(x)

    @jax.jit
    def jacobians(f, x, y):
        wrong = jnp.stack([(y + i) % 10 for i in range(1, 10)])
        vectors = jax.nn.one_hot(wrong, 10) - jax.nn.one_hot(y, 10)[None]
        return jacobian(f, x, vectors)[1], f(x)

    bare = {
        'gradient': gradient,
        'Jacobian': jacobians,
        'forward': jax.jit(lambda f, x, y: f(x)),
    }
    # Attacks stop at success; a label's logit raised by 1,000 lets nothing succeed.
    sure = jax.tree_util.Partial(_sure, f, y)
    runs: dict[str, Callable] = {
        unit: lambda p=program: [jax.block_until_ready(p(f, x, y)) for _ in range(20)]
        for unit, program in bare.items()
    }
    cases = _cases(steps)
    for name, (attack, _, _) in cases.items():
        # Carlini and Wagner's stops when nothing changes, so it sees the model itself.
        seen = f if name.startswith('C&W') else sure
        runs[name] = lambda a=attack, g=seen: jax.block_until_ready(
            run_attack(a, g, key, x, y)
        )
    seconds = interleaved(runs, repeats)
    result = {}
    for name, (_, calls, unit) in cases.items():
        each, alone = seconds[name] / calls, seconds[unit] / 20
        result[name] = {
            'milliseconds_per_call': 1e3 * each,
            'bare_milliseconds': 1e3 * alone,
            'efficiency': alone / each,
            'goal': 0.7 if unit == 'forward' else 0.9,
        }
    return result


def _sure(f: Any, y: jax.Array, x: jax.Array) -> jax.Array:
    """The model with its label's logit raised: nothing succeeds or stops early."""
    return f(x) + 1e3 * jax.nn.one_hot(y, 10)


def sweep(f: Any, x: jax.Array, y: jax.Array, repeats: int):
    """Seconds of 16 radii in one program, and one after the other."""
    key, radii = jax.random.key(0), jnp.linspace(0.02, 0.32, 16)
    attack = attacks.apgd(0.3, 20)

    @jax.jit
    def together(radii, f, x, y):
        return jax.vmap(lambda eps: balls.with_eps(attack, eps)(f, key, x, y))(radii)

    one = jax.jit(lambda eps, f, x, y: balls.with_eps(attack, eps)(f, key, x, y))
    seconds = interleaved(
        {
            'together': lambda: jax.block_until_ready(together(radii, f, x, y)),
            'in turn': lambda: [jax.block_until_ready(one(e, f, x, y)) for e in radii],
        },
        repeats,
    )
    return {**seconds, 'ratio': seconds['together'] / seconds['in turn'], 'goal': 1.0}


def memory(f: Any, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Temporary bytes per image of the compiled programs, and how they grow."""
    build: dict[str, Callable[[int], Any]] = {
        'PGD': lambda n: attacks.pgd(0.3, n),
        'APGD': lambda n: attacks.apgd(0.3, n),
        'APGD L1': lambda n: attacks.apgd(balls.l1(10.0), n),
        'FAB (1 target)': lambda n: attacks.fab(balls.linf(0.3), n, classes=1),
        'FMN': lambda n: attacks.fmn(steps=n),
        'DDN': lambda n: attacks.ddn(steps=n),
        'C&W L2': lambda n: attacks.carlini_wagner(steps=n),
        'EAD': lambda n: attacks.ead(steps=n),
        'L-BFGS': lambda n: attacks.lbfgs(steps=n),
        'DeepFool': lambda n: attacks.deepfool(steps=n),
        'Square': lambda n: attacks.square(0.3, n),
        'HopSkipJump': lambda n: attacks.hop_skip_jump(queries=20 * n),
    }

    def temporary(attack: Any, batch: int) -> int:
        x = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
        y = jax.ShapeDtypeStruct((batch,), jnp.int32)
        program = run_attack.lower(attack, f, jax.random.key(0), x, y).compile()
        analysis: Any = program.memory_analysis()
        return analysis.temp_size_in_bytes

    result = {}
    for name, make in build.items():
        base = temporary(make(50), 64)
        result[name] = {
            'bytes_per_image': base / 64,
            'twice_the_batch': temporary(make(50), 128) / base,
            'twice_the_steps': temporary(make(100), 64) / base,
        }
    return result


def autoattack(
    f: Any, weights: Path | None, count: int, torch: bool, short: bool = False
) -> dict[str, Any]:
    """Seconds and robust accuracy of the ensemble and its members, compile included."""
    x, y = images(count)
    size: dict[str, Any] = {'steps': 5, 'queries': 20} if short else {}
    whole = attacks.autoattack(0.3, **size)
    result: dict[str, Any] = {'images': len(x), 'ours': {}, 'original': {}}
    jax.clear_caches()
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    every = {'standard': whole, **{k: {k: v} for k, v in whole.members.items()}}
    for name, members in every.items():
        began = time.perf_counter()
        found = evaluation.evaluate(
            f, x, y, members, key=jax.random.key(0), batch_size=min(250, count),
            survivors=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        result['ours'][name] = {
            'seconds': seconds,
            'robust_accuracy': found.robust_accuracy,
        }
    jax.config.update('jax_enable_compilation_cache', cache)
    if torch and weights is not None:
        result['original'] = original(x, y, weights, list(result['ours']))
    return result


def original(
    x: np.ndarray, y: np.ndarray, weights: Path, names: list[str]
) -> dict[str, Any]:
    """The same by the authors' PyTorch package, or nothing where it is missing."""
    try:
        import torch
        from autoattack import AutoAttack
    except ImportError:
        return {}
    from torch import nn

    arrays = np.load(weights)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    net.load_state_dict({name: torch.tensor(arrays[name]) for name in arrays.files})
    net.eval()
    images_ = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(y.astype(np.int64))
    result = {}
    for name in names:
        began = time.perf_counter()
        attack = AutoAttack(
            net, norm='Linf', eps=0.3, version='standard', device='cpu', verbose=False
        )
        if name != 'standard':
            attack.attacks_to_run = [name.replace('_', '-')]
        adversarial = attack.run_standard_evaluation(images_, labels, bs=250)
        with torch.no_grad():
            robust = (net(adversarial).argmax(1) == labels).float().mean().item()
        result[name] = {
            'seconds': time.perf_counter() - began,
            'robust_accuracy': robust,
        }
    return result


def attacks_table(figures: dict[str, Any]) -> str:
    """Efficiency, sweep and memory as text."""
    lines = [f'{"calls per second over the bare program":<34}{"ms/call":>9}{"bare":>8}']
    for name, row in figures['efficiency'].items():
        met = 'met' if row['efficiency'] >= row['goal'] else 'MISSED'
        lines.append(
            f'{name:<34}{row["milliseconds_per_call"]:9.2f}'
            f'{row["bare_milliseconds"]:8.2f}  efficiency {row["efficiency"]:5.2f}  '
            f'goal >= {row["goal"]}: {met}'
        )
    swept = figures['sweep']
    met = 'met' if swept['ratio'] <= swept['goal'] else 'MISSED'
    lines.append(
        f'\n16 radii of APGD-20 by vmap over 16 calls: {swept["ratio"]:.2f}   '
        f'goal <= {swept["goal"]}: {met}\n'
    )
    lines.append(
        f'{"temporary memory":<18}{"kB/image":>10}{"2 x batch":>11}{"2 x steps":>11}'
    )
    for name, row in figures['memory'].items():
        lines.append(
            f'{name:<18}{row["bytes_per_image"] / 1e3:10.1f}'
            f'{row["twice_the_batch"]:11.2f}{row["twice_the_steps"]:11.2f}'
        )
    return '\n'.join(lines)


def autoattack_table(figures: dict[str, Any]) -> str:
    """Seconds and robust accuracy of the members as text."""
    lines = [f'AutoAttack, {figures["images"]} images, compile time included']
    for name, row in figures['ours'].items():
        line = f'{name:<12}{row["seconds"]:8.1f} s {row["robust_accuracy"]:7.2%}'
        other = figures['original'].get(name)
        if other:
            ratio = row['seconds'] / other['seconds']
            line += (
                f'   original {other["seconds"]:7.1f} s '
                f'{other["robust_accuracy"]:7.2%}   ratio {ratio:.2f}'
            )
        lines.append(line)
    return '\n'.join(lines)
