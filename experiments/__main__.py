"""Lists what can be run: ``python -m experiments``."""

import sys
from collections.abc import Sequence

from experiments import studies

COMMANDS = {
    'train': 'trains a network normally and adversarially, attacks both, shows it',
    'recipes': 'lists the published settings that train --recipe knows',
    'attack': 'puts any attack of the catalogue to a trained network',
    'compare_methods': 'trains every method on one network and one budget',
    'benchmark': 'measures speed against the bare gradient',
    'reproduce': 'runs all studies and writes the scoreboard',
}


def listing() -> str:
    """Every command with a line, and what each study costs on two CPU cores."""
    found = [studies.load(name) for name in studies.NAMES]
    minutes = sum(study.minutes for study in found)
    rows = [(f'python -m experiments.{name}', '', line) for name, line in
            COMMANDS.items()]  # fmt: skip
    rows += [
        (f'python -m experiments.{s.name}', f'{s.minutes:g} min', s.line) for s in found
    ]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f'{a:<{wide[0]}}  {b:>{wide[1]}}  {c}' for a, b, c in rows]
    lines.insert(len(COMMANDS), '')
    return '\n'.join([*lines, '', f'All studies: about {minutes:.0f} minutes.'])


def main(words: Sequence[str]) -> None:
    """Prints the list, and says where it is if a name was to be run like this."""
    if words and words[0] not in ('-h', '--help'):
        names = [*COMMANDS, *studies.NAMES]
        sys.exit(
            f'error: python -m experiments takes no arguments, got {words[0]!r}: '
            + (
                f'type python -m experiments.{words[0]}'
                if words[0] in names
                else f'what there is: {", ".join(names)}'
            )
        )
    print(listing())


if __name__ == '__main__':
    main(sys.argv[1:])
