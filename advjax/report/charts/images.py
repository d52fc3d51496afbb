"""Images in a grid, and what makes a small change of them visible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax.report import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def adversarial_grid(
    rows: Sequence[Mapping[str, Any]], *, width: float = 10.0, columns: int = 8
) -> Figure:
    """Draws images in rows: one column per example, one row per kind of image.

    Args:
      rows: one mapping per row: `title` (a line above the row), `images`
        (n, H, W) or (n, H, W, C) with C of 1 or 3, values in [0, 1], and optionally
        `captions`, n short texts under the images.
      width: width of the figure in inches.
      columns: examples side by side; further examples go into a block below. Pixels
        are drawn as squares, never smoothed.

    Raises:
      ValueError: if there is nothing to draw or the rows differ in length.
    """
    stacks = [[picture(image) for image in row['images']] for row in rows]
    counts = {len(stack) for stack in stacks}
    if len(counts) != 1 or counts == {0} or columns < 1:
        raise ValueError(
            f'rows must hold equally many (at least one) images and columns be at '
            f'least 1, got rows of {[len(stack) for stack in stacks]} images and '
            f'columns={columns}.'
        )
    (count,) = counts
    columns = min(columns, count)
    blocks = math.ceil(count / columns)
    # The layout is computed, in inches, from the side of one picture: automatic
    # layouts change the size of the pictures with the length of the captions.
    gap, title = 0.12, 0.34
    side = (width - gap * (columns - 1)) / columns
    shapes = [stack[0].shape for stack in stacks]
    heights = [side * shape[0] / shape[1] for shape in shapes]
    below = [0.26 if row.get('captions') is not None else 0.04 for row in rows]
    block = sum(heights) + sum(below) + title * len(rows) + 0.1
    characters = max(int(side * 72 / 7.2), 4)
    with drawing.style():
        figure = drawing.new_figure(width, block * blocks, arrange=False)
        tall = block * blocks
        for number in range(blocks):
            top = tall - number * block
            chosen = range(number * columns, min((number + 1) * columns, count))
            for row, stack, height, foot in zip(
                rows, stacks, heights, below, strict=True
            ):
                text = drawing.label(row.get('title', ''), max(int(width * 9.5), 8))
                figure.text(0, (top - title + 0.1) / tall, text, fontweight='bold')
                top -= title + height
                for place, index in enumerate(chosen):
                    left = place * (side + gap)
                    box = (left / width, top / tall, side / width, height / tall)
                    axes = figure.add_axes(box)
                    look: Any = {'cmap': 'gray', 'interpolation': 'none'}
                    axes.imshow(stack[index], vmin=0, vmax=255, aspect='auto', **look)
                    axes.set_axis_off()
                    if row.get('captions') is not None:
                        text = drawing.label(row['captions'][index], characters)
                        at = (left + side / 2) / width, (top - 0.05) / tall
                        figure.text(*at, text, fontsize=11, ha='center', va='top')
                top -= foot
    return figure


def amplification(*deltas: np.ndarray) -> float:
    """The factor that makes the largest change just fill the grey scale.

    A change of zero is drawn in middle grey, so half of the scale is free on either
    side. The factor is rounded down to a short number: 1.0 where nothing changed,
    otherwise 0.5 or more.

    Args:
      *deltas: perturbations of pixels in [0, 1]; values that are not finite count as
        zero.
    """
    sizes = [float(np.abs(np.nan_to_num(delta)).max(initial=0)) for delta in deltas]
    largest = max(sizes, default=0.0)
    # Below a thousandth of a grey level there is only rounding.
    if largest < 1e-6:
        return 1.0
    # The rounding error of a float32 perturbation of eps must not lower the factor.
    raw = 0.5 / largest * (1 + 1e-4)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if step * power <= raw]
    return max(round(steps[-1] * power, 6), 0.5)


def picture(image: np.ndarray, *, limit: int | None = None) -> np.ndarray:
    """An image in [0, 1] as uint8, (H, W) grey or (H, W, 3) colour.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3); clipped to [0, 1], and values that are not
        finite become black.
      limit: longest side in pixels; a larger image is subsampled, because averaging
        would wash out the perturbations it is to show.

    Raises:
      ValueError: for any other shape.
    """
    image = np.nan_to_num(np.asarray(image, np.float32), nan=0.0)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] != 3):
        raise ValueError(
            f'image must be (H, W), (H, W, 1) or (H, W, 3), got shape {image.shape}.'
        )
    if limit is not None:
        stride = math.ceil(max(image.shape[:2]) / limit)
        image = image[::stride, ::stride]
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
