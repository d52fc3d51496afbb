"""How a figure of advjax looks, and how it becomes text inside a page.

Nothing goes through pyplot: no global list of figures grows and no window system is
needed. matplotlib is imported only when a figure is drawn, and a context sets the style
on top of matplotlib's defaults, so that a user's matplotlibrc cannot change a figure.

`to_svg` turns a figure into an element of an HTML page that may hold several of them:

- identifiers are renumbered under a prefix, so that two figures of one page do not
  share clip paths, and the same figure gives the same bytes;
- colours of this module become CSS variables with the colour itself as the fallback,
  so that a page can set its own colours in dark mode (`PALETTE` lists the names);
- text stays text, in the font of the page. The layout is measured with DejaVu Sans,
  which is wider than nearly all fonts of pages, so that nothing overlaps.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Orange, blue, purple, ... differ in lightness as well as in hue: they stay apart for
# colour-blind readers and on a black-and-white printer, at 3:1 or more on white.
SERIES = ('#d9702b', '#005a8f', '#8a3a8f', '#2f8f6b', '#7a6a00', '#5b6470')
INK, MUTED, GRID = '#1d2733', '#5d6875', '#d9dee4'
PALETTE: Mapping[str, str] = {
    '--figure-ink': INK,
    '--figure-muted': MUTED,
    '--figure-grid': GRID,
    **{f'--figure-{index}': colour for index, colour in enumerate(SERIES)},
}

_TAG = re.compile(r'<[^>]*>')
_REFERENCE = re.compile(r'( id="|url\(#|href="#)([^")]+)')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P')
_STYLE = {
    'axes.edgecolor': MUTED,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.labelcolor': INK,
    'axes.labelsize': 12,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 12.5,
    'font.family': 'DejaVu Sans',
    'font.size': 12,
    'grid.color': GRID,
    'legend.fontsize': 12,
    'legend.frameon': False,
    'lines.linewidth': 2.2,
    'lines.markersize': 5,
    'svg.fonttype': 'none',
    'text.color': INK,
    # Names come from outside; a dollar sign in one must not start a formula.
    'text.parse_math': False,
    'xtick.color': MUTED,
    'xtick.labelcolor': INK,
    'xtick.labelsize': 11.5,
    'ytick.color': MUTED,
    'ytick.labelcolor': INK,
    'ytick.labelsize': 11.5,
}


def to_svg(figure: Figure, *, prefix: str = '', alt: str = '') -> str:
    """Renders a figure as SVG that may stand inside an HTML page.

    Args:
      figure: any matplotlib figure.
      prefix: start of every identifier in the drawing; by default a digest of the
        drawing, so that different figures never share an identifier.
      alt: the text alternative, for screen readers.

    Returns:
      One `<svg>` element without XML prolog. The same figure gives the same bytes.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    with style(), _no_glyph_warnings():
        figure.savefig(stream, format='svg', transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index('<svg') :].strip()
    svg = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    # A style element would apply to the whole page; set on the root, its properties
    # are inherited.
    svg = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', svg, flags=re.DOTALL)
    svg = re.sub(r'\s*\n\s*', '\n', svg)
    svg = svg.replace('<svg ', '<svg style="stroke-linejoin: round" ', 1)

    found: dict[str, int] = {}
    for name in re.findall(r'<[^>]* id="([^"]+)"', svg):
        found.setdefault(name, len(found))

    def themed(tag: re.Match[str]) -> str:
        text = re.sub(r"'DejaVu Sans'[^;\"]*", 'inherit', tag[0])
        text = re.sub(r'font: (?:(\w+) )?([\d.]+px) inherit', _font, text)
        for name, colour in PALETTE.items():
            text = text.replace(f': {colour}', f': var({name}, {colour})')
        return text

    def numbered(start: str) -> str:
        def rename(hit: re.Match[str]) -> str:
            return f'{hit[1]}{start}{found.get(hit[2], hit[2])}'

        # Only inside tags: text that looks like a reference is left alone.
        return _TAG.sub(lambda tag: _REFERENCE.sub(rename, tag[0]), svg)

    svg = _TAG.sub(themed, svg)
    start = prefix or 'f' + hashlib.sha256(numbered('').encode()).hexdigest()[:10]
    svg = numbered(f'{start}-')
    if alt:
        svg = svg.replace('<svg ', f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return svg


def label(text: object, longest: int) -> str:
    """A text as one line of at most `longest` characters."""
    line = ' '.join(str(text).split())
    if len(line) > longest:
        line = line[: longest - 1].rstrip() + '…'
    # Matplotlib omits labels that start with an underscore from legends.
    return f' {line}' if line.startswith('_') else line


def _font(hit: re.Match[str]) -> str:
    weight = f'font-weight: {hit[1]}; ' if hit[1] else ''
    return f'{weight}font-size: {hit[2]}'


@contextlib.contextmanager
def _no_glyph_warnings() -> Generator[None, None, None]:
    """Allows names in any script: the browser draws the text.

    A glyph that matplotlib's own font lacks only makes the layout less precise.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=r'Glyph \d+')
        yield


@contextlib.contextmanager
def style() -> Generator[None, None, None]:
    """This module's style, whatever the user's own is."""
    import matplotlib.style

    with matplotlib.style.context(['default', _STYLE]):
        yield


def new_figure(width: float, height: float, *, arrange: bool = True) -> Figure:
    """An empty figure of a size in inches, with an automatic layout or none."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The space separates the title of a lower panel from the label above it.
    engine = ConstrainedLayoutEngine(hspace=0.08, wspace=0.05) if arrange else None
    return Figure(figsize=(width, height), layout=engine)


def series(index: int) -> dict[str, Any]:
    """The colour and the marker of the n-th line."""
    return {
        'color': SERIES[index % len(SERIES)],
        'marker': _MARKERS[index % len(_MARKERS)],
    }


def floats(values: Iterable[Any]) -> np.ndarray:
    """Floats, with NaN, which matplotlib leaves out, for all that is not finite."""
    numbers = np.array([math.nan if v is None else float(v) for v in values])
    return np.where(np.isfinite(numbers), numbers, math.nan)


def percent_axis(axis: Any, limits: Any) -> None:
    """Scales an axis from 0 to 100 percent."""
    axis.set_ticks(range(0, 101, 20))
    # The edge of the axes would clip lines at 0 and at 100 %.
    limits(-2, 102)


def finish(
    figure: Figure, width: float, handles: Sequence[Any], labels: Sequence[str]
) -> None:
    """Puts a legend above the axes, and fixes the layout."""
    if labels:
        longest = max(len(text) for text in labels)
        columns = max(1, min(len(labels), int(width * 72 / (longest * 7.2 + 48))))
        spaces = {'handlelength': 2.4, 'columnspacing': 1.6, 'borderaxespad': 0.2}
        where = 'outside upper left'
        figure.legend(handles, labels, loc=where, ncols=columns, **spaces)
    # A layout engine starts from its last result, so that a second drawing of the
    # figure would differ from the first in the last digits.
    with _no_glyph_warnings():
        figure.draw_without_rendering()
    figure.set_layout_engine('none')
