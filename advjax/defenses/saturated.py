r"""Saturated logits: :math:`T z(x)`, whose softmax is exactly 0 and 1.

The effect of defensive distillation at temperature T, tested at 1. The predictions are
those of the network, but in float32 the cross entropy has no gradient (vanishing).
Broken by dividing the logits by T, or by any loss that is invariant to their scale.

Reference: Papernot et al. 2016, arXiv 1511.04508; Carlini and Wagner 2016, arXiv
1607.04311, and 2017, arXiv 1608.04644.
"""

from advjax import attacks
from advjax.defenses.defended import Defended
from advjax.types import LogitsFn


def saturated(logits_fn: LogitsFn, factor: float = 100.0) -> Defended:
    """A network with its logits multiplied by T, ``factor``.

    Raises:
      ValueError: if ``factor`` is not a finite number > 0.
    """
    if not 0 < factor < float('inf'):
        raise ValueError(f'factor must be a finite number > 0, got {factor!r}')
    deployed = attacks.rescaled(logits_fn, 1 / factor)
    return Defended(deployed, deployed, attacks.rescaled(deployed, factor))
