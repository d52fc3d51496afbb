"""A pass of the network in train mode, as an outer loss gets it."""

import dataclasses
import functools
from typing import Any

import jax

from advjax.models import Model
from advjax.types import Array, Key, Params, State


@dataclasses.dataclass(frozen=True)
class Forward:
    """Runs the network on images: ``forward(state, x) -> (logits, state)``.

    A pure function: equal arguments give equal logits. The passes of one outer loss
    draw their dropout apart by ``draw``.

    Attributes:
      mask: (B,) bool, False where an example only pads the batch. The step leaves its
        loss out; only a loss that ties examples together has to look.
    """

    mask: Array
    _model: Model
    _params: Params
    _model_state: State
    _images: Array
    _key: Key

    def __call__(
        self, state: State, x: Array, *, draw: int = 0, **view: Any
    ) -> tuple[Array, State]:
        """Returns logits (B, K) and the new state.

        Args:
          state: what the pass before returned, or what the outer loss was given.
          x: images, (B, ...).
          draw: number of the dropout mask. Passes with the same one share it.
          **view: of the model, such as ``branch=1``.
        """
        key = jax.random.fold_in(self._key, 1 + draw)
        return self._model.apply(self._params, state, x, train=True, key=key, **view)

    @functools.cached_property
    def classes(self) -> int:
        """K, from the shapes of the model alone."""
        known = self._params, self._model_state, self._images
        return jax.eval_shape(self._model.apply, *known)[0].shape[1]
