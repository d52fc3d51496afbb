"""The page of attacked networks, for readers new to the field.

It claims no more than the numbers say: robust accuracy is what the listed attacks left,
since a stronger attack may leave less, and nothing is called imperceptible. Failed
checks stand at the top of the page.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advjax.report import charts, layout
from advjax.report.cards import cards_of
from advjax.report.glossary import glossary
from advjax.report.headline import checked_nets, headline
from advjax.report.words import DASH, change, distance, number_of, percent, size

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure


def render(
    results: Mapping[str, Any], examples: Mapping[str, Any] | None = None
) -> str:
    """The page as one HTML document.

    Args:
      results: the contents of results.json. Only `nets` is required, and of each net
        `name`, `clean_accuracy` and `robust_accuracy` in [0, 1] (None or NaN if not
        measured); whatever else is missing is not drawn.
      examples: `clean` (n, H, W, C) in [0, 1], `labels` (n,) and `nets`, a list of
        mappings with `name`, `adversarial` (n, H, W, C), and, each (n,),
        `clean_prediction`, `prediction`, `clean_confidence` and `confidence`.

    Raises:
      ValueError: if `results` has no nets, a net lacks its name or an accuracy, or
        the arrays of `examples` do not fit together.
    """
    nets = checked_nets(results)
    threat = results.get('threat_model') or {}
    names = [str(name) for name in results.get('class_names') or []]
    proofs = [_proof(proof) for proof in results.get('proofs') or []]
    cards, factor, note = cards_of(examples, names, nets)
    attacks = [attack for net in nets for attack in net.get('attacks') or []]
    return _template().render(
        amplification=f'{factor:g}',
        attacks=attacks,
        bars=_bars(nets),
        bounds=threat.get('bounds') or (),
        cards=cards,
        cards_note=note,
        change=change(threat),
        curves=_curves(nets, threat, len(names)),
        data=results,
        environment=results.get('environment') or {},
        failed=[proof for proof in proofs if proof['state'] == 'failed'],
        glossary=glossary([{'name': threat.get('norm')}, *attacks]),
        headline=headline(results),
        nets=nets,
        panel=_panel,
        proofs=proofs,
        spoken=_spoken(nets),
        style=layout.style(),
        title=results.get('title') or 'Adversarial examples',
        training=_training(nets),
    )


def _proof(proof: Mapping[str, Any]) -> dict[str, Any]:
    checked, failed = (number_of(proof.get(key)) for key in ('checked', 'failed'))
    if failed > 0:
        state = 'failed'
    elif failed == 0 and checked > 0:
        state = 'passed'
    else:
        # Nothing was checked, or the outcome is unknown.
        state = 'open'
    return {**proof, 'state': state}


def _panel(chart: Mapping[str, Any], name: str, alt: str) -> str:
    def draw(width: float) -> Figure:
        return chart['draw'](chart['rows'], width=width, **chart.get('more', {}))

    return layout.panel(draw, name=name, alt=alt)


def _curves(
    nets: Sequence[Mapping[str, Any]], threat: Mapping[str, Any], classes: int
) -> dict[str, Any]:
    rows = []
    for net in nets:
        curve = net.get('curve') or {}
        sizes, accuracy = curve.get('eps') or [], curve.get('accuracy') or []
        if len(sizes) != len(accuracy):
            raise ValueError(
                f'the curve of {net["name"]!r} must hold as many accuracies as eps, '
                f'got {len(accuracy)} and {len(sizes)}.'
            )
        rows.append((str(net['name']), list(sizes), list(accuracy)))
    eps = number_of(threat.get('eps'))
    return {
        'rows': rows if any(sizes for _, sizes, _ in rows) else [],
        'draw': charts.robustness_curves,
        'chance': 1 / classes if classes else None,
        'more': {
            'chance': 1 / classes if classes else None,
            'eps': eps if math.isfinite(eps) else None,
            'quantity': distance(threat),
            'mark': f'ε = {size(threat)}, the size used on this page',
        },
    }


_NO_ATTACK, _WORST = 'no attack', 'worst case of all'


def _bars(nets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for net in nets:
        bars = {_NO_ATTACK: number_of(net['clean_accuracy'])}
        for attack in net.get('attacks') or []:
            name = str(attack.get('name', DASH))
            # Attacks of the same name get a bar each.
            while name in (*bars, _WORST):
                name += '′'
            bars[name] = number_of(attack.get('robust_accuracy'))
        rows.append((str(net['name']), bars, number_of(net['robust_accuracy'])))
    # The worst case stands last even where a later network has attacks of its own.
    order = dict.fromkeys(attack for _, bars, _ in rows for attack in bars)
    rows = [
        (name, [*((a, bars.get(a, math.nan)) for a in order), (_WORST, worst)])
        for name, bars, worst in rows
    ]
    more = {'emphasised': (_WORST,)}
    return {'draw': charts.attack_bars, 'rows': rows, 'more': more}


def _training(nets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [(str(net['name']), net.get('history') or []) for net in nets]
    drawn = any(history for _, history in rows)
    return {'draw': charts.training_curves, 'rows': rows if drawn else []}


def _spoken(nets: Sequence[Mapping[str, Any]]) -> str:
    """The key numbers as text, for screen readers."""
    return '; '.join(
        f'{net["name"]}: {percent(net["clean_accuracy"])} without attack, '
        f'{percent(net["robust_accuracy"])} in the worst case'
        for net in nets
    )


@functools.cache
def _template() -> jinja2.Template:
    return layout.templates().get_template('page.html.jinja')
