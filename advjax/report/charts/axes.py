"""Charts drawn on given matplotlib axes.

``x`` and ``y`` describe the axes, ``title`` is a line above the chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from advjax.report import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Sequence[float] | np.ndarray


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      name: what the legend calls it; '' leaves it out of the legend.
      x: (n,) positions.
      y: (n,) values; those that are not finite leave a gap.
      spread: (low, high), each (n,), drawn as a band; or None.
      dashed: draw it dashed and without markers.
    """

    name: str
    x: Values
    y: Values
    spread: tuple[Values, Values] | None = None
    dashed: bool = False


class Axis(NamedTuple):
    """One axis of a chart.

    Attributes:
      label: what it measures, with its unit.
      scale: any of matplotlib's: 'linear', 'log', 'symlog'.
      limits: (low, high), either may be None; None for all that there is.
    """

    label: str = ''
    scale: str = 'linear'
    limits: tuple[float | None, float | None] | None = None


PLAIN = Axis()


def _prepare(axes: Axes, x: Axis, y: Axis, title: str) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set(xlabel=x.label, ylabel=y.label, xscale=x.scale, yscale=y.scale)
    for axis, given in ((axes.xaxis, x), (axes.yaxis, y)):
        if given.scale in ('log', 'symlog'):
            # Matplotlib's own labels are formulas, and the style reads no formulas.
            axis.set_major_formatter('{x:g}')
            axis.set_minor_formatter(LogFormatter())
    if title:
        axes.set_title(title)


def _limit(axes: Axes, x: Axis, y: Axis) -> None:
    """To be called after drawing: None stands for the end of the data."""
    if x.limits is not None:
        axes.set_xlim(*x.limits)
    if y.limits is not None:
        axes.set_ylim(*y.limits)


def lines_on(
    axes: Axes,
    lines: Sequence[Line],
    x: Axis = PLAIN,
    y: Axis = PLAIN,
    *,
    marks: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    title: str = '',
) -> None:
    """Draws values against positions, one line each.

    ``marks`` are {name: position} of vertical lines, ``levels`` {name: value} of
    horizontal ones.
    """
    _prepare(axes, x, y, title)
    for index, line in enumerate(lines):
        look: dict[str, Any] = drawing.series(index)
        if line.dashed:
            look = {**look, 'marker': '', 'linestyle': (0, (4, 2))}
        # Markers on hundreds of points would merge into a thick line.
        look['markevery'] = max(1, len(line.x) // 12)
        name = drawing.label(line.name, 40) if line.name else None
        at, values = drawing.floats(line.x), drawing.floats(line.y)
        axes.plot(at, values, label=name, zorder=3, **look)
        if line.spread is not None:
            low, high = (drawing.floats(part) for part in line.spread)
            band: dict[str, Any] = {'color': look['color'], 'alpha': 0.18}
            axes.fill_between(at, low, high, linewidth=0, **band)
    for number, (name, where) in enumerate((marks or {}).items()):
        dashes = (0, (6, 3 + 2 * number))
        axes.axvline(where, color=drawing.INK, ls=dashes, lw=1.4, label=name)
    for number, (name, where) in enumerate((levels or {}).items()):
        dashes = (0, (2, 2 + 2 * number))
        axes.axhline(where, color=drawing.MUTED, ls=dashes, lw=1.4, label=name)
    _limit(axes, x, y)


def histograms_on(
    axes: Axes,
    samples: Mapping[str, Values],
    x: Axis = PLAIN,
    *,
    bins: int = 40,
    title: str = '',
) -> None:
    """Draws histograms of samples {name: values} over common bins, one outline each.

    Each is in percent of its own size; with the scale 'log' the bins grow
    geometrically.
    """
    _prepare(axes, x, Axis('share of all (%)'), title)
    arrays = {name: drawing.floats(values) for name, values in samples.items()}
    arrays = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    every = np.concatenate([np.zeros(0), *arrays.values()])
    if not len(every):
        return
    if x.scale == 'log':
        every = every[every > 0]
        edges = np.geomspace(every.min(), every.max() * (1 + 1e-9), bins + 1)
    else:
        edges = np.histogram_bin_edges(every, bins)
    for index, (name, values) in enumerate(arrays.items()):
        look: dict[str, Any] = {'color': drawing.series(index)['color'], 'bins': edges}
        look['weights'] = np.full(len(values), 100 / max(len(values), 1))
        axes.hist(values, alpha=0.22, **look)
        axes.hist(values, histtype='step', lw=2, label=drawing.label(name, 40), **look)
    _limit(axes, x, PLAIN)


def scatter_on(
    axes: Axes,
    points: Mapping[str, tuple[Values, Values]],
    x: Axis = PLAIN,
    y: Axis = PLAIN,
    *,
    texts: Sequence[tuple[float, float, str]] = (),
    title: str = '',
) -> None:
    """Draws groups of points {name: (x, y)}, with texts (x, y, text) beside points."""
    _prepare(axes, x, y, title)
    for index, (name, (at, values)) in enumerate(points.items()):
        look = drawing.series(index)
        size = 40 if len(at) < 60 else 14
        name = drawing.label(name, 40) if name else None
        look |= {'s': size, 'alpha': 0.75, 'linewidths': 0, 'zorder': 3, 'label': name}
        axes.scatter(drawing.floats(at), drawing.floats(values), **look)
    beside: Any = {'xytext': (6, 4), 'textcoords': 'offset points', 'fontsize': 11}
    for at, value, text in texts:
        axes.annotate(drawing.label(text, 40), (at, value), **beside)
    _limit(axes, x, y)


def bars_on(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Values],
    y: Axis = PLAIN,
    *,
    title: str = '',
) -> None:
    """Draws horizontal bars in named groups, with one bar per series in each.

    ``series`` is {name: one value per group}, ``y`` the axis of the values.
    """
    _prepare(axes, y, PLAIN, title)
    tall = 0.8 / max(len(series), 1)
    place = np.arange(len(groups))
    for index, (name, values) in enumerate(series.items()):
        axes.barh(
            place + (index - (len(series) - 1) / 2) * tall,
            np.nan_to_num(drawing.floats(values)),
            tall * 0.9,
            color=drawing.series(index)['color'],
            label=drawing.label(name, 40),
            zorder=3,
        )
    axes.set_yticks(place, [drawing.label(group, 32) for group in groups])
    axes.invert_yaxis()
    axes.grid(visible=False, axis='y')
    _limit(axes, y, PLAIN)


