"""A training run on several devices or in several processes, to be started by tests.

    python -m tests.sharded '{"devices": 8, "job": "fit"}'

Prints one line of JSON.
"""

import json
import os
import sys

PLAN = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
    f'--xla_force_host_platform_device_count={PLAN.get("devices", 1)}'
)

import hashlib
import time

import jax
import numpy as np
import optax

from advjax import attacks, data, evaluation, models, sharding, training, zoo
from advjax.training import epoch, feed
from experiments.benchmarks import hlo
from experiments.frame import process

METHODS = {
    'fast': lambda: training.fast(0.15),
    'pgd_at': lambda: training.pgd_at(0.15, 3),
    'free': lambda: training.free(0.15, 2),
    'trades': lambda: training.trades(0.15, 6.0, 3),
}
NETS = {
    'plain': lambda: zoo.mlp((8, 8, 1), 10, (64,)),
    'conv': lambda: zoo.fast_mnist((8, 8, 1)),
    'norm': lambda: zoo.split_norm_cnn((8, 8, 1), 10, (8, 16), 32),
}


def fit(plan):
    """Trains on digits; reports the loss of every step and held-out accuracy."""
    train, held_out = data.split_held_out(data.load('digits', 'train'), 100, 0)
    batch = plan.get('batch', 64)
    if plan.get('stream'):
        train = data.stream(train, batch_size=batch, seed=3)
    said, compiled = [], epoch.compiled_step

    def heard(*args):
        state, metrics = compiled(*args)
        said.append(metrics['loss'])
        if len(said) == plan.get('wait_at'):
            jax.block_until_ready(state)
            print('waiting', flush=True)
            time.sleep(plan['wait'])
        return state, metrics

    epoch.compiled_step = heard  # pyrefly: ignore[bad-assignment]
    kept = None
    if 'directory' in plan:
        kept = training.Checkpointing(plan['directory'], plan.get('save_seconds', 0.0))
    result = training.fit(
        METHODS[plan.get('method', 'fast')](),
        NETS[plan.get('net', 'plain')](),
        optax.adam(training.triangular(5e-3, 100)),
        train,
        held_out,
        key=jax.random.key(0),
        epochs=plan.get('epochs', 2),
        batch_size=batch,
        checkpoints=kept,
        shard_weights=plan.get('shard_weights', False),
        averaging=training.ema(0.9) if plan.get('averaging') else None,
        recovery='continue',
    )
    leaves = jax.tree.leaves(result.params)
    sharded = [
        list(leaf.sharding.spec)
        for leaf in jax.tree.leaves(result.last.params)
        if isinstance(leaf.sharding, jax.sharding.NamedSharding)
    ]
    x = np.asarray(data.to_float(held_out.images))
    outside = evaluation.evaluate(
        result.logits_fn, x, held_out.labels, attacks.pgd(0.15, 5),
        key=jax.random.key(1),
        batch_size=50,
    )  # fmt: skip
    digest = hashlib.sha256(b''.join(np.asarray(a).tobytes() for a in leaves))
    return {
        'losses': [float(value) for value in said],
        'robust': [row['held_out_robust'] for row in result.history],
        'clean': [row['held_out_clean'] for row in result.history],
        'outside': outside.robust_accuracy,
        'digest': digest.hexdigest(),
        'sharded': sharded,
        'devices': jax.device_count(),
    }


def program(plan):
    """The collectives of the compiled training step."""
    train = data.load('digits', 'train')
    method = METHODS[plan.get('method', 'pgd_at')]()
    if plan.get('train_mode'):
        method = method.replace(train_mode=True)
    model, batch = NETS[plan.get('net', 'norm')](), 64
    place = sharding.placement(batch, shard_weights=plan.get('shard_weights', False))
    source = feed.of(train, batch, place)
    optimizer = optax.sgd(0.1)
    state = training.create(
        model, optimizer, key=jax.random.key(0), method=method, shape=(batch, 8, 8, 1)
    )
    state = place.put(state, place.of_state(state))
    made = epoch.Program(place, source.take, None)
    arrays, items = source.epoch(0, jax.random.key(0), 0)
    lowered = epoch.compiled_step.lower(
        made, method, state, arrays, next(items), jax.random.key(1)
    )
    return hlo.collectives(lowered.compile().as_text())


def verdicts(plan):
    """Attacks on the devices there are: the verdict on every example."""
    test = data.load('digits', 'test')
    x, y = np.asarray(data.to_float(test.images[:100])), test.labels[:100]
    model = NETS['conv']()
    f = models.logits_fn(model, *model.init(jax.random.key(0)))
    found = evaluation.evaluate(
        f, x, y, {'pgd': attacks.pgd(0.1, 5), 'square': attacks.square(0.1, 50)},
        key=jax.random.key(0), batch_size=plan.get('batch', 32),
    )  # fmt: skip
    return {'success': found.success.tolist(), 'norm': found.norm.tolist()}


if __name__ == '__main__':
    process.use_compilation_cache()
    if PLAN.get('processes', 1) > 1:
        jax.distributed.initialize(
            f'127.0.0.1:{PLAN["port"]}',
            num_processes=PLAN['processes'],
            process_id=PLAN['index'],
            initialization_timeout=60,
        )
    job = {'fit': fit, 'program': program, 'verdicts': verdicts}[PLAN['job']]
    print(json.dumps(job(PLAN)), flush=True)
