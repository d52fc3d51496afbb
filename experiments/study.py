"""A paper as a study: what it claims, what was measured, and a verdict on each.

A study is one module of this package, named after its paper:

    def run(config: Config, work: Work) -> Findings: ...

    STUDY = Study(name=..., title=..., line=..., run=run, presets=..., minutes=...)

    if __name__ == '__main__':
        study.cli(STUDY)

``run`` does the work and returns claims; the rest is done here: flags from the fields
of the config, a folder from which a killed study goes on, ``results.json`` and
``report.html``.

A claim's band is set before the run, from the paper or from a derivation. What lies
outside is reported so, with the reason if it is known. Figures that nobody
has read again in the paper (tags M and m) are shown and gate nothing.
"""

import dataclasses
import datetime
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from advjax import report
from experiments import common
from experiments.work import Work

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


def picture(title: str, caption: str, draw: Callable[[float], Any]) -> Picture:
    """A figure of the page.

    Args:
      title: a line above it.
      caption: what it shows, for readers new to the field.
      draw: width in inches -> matplotlib figure, called for wide and narrow windows;
        ``advjax.report.charts`` has the charts.
    """
    return Picture(title, caption, draw)


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


@dataclasses.dataclass(frozen=True)
class Study:
    """A paper, the settings to run it with, and the function that does.

    Attributes:
      name: its module in this package.
      title: authors, year and title.
      line: what it shows, in a line.
      run: ``(config, work) -> Findings``.
      presets: 'cpu' (minutes on two cores), 'paper' (the paper's own scale) and
        'smoke' (seconds, on digits; for tests). All instances of one dataclass.
      minutes: what the preset 'cpu' takes on two cores.
    """

    name: str
    title: str
    line: str
    run: Callable[[Any, Work], Findings]
    presets: Mapping[str, Any]
    minutes: float


def execute(
    study: Study,
    config: Any,
    directory: Path,
    *,
    folder: Path | None = None,
    fresh: bool = False,
    progress: bool = False,
    command: str = '',
) -> dict[str, Any]:
    """Runs a study, or goes on with it, and writes its results and its page.

    Args:
      study: what to run.
      config: its settings.
      directory: where runs are kept; networks that studies share lie in its 'shared'.
      folder: the run's own folder; ``directory / study.name`` by default.
      fresh: delete an earlier run instead of going on with it.
      progress: say what is being done.
      command: the command line, for the record.

    Returns:
      What ``results.json`` holds.
    """
    from experiments import study_page

    folder = common.run_folder(folder or directory / study.name, config, fresh)
    began = time.monotonic()
    try:
        with Work(folder, directory / 'shared', progress) as work:
            found = study.run(config, work)
            seconds = work.seconds_before + time.monotonic() - began
    except ValueError:
        # Settings that were refused must not stand in the way of better ones.
        if {p.name for p in folder.iterdir()} <= {'config.json', 'seconds.json'}:
            shutil.rmtree(folder)
        raise
    results = {
        'study': study.name,
        'title': study.title,
        'line': study.line,
        # As it is read again: tuples are lists in JSON.
        'config': json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        'claims': [c.row() for c in found.claims],
        'tables': [t._asdict() for t in found.tables],
        'command': command,
        'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'wall_seconds': round(seconds, 1),
        'environment': common.environment(),
    }
    drawn = [(p.title, p.caption, report.panel(p.draw)) for p in found.pictures]
    return report.write(study_page.StudyPage(results, drawn), folder)


def text_of(results: Mapping[str, Any]) -> str:
    """The claims of a study as a text table."""
    rows = [('', 'paper', 'tag', 'band', 'measured', 'verdict')]
    for c in results['claims']:
        verdict = c['verdict'] + (f' ({c["reason"]})' if c['reason'] else '')
        rows.append((
            c['what'], c['paper'], c['tag'], band_text(c['band']),
            measured_text(c), verdict,
        ))  # fmt: skip
    wide = [max(len(row[i]) for row in rows) for i in range(5)]
    return '\n'.join(
        '  '.join([*map(str.ljust, row[:5], wide), row[5]]).rstrip() for row in rows
    )


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


def cli(study: Study) -> None:
    """Entry point of ``python -m experiments.<study>``."""
    import tyro

    # The preset decides the defaults of all other flags, so it is read first.
    words = sys.argv[1:]
    preset = 'cpu'
    for i, word in enumerate(words):
        name, _, value = word.partition('=')
        if name == '--preset':
            preset = value or (words[i + 1] if i + 1 < len(words) else '')
    if preset not in study.presets:
        allowed = ', '.join(study.presets)
        sys.exit(f'error: --preset must be one of {allowed}, got {preset!r}')
    config = study.presets[preset]
    kind = type(config)

    @dataclasses.dataclass(frozen=True)
    class Command(kind):
        """Settings of a study."""

        preset: Literal['cpu', 'paper', 'smoke'] = 'cpu'
        """Where the other settings come from: minutes on two cores, or paper scale."""
        name: str | None = None
        """Folder of the run; the study's name and preset by default."""
        directory: Path = Path('runs')
        """Where runs are kept."""
        fresh: bool = False
        """Delete an earlier run of that name instead of going on with it."""
        quiet: bool = False
        """Say nothing while it runs."""

    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    args = tyro.cli(
        Command,
        default=Command(**settings, preset=preset),
        description=sys.modules[kind.__module__].__doc__,
        prog=f'python -m experiments.{study.name}',
    )
    chosen = kind(**{name: getattr(args, name) for name in settings})
    folder = args.directory / (args.name or f'{study.name}-{preset}')
    common.use_compilation_cache()
    try:
        results = execute(
            study,
            chosen,
            args.directory,
            folder=folder,
            fresh=args.fresh,
            progress=not args.quiet,
            command=common.command(f'experiments.{study.name}'),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'\n{study.title}\n\n{text_of(results)}\n')
    print(f'Report: {folder / "report.html"}  ({results["wall_seconds"]} s)')
