r"""Data sets that hold only some of the features of another.

``restricted`` starts from other images and gives them the representation of the
originals: with that of a robust network they hold robust features only (the paper's
:math:`D_R`), with that of a standard one :math:`D_{NR}`. ``relabelled`` perturbs each
image towards another class and gives it that label: only features of the network, not
those of a human, then agree with the label (:math:`D_{rand}, D_{det}`).

Data sets are uint8 here as everywhere. Rounding changes a pixel by at most half a
level, 1/510: a 28x28 image by at most 0.055 in L2.

Both run their batches through one compiled program; every image has its own key.

Reference: Ilyas et al. 2019, arXiv 1905.02175, section 3 and appendix C.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from advjax import balls, data, keys
from advjax.attacks import Ascent
from advjax.attacks.checks import check_count, check_positive
from advjax.attacks.schedules import Schedule, constant
from advjax.balls import Bounds
from advjax.data import Dataset
from advjax.features.usefulness import FeaturesFn
from advjax.progress import Bar
from advjax.types import Array, Attack, HostArray, Key, LogitsFn, as_pytree


def invert(
    features_fn: FeaturesFn,
    target: Array,
    start: Array,
    *,
    key: Key,
    step: float = 0.1,
    steps: int = 1000,
    schedule: Schedule = constant,
    bounds: Bounds = (0.0, 1.0),
) -> Array:
    r"""Searches for an image with a given representation.

    .. math:: \arg\min_{z \in [0, 1]^d} \|g(z) - g(x)\|_2

    by gradient descent with steps of L2 length ``step``, clipped after each.

    Args:
      features_fn: g, x -> (B, F).
      target: (B, F), the representations g(x) to be matched.
      start: (B, ...) float32 images to start from.
      key: one key, or one per example. The descent itself draws nothing.
      step: length of a step, L2 in pixels.
      steps: number of steps.
      schedule: factor of the step over t in [0, 1).
      bounds: valid pixel range.

    Returns:
      The closest iterate (B, ...); the paper takes the last, which a constant step
      leaves up to ``step`` away from it.

    Raises:
      ValueError: if ``step`` or ``steps`` is not positive, without bounds, or if
        ``target`` is not of the shape of the representations.

    Reference: Ilyas et al. 2019, arXiv 1905.02175, equation 6.
    """
    if bounds is None or not bounds[0] < bounds[1]:
        raise ValueError(f'bounds must be (low, high) with low < high, got {bounds}')
    # A ball that contains the whole range, so that only the range is a constraint.
    reach = (bounds[1] - bounds[0]) * float(np.prod(start.shape[1:])) ** 0.5
    search = Ascent(
        ball=balls.l2(reach, bounds),
        rate=jnp.float32(check_positive('step', step) / reach),
        steps=check_count('steps', steps),
        schedule=schedule,
        keep_best=True,
    )

    found = jax.eval_shape(features_fn, start).shape
    if jnp.shape(target) != found:
        raise ValueError(
            f'target must have the shape of features_fn(start), {found}, got '
            f'{jnp.shape(target)}'
        )

    def closeness(z):
        return -jnp.sum(jnp.square(features_fn(z) - target), axis=1)

    return search.maximize(closeness, key, start)


def restricted(
    features_fn: FeaturesFn,
    dataset: Dataset,
    *,
    key: Key,
    step: float = 0.1,
    steps: int = 1000,
    schedule: Schedule = constant,
    batch_size: int = 256,
    progress: bool = False,
) -> Dataset:
    r"""The data set restricted to a representation: :math:`D_R`, or :math:`D_{NR}`.

    From *another* random image of the set, a search finds one with the representation
    of the original (see ``invert``), which gets the original's label. Features that the
    representation does not use come from the other image, so they are uncorrelated with
    the label.

    Args:
      features_fn: x -> (B, F): ``models.features_fn`` of an adversarially trained
        network for :math:`D_R`, of a standard one for :math:`D_{NR}`. A pytree does
        not recompile.
      dataset: what to rebuild, at least 2 images.
      key: one key.
      step: length of a step, L2 in pixels.
      steps: number of steps.
      schedule: factor of the step over t in [0, 1).
      batch_size: images per compiled call.
      progress: show a bar.

    Raises:
      ValueError: for fewer than 2 images, or a malformed set.

    Reference: Ilyas et al. 2019, arXiv 1905.02175, section 3.1: CIFAR-10 step 0.1,
    1000 steps.
    """
    if len(dataset.labels) < 2:
        raise ValueError(
            f'dataset must hold at least 2 images, got {len(dataset.labels)}'
        )
    check_positive('step', step)
    check_count('steps', steps)
    on_device = data.device_data(dataset)

    def rebuilt(batch):
        return _restrict(
            as_pytree(features_fn), on_device, batch, keys.typed(key),
            step=step, steps=steps, schedule=schedule,
        )  # fmt: skip

    images = _in_batches(rebuilt, dataset, batch_size, progress)
    return dataset._replace(images=images, split=f'{dataset.split}, restricted')


@functools.partial(jax.jit, static_argnames=('step', 'steps', 'schedule'))
def _restrict(features_fn, on_device, batch, key, *, step, steps, schedule):
    x = data.take(on_device, batch)['image']
    each = keys.of_index(key, batch.index)
    size = on_device.labels.shape[0]
    # 1 to N - 1 further on: any image but its own.
    further = keys.draw(
        lambda k: jax.random.randint(k, (), 1, size), keys.fold(each, 0)
    )
    start = data.to_float(on_device.images[(batch.index + further) % size])
    found = invert(
        features_fn, features_fn(x), start, key=keys.fold(each, 1),
        step=step, steps=steps, schedule=schedule,
    )  # fmt: skip
    return _to_bytes(found)


def relabelled(
    logits_fn: LogitsFn,
    attack: Attack,
    dataset: Dataset,
    targets: Literal['random', 'next'] | HostArray = 'random',
    *,
    key: Key,
    batch_size: int = 256,
    progress: bool = False,
) -> Dataset:
    r"""Images moved towards another class, and labelled with it.

    .. math:: x' = \arg\min_{x' \in B(x)} L(f(x'), t), \qquad \text{labelled } t

    To a human the labels are wrong (with 'random', all but one in K). A network that
    learns from them to classify *clean* images has learnt from features that an
    adversary can change within the ball.

    Args:
      logits_fn: the network whose features the images get. A pytree does not recompile.
      attack: takes ``target=``; the paper's is ``pgd(l2(0.5), steps=100, rate=0.2,
        start=clean, keep_best=False)``.
      dataset: the images to move.
      key: one key.
      targets: 'random': t is uniform over all classes (:math:`D_{rand}`, in which
        robust features tell nothing of the label); 'next': t = (y + 1) mod K
        (:math:`D_{det}`, in which they mislead); or (N,) classes.
      batch_size: images per compiled call.
      progress: show a bar.

    Raises:
      ValueError: for other targets, or a malformed set.

    Reference: Ilyas et al. 2019, arXiv 1905.02175, section 3.2 and equation 7.
    """
    classes = len(dataset.class_names)
    for_target, for_attack = jax.random.split(keys.typed(key))
    t = _targets(targets, dataset.labels, classes, for_target)
    on_device = data.device_data(dataset)

    def moved(batch):
        return _move(
            as_pytree(attack), as_pytree(logits_fn), on_device, batch, for_attack,
            jnp.asarray(t)[batch.index],
        )  # fmt: skip

    images = _in_batches(moved, dataset, batch_size, progress)
    return dataset._replace(
        images=images, labels=t, split=f'{dataset.split}, relabelled'
    )


@jax.jit
def _move(attack, logits_fn, on_device, batch, key, target):
    real = data.take(on_device, batch)
    each = keys.of_index(key, batch.index)
    found = attack(logits_fn, each, real['image'], real['label'], target=target)
    return _to_bytes(found)


def _targets(targets: Any, y: np.ndarray, classes: int, key: Key) -> np.ndarray:
    size = len(y)
    if isinstance(targets, str):
        if targets == 'next':
            return ((y + 1) % classes).astype(np.int32)
        if targets == 'random':
            each = keys.per_example(key, size)
            drawn = keys.draw(lambda k: jax.random.randint(k, (), 0, classes), each)
            return np.asarray(drawn, np.int32)
        raise ValueError(
            f"targets must be 'random', 'next' or an array, got {targets!r}"
        )
    t = np.asarray(targets)
    if t.shape != (size,) or not np.issubdtype(t.dtype, np.integer):
        raise ValueError(
            f'targets must be ({size},) integers, got {t.dtype} of shape {t.shape}'
        )
    if t.min() < 0 or t.max() >= classes:
        raise ValueError(
            f'targets must lie in 0..{classes - 1}, got {t.min()}..{t.max()}'
        )
    return t.astype(np.int32)


def _to_bytes(x: Array) -> Array:
    return jnp.round(jnp.clip(x, 0, 1) * 255).astype(jnp.uint8)


def _in_batches(
    made: Callable[[Any], Array], dataset: Dataset, batch_size: int, progress: bool
) -> np.ndarray:
    """The images ``made`` of each batch, in order; the last batch is padded."""
    size = len(dataset.labels)
    check_count('batch_size', batch_size)
    batches = data.sequential_indices(size, min(batch_size, size))
    images = np.empty_like(dataset.images)
    with Bar(progress, size, 'image') as bar:
        for i in range(len(batches.index)):
            batch = jax.tree.map(lambda rows, i=i: rows[i], batches)
            index, mask = np.asarray(batch.index), np.asarray(batch.mask)
            images[index[mask]] = np.asarray(made(batch))[mask]
            bar.at(int(index[mask][-1]) + 1, dataset.split)
    return images
