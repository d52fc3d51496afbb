"""One min-max step as a pure function; the caller owns jit, sharding, donation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from advjax import keys, models
from advjax.losses import hard
from advjax.models import Model
from advjax.training.methods import Method
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
      carried: what the adversary carries from batch to batch (``free``), or None.
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
    key: Key,
    *,
    method: Method | None = None,
    shape: tuple[int, ...] | None = None,
    averaging: Any = None,
) -> TrainState:
    """Initialises a network and its optimizer. Pure; may be jitted.

    Args:
      model: the network.
      optimizer: any optax optimizer.
      key: of the initial weights.
      method: needed for one whose adversary carries something on (``free``).
      shape: (B, ...) of a batch of images; needed for the same.
      averaging: from ``ema`` or ``swa``, or None.

    Raises:
      ValueError: if the method carries something on and ``shape`` is missing.
    """
    params, model_state = model.init(key)
    carried = None
    if method is not None and hasattr(method.inner, 'begin'):
        if shape is None:
            raise ValueError('shape of a batch must be given: the method carries noise')
        carried = method.inner.begin(tuple(shape))
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


def step(
    method: Method, state: TrainState, batch: dict[str, Array], key: Key
) -> tuple[TrainState, dict[str, Array]]:
    """Attacks a batch, then takes one step of the optimizer on the outer loss.

    Args:
      method: what to train for; a pytree, so its eps may change every step.
      state: from ``create``.
      batch: 'image' (B, ...) float32 in [0, 1], 'label' (B,) or (B, K) probabilities,
        and optionally 'mask' (B,) bool, False where an example only fills the batch
        up, and 'index' (B,) data-set positions, to which the attack's randomness then
        belongs.
      key: one key for the whole training; the step is folded in here.

    Returns:
      The new state and {'loss', 'accuracy', 'finite'} of this step, scalars.

    Raises:
      ValueError: if the method carries something on that the state does not hold.
    """
    x, y = batch['image'], batch['label']
    size = x.shape[0]
    mask = batch['mask'] if 'mask' in batch else jnp.ones((size,), bool)
    index = batch['index'] if 'index' in batch else jnp.arange(size)
    now = jax.random.fold_in(keys.typed(key), state.step)
    for_attack, for_model = jax.random.split(now)
    method = method.at(state.step)

    # An adversary that plays at the same time answers to the outer gradient itself;
    # all others have made up their minds before.
    together = hasattr(method.inner, 'reply')
    if together:
        if state.carried is None:
            raise ValueError(
                'state must carry the noise of the method: create(..., method=, shape=)'
            )
        x_adv = method.inner.images(state.carried, x)
    else:
        logits_fn = _attacked(method, state, for_model)
        x_adv = method.inner(logits_fn, keys.of_index(for_attack, index), x, y)
        x_adv = jax.lax.stop_gradient(x_adv)

    def total(params, x_adv):
        passes = iter(range(1, 1000))  # Every forward pass has its own dropout.

        def forward(model_state, images, **view):
            draw = jax.random.fold_in(for_model, next(passes))
            return state.model.apply(
                params, model_state, images, train=True, key=draw, **view
            )

        losses, logits, model_state = method.outer(
            forward, state.model_state, x, x_adv, y
        )
        summed = jnp.sum(jnp.where(mask, losses, 0))
        count = jnp.maximum(jnp.sum(mask.astype(losses.dtype)), 1)
        right = jnp.argmax(logits, axis=1) == hard(y)
        correct = jnp.sum((mask & right).astype(jnp.float32))
        return summed / count, (model_state, summed, correct, count)

    at = state.params
    if method.on_weights is not None:
        at = method.on_weights(lambda params: total(params, x_adv)[0], state.params)
        at = jax.lax.stop_gradient(at)
    carried = state.carried
    if together:
        differentiated = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
        (loss, aux), (gradient, reply) = differentiated(at, x_adv)
        carried = method.inner.reply(state.carried, reply)
    else:
        differentiated = jax.value_and_grad(total, has_aux=True)
        (loss, aux), gradient = differentiated(at, x_adv)
    model_state, summed, correct, count = aux
    updates, opt_state = state.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree_utils.tree_norm(gradient))
    sums = {'loss': summed, 'correct': correct, 'count': count}
    mean = state.mean
    if mean is not None:
        new = {'params': params, 'model_state': model_state}
        mean = state.averaging(mean, new, state.step)
    moved = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        totals=jax.tree.map(jnp.add, state.totals, sums),
        carried=carried,
        mean=mean,
    )
    stopped = dataclasses.replace(
        state, failed_at=jnp.where(state.failed_at < 0, state.step, state.failed_at)
    )
    go = finite & (state.failed_at < 0)
    new = jax.tree.map(lambda a, b: jnp.where(go, a, b), moved, stopped)
    return new, {'loss': loss, 'accuracy': correct / count, 'finite': finite}


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
