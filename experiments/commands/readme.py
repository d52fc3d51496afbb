"""Writes the tables of README.md that follow from the catalogues.

    python -m experiments readme

Each stands between two marks, such as <!-- catalogue --> and <!-- /catalogue -->.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from advjax import attacks, training
from advjax.attacks.entry import markdown
from advjax.training import entries
from experiments.commands import recipes

README = Path(__file__).parents[2] / 'README.md'


def tables() -> dict[str, str]:
    """Every table by its mark."""
    assert training.catalogue()
    return {
        'catalogue': markdown(attacks.catalogue()),
        'methods': entries.table(),
        'recipes': recipes.table(markdown=True),
    }


def written(text: str) -> str:
    """The text with every table as it is now.

    Raises:
      ValueError: if a mark is missing.
    """
    for mark, table in tables().items():
        between = re.compile(f'(<!-- {mark} -->\n).*?(<!-- /{mark} -->)', re.S)
        if not between.search(text):
            raise ValueError(f'README.md has no marks <!-- {mark} --> and /{mark}')
        text = between.sub(lambda m, new=table: f'{m[1]}{new}\n{m[2]}', text)
    return text


def cli(arguments: Sequence[str]) -> None:
    """Writes the tables into README.md."""
    if arguments:
        raise ValueError(f'readme takes no arguments, got {list(arguments)}')
    text = README.read_text()
    new = written(text)
    if new != text:
        README.write_text(new)
    print('README.md is changed' if new != text else 'README.md is as it was')
