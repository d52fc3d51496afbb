"""The page of a study, and the scoreboard of all of them, as single HTML files."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from advjax.evaluation import page
from experiments.frame.findings import TAGS, band_text, measured_text

WIDTHS = (page.WIDE, page.NARROW)
"""Inches; a chart that is merely scaled down to a phone cannot be read."""


def _cell(value: Any) -> str:
    """A number as short as its size allows, or a text."""
    if value is None:
        return page.DASH
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return page.integer(value)
    return f'{value:.4g}' if isinstance(value, float) else str(value)


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ''),
        autoescape=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        band=band_text, measured=measured_text, cell=_cell, duration=page.duration
    )
    return environment


def count(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims hold, lie outside their band, or are only reported."""
    kinds = ('holds', 'outside', 'reported')
    return {kind: sum(c['verdict'] == kind for c in claims) for kind in kinds}


def render(
    results: Mapping[str, Any], pictures: Sequence[tuple[str, str, Sequence[str]]]
) -> str:
    """Returns the page of one study.

    Args:
      results: what ``results.json`` holds.
      pictures: (title, caption, SVG for each of ``WIDTHS``).
    """
    return (
        _templates()
        .get_template('study.html.jinja')
        .render(
            data=results,
            counts=count(results['claims']),
            pictures=pictures,
            style=page.style(),
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
            style=page.style(),
            tags=TAGS,
        )
    )
