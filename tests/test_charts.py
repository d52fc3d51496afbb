"""Charts: a figure of one chart is the same chart on axes of its own."""

import functools

import numpy as np
import pytest

from advjax.report import charts, drawing
from advjax.report.charts import Axis, Line

CHARTS = {
    'lines': (
        ([Line('a', [0, 1, 2], [1.0, 2.0, 4.0])], Axis('x'), Axis('y', 'log')),
        {'marks': {'here': 1.0}, 'levels': {'there': 2.0}},
    ),
    'histograms': (({'a': np.arange(9.0), 'b': np.ones(3)}, Axis('x')), {'bins': 5}),
    'scatter': (
        ({'a': ([0, 1], [1, 3])}, Axis('x'), Axis('y')),
        {'texts': [(0, 1, 'beside')]},
    ),
    'bars': ((['one', 'two'], {'a': [1, 2], 'b': [3, 4]}, Axis('x')), {}),
    'matrix': (
        (np.arange(6.0).reshape(2, 3), ['r', 's'], ['a', 'b', 'c']),
        {'form': '{:.2f}'},
    ),
}


@pytest.mark.parametrize('name', CHARTS)
def test_a_figure_is_its_chart_on_axes(name):
    chart, options = CHARTS[name]
    options = {**options, 'title': 'what it is'}
    figure = getattr(charts, name)(*chart, width=7.0, height=3.0, **options)
    assert tuple(figure.get_size_inches()) == (7.0, 3.0)
    draw = getattr(charts, f'{name}_on')
    same = charts.panels(
        [lambda axes: draw(axes, *chart, **options)], width=7.0, height=3.0
    )
    assert drawing.to_svg(figure) == drawing.to_svg(same)
    bare = getattr(charts, name)(*chart, width=7.0, height=3.0)
    assert drawing.to_svg(bare) != drawing.to_svg(figure)


def test_tables_and_bars_grow_with_their_rows():
    def height(count):
        rows = [str(n) for n in range(count)]
        table = charts.matrix(np.ones((count, 2)), rows, ['a', 'b'])
        bars = charts.bars(rows, {'a': np.ones(count)})
        return [figure.get_size_inches()[1] for figure in (table, bars)]

    assert np.all(np.greater(height(9), height(3)))


def test_panels_share_one_legend():
    line = functools.partial(charts.lines_on, lines=[Line('a', [0, 1], [0, 1])])
    figure = charts.panels([line, line])
    shown = [text.get_text() for legend in figure.legends for text in legend.texts]
    assert shown == ['a']
