"""The outcome of a comparison in one sentence that claims no more than its numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advjax.report.words import change, integer, number_of, percent

ACCURACIES = ('clean_accuracy', 'robust_accuracy')


def headline(results: Mapping[str, Any]) -> str:
    """The outcome in one sentence, with a full stop.

    The first network trained by the method 'standard' (or else the first network) is
    compared with the other network of the highest robust accuracy.

    Args:
      results: as `page.render` takes them.

    Raises:
      ValueError: if there is no network, or one lacks its name or an accuracy.
    """
    nets = checked_nets(results)
    subject = change(results.get('threat_model') or {})
    base = next((net for net in nets if net.get('method') == 'standard'), nets[0])
    others = [net for net in nets if net is not base]
    other = max(
        others, key=lambda net: number_of(net['robust_accuracy'], -1.0), default=None
    )
    first, second = _who(base, other)
    clean, robust = (number_of(base[key]) for key in ACCURACIES)
    text = f'{subject} {_falls(first, clean, robust)}'
    if other is not None:
        text += f'; {_compared(second, other, base)}'
    return text[0].upper() + text[1:] + '.'


def _falls(who: str, clean: float, robust: float) -> str:
    before, after = percent(clean), percent(robust)
    measured = math.isfinite(clean) and math.isfinite(robust)
    if measured and before == after:
        return f'leaves {who} at {after} right answers'
    if not measured or robust > clean:
        return f'was tried on {who}: {before} right without it, {after} with it'
    return f'takes {who} from {before} to {after} right answers'


def _compared(who: str, net: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """How a network fares next to ``base``, which the sentence has dealt with."""
    clean, robust = (number_of(net[key]) for key in ACCURACIES)
    rival = number_of(base['robust_accuracy'])
    before, after = percent(clean), percent(robust)
    if not all(map(math.isfinite, (clean, robust, rival))) or robust > clean:
        return f'for {who} it is {before} without and {after} with it'
    way = f'stays at {after}' if before == after else f'goes from {before} to {after}'
    if after == percent(rival):
        return f'{who} does no better: it {way}'
    counts = [number_of(n.get('examples')) for n in (net, base)]
    spread = [
        p * (1 - p) / n
        for p, n in zip((robust, rival), counts, strict=True)
        if math.isfinite(n) and n >= 1
    ]
    # Two standard errors of the difference of two independent samples.
    if abs(robust - rival) <= 2 * math.sqrt(sum(spread)):
        number = integer(min(c for c in counts if math.isfinite(c)))
        return (
            f'{who} {way}, which under attack is no clear difference with '
            f'{number} images'
        )
    if robust < rival:
        return f'{who} does worse: it {way}'
    if before == after:
        return f'{who} {way}'
    if robust >= clean / 2:
        return f'{who} keeps {after}, down from {before}'
    return f'{who} does better but falls too, from {before} to {after}'


def _who(base: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    """Words for one or two networks: by their training, or by their names."""
    nets = [net for net in (base, other) if net is not None]
    words = [
        'the normally trained network'
        if net.get('method') == 'standard'
        else 'the adversarially trained network'
        if net.get('adversarial')
        else ''
        for net in nets
    ]
    if not all(words) or len(set(words)) < len(words):
        words = [f'the network “{net["name"]}”' for net in nets]
    elif len(words) == 2:
        words[1] = 'the adversarially trained one'
    return [*words, ''][:2]


def checked_nets(results: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The networks of some results, if a page can be made of them."""
    nets = results.get('nets')
    if not nets:
        raise ValueError(
            f"results must hold a list 'nets' of at least one net, got keys "
            f'{sorted(map(str, results))}.'
        )
    for index, net in enumerate(nets):
        missing = [key for key in ('name', *ACCURACIES) if key not in net]
        if missing:
            raise ValueError(
                f"results['nets'][{index}] must hold 'name', 'clean_accuracy' and "
                f"'robust_accuracy', lacks {missing}."
            )
    return nets
