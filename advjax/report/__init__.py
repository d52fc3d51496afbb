"""Reports: what was found, as a page, as charts, as a text table.

    found = advjax.evaluation.evaluate(logits_fn, x, y, attacks, key=key)
    advjax.report.write({'my network': found}, 'runs/mine')

leaves ``report.html``, one self-contained page, and ``results.json``, its figures.
``Comparison`` says more about the networks, ``charts`` has figures for pages of your
own, ``layout`` their style.
"""

from advjax.report import charts
from advjax.report.comparison import Comparison, Net, table
from advjax.report.folder import Page, write
from advjax.report.layout import WIDTHS, panel

__all__ = ['WIDTHS', 'Comparison', 'Net', 'Page', 'charts', 'panel', 'table', 'write']
