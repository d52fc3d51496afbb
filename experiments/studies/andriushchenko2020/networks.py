"""The one-layer network, its trainings, and what is measured while they run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from advjax import attacks, convolutions, data, geometry, linf, models, training
from advjax.balls import Ball
from advjax.data import augment
from advjax.geometry.linearity import cosine
from experiments.frame.datasets import Sets
from experiments.frame.work import Work

FGSM, ALIGNED = 'FGSM', 'FGSM + GradAlign'


class _OneLayer(nnx.Module):
    def __init__(self, shape, num_classes, filters, rngs):
        height, width, channels = shape
        normal, size = nnx.initializers.normal, height * width * filters
        self.conv = nnx.Conv(
            channels,
            filters,
            (3, 3),
            kernel_init=normal((2 / (9 * filters)) ** 0.5),
            conv_general_dilated=convolutions.conv_general_dilated,
            rngs=rngs,
        )
        self.out = nnx.Linear(
            size, num_classes, kernel_init=normal((2 / size) ** 0.5), rngs=rngs
        )

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).reshape(x.shape[0], -1))


@functools.cache
def one_layer(
    shape: tuple[int, ...], num_classes: int, filters: int = 4
) -> models.Model:
    """A 3x3 convolution to a few channels, ReLU, K logits; no pooling, no norm.

    Kernels are normal of variance 2 / (9 x filters) and 2 / (inputs), biases zero, as
    in the authors' code.

    Args:
      shape: (H, W, C) of one image.
      num_classes: K.
      filters: channels of the convolution.
    """
    return models.from_nnx(functools.partial(_OneLayer, shape, num_classes, filters))


def methods(ball: Ball, coefficient: float) -> dict[str, training.Method]:
    """FGSM from the image itself, alone and with the regulariser."""
    return {
        FGSM: training.method(attacks.fgm(ball), training.on_adversarial),
        ALIGNED: training.grad_align(ball, coefficient),
    }


@functools.cache
def optimizer(learning_rate: float, steps: int, decay: float) -> Any:
    """Adam with the penalty in its gradient, as PyTorch's ``weight_decay`` is."""
    rate = training.triangular(learning_rate, steps)
    return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))


AUGMENT = augment.chain(augment.pad_crop(4), augment.flip())


@functools.partial(jax.jit, static_argnums=0)
def _updates(augmented, method, state, images, batches, key):
    """Some steps of training; their mean loss and accuracy."""

    def update(state, batch):
        found = data.take(images, batch)
        if augmented:
            now = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)
            each = jax.vmap(functools.partial(jax.random.fold_in, now))(found['index'])
            x, y = AUGMENT(each, found['image'], found['label'])
            found = {**found, 'image': x, 'label': y}
        return training.step(method, state, found, key)

    state, metrics = jax.lax.scan(update, state, batches)
    return state, metrics['loss'].mean(), metrics['accuracy'].mean()


@jax.jit
def measure(logits_fn: Any, ball: Ball, key: Any, x: Any, y: Any) -> dict[str, Any]:
    """Accuracies under no attack, FGSM and PGD-10; alignments of gradients and steps.

    The cube of the random points is not cut by the range of pixels, as in equation 4.
    """
    fgsm = attacks.fgm(ball)(logits_fn, key, x, y)
    # Steps of eps / 4, the last iterate: the authors' evaluation during training.
    pgd = attacks.pgd(ball, 10, rate=0.25, keep_best=False)(logits_fn, key, x, y)
    cube = linf(ball.eps, bounds=None)

    def accuracy(images):
        return jnp.mean(jnp.argmax(logits_fn(images), axis=1) == y)

    answers = jnp.argmax(logits_fn(x), axis=1)
    share = jnp.zeros(logits_fn(x[:1]).shape[1]).at[answers].add(1) / len(y)
    return {
        'held_out_clean': accuracy(x),
        'held_out_fgsm': accuracy(fgsm),
        'held_out_robust': accuracy(pgd),
        'held_out_top_class': share.max(),
        'alignment': jnp.nanmean(
            geometry.gradient_alignment(logits_fn, x, y, cube, key=key, samples=2)
        ),
        'fgsm_pgd': jnp.nanmean(cosine(fgsm - x, pgd - x)),
    }


def watched(
    config: Any, work: Work, sets: Sets, ball: Ball, name: str
) -> dict[str, np.ndarray | np.float64]:
    """Trains a network and measures it several times in every epoch.

    Batches that are no whole part of a look are left out, as the authors leave out the
    last one.

    Returns:
      Columns of one row per look, and accuracies in per cent on test images after
      training, 'test_clean' and 'test_robust'.

    Raises:
      ValueError: for more looks than batches.
    """
    method = methods(ball, config.coefficient)[name]
    model = one_layer(sets.shape, sets.classes, config.filters)
    images = data.device_data(sets.train)
    x, y = (jnp.asarray(a) for a in work.images(sets.held_out))
    key = jax.random.key(config.seed)
    total = len(sets.train.labels)
    chunk = -(-total // config.batch_size) // config.looks
    if chunk < 1:
        raise ValueError(
            f'looks must be at most the batches of an epoch, got {config.looks}'
        )
    state = training.create(
        model,
        optimizer(config.learning_rate, config.epochs * config.looks * chunk, 5e-4),
        key=jax.random.fold_in(key, 0),
    )
    logits_fn, rows = models.logits_fn(model, *state.result), []
    augmented = sets.train.name == 'cifar10'
    for epoch in range(config.epochs):
        order = data.epoch_indices(
            jax.random.fold_in(key, 2 + epoch), total, config.batch_size
        )
        for look in range(config.looks):
            part = jax.tree.map(
                lambda a, look=look: a[look * chunk : (look + 1) * chunk], order
            )
            state, loss, accuracy = _updates(
                augmented, method, state, images, part, key
            )
            logits_fn = models.logits_fn(model, *state.result)
            seen = measure(logits_fn, ball, jax.random.key(0), x, y)
            rows.append({
                'epoch': epoch + (look + 1) / config.looks,
                'train_loss': loss,
                'train_accuracy': accuracy,
                **seen,
            })  # fmt: skip
    columns = {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}
    strong = attacks.restarts(attacks.pgd(ball, 50, rate=0.25), config.restarts)
    found = work.evaluate(logits_fn, *work.images(sets.test), {'PGD-50': strong})
    return {
        **columns,
        'test_clean': np.float64(100 * found.clean_accuracy),
        'test_robust': np.float64(100 * found.robust_accuracy),
    }
