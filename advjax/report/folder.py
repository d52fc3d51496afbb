"""Results in a folder: the figures for programs, a page for readers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from advjax import files
from advjax.evaluation import Evaluation
from advjax.report.comparison import Comparison, Net


class Page(Protocol):
    """What ``write`` can leave in a folder."""

    def results(self) -> Mapping[str, Any]:
        """The figures, as plain JSON-ready values."""
        ...

    def html(self) -> str:
        """The page, as one HTML document."""
        ...


def write(
    evaluations: Evaluation | Mapping[str, Evaluation | Net] | Page,
    folder: str | os.PathLike[str],
) -> dict[str, Any]:
    """Writes ``results.json`` and ``report.html``.

    Args:
      evaluations: of one network, or of several by their names; a ``Comparison``,
        which says more about them; or any other ``Page``.
      folder: created if missing. Files are written atomically, the page before the
        results, so that where there are results there is a page.

    Returns:
      The contents of ``results.json``.

    Raises:
      ValueError: if there is no network, or they were not attacked alike.

    >>> import jax, numpy as np, tempfile
    >>> import advjax
    >>> from advjax import evaluation, report
    >>> x, y = np.full((4, 2, 2, 1), 0.5, np.float32), np.array([0, 0, 1, 1])
    >>> f = lambda x: x.sum(axis=(1, 2, 3))[:, None] * np.array([[1.0, -1.0]])
    >>> attack = advjax.attacks.fgm(advjax.linf(0.1))
    >>> found = evaluation.evaluate(f, x, y, attack, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report.write({'sum': found}, folder)['nets'][0]['clean_accuracy']
    0.5
    """
    if isinstance(evaluations, Evaluation):
        evaluations = {'the network': evaluations}
    if isinstance(evaluations, Mapping):
        evaluations = Comparison({
            name: Net(each) if isinstance(each, Evaluation) else each
            for name, each in evaluations.items()
        })  # fmt: skip
    results, html = dict(evaluations.results()), evaluations.html()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / 'report.html', html)
    files.write_text(folder / 'results.json', json.dumps(results, indent=1))
    return results
