"""One row of the catalogue: what an attack needs and costs, and its paper.

The table of the README, the laws, the degenerate inputs, threat models, the command
line and the benchmarks are made from the rows in ``attacks.table``.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from advjax import balls
from advjax.attacks.search import calls_of

Knowledge = Literal['white box', 'scores', 'decisions', 'transfer']
LooksFor = Literal['fixed radius', 'minimum norm', 'other']


@dataclasses.dataclass(frozen=True)
class Entry:
    """One attack of the library.

    Attributes:
      factory: the function in ``advjax.attacks``; its first argument is the ball, if
        there are norms.
      norms: of the balls it is defined on, the usual one first.
      looks_for: 'fixed radius', 'minimum norm' or 'other'.
      knowledge: what it must know of the model.
      paper: first author, year, arXiv id.
      quick: options of a short run, for trials and tests.
    """

    factory: Callable[..., Any]
    norms: tuple[str, ...]
    looks_for: LooksFor
    knowledge: Knowledge
    paper: str
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the factory."""
        return self.factory.__name__

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the factory's arguments."""
        return tuple(inspect.signature(self.factory).parameters)

    def build(
        self, norm: str | None = None, eps: float | None = None, **options: Any
    ) -> Any:
        """The attack in a ball on [0, 1].

        Args:
          norm: one of ``norms``; the first by default.
          eps: the radius; by default infinite for minimum-norm attacks, and for the
            others 0.3, 2, 10 and 10 in Linf, L2, L1 and L0.
          **options: of the factory; its own defaults by default.

        Raises:
          ValueError: if the attack is not defined in that norm, or has no such option.
        """
        for option in options:
            if option not in self.options:
                raise ValueError(f'{self.name} has no option {option!r}')
        if not self.norms:
            return self.factory(**options)
        norm = norm or self.norms[0]
        if norm not in self.norms:
            raise ValueError(
                f'norm of {self.name} must be one of {list(self.norms)}, got {norm!r}'
            )
        if eps is None:
            usual = {'linf': 0.3, 'l2': 2.0, 'l1': 10.0, 'l0': 10.0}[norm]
            eps = float('inf') if self.looks_for == 'minimum norm' else usual
        return self.factory(balls.of_norm(norm, eps), **options)

    @property
    def cost(self) -> int | None:
        """Model calls per example by default, in the first norm; None if unknown."""
        return calls_of(self.build())


def markdown(entries: Iterable[Entry]) -> str:
    """A table of entries in Markdown."""
    lines = [
        '| attack | norms | looks for | knowledge | model calls | paper |',
        '|---|---|---|---|---:|---|',
    ]
    for entry in entries:
        calls = entry.cost
        cost = f'{calls:,}' if calls else 'as needed'
        norms = (
            ', '.join(norm.capitalize() for norm in entry.norms) or 'rotation, shift'
        )
        lines.append(
            f'| `{entry.name}` | {norms} | {entry.looks_for} | {entry.knowledge} | '
            f'{cost} | {entry.paper} |'
        )
    return '\n'.join(lines)
