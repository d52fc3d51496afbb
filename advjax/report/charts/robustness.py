"""Figures of a comparison: accuracy under attack, by attack, and over the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax.report import drawing
from advjax.report.drawing import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def robustness_curves(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    eps: float | None = None,
    *,
    mark: str = '',
    chance: float | None = None,
    quantity: str = 'largest allowed change, ε',
    width: float = 10.0,
    height: float = 4.2,
) -> Figure:
    """Draws accuracy against the radius of the attack, one line per network.

    Args:
      curves: (name, eps, accuracy) per network, accuracy in [0, 1].
      eps: the radius to mark, in the units of the curves; None marks nothing.
      mark: its text in the legend; by default the radius itself.
      chance: accuracy of guessing, 1/K for K balanced classes; None draws no line.
      quantity: what the horizontal axis measures, with its unit.
      width: inches.
      height: inches.
    """
    with drawing.style():
        figure = drawing.new_figure(width, height)
        axes = figure.subplots()
        largest = 0.0
        for index, (name, sizes, accuracy) in enumerate(curves):
            sizes = drawing.floats(sizes)
            share = 100 * drawing.floats(accuracy)
            look = drawing.series(index)
            axes.plot(sizes, share, label=drawing.label(name, 32), zorder=3, **look)
            largest = max([largest, *sizes[np.isfinite(sizes)]])
        if chance is not None:
            name = f'guessing ({100 * chance:.1f} %)'
            axes.axhline(100 * chance, color=MUTED, ls=(0, (2, 2)), lw=1.4, label=name)
        if eps is not None and math.isfinite(eps):
            name = mark or f'ε = {eps:.4g}'
            axes.axvline(eps, color=INK, ls=(0, (6, 3)), lw=1.4, label=name)
            largest = max(largest, eps)
        axes.set_xlim(0, (largest or 1.0) * 1.02)
        drawing.percent_axis(axes.yaxis, axes.set_ylim)
        axes.set(xlabel=quantity, ylabel='right answers (%)')
        drawing.finish(figure, width, *axes.get_legend_handles_labels())
    return figure


def attack_bars(
    nets: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    *,
    emphasised: Sequence[str] = (),
    width: float = 10.0,
) -> Figure:
    """Draws accuracy under each attack as bars, one bar per net.

    Args:
      nets: (name, [(attack, accuracy), ...]) per net, accuracy in [0, 1]. An attack
        that a net lacks, or a number that is not finite, shows as a dash. Attacks
        stand from top to bottom in the order of their first appearance.
      emphasised: attacks to print in bold and to set apart from those above them.
      width: width of the figure in inches; the height follows from the bars.
    """
    attacks = list(dict.fromkeys(name for _, bars in nets for name, _ in bars))
    wide = width > 6
    step = max(len(nets), 1) + 0.7
    places, place = [], 0.0
    for name in attacks:
        place += 0.8 if name in emphasised else 0.0
        places.append(place)
        place += step
    with drawing.style():
        figure = drawing.new_figure(width, 1.25 + 0.235 * max(place, 1))
        axes = figure.subplots()
        for index, (name, bars) in enumerate(nets):
            values = dict(bars)
            at = [place + index for place in places]
            accuracy = drawing.floats([values.get(attack) for attack in attacks]) * 100
            axes.barh(
                at,
                np.nan_to_num(accuracy),
                height=0.84,
                color=drawing.series(index)['color'],
                label=drawing.label(name, 32),
                zorder=3,
            )
            for y, value in zip(at, accuracy, strict=True):
                known = math.isfinite(value)
                text = f'{value:.1f} %' if known else '–'
                end = (value if known else 0) + 1.2
                axes.text(end, y, text, va='center', fontsize=11, zorder=4)
        middle = (len(nets) - 1) / 2
        axes.set_yticks(
            [place + middle for place in places],
            [drawing.label(name, 40 if wide else 17) for name in attacks],
        )
        for name, tick in zip(attacks, axes.get_yticklabels(), strict=True):
            if name in emphasised:
                tick.set_fontweight('bold')
        axes.set_ylim(place - 0.9, -0.9)
        drawing.percent_axis(axes.xaxis, axes.set_xlim)
        # The numbers may stand beyond the end of the axis: the layout keeps them in.
        axes.set_xlim(0, 100)
        axes.grid(False, axis='y')
        axes.tick_params(axis='y', length=0)
        axes.spines['left'].set_visible(False)
        axes.set_xlabel('right answers (%)')
        drawing.finish(figure, width, *axes.get_legend_handles_labels())
    return figure


def training_curves(
    histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], *, width: float = 10.0
) -> Figure:
    """Draws held-out clean and robust accuracy, and the training loss.

    Args:
      histories: (name, rows) per net; a row may hold `epoch`, `held_out_clean`,
        `held_out_robust` (both in [0, 1]) and `train_loss`. What is missing or not
        finite leaves a gap.
      width: width of the figure in inches; a narrow figure stacks its two panels.
    """
    wide = width > 6
    with drawing.style():
        figure = drawing.new_figure(width, 4.0 if wide else 6.6)
        axes, losses = figure.subplots(*((1, 2) if wide else (2, 1)))
        longest = 0
        for index, (name, history) in enumerate(histories):
            epochs = drawing.floats(
                [row.get('epoch', place) for place, row in enumerate(history)]
            )
            style = drawing.series(index)
            if len(history) > 25:
                style = {'color': style['color']}
            longest = max([longest, *epochs[np.isfinite(epochs)]])
            for key, word, line in (
                ('held_out_clean', 'no attack', '-'),
                ('held_out_robust', 'attacked', (0, (4, 2))),
            ):
                values = drawing.floats([row.get(key) for row in history])
                text = f'{drawing.label(name, 24)}, {word}'
                axes.plot(epochs, 100 * values, label=text, ls=line, **style)
            values = drawing.floats([row.get('train_loss') for row in history])
            losses.plot(epochs, values, **style)
        drawing.percent_axis(axes.yaxis, axes.set_ylim)
        axes.set(ylabel='right answers (%)', title='Images not used for training')
        title = 'Training loss (lower is a better fit)'
        losses.set(ylabel='mean loss (nats)', title=title)
        low, high = losses.get_ylim()
        losses.set_ylim(min(0.0, low), high)
        for panel in (axes, losses):
            panel.set_xlabel('epoch (passes over the training images)')
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.set_xlim(-0.02 * max(longest, 1), 1.02 * max(longest, 1))
        drawing.finish(figure, width, *axes.get_legend_handles_labels())
    return figure
