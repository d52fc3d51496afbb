"""A paper as a study: what it claims, what was measured, and a verdict on each.

A study is a package of ``experiments.studies``, named after its paper, whose
``__init__`` holds

    def run(config: Config, work: Work) -> Findings: ...

    STUDY = define('goodfellow2015', title=..., run=run, presets=...)

and whose line and cost stand in ``experiments.catalogue``. ``run`` does the work and
returns claims; the rest is done here: flags from the fields of the config, a folder
from which a killed study goes on, ``results.json`` and ``report.html``.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from advjax import report
from experiments import catalogue
from experiments.frame import flags, folders, page, process, record
from experiments.frame.findings import Findings, text_of
from experiments.frame.work import Work


@dataclasses.dataclass(frozen=True)
class Study:
    """A paper, the settings to run it with, and the function that does.

    Attributes:
      name: what is typed to run it.
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


def define(
    name: str,
    *,
    title: str,
    run: Callable[[Any, Work], Findings],
    presets: Mapping[str, Any],
) -> Study:
    """A study, with its line and its cost from the catalogue; see ``Study``."""
    listed = catalogue.entry(name)
    return Study(name, title, listed.line, run, presets, listed.minutes)


def load(name: str) -> Study:
    """Returns a study by its name.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in catalogue.NAMES:
        allowed = ', '.join(catalogue.NAMES)
        raise ValueError(f'study must be one of {allowed}, got {name!r}')
    return catalogue.entry(name).load().STUDY


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
    folder = folders.run_folder(folder or directory / study.name, config, fresh)
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
    content = {
        'study': study.name,
        'line': study.line,
        'claims': [c.row() for c in found.claims],
        'tables': [t._asdict() for t in found.tables],
        'data': work.data,
    }
    results = record.envelope(study.title, config, command, seconds, content)
    drawn = [(p.title, p.caption, report.panel(p.draw)) for p in found.pictures]
    return report.write(page.StudyPage(results, drawn), folder)


def cli(study: Study, arguments: Sequence[str]) -> None:
    """Runs a study from the command line."""
    kind = type(study.presets['cpu'])

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

    args = flags.parse(
        Command,
        arguments,
        name=study.name,
        text=sys.modules[kind.__module__].__doc__,
        chooser='preset',
        presets=study.presets,
    )
    folder = args.directory / (args.name or f'{study.name}-{args.preset}')
    process.use_compilation_cache()
    results = execute(
        study,
        flags.part(kind, args),
        args.directory,
        folder=folder,
        fresh=args.fresh,
        progress=not args.quiet,
        command=record.command_line(study.name, arguments),
    )
    print(f'\n{study.title}\n\n{text_of(results)}\n')
    print(f'Report: {folder / "report.html"}  ({results["wall_seconds"]} s)')
