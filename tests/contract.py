"""Every attack, as what the laws of ``advjax.testing`` are tried on.

They are run on every attack by ``test_contract.py`` and, on attacks broken on
purpose, by ``test_mutations.py``: a check that nothing can break checks nothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advjax import attacks, balls, keys, losses
from advjax.masks import masked
from advjax.testing.attack import LAWS, obey
from advjax.testing.trial import Setting, Subject, margin, run, the_key
from advjax.types import Composite

KEY, STANDARD = the_key(), Setting()
SHAPE, CLASSES, BATCH = STANDARD.shape, STANDARD.classes, STANDARD.batch
network = STANDARD.network


def images(seed: int = 1, batch: int = BATCH):
    """Images in the open range, labelled as the network sees them."""
    return dataclasses.replace(STANDARD, batch=batch).images(seed)


def search(attack, f, key, x, y, target=None):
    """What an attack finds, with its rank and queries."""
    goal = attacks.goal(f, y, target)
    return attack.search(goal, keys.per_example(key, x.shape[0]), x)


def _divergence(f, x, y):
    """From the prediction at the clean images, which is what is attacked."""
    del y
    return losses.kl(f(x), f(images()[0][: x.shape[0]]))


@dataclasses.dataclass(frozen=True)
class Case:
    """An attack: ``build(ball, **options)``.

    ``more`` is the option of which more is never weaker, or None; ``far`` what makes it
    go as far as it can. The others are those of ``testing.Subject``.
    """

    name: str
    build: Callable[..., Any]
    ball: Any
    more: str | None = None
    far: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sees: Callable[..., Any] = lambda f: f
    judge: Callable[..., Any] = margin
    minimum: bool = False
    fills: bool = True

    @property
    def subject(self) -> Subject:
        """The attack, and stronger versions of it."""
        amounts = {'steps': (2, 5, 8), 'count': (2, 3, 4)}.get(self.more or '', ())
        return Subject(
            attack=self.build(self.ball),
            ball=self.ball,
            sees=self.sees,
            judge=self.judge,
            minimum=self.minimum,
            fills=self.fills,
            stronger=tuple(
                _overshooting(self.build(self.ball, **{self.more: n})) for n in amounts
            ),
        )

    def check(self, law) -> None:
        """Runs one law."""
        subject = self.subject
        if law.__name__ == 'reaches_the_boundary':
            attack = self.build(self.ball, **self.far)
            subject = dataclasses.replace(subject, attack=attack)
        obey(subject, law)


def _overshooting(attack):
    """Steps this long miss the maximum, so that the last iterate is not the best."""
    longer = isinstance(attack, attacks.Ascent)
    return attack.replace(rate=jnp.float32(1.7)) if longer else attack


_LINF, _L2, _L1, _L0 = balls.linf(0.1), balls.l2(0.4), balls.l1(0.15), balls.l0(3)
_BALLS = {
    'fixed radius': {
        'linf': _LINF,
        'l2': balls.l2(0.8),
        'l1': balls.l1(0.5),
        'l0': _L0,
    },
    # A radius that not all images need.
    'minimum norm': {
        'linf': balls.linf(0.15),
        'l2': balls.l2(0.6),
        'l1': balls.l1(1.2),
        'l0': balls.l0(4),
    },
}


# A single pixel soon leaves the range; a few estimated steps do not fill a wide ball.
_OWN = {('fgm', 'l1'): _L1, ('spsa', 'l2'): _L2}

# Adam's first step is +-1 on every coordinate, so that rounding alone decides which one
# is the largest: the steepest step of L1 and L0 then differs from batch to batch.
_TIES = {('spsa', 'l1'), ('spsa', 'l0')}


def listed(entries) -> list[Case]:
    """Every attack of a catalogue in its usual norm, and in those that are new to it.

    PGD in L2 is no other search than FGM in L2, but FAB's is its own in every norm.
    """
    cases, seen = [], set()
    for entry in entries:
        if entry.looks_for == 'other':
            continue  # Not confined to a norm ball, or with a fate shared by all.
        for norm in entry.norms:
            attack = entry.build(norm)
            kind = type(attack), norm
            known = kind in seen or isinstance(attack, Composite)
            known |= (entry.name, norm) in _TIES
            if known and norm != entry.norms[0]:
                continue
            seen.add(kind)
            cases.append(_case(entry, norm))
    return cases


def _case(entry, norm: str) -> Case:
    def build(ball, **options):
        return entry.factory(ball, **{**entry.quick, **options})

    ball = _OWN.get((entry.name, norm), _BALLS[entry.looks_for][norm])
    ascent = build(ball)
    keeps = isinstance(ascent, attacks.Ascent) and ascent.keep_best
    stops_early = entry.knowledge in ('scores', 'decisions')
    return Case(
        f'{entry.name} {norm}',
        build,
        ball,
        more='steps' if keeps else None,
        far={'steps': 8} if 'steps' in entry.quick else {},
        minimum=entry.looks_for == 'minimum norm',
        fills=not stops_early and entry.name != 'autoattack',
    )


def _pgd(ball, steps=5, **options):
    return attacks.pgd(ball, steps, rate=0.3, **options)


def _noisy(f, key, image):
    return f(image + 0.01 * jax.random.normal(key, image.shape))


_HALF = np.arange(20).reshape(1, *SHAPE) % 3 > 0


CASES = [
    *listed(attacks.catalogue()),
    *(
        Case(f'pgd {name}', _pgd, ball, more='steps', far={'steps': 8})
        for name, ball in (
            ('l2', _L2),
            ('l1', _L1),
            ('unbounded', balls.linf(0.1, bounds=None)),
            ('l2 per example', balls.l2(np.linspace(0.1, 0.6, BATCH))),
            ('masked', masked(_LINF, _HALF)),
        )
    ),
    Case('pgd margin', functools.partial(_pgd, loss=losses.margin), _LINF, 'steps'),
    # The maximum of DLR may well lie inside.
    Case('pgd dlr', functools.partial(_pgd, loss=losses.dlr), _LINF, fills=False),
    Case(
        'apgd dlr',
        lambda b: attacks.apgd(b, 8, losses.dlr),
        _LINF,
        fills=False,
    ),
    Case(
        'restarts',
        lambda b, count=2: attacks.restarts(_pgd(b, 3), count),
        _LINF,
        more='count',
    ),
    Case(
        'restarts side by side',
        lambda b, count=2: attacks.restarts(_pgd(b, 3), count, parallel=True),
        _L2,
        more='count',
    ),
    Case('targeted', lambda b: attacks.targeted(_pgd(b, 8), 2), _LINF),
    Case('worst_of', lambda b: attacks.worst_of([attacks.fgm(b), _pgd(b, 8)]), _L2),
    Case(
        'from_prediction',
        lambda b: attacks.from_prediction(
            attacks.pgd(
                b, 8, 0.3, losses.kl, start=attacks.starts.gaussian, keep_best=False
            )
        ),
        _LINF,
        judge=_divergence,
    ),
    Case(
        'eot',
        lambda b: _pgd(b, 8),
        _LINF,
        sees=lambda f: attacks.eot(jax.tree_util.Partial(_noisy, f), 3),
    ),
    Case(
        'ensemble',
        _pgd,
        _LINF,
        more='steps',
        far={'steps': 8},
        sees=lambda f: attacks.ensemble([f, network(5)], [3.0, 1.0]),
    ),
    Case(
        'views',
        lambda b: attacks.mi_fgsm(b, 8, 0.3),
        _LINF,
        sees=lambda f: attacks.views(f, attacks.diverse(0.8), attacks.scales(2)),
    ),
]

__all__ = [
    'BATCH',
    'CASES',
    'CLASSES',
    'KEY',
    'LAWS',
    'SHAPE',
    'margin',
    'run',
    'search',
]
