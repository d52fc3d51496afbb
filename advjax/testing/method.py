"""The laws of a training method.

    method = training.method(attacks.pgd(0.1, 2, keep_best=False), my_outer)
    testing.check_method(method)

A failure names the law that broke and shows the smallest batch that breaks it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import balls, models, training
from advjax.models import Model
from advjax.testing.broken import LawBrokenError
from advjax.training import Method, TrainState
from advjax.types import Array, Key

SHAPE, CLASSES, BATCH = (3, 4, 1), 3, 4
"""Of the network and the batch that methods are run on."""

ATOL = 2e-5
"""Between two programs of one equation, on weights of size one."""


def the_key() -> Key:
    """The key of all trials; made when it is needed, since importing makes no array."""
    return jax.random.key(11)


SGD = optax.sgd(0.5)


def network() -> Model:
    """A small smooth network that has all that a method may ask for.

    It answers ``branch=``, and leaves a loss on its weights in its state.
    """

    def init(key):
        one, two = jax.random.split(key)
        size = int(np.prod(SHAPE))
        params = {
            'hidden': jax.random.normal(one, (size, 8)) / size**0.5,
            'bias': jnp.zeros((1, 8)),
            'out': jax.random.normal(two, (8, CLASSES)),
        }
        return params, {'loss': jnp.zeros(())}

    def apply(params, state, x, train=False, key=None, branch=0):
        del state, train, key
        flat = x.reshape(x.shape[0], -1)
        hidden = jnp.tanh(flat @ params['hidden'] + params['bias'] + 0.3 * branch)
        loss = 0.01 * jnp.sum(jnp.square(params['out']))
        return hidden @ params['out'], {'loss': loss}

    return Model(init, apply)


_MODEL = network()


def trained(seed: int) -> Any:
    """Another network, as a logits function: a teacher or a source."""
    return models.logits_fn(_MODEL, *_MODEL.init(jax.random.key(seed)))


class Batch(NamedTuple):
    """Images in the open range (0, 1), their labels, and their data-set indices."""

    x: Array
    y: Array
    index: Array

    def first(self, size: int) -> 'Batch':
        """Its first examples."""
        return Batch(*(rows[:size] for rows in self))

    def padded(self, value: float) -> dict[str, Array]:
        """The batch and two examples that only pad it."""
        size = len(self.y)
        x = jnp.concatenate([self.x, jnp.full((2, *SHAPE), value)])
        y = jnp.concatenate([self.y, jnp.array([2, 0], self.y.dtype)])
        index = jnp.concatenate([self.index, jnp.array([90, 91])])
        mask = jnp.arange(size + 2) < size
        return {'image': x, 'label': y, 'index': index, 'mask': mask}

    def plain(self) -> dict[str, Array]:
        """The batch as ``training.step`` takes it."""
        return {'image': self.x, 'label': self.y, 'index': self.index}


def batch() -> Batch:
    """The batch that methods are run on."""
    x = jax.random.uniform(the_key(), (BATCH, *SHAPE), minval=0.05, maxval=0.95)
    return Batch(x, jnp.arange(BATCH, dtype=jnp.int32) % CLASSES, jnp.arange(BATCH))


_STEP = jax.jit(training.step)
_CHECKS = itertools.count()


def _start(method: Method, size: int) -> TrainState:
    shape = (size, *SHAPE)
    return training.create(_MODEL, SGD, key=the_key(), method=method, shape=shape)


def _two(
    method: Method, given: dict[str, Array], step: Any = _STEP, count: int = 2
) -> Any:
    """Two steps: what a method carries from the first shows in the second."""
    state, metrics = _start(method, len(given['label'])), {}
    for _ in range(count):
        state, metrics = step(method, state, given, the_key())
    return {
        'params': state.params,
        'loss': metrics['loss'],
        'accuracy': metrics['accuracy'],
        'count': state.totals['count'],
    }


def _close(one: Any, other: Any, atol: float = ATOL) -> None:
    chex.assert_trees_all_close(one, other, atol=atol, rtol=1e-4)


def _limit(reduced: Method, stated: Method) -> Callable[[Method, Batch], None]:
    def law(method: Method, given: Batch) -> None:
        del method
        plain = given.plain()
        one, other = _two(reduced, plain), _two(stated, plain)
        _close(one['params'], other['params'])

    return law


def _radius_zero(method: Method, given: Batch) -> None:
    if not balls.of(method.inner):
        return
    still = balls.with_eps(method, jnp.float32(0))
    f = models.logits_fn(_MODEL, *_MODEL.init(the_key()), **dict(method.view))
    found = jax.jit(lambda inner: inner(f, the_key(), given.x, given.y))(still.inner)
    for images in jax.tree.leaves(found):
        chex.assert_trees_all_close(images, given.x, atol=1e-6)


def _outer_shape(method: Method, given: Batch) -> None:
    state = _start(method, len(given.y))
    jax.eval_shape(training.step, method, state, given.plain(), the_key())


@dataclasses.dataclass(frozen=True)
class _Mean:
    """What an author easily writes: the mean loss of the batch."""

    outer: Any

    def __call__(self, *args: Any) -> Any:
        loss, logits, state = self.outer(*args)
        return jnp.mean(loss), logits, state


def _mean_refused(method: Method, given: Batch) -> None:
    wrong = dataclasses.replace(
        method, outer=jax.tree_util.Partial(_Mean(method.outer))
    )
    state = _start(wrong, len(given.y))
    try:
        jax.eval_shape(training.step, wrong, state, given.plain(), the_key())
    except ValueError as error:
        if '_Mean' in str(error):
            return
        raise
    raise AssertionError('the mean of the losses is trained on without a word')


def _mask(method: Method, given: Batch) -> None:
    alone, one, other = (
        _two(method, rows)
        for rows in (given.plain(), given.padded(0.1), given.padded(0.9))
    )
    chex.assert_trees_all_equal(one, other)
    _close(alone, one)


def _same_key(method: Method, given: Batch) -> None:
    chex.assert_trees_all_equal(*(_two(method, given.plain()) for _ in range(2)))


def _jit(method: Method, given: Batch) -> None:
    eager, compiled = (
        _two(method, given.plain(), step, count=1) for step in (training.step, _STEP)
    )
    _close(eager, compiled)


def _one_trace(method: Method, given: Batch) -> None:
    def step(method, state, rows):
        return training.step(method, state, rows, the_key())

    # Chex counts by name and source: every check has a count of its own.
    step.__name__ = f'step_{next(_CHECKS)}'
    step = jax.jit(chex.assert_max_traces(step, 1))

    def numbers(eps):
        if balls.of(method):
            return balls.with_eps(method, jnp.float32(eps))
        return jax.tree.map(lambda leaf: leaf * jnp.asarray(eps, leaf.dtype), method)

    state = _start(method, len(given.y))
    for eps in (0.1, 0.2):
        step.trace(numbers(eps), state, given.plain())


def _moves(method: Method, given: Batch) -> None:
    state = _start(method, len(given.y))
    new, metrics = _STEP(method, state, given.plain(), the_key())
    chex.assert_tree_all_finite(new.params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    if not bool(metrics['finite']):
        raise AssertionError('the loss or its gradient is not finite')
    if int(new.step) != 1:
        raise AssertionError(f'the step after the first is {int(new.step)}, not 1')


LAWS: dict[str, Callable[[Method, Batch], None]] = {
    'outer loss: returns losses (B,), logits (B, K) and state': _outer_shape,
    'outer loss: a mean over the batch is refused by name': _mean_refused,
    'step: weights, loss and gradient stay finite': _moves,
    'radius 0: the inner maximum is the clean image': _radius_zero,
    'key: the same key gives the same result': _same_key,
    'mask: examples that pad the batch change nothing': _mask,
    'jit: the compiled step is the eager one': _jit,
    'trace: two radii are one program': _one_trace,
}
"""What every method must satisfy; each raises an error where it does not."""


def check_method(
    method: Method, *, limits: Sequence[tuple[str, Method, Method]] = ()
) -> None:
    """Checks that a training method obeys the laws of its contract.

    >>> from advjax import testing, training
    >>> testing.check_method(training.fast(0.1))

    Args:
      method: what to check; networks within it take images of ``SHAPE`` and answer with
        ``CLASSES`` logits (see ``trained``).
      limits: further laws: words, the method at a limit such as eps = 0, and the method
        that it must then equal (see ``training.Entry.at_limits``).

    Raises:
      LawBrokenError: naming the law that is broken, with the smallest batch.
    """
    laws = dict(LAWS)
    for words, reduced, stated in limits:
        laws[f'limit: {words}'] = _limit(reduced, stated)
    for name, law in laws.items():
        _check(name, law, method)


def _check(name: str, law: Any, method: Method) -> None:
    whole = batch()
    if _broken(law, method, whole) is None:
        return
    for size in range(1, BATCH + 1):
        given = whole.first(size)
        error = _broken(law, method, given)
        if error is not None:
            rows = np.asarray(given.x).reshape(size, -1).round(3).tolist()
            smallest = (
                f'x = {rows}\ny = {np.asarray(given.y).tolist()}, key = {the_key()}'
            )
            raise LawBrokenError(name, error, smallest) from error


def _broken(law: Any, method: Method, given: Batch) -> Exception | None:
    try:
        law(method, given)
    except Exception as error:  # Whatever a method raises here breaks the law.
        return error
    return None
