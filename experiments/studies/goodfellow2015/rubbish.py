"""Rubbish class examples: inputs of no class at all, and how sure a model is of them.

A model that answers with a class where there is none makes an error of a kind that
test accuracy does not see.

Reference: Goodfellow et al. 2015, arXiv 1412.6572, appendix A; the name from LeCun et
al. 1998.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advjax import keys
from advjax.evaluation.verify import logits_of
from advjax.types import Array, Key, LogitsFn, as_pytree

_PROBABILITIES: dict[str, Callable] = {
    'softmax': jax.nn.softmax,
    'sigmoid': jax.nn.sigmoid,
}


class Rubbish(NamedTuple):
    """What a model made of noise.

    Attributes:
      error: share of the samples where some class has more than half the probability.
      confidence: mean of that probability over those samples; NaN if there are none.
      classes: (K,) how many of those samples were taken for each class.
    """

    error: float
    confidence: float
    classes: np.ndarray


def rubbish(
    logits_fn: LogitsFn,
    shape: tuple[int, ...],
    *,
    key: Key,
    samples: int = 10_000,
    probabilities: str = 'softmax',
    threshold: float = 0.5,
    batch_size: int = 500,
) -> Rubbish:
    r"""Counts the classes that a model sees in Gaussian noise, :math:`N(0, I)`.

    Args:
      logits_fn: the model, x -> (B, K) logits; a pytree does not recompile.
      key: one key; sample i is drawn from ``fold_in(key, i)``.
      shape: shape of one input.
      samples: how many are drawn.
      probabilities: 'softmax', or 'sigmoid' for a model whose classes do not compete.
      threshold: the probability above which a class counts as seen.
      batch_size: samples per compiled call.

    Raises:
      ValueError: if a number is out of range or ``probabilities`` unknown.
    """
    for name, value in (('samples', samples), ('batch_size', batch_size)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f'{name} must be an integer >= 1, got {value!r}')
    if not 0 <= threshold < 1:
        raise ValueError(f'threshold must lie in [0, 1), got {threshold}')
    if probabilities not in _PROBABILITIES:
        raise ValueError(
            f'probabilities must be one of {list(_PROBABILITIES)}, got '
            f'{probabilities!r}'
        )
    model = as_pytree(logits_fn)
    size = min(batch_size, samples)
    found = []
    for start in range(0, samples, size):
        index = jnp.arange(start, start + size)
        noise = _draw(keys.typed(key), index, tuple(shape))
        found.append(logits_of(model, noise))
    logits = np.concatenate(found)[:samples]
    p = np.asarray(_PROBABILITIES[probabilities](jnp.asarray(logits)))
    best, answer = p.max(axis=1), p.argmax(axis=1)
    seen = best > threshold
    return Rubbish(
        error=float(seen.mean()),
        confidence=float(best[seen].mean()) if seen.any() else float('nan'),
        classes=np.bincount(answer[seen], minlength=p.shape[1]),
    )


def _normal(key: Key, index: Array, shape: tuple[int, ...]) -> Array:
    each = keys.of_index(key, index)
    return keys.draw(lambda k: jax.random.normal(k, shape), each)


_draw = jax.jit(_normal, static_argnums=2)