def matrix_on(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    form: str = '{:.1f}',
    title: str = '',
) -> None:
    """Draws (R, C) values as a table whose cells are darker the larger the number.

    ``rows`` and ``columns`` are R and C names, ``form`` is the format of a number.
    """
    from matplotlib.colors import to_rgb

    values = np.asarray(values, float)
    finite = np.isfinite(values)
    low = values[finite].min() if finite.any() else 0.0
    high = values[finite].max() if finite.any() else 1.0
    # From transparent to the colour, on any background of the page.
    share = (np.nan_to_num(values, nan=low) - low) / ((high - low) or 1.0)
    shade = np.empty((*values.shape, 4))
    shade[..., :3], shade[..., 3] = to_rgb(drawing.SERIES[1]), 0.75 * share
    axes.imshow(shade, aspect='auto', interpolation='none')
    axes.set_xticks(range(len(columns)), [drawing.label(c, 18) for c in columns])
    axes.set_yticks(range(len(rows)), [drawing.label(r, 26) for r in rows])
    figure: Any = axes.figure
    room = 5 * figure.get_figwidth()
    if max(map(len, columns), default=0) * len(columns) > room:
        axes.tick_params(axis='x', labelrotation=35)
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment('right')
            tick.set_rotation_mode('anchor')
    for (row, column), value in np.ndenumerate(values):
        text = form.format(value) if math.isfinite(value) else '–'
        axes.text(column, row, text, ha='center', va='center', fontsize=11)
    axes.grid(visible=False)
    if title:
        axes.set_title(title)


def surface_on(
    axes: Axes,
    values: np.ndarray,
    x: Axis,
    y: Axis,
    extent: tuple[float, float, float, float],
    *,
    regions: bool = False,
    title: str = '',
) -> None:
    """Draws a function of two variables, as filled contours or regions.

    Args:
      axes: where to draw.
      values: (H, W) numbers, or classes; row 0 is the lowest y.
      x: the horizontal axis.
      y: the vertical axis.
      extent: (left, right, bottom, top) of the area.
      regions: whether the values are classes, each with its own colour.
      title: a line above the chart.
    """
    from matplotlib.colors import to_rgba_array

    _prepare(axes, x, y, title)
    values = np.asarray(values)
    if regions:
        colours = to_rgba_array(drawing.SERIES)[:, :3]
        picture = colours[values.astype(int) % len(colours)] * 0.75 + 0.25
        look: Any = {'aspect': 'auto', 'interpolation': 'none', 'origin': 'lower'}
        axes.imshow(picture, extent=extent, **look)
    else:
        left, right, bottom, top = extent
        across = np.linspace(left, right, values.shape[1])
        up = np.linspace(bottom, top, values.shape[0])
        drawn = axes.contourf(across, up, values, 14, cmap='cividis')
        axes.figure.colorbar(drawn, ax=axes)
    axes.grid(visible=False)
    _limit(axes, x, y)
