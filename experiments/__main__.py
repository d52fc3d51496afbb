"""Lists what can be run, and runs it: ``python -m experiments [NAME [flags]]``."""

import sys
from collections.abc import Sequence

from experiments import catalogue


def listing() -> str:
    """Every command and study with a line, and what it costs on two CPU cores."""
    every = (*catalogue.COMMANDS, *catalogue.STUDIES)
    rows = [
        (f'python -m experiments {e.name}', _cost(e.minutes), e.line) for e in every
    ]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f'{a:<{wide[0]}}  {b:>{wide[1]}}  {c}' for a, b, c in rows]
    lines.insert(len(catalogue.COMMANDS), '')
    return '\n'.join([*lines, '', 'Flags of each: python -m experiments NAME --help'])


def _cost(minutes: float) -> str:
    return f'{minutes:g} min' if minutes else 'at once'


def main(words: Sequence[str]) -> None:
    """Prints the list, or runs what is named; an error is one line."""
    if not words or words[0] in ('-h', '--help'):
        print(listing())
        return
    name, *arguments = words
    try:
        module = catalogue.entry(name).load()
        if hasattr(module, 'STUDY'):
            from experiments.frame import study

            study.cli(module.STUDY, arguments)
        else:
            module.cli(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main(sys.argv[1:])
