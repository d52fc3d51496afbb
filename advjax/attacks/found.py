"""What a black-box attack returns besides its result: what it cost."""

from typing import NamedTuple

from advjax.types import Array


class Found(NamedTuple):
    """The result of ``attack.search(logits_fn, key, x, y)``.

    Attributes:
      x: (B, ...) the best point.
      queries: (B,) model calls spent on each example, until it was fooled or the
        budget was spent.
    """

    x: Array
    queries: Array
