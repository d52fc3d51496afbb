"""Charts as figures: several side by side, or one of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax.report import drawing
from advjax.report.charts.axes import (
    PLAIN,
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
    """Draws several charts side by side, or below each other where there is no room.

    Args:
      drawings: functions of matplotlib axes, such as ``lines_on`` and its kin make
        with ``functools.partial``.
      width: width of the figure in inches.
      height: height of each chart in inches.

    Returns:
      The figure, with one legend for all charts.
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
        drawing.finish(figure, list(named.values()), list(named), width)
    return figure


def _thin_out(axes: Axes) -> None:
    from matplotlib.ticker import AutoLocator

    # Only where matplotlib chose the ticks: named ones are all wanted.
    if isinstance(axes.xaxis.get_major_locator(), AutoLocator):
        axes.locator_params(axis='x', nbins=5)


def lines(
    lines: Sequence[Line],
    x: Axis = PLAIN,
    y: Axis = PLAIN,
    *,
    width: float = 10.0,
    height: float = 4.2,
    **options: Any,
) -> Figure:
    """A figure of ``lines_on``, which has the options, in inches."""
    return _figure(width, height, lines_on, lines, x, y, **options)


def histograms(
    samples: Mapping[str, Values],
    x: Axis = PLAIN,
    *,
    width: float = 10.0,
    height: float = 4.2,
    **options: Any,
) -> Figure:
    """A figure of ``histograms_on``, which has the options, in inches."""
    return _figure(width, height, histograms_on, samples, x, **options)


def scatter(
    points: Mapping[str, tuple[Values, Values]],
    x: Axis = PLAIN,
    y: Axis = PLAIN,
    *,
    width: float = 10.0,
    height: float = 4.6,
    **options: Any,
) -> Figure:
    """A figure of ``scatter_on``, which has the options, in inches."""
    return _figure(width, height, scatter_on, points, x, y, **options)


def bars(
    groups: Sequence[str],
    series: Mapping[str, Values],
    y: Axis = PLAIN,
    *,
    width: float = 10.0,
    height: float | None = None,
    **options: Any,
) -> Figure:
    """A figure of ``bars_on``, which has the options, as high as the bars need."""
    height = height or 1.4 + len(groups) * max(0.34, 0.2 * len(series))
    return _figure(width, height, bars_on, groups, series, y, **options)


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    width: float = 10.0,
    height: float | None = None,
    **options: Any,
) -> Figure:
    """A figure of ``matrix_on``, which has the options, as high as the rows need."""
    height = height or 1.3 + 0.42 * len(rows)
    return _figure(width, height, matrix_on, values, rows, columns, **options)


def _figure(
    width: float, height: float, draw: Callable[..., None], *chart: Any, **options: Any
) -> Figure:
    return panels(
        [lambda axes: draw(axes, *chart, **options)], width=width, height=height
    )
