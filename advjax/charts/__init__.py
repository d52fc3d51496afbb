"""General charts in the style of this library: lines, histograms, points, tables.

Like those of ``advjax.plots`` they are pure functions from numbers to a matplotlib
``Figure``; ``advjax.drawing.to_svg`` puts them into a page. ``lines_on`` and its kin
draw on given axes, ``panels`` puts several of them into a figure, and ``lines`` and
its kin are figures of one chart.
"""

from advjax.charts.axes import (
    Axis,
    Line,
    bars_on,
    histograms_on,
    lines_on,
    matrix_on,
    scatter_on,
    surface_on,
)
from advjax.charts.figures import bars, histograms, lines, matrix, panels, scatter

__all__ = [
    'Axis',
    'Line',
    'bars',
    'bars_on',
    'histograms',
    'histograms_on',
    'lines',
    'lines_on',
    'matrix',
    'matrix_on',
    'panels',
    'scatter',
    'scatter_on',
    'surface_on',
]
