"""What every page shares: templates, style sheet, charts in two widths.

A page is one file with its style, figures and images inside; a content security policy
in it forbids scripts and external resources. jinja2 escapes all text, and the same
input gives the same bytes.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advjax.report import drawing
from advjax.report.words import decimal, duration, integer, percent

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

_HERE = 'advjax.report'

WIDTHS = (12.4, 4.7)
"""Inches of 72 CSS pixels, for wide and for narrow windows: a chart scaled down to the
width of a phone would be unreadable."""


def templates(package: str = _HERE, **options: Any) -> jinja2.Environment:
    """The templates of a package, which may import those of this one.

    The filters ``decimal``, ``duration``, ``integer`` and ``percent`` write numbers;
    ``options`` are those of ``jinja2.Environment``.
    """
    import jinja2

    def known(write_number: Callable[[object], str]) -> Callable[[object], str]:
        # jinja2 passes a missing key as an object that refuses float().
        return lambda value: write_number(
            None if isinstance(value, jinja2.Undefined) else value
        )

    places = dict.fromkeys((package, _HERE))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(p, '') for p in places]),
        autoescape=True,
        lstrip_blocks=True,
        trim_blocks=True,
        **options,
    )
    for write_number in (decimal, duration, integer, percent):
        environment.filters[write_number.__name__] = known(write_number)
    return environment


@functools.cache
def style() -> str:
    """The style sheet of every page."""
    text = importlib.resources.files(_HERE).joinpath('page.css')
    return text.read_text('utf-8')


def panel(draw: Callable[[float], Figure], *, name: str = '', alt: str = '') -> str:
    """One chart as HTML: two drawings, of which the style sheet shows one.

    Args:
      draw: makes the figure for a width in inches.
      name: prefix of the identifiers in it; by default a digest of the drawing.
      alt: the text alternative, for screen readers.
    """
    import markupsafe

    parts = []
    for word, width in zip(('wide', 'narrow'), WIDTHS, strict=True):
        prefix = name and f'{name}-{word}'
        svg = drawing.to_svg(draw(width), prefix=prefix, alt=alt)
        parts.append(f'<div class="{word}">{svg}</div>')
    return markupsafe.Markup(''.join(parts))
