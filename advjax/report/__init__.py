"""Reports of evaluations: pages, charts, text tables.

    found = advjax.evaluation.evaluate(logits_fn, x, y, attacks, key=key)
    advjax.report.write({'my network': found}, 'runs/mine')

writes ``report.html``, one self-contained page, and ``results.json``, its numbers.
``Comparison`` says more about the networks, ``charts`` has figures for your own pages,
``layout`` their style.
"""

from advjax.report import charts
from advjax.report.comparison import Comparison, Net, table
from advjax.report.folder import Page, write
from advjax.report.layout import WIDTHS, panel

__all__ = ['WIDTHS', 'Comparison', 'Net', 'Page', 'charts', 'panel', 'table', 'write']
