"""What a study finds: claims with bands, pictures, tables.

A claim's band is set before the run, from the paper or from a derivation. What lies
outside is reported so, with the reason if it is known. Figures that nobody has read
again in the paper (tags M and m) are shown and gate nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from advjax.report import charts

Tag = Literal['R', 'C', 'D', 'M', 'm']

TAGS = {
    'R': "read in the paper, or in its authors' code",
    'C': 'computed before on the same data',
    'D': 'derived, or an ordering that the paper states',
    'M': 'well known, not read again: gates nothing',
    'm': 'uncertain: gates nothing',
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of the scoreboard; build it with ``claim``."""

    what: str
    measured: float
    paper: str
    tag: Tag
    band: tuple[float, float] | None
    unit: str
    reason: str

    @property
    def verdict(self) -> Literal['holds', 'outside', 'reported']:
        """Whether the measured value lies in the band, if there is one."""
        if self.band is None:
            return 'reported'
        low, high = self.band
        return 'holds' if low <= self.measured <= high else 'outside'

    def row(self) -> dict[str, Any]:
        """What ``results.json`` holds; infinite ends of a band become null."""
        ends = self.band and [e if math.isfinite(e) else None for e in self.band]
        outside = self.verdict == 'outside'
        return {
            'what': self.what,
            'paper': self.paper,
            'tag': self.tag,
            'measured': self.measured if math.isfinite(self.measured) else None,
            'unit': self.unit,
            'band': ends,
            'verdict': self.verdict,
            'reason': (self.reason or 'not understood') if outside else '',
        }


def claim(
    what: str,
    measured: float | np.ndarray,
    *,
    paper: str = '',
    tag: Tag = 'D',
    band: tuple[float | None, float | None] | None = None,
    unit: str = '',
    reason: str = '',
) -> Claim:
    """States something, says what was measured, and what had to be measured.

    Args:
      what: what is claimed or measured, with its settings; a line.
      measured: the number of this run; shares in per cent where ``unit`` is '%'.
      paper: the paper's own figure or words, '' where it gives none.
      tag: how sure that figure is, see ``TAGS``.
      band: (low, high) that confirms the claim, None for an open end; no band at all
        where the figure is only reported. An ordering is a difference with (0, None).
      unit: '%', 's', 'degrees' ...
      reason: why the figure lies outside its band, if that is known. Shown only then.

    Raises:
      ValueError: if a figure that nobody has read again would gate, or a band is empty.
    """
    if tag not in TAGS:
        raise ValueError(f'tag must be one of {list(TAGS)}, got {tag!r}')
    if band is not None:
        if tag in ('M', 'm'):
            raise ValueError(f'band must be None with tag {tag!r}, got {band}')
        low = -math.inf if band[0] is None else float(band[0])
        high = math.inf if band[1] is None else float(band[1])
        if not low <= high:
            raise ValueError(f'band must be (low, high) with low <= high, got {band}')
        band = (low, high)
    return Claim(what, float(measured), str(paper), tag, band, unit, reason)


class Picture(NamedTuple):
    """A figure of the page; ``draw(width)`` returns a matplotlib figure, in inches."""

    title: str
    caption: str
    draw: Callable[[float], Any]


def picture(
    title: str, caption: str, chart: Callable[..., Any], *args: Any, **options: Any
) -> Picture:
    """A figure of the page.

    Args:
      title: a line above it.
      caption: what it shows, for readers new to the field.
      chart: returns a matplotlib figure, such as those of ``advjax.report.charts``;
        called with ``width`` in inches, once for wide and once for narrow windows.
      *args: what ``chart`` is called with before the width.
      **options: more of that.
    """

    def draw(width: float) -> Any:
        return chart(*args, width=width, **options)

    return Picture(title, caption, draw)


def image_grid(
    rows: Sequence[Mapping[str, Any]], columns: int, narrow: int, *, width: float
) -> Any:
    """Rows of images as a chart; ``narrow`` columns in a narrow window."""
    return charts.adversarial_grid(
        rows, width=width, columns=columns if width > 8 else narrow
    )


def first_images(rows: Sequence[Mapping[str, Any]], *, width: float) -> Any:
    """Rows of images as a chart; in a narrow window only the first half of each."""
    count = len(rows[0]['images'])
    columns = count if width > 8 else count // 2
    shown = [
        {k: v if k == 'title' else v[:columns] for k, v in row.items()} for row in rows
    ]
    return charts.adversarial_grid(shown, width=width, columns=columns)


class Table(NamedTuple):
    """A table of the page; cells are numbers or texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = ''
) -> Table:
    """A table of the page.

    Raises:
      ValueError: if a row is not as long as ``columns``.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f'rows must hold {len(columns)} cells, got {list(row)}')
    cells = [[_cell(cell) for cell in row] for row in rows]
    return Table(title, list(columns), cells, note)


def _cell(value: Any) -> Any:
    """A number or text of a table, as JSON knows it."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (int, float)) else str(value)


class Findings(NamedTuple):
    """What a study returns."""

    claims: Sequence[Claim]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


def together(parts: Iterable[Findings]) -> Findings:
    """What the parts of a study found, one after the other."""
    parts = list(parts)
    return Findings(
        [c for part in parts for c in part.claims],
        [p for part in parts for p in part.pictures],
        [t for part in parts for t in part.tables],
    )


def text_of(results: Mapping[str, Any]) -> str:
    """The claims of a study as a text table."""
    rows = [('', 'paper', 'tag', 'band', 'measured', 'verdict')]
    for c in results['claims']:
        verdict = c['verdict'] + (f' ({c["reason"]})' if c['reason'] else '')
        rows.append((
            c['what'], c['paper'], c['tag'], band_text(c['band']),
            measured_text(c), verdict,
        ))  # fmt: skip
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as text, each column as wide as its longest word."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join(map(str.ljust, row, wide)).rstrip() for row in rows)


def measured_text(row: Mapping[str, Any]) -> str:
    """A measured number with its unit."""
    value = row['measured']
    if value is None:
        return 'not finite'
    unit = row['unit'] and f' {row["unit"]}'
    return (f'{value:.1f}' if unit == ' %' else f'{value:.4g}') + unit


def band_text(band: Sequence[float | None] | None) -> str:
    """A band in words."""
    if band is None:
        return ''
    low, high = (None if end is None else float(f'{end:.4g}') for end in band)
    if low is None or high is None:
        return 'any' if low == high else f'≥ {low:g}' if high is None else f'≤ {high:g}'
    return f'{low:g}' if low == high else f'{low:g} to {high:g}'
