"""A training run in a process of its own, to be killed.

    python -m tests.killable DIR

Prints the epochs of the whole run, the steps that this process made, and a digest
of everything that training changes.
"""

import hashlib
import sys

import jax
import numpy as np
import optax

from advjax import data, training, zoo
from advjax.training import epoch
from experiments.frame import process


def run(directory):
    process.use_compilation_cache()
    train, held_out = data.split_held_out(data.load('digits', 'train'), 100, 0)
    return training.fit(
        training.fast(0.15),
        zoo.fast_mnist((8, 8, 1)),
        optax.adam(training.triangular(5e-3, 12 * 21)),
        train,
        held_out,
        key=jax.random.key(0),
        epochs=12,
        batch_size=64,
        checkpoints=training.Checkpointing(directory, save_seconds=0.0),
    )


def digest(fit):
    leaves = jax.tree.leaves((fit.params, fit.last.params, fit.last.opt_state))
    return hashlib.sha256(b''.join(np.asarray(a).tobytes() for a in leaves)).hexdigest()


if __name__ == '__main__':
    made = []
    compiled = epoch.compiled_step
    # pyrefly: ignore[bad-assignment]
    epoch.compiled_step = lambda *args: made.append(1) or compiled(*args)
    fit = run(sys.argv[1])
    print('steps', len(made), flush=True)
    print('epochs', len(fit.history), flush=True)
    print('digest', digest(fit), flush=True)
