"""Example images as a page shows them: the original, the change, the sum."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advjax.report import charts
from advjax.report.words import DASH, percent

MAX_EXAMPLES = 12
MAX_SIDE = 80  # Pixels; with MAX_EXAMPLES and two nets this keeps a page below 2 MB.
PRINT_SIDE = 96  # Pixels; a small image is enlarged by the factor that fits into this.


def cards_of(
    examples: Mapping[str, Any] | None,
    names: Sequence[str],
    nets: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], float, str]:
    """What each example shows, the common amplification, and a remark."""
    if not examples or len(examples.get('clean', ())) == 0 or not examples.get('nets'):
        return [], 1.0, ''
    clean = np.asarray(examples['clean'], np.float32)
    labels = np.asarray(examples['labels'])
    attacked = [np.asarray(net['adversarial'], np.float32) for net in examples['nets']]
    shapes = {array.shape for array in attacked}
    if clean.ndim != 4 or shapes != {clean.shape} or labels.shape != clean.shape[:1]:
        raise ValueError(
            f"examples must hold 'clean' (n, H, W, C), 'labels' (n,) and 'adversarial' "
            f'like clean, got shapes {clean.shape}, {labels.shape} and {shapes}.'
        )
    order = [str(net['name']) for net in nets]
    shown = min(len(clean), MAX_EXAMPLES)
    deltas = [x[:shown] - clean[:shown] for x in attacked]
    factor = charts.amplification(*deltas)
    cards = []
    for index in range(shown):
        truth = _class(labels[index], names)
        shown_nets: list[dict[str, Any]] = []
        for net, x, delta in zip(examples['nets'], attacked, deltas, strict=True):
            before, after = (
                _at(net, key, index) for key in ('clean_prediction', 'prediction')
            )
            name = str(net['name'])
            shown_nets.append(
                {
                    'name': name,
                    'place': order.index(name) % 6 if name in order else 5,
                    'original': data_address(clean[index]),
                    'change': data_address(0.5 + factor * delta[index]),
                    'attacked': data_address(x[index]),
                    'before': _class(before, names),
                    'after': _class(after, names),
                    'sure_before': percent(_at(net, 'clean_confidence', index)),
                    'sure_after': percent(_at(net, 'confidence', index)),
                    'verdict': _verdict(labels[index], before, after),
                }
            )
        cards.append({'label': truth, 'nets': shown_nets})
    notes = []
    if shown < len(clean):
        notes.append(f'The first {shown} of {len(clean)} examples are shown.')
    if max(clean.shape[1:3]) > MAX_SIDE:
        notes.append('Large images are thinned out to keep this page small.')
    return cards, factor, ' '.join(notes)


def _at(net: Mapping[str, Any], key: str, index: int) -> Any:
    values = net.get(key)
    return None if values is None else np.asarray(values)[index]


def _verdict(label: Any, before: Any, after: Any) -> tuple[str, str]:
    """A style class and words for what the attack did to one prediction."""
    if before is None or after is None:
        return 'plain', 'answer not recorded'
    if int(before) != int(label):
        return 'plain', '• already wrong'
    if int(after) != int(label):
        return 'bad', '✗ fooled'
    return 'good', '✓ still right'


def _class(index: Any, names: Sequence[str]) -> str:
    if index is None:
        return DASH
    index = int(index)
    return names[index] if 0 <= index < len(names) else str(index)


def data_address(image: np.ndarray) -> str:
    """An image as a data URL."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = charts.picture(image, limit=MAX_SIDE)
    # The style sheet asks for square pixels, but printing may smooth them all the same:
    # small images are therefore enlarged here already.
    times = max(PRINT_SIDE // max(pixels.shape[:2]), 1)
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    Image.fromarray(pixels).save(stream, 'PNG', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(stream.getvalue()).decode()
