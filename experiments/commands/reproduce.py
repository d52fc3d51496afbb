"""Runs all studies and puts their claims together.

    python -m experiments reproduce

Each study runs in a process of its own, in its folder below ``runs/``; what is finished
is not run again, and what was interrupted goes on, so the same command after a kill
continues. It writes ``runs/scoreboard.html``, ``runs/scoreboard.json`` and, for the
preset 'cpu', the table in ``experiments/README.md``.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from advjax import data, files
from experiments import catalogue
from experiments.frame import flags, folders, page, record, work
from experiments.frame.findings import band_text, measured_text
from experiments.frame.study import Study, load

README = Path(__file__).parent.parent / 'README.md'
BEGIN, END = '<!-- scoreboard -->', '<!-- end of scoreboard -->'


@dataclasses.dataclass(frozen=True)
class Command:
    """Runs all studies and puts their claims together."""

    preset: Literal['cpu', 'paper', 'smoke'] = 'cpu'
    """Minutes on two CPU cores, the papers' own scale, or seconds."""
    only: tuple[str, ...] = ()
    """Run only these studies; the scoreboard shows what has been run before as well."""
    directory: Path = Path('runs')
    """Where runs are kept."""
    fresh: bool = False
    """Run again what is finished."""
    readme: bool = True
    """Write the table into experiments/README.md, with the preset 'cpu'."""


def finished(study: Study, preset: str, directory: Path) -> dict[str, Any] | None:
    """The results of a study in this preset, if it has been run to its end.

    And if they were made by this code, from the data that is here.
    """
    folder = directory / f'{study.name}-{preset}'
    try:
        results = json.loads((folder / 'results.json').read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(results, dict):
        return None
    wanted = {'config': folders.as_json(study.presets[preset]), 'code': record.code()}
    same = all(results.get(name) == value for name, value in wanted.items())
    return results if same and _same_data(results.get('data')) else None


def _same_data(known: Any) -> bool:
    """Whether the data sets that were loaded are those that would be now."""
    try:
        return all(
            work.found(each['asked'], tuple(sorted(each['parts'].items())))[1] == each
            for each in known
        )
    except (KeyError, TypeError, AttributeError, ValueError, data.DatasetNotFound):
        return False


def run(study: Study, command: Command) -> str | None:
    """Runs one study in a process of its own; returns what went wrong, if anything."""
    words = [
        sys.executable, '-m', 'experiments', study.name, '--preset', command.preset,
        '--directory', str(command.directory),
    ]  # fmt: skip
    done = subprocess.run([*words, *(['--fresh'] if command.fresh else [])])
    return f'{study.name} ended with {done.returncode}' if done.returncode else None


def board(found: Sequence[Mapping[str, Any]]) -> str:
    """The claims of all studies as a Markdown table."""
    lines = [
        '| study | claim | paper | holds if | measured | verdict |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for results in found:
        for c in results['claims']:
            paper = f'{c["paper"]} ({c["tag"]})' if c['paper'] else ''
            verdict = c['verdict'] + (f': {c["reason"]}' if c['reason'] else '')
            cells = (
                results['study'], c['what'], paper, band_text(c['band']),
                measured_text(c), verdict,
            )  # fmt: skip
            lines.append(
                f'| {" | ".join(w.replace("|", chr(92) + "|") for w in cells)} |'
            )
    return '\n'.join(lines)


def write_readme(found: Sequence[Mapping[str, Any]], path: Path = README) -> None:
    """Puts the table between its two marks in ``experiments/README.md``.

    Raises:
      ValueError: if the file has lost its marks.
    """
    text = path.read_text('utf-8')
    if BEGIN not in text or END not in text:
        raise ValueError(f'{path} must hold the marks {BEGIN} and {END}')
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    total = sum(results['wall_seconds'] for results in found) / 60
    environment = found[0]['environment']
    machine = (
        f'{environment["cores"]} cores ({environment["device"]}), Python '
        f'{environment["python"]}, JAX {environment["jax"]}; {total:.0f} minutes.'
    )
    files.write_text(path, f'{head}{BEGIN}\n{machine}\n\n{board(found)}\n{END}{tail}')


def main(command: Command) -> list[str]:
    """Runs what is not finished and writes the scoreboard.

    Returns:
      What went wrong, a line each.
    """
    failures = []
    for name in command.only or catalogue.NAMES:
        study = load(name)
        if not command.fresh and finished(study, command.preset, command.directory):
            print(f'{name}: finished before', flush=True)
            continue
        print(f'{name}: about {study.minutes:g} min', flush=True)
        began = time.monotonic()
        failure = run(study, command)
        failures += [failure] if failure else []
        print(f'{name}: {time.monotonic() - began:.0f} s', flush=True)
    every = [load(name) for name in catalogue.NAMES]
    found = [
        results
        for study in every
        if (results := finished(study, command.preset, command.directory))
    ]
    if found:
        pages = [f'{r["study"]}-{command.preset}/report.html' for r in found]
        linked = [{**r, 'page': path} for r, path in zip(found, pages, strict=True)]
        folders.write_json(command.directory / 'scoreboard.json', {'studies': linked})
        files.write_text(command.directory / 'scoreboard.html', page.scoreboard(linked))
        # An installed package has no README to write into.
        wanted = command.preset == 'cpu' and command.readme and README.exists()
        if wanted and len(found) == len(every):
            write_readme(found)
    return failures


def cli(arguments: Sequence[str]) -> None:
    """Runs the command line."""
    command = flags.parse(Command, arguments, name='reproduce', text=__doc__)
    failures = main(command)
    board = command.directory / 'scoreboard.html'
    if board.exists():
        print(f'Scoreboard: {board}')
    if failures:
        sys.exit('error: ' + '; '.join(failures))
