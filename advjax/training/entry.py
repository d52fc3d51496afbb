"""One line of the catalogue of training methods."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from advjax.balls import Ball
from advjax.training.methods import Method
from advjax.training.named import pgd_at
from advjax.types import LogitsFn

Adversary = Literal['none', 'random', 'inner maximum', 'simultaneous', 'of the method']
Need = Literal['ball', 'teacher', 'sources', 'method']


class Setting(NamedTuple):
    """What a method is built from; see ``Entry.build``."""

    ball: Ball | float
    steps: int | None
    teacher: Any
    sources: Any
    method: Method


class Limit(NamedTuple):
    """Options at which a method becomes another one.

    Attributes:
      options: such as {'ball': 0.0} or {'beta': 0.0}.
      left: the other method, in the same setting.
    """

    options: Mapping[str, Any]
    left: Callable[[Setting], Method]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One training method of the library.

    Attributes:
      name: on the command line.
      factory: a function of ``advjax.training``.
      title: in tables and charts.
      words: what it does, to be read after the name of a network.
      adversary: 'none', 'random' draws, an 'inner maximum', one whose update is
        'simultaneous', or that 'of the method' it wraps.
      needs: positional arguments of the factory: 'ball', 'teacher' (a logits function),
        'sources' (a list of them), 'method' (any other method).
      inner: the adversary in one line.
      outer: the outer loss in one line. J is the cross entropy, x' what was found.
      cost: gradient evaluations per update: for each attack step, and besides.
      paper: first author, year, arXiv id.
      network: what the network must have: 'branches' of split normalisation, or a loss
        of its 'own', or nothing of the kind.
      weight: the option that weighs what the method adds to the cross entropy.
      weakness: why it falls to a white-box attack within the ball; empty for a method
        that is meant to withstand one.
      long_search: whether more attack steps only make the search better. Otherwise
        few steps are part of the method.
      radius: default of ``build``.
      limits: where it becomes another method.
    """

    name: str
    factory: Callable[..., Method]
    title: str
    words: str
    adversary: Adversary
    needs: tuple[Need, ...]
    inner: str
    outer: str
    cost: tuple[int, int]
    paper: str
    network: Literal['', 'branches', 'own loss'] = ''
    weight: str = ''
    weakness: str = ''
    long_search: bool = False
    radius: float = 8 / 255
    limits: tuple[Limit, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of the factory and their defaults."""
        known = inspect.signature(self.factory).parameters.values()
        return {p.name: p.default for p in known if p.default is not p.empty}

    @property
    def steps(self) -> int | None:
        """Attack steps by default, or None where their number is fixed."""
        if 'method' in self.needs:
            return inspect.signature(pgd_at).parameters['steps'].default
        return self.options.get('steps')

    def gradients(self, steps: int | None = None) -> int:
        """Gradient evaluations per update and image.

        Args:
          steps: attack steps; those of the default by default.
        """
        each, besides = self.cost
        return each * (steps or self.steps or 0) + besides

    def build(
        self,
        ball: Ball | float | None = None,
        steps: int | None = None,
        *,
        teacher: LogitsFn | None = None,
        sources: Sequence[LogitsFn] | None = None,
        method: Method | None = None,
        **options: Any,
    ) -> Method:
        """The method.

        >>> from advjax import training
        >>> entry = next(e for e in training.catalogue() if e.name == 'trades')
        >>> float(entry.build(0.3, steps=10, beta=1.0).outer.beta)
        1.0

        Args:
          ball: of the adversary; ``radius`` by default.
          steps: attack steps; the factory's own by default.
          teacher: logits function of a trained network.
          sources: logits functions of trained networks.
          method: what is wrapped; ``pgd_at`` by default.
          **options: of the factory.

        Raises:
          ValueError: if something needed is missing, or the factory has no such option.
        """
        setting = self._setting(ball, steps, teacher, sources, method)
        return self._build(setting, options)

    def at_limits(self, **given: Any) -> list[tuple[str, Method, Method]]:
        """The method at each of its limits.

        Args:
          **given: as for ``build``.

        Returns:
          For each limit: its options in words, the method there, and the method that
          it must equal.
        """
        found = []
        for limit in self.limits:
            options = {**given, **limit.options}
            setting = self._setting(*(options.pop(n, None) for n in Setting._fields))
            words = ', '.join(f'{n} = {v:g}' for n, v in limit.options.items())
            found.append((words, self._build(setting, options), limit.left(setting)))
        return found

    def _setting(self, ball, steps, teacher, sources, method) -> Setting:
        for name, value in (('teacher', teacher), ('sources', sources)):
            if name in self.needs and value is None:
                raise ValueError(
                    f'{name} of {self.name} must be given: trained networks, as '
                    'logits functions'
                )
            if name not in self.needs and value is not None:
                raise ValueError(f'{self.name} has no option {name!r}')
        if method is not None and 'method' not in self.needs:
            raise ValueError(f"{self.name} has no option 'method'")
        if steps is not None and (self.steps is None or method is not None):
            raise ValueError(f"{self.name} has no option 'steps'")
        if ball is not None and not {'ball', 'method'} & set(self.needs):
            raise ValueError(f"{self.name} has no option 'ball'")
        ball = self.radius if ball is None else ball
        if method is None:
            method = pgd_at(ball, **({} if steps is None else {'steps': steps}))
        return Setting(ball, steps, teacher, sources, method)

    def _build(self, setting: Setting, options: Mapping[str, Any]) -> Method:
        for option in options:
            if option not in self.options:
                raise ValueError(f'{self.name} has no option {option!r}')
        given = setting._asdict()
        if setting.steps is not None and 'method' not in self.needs:
            options = {'steps': setting.steps, **options}
        return self.factory(*(given[need] for need in self.needs), **options)
