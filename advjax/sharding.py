"""Where arrays live: batches sharded over devices, everything else replicated.

The same rule holds for one device, several, and several processes. A batch axis is
sharded along the mesh axis 'data'; weights are replicated, or sharded as well. Programs
are written for the whole batch: XLA's partitioner gives every device its rows, and only
the mean over the batch needs communication.
"""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from advjax.types import Array

DATA = 'data'
_SMALL = 2**12
"""Arrays of fewer elements are never sharded."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices, and how training is spread over them. Hashable.

    Attributes:
      mesh: batches are sharded along its axis 'data'.
      shard_weights: between two steps every device keeps only its shard of the weights
        and of the optimizer state. A step gathers the weights once, before it attacks,
        for twice the communication.
    """

    mesh: Mesh
    shard_weights: bool = False

    @property
    def count(self) -> int:
        """The number of shards of a batch."""
        return self.mesh.shape[DATA]

    @property
    def several(self) -> bool:
        """Whether there is more than one device."""
        return self.mesh.size > 1

    def replicated(self) -> NamedSharding:
        """A whole copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def rows(self, axis: int = 0) -> NamedSharding:
        """Sharded along one axis, the batch."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, DATA))

    def weight(self, shape: tuple[int, ...]) -> NamedSharding:
        """One array of weights: sharded along its longest axis that divides evenly."""
        lengths = [n if n % self.count == 0 else 0 for n in shape]
        if not self.shard_weights or not any(lengths) or np.prod(shape) < _SMALL:
            return self.replicated()
        return self.rows(int(np.argmax(lengths)))

    def of_state(self, state: Any) -> Any:
        """The shardings of a ``TrainState``, as a pytree like it."""
        replicated = jax.tree.map(lambda _: self.replicated(), state)

        def weights(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: self.weight(leaf.shape), tree)

        mean = state.mean
        if mean is not None:
            mean = {**replicated.mean, 'params': weights(mean['params'])}
        return dataclasses.replace(
            replicated,
            params=weights(state.params),
            opt_state=weights(state.opt_state),
            mean=mean,
            carried=jax.tree.map(lambda _: self.rows(), state.carried),
        )

    def put(self, tree: Any, shardings: Any = None) -> Any:
        """Places arrays that are the same on every process; replicated by default."""
        if shardings is None:
            shardings = jax.tree.map(lambda _: self.replicated(), tree)
        return jax.tree.map(_put, tree, shardings)

    def put_rows(self, tree: Any) -> Any:
        """Places this process's rows of a batch as rows of the whole batch."""

        def one(rows: np.ndarray) -> Array:
            return jax.make_array_from_process_local_data(self.rows(), rows)

        return jax.tree.map(one, tree)

    def constrain(self, tree: Any, shardings: Any) -> Any:
        """Inside a jitted function: has XLA keep arrays where they belong."""
        if not self.several:
            return tree
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)

    def gather(self, tree: Any) -> Any:
        """Inside a jitted function: whole arrays, replicated."""
        return self.constrain(tree, jax.tree.map(lambda _: self.replicated(), tree))

    def constrain_rows(self, tree: Any) -> Any:
        """Inside a jitted function: shards a batch."""
        return self.constrain(tree, jax.tree.map(lambda _: self.rows(), tree))


def _put(leaf: Any, sharding: NamedSharding) -> Array:
    if jax.process_count() == 1:
        # A copy: on CPU device_put would share memory with NumPy.
        return jax.device_put(jnp.array(leaf, copy=True), sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raw = _put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(raw)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def placement(
    batch_size: int, mesh: Mesh | None = None, shard_weights: bool = False
) -> Placement:
    """Spreads batches over a mesh, or over every device there is.

    Args:
      batch_size: examples of a whole batch, over all processes.
      mesh: with an axis 'data'. By default all devices of all processes; in a single
        process as many devices as divide the batch.
      shard_weights: see ``Placement``.

    Raises:
      ValueError: if the mesh has no axis 'data', or its length does not divide the
        batch.
    """
    if mesh is None:
        devices = jax.devices()
        count = len(devices)
        if jax.process_count() == 1:
            count = max(n for n in range(1, count + 1) if batch_size % n == 0)
            if count < len(devices):
                warnings.warn(
                    f'batch_size {batch_size} can be sharded over {count} of '
                    f'{len(devices)} devices only: take a multiple of the latter',
                    stacklevel=3,
                )
        mesh = Mesh(np.array(devices[:count]), (DATA,))
    if DATA not in mesh.axis_names:
        raise ValueError(
            f'mesh must have an axis {DATA!r} to shard batches along, got '
            f'{mesh.axis_names}'
        )
    # Programs are written for whole arrays: axes of any type are taken as automatic.
    auto = (AxisType.Auto,) * len(mesh.axis_names)
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=auto)
    if batch_size % mesh.shape[DATA]:
        raise ValueError(
            f'batch_size must be a multiple of {mesh.shape[DATA]}, the devices along '
            f'{DATA!r}, got {batch_size}'
        )
    return Placement(mesh, shard_weights)


def fetched(tree: Any) -> Any:
    """Copies on the host, wherever the arrays are; every process must call it."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return np.array(leaf, copy=True)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)


def any_of(value: bool) -> bool:
    """Whether the value is true on any process; every process must call it."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.bool_(value))))


def shared_out(size: int) -> np.ndarray:
    """The positions of 0..size-1 that are this process's share."""
    return np.arange(size)[jax.process_index() :: jax.process_count()]


def put_together(values: np.ndarray, part: np.ndarray, size: int) -> np.ndarray:
    """The values of all processes, (size, ...); every process must call it."""
    if jax.process_count() == 1:
        return values
    whole = np.zeros((size, *values.shape[1:]), np.int32)
    whole[part] = values
    each = multihost_utils.process_allgather(whole)
    return np.asarray(each).sum(axis=0).astype(values.dtype)


def on_local_devices(tree: Any) -> Any:
    """A model or an attack on every device of this process, if there are several."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return tree
    replicated = Placement(Mesh(np.array(devices), (DATA,))).replicated()
    return jax.tree.map(lambda leaf: jax.device_put(leaf, replicated), tree)


def shard_like(model: Any, tree: Any) -> Any:
    """Shards the rows of a batch over the devices that a model is on.

    They stay as they are for a model on one device, or if they cannot be divided
    evenly.
    """
    leaves = jax.tree.leaves(model)
    first = leaves[0] if leaves else None
    at = first.sharding if isinstance(first, jax.Array) else None
    if not isinstance(at, NamedSharding) or not isinstance(at.mesh, Mesh):
        return tree
    if at.mesh.shape.get(DATA, 1) == 1:
        return tree
    place = Placement(at.mesh)

    def one(rows: Any) -> Any:
        return (
            jax.device_put(rows, place.rows()) if len(rows) % place.count == 0 else rows
        )

    return jax.tree.map(one, tree)
