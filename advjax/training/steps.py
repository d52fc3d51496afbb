"""One min-max step as a pure function; the caller owns jit, sharding, donation."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax import keys, models
from advjax.losses import hard
from advjax.models import Model
from advjax.training.forward import Forward
from advjax.training.methods import Method, name_of
from advjax.types import Array, Key, LogitsFn, Params, State, dataclass


@dataclass
class TrainState:
    """All that training changes.

    Attributes:
      step: number of updates made.
      params: what is optimised.
      model_state: BatchNorm statistics and the like, or {}.
      opt_state: the optimizer's.
      failed_at: the step whose loss or gradient was not finite, or -1. From then on
        nothing changes any more, so the last good state is never lost.
      totals: sums over this epoch: 'loss', 'correct' (answers on the images that
        were trained on) and 'count'.
      carried: what ``Method.update`` carries from batch to batch (the noise of
        ``free``), or None.
      mean: the averaged 'params' and 'model_state', or None without averaging.
      averaging: from ``ema`` or ``swa``, or None.
      model: the network.
      optimizer: the optax optimizer.
    """

    step: Array
    params: Params
    model_state: State
    opt_state: Any
    failed_at: Array
    totals: dict[str, Array]
    carried: Any
    mean: Any
    averaging: Any
    model: Model = struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = struct.field(pytree_node=False)

    @property
    def result(self) -> tuple[Params, State]:
        """Parameters and statistics of the network as it is to be used."""
        if self.mean is None:
            return self.params, self.model_state
        return self.mean['params'], self.mean['model_state']


def no_totals() -> dict[str, Array]:
    """The sums at the beginning of an epoch."""
    return {name: jnp.zeros(()) for name in ('loss', 'correct', 'count')}


def create(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    key: Key,
    method: Method | None = None,
    shape: tuple[int, ...] | None = None,
    averaging: Any = None,
) -> TrainState:
    """Initialises a network and its optimizer. Pure; may be jitted.

    Args:
      model: the network.
      optimizer: any optax optimizer.
      key: of the initial weights.
      method: needed if it carries something from batch to batch (``free``).
      shape: (B, ...) of a batch of images; needed for the same.
      averaging: from ``ema`` or ``swa``, or None.

    Raises:
      ValueError: if the method carries something and ``shape`` is missing.
    """
    params, model_state = model.init(key)
    carried = None
    if method is not None and method.update is not None:
        if shape is None:
            raise ValueError('shape of a batch must be given: the method carries noise')
        carried = method.update.begin(tuple(shape))
    mean = None
    if averaging is not None:
        # A copy: donated buffers may not appear twice.
        mean = {'params': params, 'model_state': model_state}
        mean = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), mean)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        failed_at=jnp.full((), -1, jnp.int32),
        totals=no_totals(),
        carried=carried,
        mean=mean,
        averaging=averaging,
        model=model,
        optimizer=optimizer,
    )


class Task(NamedTuple):
    """One batch, and the randomness of one step.

    Attributes:
      x: images, (B, ...).
      y: labels, (B,), or (B, K) probabilities.
      mask: (B,) bool, False where an example only pads the batch.
      attack_keys: (B,), one per example.
      model_key: of dropout.
    """

    x: Array
    y: Array
    mask: Array
    attack_keys: Key
    model_key: Key


class Sums(NamedTuple):
    """What a pass over a batch leaves besides its mean loss; sums without padding."""

    model_state: State
    loss: Array
    correct: Array
    count: Array


class Differentiated(NamedTuple):
    """The outer loss, its gradient in the weights, and what is carried on."""

    loss: Array
    sums: Sums
    gradient: Params
    carried: Any


def step(
    method: Method, state: TrainState, batch: dict[str, Array], key: Key
) -> tuple[TrainState, dict[str, Array]]:
    """Attacks a batch, then takes one step of the optimizer on the outer loss.

    >>> import jax, optax
    >>> from advjax import training, zoo
    >>> model, key = zoo.mlp((4, 4, 1), 3, (8,)), jax.random.key(0)
    >>> x, y = jax.random.uniform(key, (6, 4, 4, 1)), jax.numpy.arange(6) % 3
    >>> state = training.create(model, optax.sgd(0.1), key=key)
    >>> batch = {'image': x, 'label': y}
    >>> state, metrics = jax.jit(training.step)(training.fast(0.1), state, batch, key)
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'finite', 'loss'])

    Args:
      method: what to train for; a pytree, so its eps may change every step.
      state: from ``create``.
      batch: 'image' (B, ...) float32 in [0, 1], 'label' (B,) or (B, K) probabilities,
        and optionally 'mask' (B,) bool, False where an example only pads the batch,
        and 'index' (B,) data-set positions, to which the attack's randomness then
        belongs.
      key: one key for the whole training; the step is folded in here.

    Returns:
      The new state and {'loss', 'accuracy', 'finite'} of this step, scalars.

    Raises:
      ValueError: if the outer loss does not return losses, logits and state, or the
        method carries something that the state does not hold.
    """
    x, y = batch['image'], batch['label']
    size = x.shape[0]
    mask = batch['mask'] if 'mask' in batch else jnp.ones((size,), bool)
    index = batch['index'] if 'index' in batch else jnp.arange(size)
    now = jax.random.fold_in(keys.typed(key), state.step)
    for_attack, for_model = jax.random.split(now)
    method = method.at(state.step)
    task = Task(x, y, mask, keys.of_index(for_attack, index), for_model)
    update = alternating if method.update is None else method.update
    return _moved(state, update(method, state, task))


def alternating(method: Method, state: TrainState, task: Task) -> Differentiated:
    """The ordinary step: the images are found first, then held constant."""
    logits_fn = _attacked(method, state, task.model_key)
    x_adv = method.inner(logits_fn, task.attack_keys, task.x, task.y)
    x_adv = jax.lax.stop_gradient(x_adv)
    loss = objective(method, state, task)
    at = weights(method, state, lambda params: loss(params, x_adv)[0])
    differentiated = jax.value_and_grad(loss, has_aux=True)
    (value, sums), gradient = differentiated(at, x_adv)
    return Differentiated(value, sums, gradient, state.carried)


def objective(
    method: Method, state: TrainState, task: Task
) -> Callable[[Params, Any], tuple[Array, Sums]]:
    """The mean outer loss of a batch, as a function of weights and images found."""

    def mean(params: Params, x_adv: Any) -> tuple[Array, Sums]:
        forward = Forward(
            task.mask, state.model, params, state.model_state, task.x, task.model_key
        )
        result = method.outer(forward, state.model_state, task.x, x_adv, task.y)
        losses, logits, model_state = _checked(method.outer, result, state, task)
        summed = jnp.sum(jnp.where(task.mask, losses, 0))
        count = jnp.maximum(jnp.sum(task.mask.astype(losses.dtype)), 1)
        right = jnp.argmax(logits, axis=1) == hard(task.y)
        correct = jnp.sum((task.mask & right).astype(jnp.float32))
        return summed / count, Sums(model_state, summed, correct, count)

    return mean


def weights(
    method: Method, state: TrainState, loss: Callable[[Params], Array]
) -> Params:
    """Where the gradient is taken: the weights, or the worst ones near them."""
    if method.on_weights is None:
        return state.params
    return jax.lax.stop_gradient(method.on_weights(loss, state.params))


def _checked(outer: Any, result: Any, state: TrainState, task: Task) -> Any:
    """Refuses results of a wrong shape, which broadcasting would hide."""
    size = task.x.shape[0]
    shapes = jax.tree.map(jnp.shape, result)
    like = jax.tree.structure(state.model_state)
    if (
        not isinstance(result, tuple)
        or len(result) != 3
        or shapes[0] != (size,)
        or not (isinstance(shapes[1], tuple) and len(shapes[1]) == 2)
        or shapes[1][0] != size
        or jax.tree.structure(result[2]) != like
    ):
        raise ValueError(
            f'the outer loss {name_of(outer)} must return (losses ({size},), logits '
            f'({size}, K), state as it was given), got shapes {shapes}'
        )
    return result


def _moved(
    state: TrainState, found: Differentiated
) -> tuple[TrainState, dict[str, Array]]:
    """Updates weights, sums and averages, unless something is not finite."""
    loss, sums, gradient, carried = found
    updates, opt_state = state.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree_utils.tree_norm(gradient))
    totals = {'loss': sums.loss, 'correct': sums.correct, 'count': sums.count}
    mean = state.mean
    if mean is not None:
        new = {'params': params, 'model_state': sums.model_state}
        mean = state.averaging(mean, new, state.step)
    moved = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        model_state=sums.model_state,
        opt_state=opt_state,
        totals=jax.tree.map(jnp.add, state.totals, totals),
        carried=carried,
        mean=mean,
    )
    stopped = dataclasses.replace(
        state, failed_at=jnp.where(state.failed_at < 0, state.step, state.failed_at)
    )
    go = finite & (state.failed_at < 0)
    new = jax.tree.map(lambda a, b: jnp.where(go, a, b), moved, stopped)
    accuracy = sums.correct / sums.count
    return new, {'loss': loss, 'accuracy': accuracy, 'finite': finite}


def _attacked(method: Method, state: TrainState, key: Key) -> LogitsFn:
    """The network as the inner attack sees it."""
    view = dict(method.view)
    if not method.train_mode:
        return models.logits_fn(state.model, state.params, state.model_state, **view)
    frozen = jax.tree_util.Partial(_in_train_mode(state.model.apply, view))
    return jax.tree_util.Partial(
        frozen, state.params, state.model_state, jax.random.fold_in(key, 0)
    )


def _in_train_mode(apply: Callable, view: dict[str, Any]) -> Callable:
    def logits(params, model_state, key, x, **other):
        # The state the pass would leave behind is dropped: attacks change nothing.
        seen = {**view, **other}
        return apply(params, model_state, x, train=True, key=key, **seen)[0]

    return logits
