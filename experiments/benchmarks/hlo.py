"""Reading a compiled program: which collectives it has, how large, and where.

text = jax.jit(f).lower(...).compile().as_text()
collectives(text)  # [Collective('all-reduce', bytes=..., in_loop=False, times=1)]
"""

import math
import re
from typing import NamedTuple

KINDS = (
    'all-reduce',
    'all-gather',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
    'reduce-scatter',
)
_INSTRUCTION = re.compile(rf'= (\(.*?\)|\S+) ({"|".join(KINDS)})(?:-start)?\(')
_ARRAY = re.compile(r'\b([a-z]+)(\d+)?(?:[a-z0-9]*)\[([\d,]*)\]')
_CALLED = re.compile(
    r'(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'(?:branch_computations|called_computations)=\{([^}]*)\}')
_LOOP = re.compile(r'(?:body|condition)=%?([\w.\-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Collective(NamedTuple):
    """One communication between devices.

    Attributes:
      kind: such as 'all-reduce'.
      bytes: size of what one device gets.
      in_loop: whether it stands in the body or the condition of a loop.
      times: how often it runs; a loop whose length XLA does not know counts as one.
    """

    kind: str
    bytes: int
    in_loop: bool
    times: int


def collectives(text: str) -> list[Collective]:
    """The collectives of an optimized HLO module, from its text."""
    found: dict[str, list[tuple[str, int]]] = {}
    called: dict[str, set[str]] = {}
    caller: dict[str, tuple[str, int]] = {}
    in_loops: set[str] = set()
    name = ''
    for line in text.splitlines():
        opened = re.match(r'(?:ENTRY )?%?([\w.\-]+) .*\{$', line)
        if opened:
            name = opened.group(1)
        looped = _LOOP.findall(line)
        in_loops.update(looped)
        several = ','.join(_BRANCHES.findall(line)).replace('%', '').split(',')
        names = {*_CALLED.findall(line), *(n.strip() for n in several)}
        called.setdefault(name, set()).update(names - {''})
        trips = _TRIPS.search(line)
        for each in names - {''}:
            count = int(trips.group(1)) if trips and each in looped else 1
            caller.setdefault(each, (name, count))
        for shape, kind in _INSTRUCTION.findall(line):
            found.setdefault(name, []).append((kind, _size(shape)))
    waiting = list(in_loops)
    while waiting:
        new = called.get(waiting.pop(), set()) - in_loops
        in_loops |= new
        waiting += new

    def times(name: str) -> int:
        above, count = caller.get(name, ('', 1))
        return count * times(above) if above else 1

    return [
        Collective(kind, size, name in in_loops, times(name))
        for name, here in found.items()
        for kind, size in here
    ]


def _size(shape: str) -> int:
    """Bytes of an array or a tuple of arrays, as HLO writes it."""
    total = 0
    for letters, bits, lengths in _ARRAY.findall(shape):
        width = 1 if letters == 'pred' else int(bits or 8) // 8
        total += width * math.prod(int(n) for n in lengths.split(',') if n)
    return total
