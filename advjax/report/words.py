"""Numbers and threat models as words, rounded so that no number claims too much.

A number that is missing or not finite becomes a dash. A no-break space keeps a number
and its unit on one line.
"""

import math
from collections.abc import Mapping
from typing import Any

DASH = '\u2013'

DISTANCES = {
    'linf': ('a change of at most {} per pixel', 'largest change of any pixel, ε'),
    'l2': ('a change of Euclidean length at most {}', 'Euclidean length, ε'),
    'l1': ('changes that sum to at most {}', 'sum of all changes, ε'),
    'l0': ('a change of at most {} pixels', 'number of changed pixels, ε'),
}


def percent(value: object) -> str:
    """A share with one decimal; only exactly 0 and 1 become 0 % and 100 %."""
    number = number_of(value)
    if not math.isfinite(number):
        return DASH
    if 0 < number < 0.0005:
        return '<\u20090.1\u00a0%'
    if 0.9995 <= number < 1:
        return '>\u200999.9\u00a0%'
    return f'{100 * number:.1f}\u00a0%'


def integer(value: object) -> str:
    """A count with thin spaces between the thousands."""
    number = number_of(value)
    return f'{number:,.0f}'.replace(',', '\u2009') if math.isfinite(number) else DASH


def decimal(value: object) -> str:
    """A number with up to six digits."""
    number = number_of(value)
    return f'{number:.6g}' if math.isfinite(number) else DASH


def duration(value: object) -> str:
    """Seconds as seconds, minutes or hours."""
    seconds = number_of(value)
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f'{seconds:.1f}\u00a0s'
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes}\u00a0min {seconds}\u00a0s'
    return f'{minutes // 60}\u00a0h {minutes % 60}\u00a0min'


def number_of(value: object, otherwise: float = math.nan) -> float:
    """A finite float, or ``otherwise``."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise


def size(threat: Mapping[str, Any]) -> str:
    """The radius eps: as a fraction such as 8/255 where it is one."""
    eps = number_of(threat.get('eps'))
    if len(f'{eps:.6g}') > 6 and abs(eps * 255 - round(eps * 255)) < 1e-4:
        return f'{round(eps * 255)}/255'
    return f'{eps:.4g}'


def distance(threat: Mapping[str, Any]) -> str:
    """How the size of a change is measured, as the label of an axis."""
    norm = str(threat.get('norm', '')).lower()
    return DISTANCES.get(norm, ('', 'allowed size of the change, ε'))[1]


def change(threat: Mapping[str, Any]) -> str:
    """What the attacker may do, as the subject of a sentence."""
    if not math.isfinite(number_of(threat.get('eps'))):
        return 'the attack'
    norm = str(threat.get('norm', '')).lower()
    words = DISTANCES.get(norm, ('a change of size at most {}',))[0]
    return words.format(size(threat))
