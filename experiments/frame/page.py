"""The page of a study, and the scoreboard of all of them, as single HTML files."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from advjax.report import layout, words
from experiments.frame.findings import TAGS, band_text, measured_text

_HERE = 'experiments.frame'


def _cell(value: Any) -> str:
    """A number as short as its size allows, or a text."""
    if value is None:
        return words.DASH
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return words.integer(value)
    return f'{value:.4g}' if isinstance(value, float) else str(value)


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = layout.templates(_HERE, undefined=jinja2.StrictUndefined)
    environment.filters.update(band=band_text, measured=measured_text, cell=_cell)
    return environment


def count(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims hold, lie outside their band, or are only reported."""
    kinds = ('holds', 'outside', 'reported')
    return {kind: sum(c['verdict'] == kind for c in claims) for kind in kinds}


class StudyPage(NamedTuple):
    """The page of a study, for ``report.write``; the fields are those of ``render``."""

    figures: Mapping[str, Any]
    pictures: Sequence[tuple[str, str, str]]

    def results(self) -> Mapping[str, Any]:
        """What ``results.json`` holds."""
        return self.figures

    def html(self) -> str:
        """The page."""
        return render(self.figures, self.pictures)


def render(results: Mapping[str, Any], pictures: Sequence[tuple[str, str, str]]) -> str:
    """Returns the page of one study.

    Args:
      results: what ``results.json`` holds.
      pictures: (title, caption, HTML of the charts).
    """
    return (
        _templates()
        .get_template('study.html.jinja')
        .render(
            data=results,
            counts=count(results['claims']),
            pictures=pictures,
            style=layout.style(),
            tags=TAGS,
        )
    )


def scoreboard(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page that puts the claims of all studies together.

    Args:
      studies: the results of each, and 'page', where its own page lies.
    """
    return (
        _templates()
        .get_template('scoreboard.html.jinja')
        .render(
            studies=[{**s, 'counts': count(s['claims'])} for s in studies],
            counts=count([c for s in studies for c in s['claims']]),
            style=layout.style(),
            tags=TAGS,
        )
    )
