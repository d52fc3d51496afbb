"""The networks that are compared, and how the two branches of one differ."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import data, models, training, zoo
from advjax.balls import linf
from experiments.frame.work import Work

WORDS = {'clean': 'clean images', 'joint': 'joint training', 'advprop': 'AdvProp'}
"""What each training is called."""


def methods(config: Any, eps: float) -> dict[str, training.Method]:
    """What is compared, at a radius."""
    ball = linf(eps)
    return {
        'clean': training.standard(),
        'joint': training.joint(ball, config.steps),
        'advprop': training.advprop(ball, steps=config.steps),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(model, optimizer, method, dataset, key, batches):
    """Trains one network; pure. ``batches`` (S, B) are positions in the data set."""
    order = jax.random.fold_in(key, 1)

    def update(state, index):
        batch = data.take(dataset, data.Batch(index, jnp.ones(index.shape, bool)))
        return training.step(method, state, batch, order)[0], None

    state = jax.lax.scan(update, training.create(model, optimizer, key=key), batches)[0]
    return state.params, state.model_state


@jax.jit
def accuracy(logits_fn, x, y):
    """Share of right answers."""
    return jnp.mean(jnp.argmax(logits_fn(x), axis=1) == y)


def batches(config: Any, size: int, seed: int, available: int) -> jax.Array:
    """Positions (S, B): ``size`` images of the training set, in shuffled epochs."""
    draw = np.random.default_rng((seed, size))
    mine = draw.permutation(available)[: min(size, available)]
    needed = config.updates * config.batch_size
    epochs = [draw.permutation(mine) for _ in range(-(-needed // len(mine)))]
    order = np.concatenate(epochs)[:needed].astype(np.int32)
    return jnp.asarray(order.reshape(config.updates, config.batch_size))


class Bench:
    """Trains and measures networks, each once."""

    def __init__(self, config: Any, work: Work):
        self.config, self.work = config, work
        self.sets = work.sets(config.dataset, test_images=config.test_images)
        self.x, self.y = (jnp.asarray(a) for a in work.images(self.sets.test))
        self.images = data.device_data(self.sets.train)
        self.model = zoo.split_norm_cnn(
            self.sets.shape, self.sets.classes, config.widths, config.hidden
        )
        rate = training.triangular(config.learning_rate, config.updates)
        self.optimizer = optax.adam(rate)

    def fit(self, method: training.Method, size: int, seed: int) -> tuple[Any, Any]:
        """The trained parameters and statistics."""
        order = batches(self.config, size, seed, len(self.images.labels))
        key = jax.random.key(seed)
        return train(self.model, self.optimizer, method, self.images, key, order)

    def logits_fn(self, trained: tuple[Any, Any], branch: int):
        """A trained network seen through a branch."""
        return models.logits_fn(self.model, *trained, branch=branch)

    def result(self, name: str, method: training.Method, size: int, seed: int):
        """Clean accuracies through both branches, and the branches' statistics."""

        def compute():
            trained = self.fit(method, size, seed)
            main, aux = (
                accuracy(self.logits_fn(trained, b), self.x, self.y) for b in (0, 1)
            )
            return {'main': main, 'aux': aux, **statistics(trained[1])}

        return self.work.keep(f'{name}-{size}-{seed}', compute)

    def mean(self, name: str, method: training.Method, size: int, seeds: int):
        """Per cent (seeds,) through the main and through the auxiliary branch."""
        found = [self.result(name, method, size, seed) for seed in range(seeds)]
        return tuple(100 * np.array([f[key] for f in found]) for key in ('main', 'aux'))


def statistics(state: Any) -> dict[str, np.ndarray]:
    """Running means and variances of every layer and branch, (C,) each."""
    return {
        f'{kind}{layer}{"ab"[branch]}': np.asarray(norm[kind])
        for layer, norms in state['norms'].items()
        for branch, norm in norms['branches'].items()
        for kind in ('mean', 'var')
    }


def distances(found: dict[str, np.ndarray]) -> list[float]:
    r"""Per layer, the mean over channels of :math:`|\mu_a - \mu_b| / \bar\sigma`."""
    layers = sum(name.startswith('mean') for name in found) // 2
    each = []
    for i in range(layers):
        spread = np.sqrt((found[f'var{i}a'] + found[f'var{i}b']) / 2 + 1e-5)
        each.append(np.mean(np.abs(found[f'mean{i}a'] - found[f'mean{i}b']) / spread))
    return [float(distance) for distance in each]
