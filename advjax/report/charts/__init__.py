"""Charts in the style of this library, as matplotlib figures.

All are pure functions from numbers to a ``Figure``; ``advjax.report.panel`` puts one
into a page. ``lines_on`` and its kin draw on given axes, ``panels`` puts several of
them into a figure, and ``lines`` and its kin are figures of one chart.
``adversarial_grid``, ``robustness_curves``, ``attack_bars`` and ``training_curves`` are
the figures of a comparison of attacked networks.
"""

from advjax.report.charts.axes import (
    Axis,
    Line,
    bars_on,
    histograms_on,
    lines_on,
    matrix_on,
    scatter_on,
    surface_on,
)
from advjax.report.charts.figures import (
    bars,
    histograms,
    lines,
    matrix,
    panels,
    scatter,
)
from advjax.report.charts.images import adversarial_grid, amplification, picture
from advjax.report.charts.robustness import (
    attack_bars,
    robustness_curves,
    training_curves,
)

__all__ = [
    'Axis',
    'Line',
    'adversarial_grid',
    'amplification',
    'attack_bars',
    'bars',
    'bars_on',
    'histograms',
    'histograms_on',
    'lines',
    'lines_on',
    'matrix',
    'matrix_on',
    'panels',
    'picture',
    'robustness_curves',
    'scatter',
    'scatter_on',
    'surface_on',
    'training_curves',
]
