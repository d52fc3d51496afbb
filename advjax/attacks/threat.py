"""The threat model as a value: what the adversary wants, knows and can do.

    threat = ThreatModel('untargeted', 'score', Capability('linf', 0.3, queries=2000))
    evaluation.evaluate(logits_fn, x, y, threat.attacks(), key=key)
    threat.refusals()          # the others: {'pgd': 'needs white-box knowledge', ...}

It is what a claim of robustness must state first, and from it follows which attacks of
the catalogue the claim has to stand up to.

Goals, knowledge and capabilities at inference, after the survey of Papernot et al. 2016
("SoK", arXiv 1611.03814); where it has only prose the words are ours:

    goal         untargeted: another answer than the label
                 targeted: the answer that the adversary names
                 confidence: less sure of the label, whatever the answer
    knowledge    white: everything
                 gray: architecture and training data, hence a copy trained alike
                 transfer: nothing but the task, hence a surrogate of another kind
                 score: the logits or probabilities of inputs it sends
                 decision: the answers to inputs it sends
    capability   norm, radius, range; questions to the model; model calls of its own
"""

import dataclasses
import math
from typing import Any, Literal, get_args

from advjax import balls
from advjax.attacks.entry import Entry
from advjax.attacks.search import calls_of
from advjax.attacks.table import catalogue
from advjax.types import Ball, Bounds, Composite

Wish = Literal['untargeted', 'targeted', 'confidence']
Sight = Literal['white', 'gray', 'transfer', 'score', 'decision']
Norm = Literal['linf', 'l2', 'l1', 'l0', 'spatial']

# What an attack must know, in words, and the knowledge that it can be run from. A copy
# or a surrogate is a white box to its owner, and needs no question to the model.
_NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    'white box': ('white-box knowledge', ('white', 'gray', 'transfer')),
    'transfer': ('gradients of a model', ('white', 'gray', 'transfer')),
    'scores': ('scores, or a white box', ('white', 'score')),
    'decisions': ('answers of the model', ('white', 'score', 'decision')),
}
_ASKS = ('score', 'decision')
_ON_A_COPY = ('gray', 'transfer')


def _one_of(name: str, value: Any, kind: Any) -> None:
    if value not in get_args(kind):
        raise ValueError(f'{name} must be one of {list(get_args(kind))}, got {value!r}')


def _count(name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):
        raise ValueError(f'{name} must be None or an integer >= 1, got {value!r}')


