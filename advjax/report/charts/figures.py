"""Charts as figures: several side by side, or one of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax.report import drawing
from advjax.report.charts.axes import (
    Axis,
    Line,
    Values,
    bars_on,
    histograms_on,
    lines_on,
    matrix_on,
    scatter_on,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    drawings: Sequence[Any], *, width: float = 10.0, height: float = 4.2
) -> Figure:
    """Draws several charts in rows, as many side by side as fit, with one legend.

    Args:
      drawings: functions of matplotlib axes, such as a ``functools.partial`` of
        ``lines_on``.
      width: width of the figure in inches.
      height: height of each chart in inches.
    """
    columns = min(len(drawings), max(1, int(width // 4)))
    rows = math.ceil(len(drawings) / columns)
    with drawing.style():
        figure = drawing.new_figure(width, height * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        named: dict[str, Any] = {}
        for axes, draw in zip(grid, drawings, strict=False):
            draw(axes)
            if width / columns < 6:  # Values would run into each other.
                _thin_out(axes)
            handles, labels = axes.get_legend_handles_labels()
            named |= {
                text: handle
                for text, handle in zip(labels, handles, strict=True)
                if text not in named
            }
        for axes in grid[len(drawings) :]:
            axes.set_axis_off()
        drawing.finish(figure, width, list(named.values()), list(named))
    return figure


def _thin_out(axes: Axes) -> None:
    from matplotlib.ticker import AutoLocator

    # Only where matplotlib chose the ticks: named ones are all wanted.
    if isinstance(axes.xaxis.get_major_locator(), AutoLocator):
        axes.locator_params(axis='x', nbins=5)


def lines(
    lines: Sequence[Line], *axes: Axis, height: float = 4.2, **options: Any
) -> Figure:
    """A figure of ``lines_on``, ``width`` by ``height`` inches."""
    return _figure(lines_on, height, lines, *axes, **options)


def histograms(
    samples: Mapping[str, Values], *axes: Axis, height: float = 4.2, **options: Any
) -> Figure:
    """A figure of ``histograms_on``, ``width`` by ``height`` inches."""
    return _figure(histograms_on, height, samples, *axes, **options)


def scatter(
    points: Mapping[str, tuple[Values, Values]],
    *axes: Axis,
    height: float = 4.6,
    **options: Any,
) -> Figure:
    """A figure of ``scatter_on``, ``width`` by ``height`` inches."""
    return _figure(scatter_on, height, points, *axes, **options)


def bars(
    groups: Sequence[str],
    series: Mapping[str, Values],
    *axes: Axis,
    height: float | None = None,
    **options: Any,
) -> Figure:
    """A figure of ``bars_on``, in inches; by default as high as the bars need."""
    height = height or 1.4 + len(groups) * max(0.34, 0.2 * len(series))
    return _figure(bars_on, height, groups, series, *axes, **options)


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    height: float | None = None,
    **options: Any,
) -> Figure:
    """A figure of ``matrix_on``, in inches; by default as high as the rows need."""
    height = height or 1.3 + 0.42 * len(rows)
    return _figure(matrix_on, height, values, rows, columns, **options)


def _figure(
    draw: Callable[..., None],
    height: float,
    *chart: Any,
    width: float = 10.0,
    **options: Any,
) -> Figure:
    return panels(
        [lambda axes: draw(axes, *chart, **options)], width=width, height=height
    )