@dataclasses.dataclass(frozen=True)
class Capability:
    """What the adversary can do at inference.

    Attributes:
      norm: of the perturbation; 'spatial' for rotation and shift.
      eps: its radius; infinite where the smallest perturbation is asked for.
      bounds: the range of the input, or None.
      queries: questions per example to the model itself, where it is all that the
        adversary has; None for as many as needed.
      budget: model calls per example that the adversary can pay for, whosever model it
        is; None for as many as needed.

    Raises:
      ValueError: for an unknown norm, a radius that is negative or NaN, bounds in the
        wrong order, or a count below 1.
    """

    norm: Norm = 'linf'
    eps: float = math.inf
    bounds: Bounds = (0.0, 1.0)
    queries: int | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        _one_of('norm', self.norm, Norm)
        if not (isinstance(self.eps, int | float) and self.eps >= 0):
            raise ValueError(f'eps must be a radius >= 0, got {self.eps!r}')
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f'bounds must be (low, high) or None, got {self.bounds}')
        _count('queries', self.queries)
        _count('budget', self.budget)

    @property
    def ball(self) -> Ball:
        """The set of perturbations.

        Raises:
          ValueError: for 'spatial', which is no ball.
        """
        if self.norm == 'spatial':
            raise ValueError(
                "norm 'spatial' has no ball: the pixels may change at will"
            )
        return balls.of_norm(self.norm, self.eps, self.bounds)


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """Goal, knowledge and capability of an adversary.

    Attributes:
      goal: 'untargeted', 'targeted' or 'confidence'.
      knowledge: 'white', 'gray', 'transfer', 'score' or 'decision'.
      capability: what it can do.

    Raises:
      ValueError: for an unknown goal or knowledge, or another capability.
    """

    goal: Wish = 'untargeted'
    knowledge: Sight = 'white'
    capability: Capability = Capability()

    def __post_init__(self) -> None:
        _one_of('goal', self.goal, Wish)
        _one_of('knowledge', self.knowledge, Sight)
        if not isinstance(self.capability, Capability):
            raise ValueError(
                f'capability must be a Capability, got {self.capability!r}'
            )

    def entries(self) -> tuple[Entry, ...]:
        """The rows of the catalogue that apply, in its order."""
        return tuple(e for e in catalogue() if self.refusal(e) is None)

    def attacks(self) -> dict[str, Any]:
        """The attacks that apply, ready to run, by name.

        Each has its default settings, the ball of the capability and, where it asks
        the model, as many questions as are allowed. Under a targeted goal they are
        called with ``target``; with a copy or a surrogate they are run on that.
        """
        return {entry.name: self._build(entry) for entry in self.entries()}

    def refusals(self) -> dict[str, str]:
        """The attacks that do not apply, each with the reason."""
        reasons = {entry.name: self.refusal(entry) for entry in catalogue()}
        return {name: why for name, why in reasons.items() if why is not None}

    def refusal(self, entry: Entry) -> str | None:
        """Why an attack does not apply, in words, or None."""
        return (
            self._by_knowledge(entry)
            or self._by_norm(entry)
            or self._by_goal(entry)
            or self._by_cost(entry)
        )

    def _by_knowledge(self, entry: Entry) -> str | None:
        needed, enough = _NEEDS[entry.knowledge]
        if self.knowledge not in enough:
            return f'needs {needed}'
        stops = entry.looks_for == 'minimum norm' and 'kappa' not in entry.options
        if self.knowledge in _ON_A_COPY and stops:
            return "stops at the copy's boundary, which is not the model's"
        return None

    def _by_norm(self, entry: Entry) -> str | None:
        norm, eps = self.capability.norm, self.capability.eps
        if norm not in (entry.norms or ('spatial',)):
            return f'is not defined in {norm}'
        if entry.norms and entry.looks_for != 'minimum norm' and math.isinf(eps):
            return 'needs a finite radius'
        return None

    def _by_goal(self, entry: Entry) -> str | None:
        if self.goal == 'targeted':
            alone = not isinstance(entry.build(), Composite)
            return None if alone else 'chooses its own targets'
        if self.goal == 'confidence':
            if entry.looks_for == 'minimum norm':
                return 'changes nothing where it cannot change the answer'
            if 'loss' not in entry.options:
                return 'maximises no loss that falls with confidence'
        return None

    def _by_cost(self, entry: Entry) -> str | None:
        limit = self._limit()
        if limit is None:
            return None
        if self._asks(entry):
            try:
                self._build(entry)
            except ValueError as error:
                return str(error)
            return None
        cost = calls_of(self._build(entry))
        if cost is not None and cost <= limit:
            return None
        needed = 'as many as needed' if cost is None else f'{cost:,}'
        return f'takes {needed} model calls, {limit:,} are allowed'

    def _limit(self) -> int | None:
        """Model calls per example that are allowed, or None."""
        asked = self.capability.queries if self.knowledge in _ASKS else None
        limits = [n for n in (asked, self.capability.budget) if n is not None]
        return min(limits, default=None)

    @staticmethod
    def _asks(entry: Entry) -> bool:
        """Whether the attack is told how many questions it may ask."""
        asks = entry.knowledge in ('scores', 'decisions')
        return asks and 'queries' in entry.options

    def _build(self, entry: Entry) -> Any:
        if not entry.norms:
            return entry.factory()
        limit, options = self._limit(), {}
        if limit is not None and self._asks(entry):
            options['queries'] = limit
        return entry.factory(self.capability.ball, **options)
