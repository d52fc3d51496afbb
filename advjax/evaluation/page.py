"""The report of an experiment as one HTML page for readers new to the field.

`write` turns the dictionary that is also saved as results.json, and a few example
images, into a single file: style, figures and pictures are inside it, nothing is
fetched (a content security policy in the page forbids it) and no script runs.

The page claims what the numbers say and no more. The headline is chosen by comparing
them: two accuracies that differ by less than two standard errors are not called
better or worse, nothing is called imperceptible, and an accuracy under attack is
described as what the attacks of the list left, because a stronger one may leave less.
A check of the results that failed stands at the top of the page.

Text from outside is escaped by jinja2, a number that is missing or not finite becomes
a dash, and the same input gives the same bytes. Charts are drawn twice, for wide and
for narrow windows: a chart that is merely scaled down to a phone cannot be read.
"""

from __future__ import annotations

import base64
import functools
import importlib.resources
import io
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax import drawing, files, plots

if TYPE_CHECKING:
    import jinja2

DASH = '\u2013'
MAX_EXAMPLES = 12
MAX_SIDE = 80  # Pixels; with MAX_EXAMPLES and two nets this keeps a page below 2 MB.
PRINT_SIDE = 96  # Pixels; a small image is enlarged by the factor that fits into this.
WIDE, NARROW = 12.4, 4.7  # Inches of 72 CSS pixels: the widths of a column.

_ACCURACIES = ('clean_accuracy', 'robust_accuracy')
# A method is adversarial training if its name, split at punctuation, has one of these.
_ADVERSARIAL = re.compile(
    r'(?<![a-z])(adversarial|at|awp|fast|fgsm|free|madry|mart|pgd|trades|universal)'
    r'(?![a-z])'
)

_DISTANCES = {
    'linf': ('a change of at most {} per pixel', 'largest change of any pixel, ε'),
    'l2': ('a change of Euclidean length at most {}', 'Euclidean length, ε'),
    'l1': ('changes that sum to at most {}', 'sum of all changes, ε'),
    'l0': ('a change of at most {} pixels', 'number of changed pixels, ε'),
}

# (pattern for what was used, term, meaning); an empty pattern is always shown.
_GLOSSARY = (
    (
        '',
        'Adversarial example',
        'An image that was changed a little, on purpose, so that a network gives '
        'a wrong answer. The change is not random noise: it is computed from the '
        'network itself.',
    ),
    (
        '',
        'Threat model',
        'The rules for the attacker: what may be changed and by how much. Without such '
        'rules “robust” means nothing. Here the attacker knows everything about the '
        'network.',
    ),
    (
        '',
        'ε (epsilon)',
        'The size limit in the threat model. Pixels run from 0 (black) to 1 (white), '
        'so that 0.1 is a tenth of the way from black to white.',
    ),
    (
        r'\blinf\b',
        'L∞ (Linf)',
        'The way this threat model measures a change: by its largest pixel. Every '
        'pixel may change, none by more than ε.',
    ),
    (
        r'\bl2\b',
        'L2',
        'The way this threat model measures a change: all pixel changes squared and '
        'added up, then the square root.',
    ),
    (
        '',
        'Robust accuracy',
        'The share of images for which the answer is right and stayed right under '
        'every attack that was tried. Another, stronger attack might lower it; it can '
        'never raise it.',
    ),
    (
        '',
        'Adversarial training',
        'Training on attacked images: in every step the images are attacked first, and '
        'the network then learns the right answers for the attacked versions.',
    ),
    (
        'fgsm',
        'FGSM',
        'Fast gradient sign method, the simplest attack. It asks once, for every '
        'pixel, whether brighter or darker makes the network more wrong, and moves '
        'every pixel that way by the full size allowed.',
    ),
    (
        'pgd|bim',
        'PGD',
        'Projected gradient descent: many small steps of that kind instead of one, '
        'each followed by a correction back into what the rules allow.',
    ),
    (
        'restart',
        'Restarts',
        'The attack is run several times from different random starting points, '
        'and the worst outcome counts.',
    ),
    (
        'margin',
        'Margin',
        'The lead of the right answer over the best wrong one. An attack on the margin '
        'tries to make it negative directly, and works where the usual training loss '
        'gives too little direction.',
    ),
    (
        'apgd|auto',
        'APGD, AutoAttack',
        'PGD that chooses its own step sizes, and a fixed set of strong attacks '
        'built around it; no setting has to be tuned.',
    ),
    (
        'square',
        'Square attack',
        'An attack that looks only at answers, never inside the network: it tries '
        'random square patches and keeps those that hurt.',
    ),
    (
        r'\bcw\b|carlini|deepfool|fab|fmn|ddn',
        'Smallest-change attack',
        'An attack that looks for the smallest change that fools the network, '
        'instead of the worst one of a given size.',
    ),
)


def write(
    path: str | os.PathLike[str],
    results: Mapping[str, Any],
    examples: Mapping[str, Any] | None = None,
) -> None:
    """Writes the report page; a reader never sees a half-written file.

    Args:
      path: the HTML file to write or replace; its folder is made if it is missing.
      results: what is also saved as results.json. Only `nets` is required, and of
        each net `name`, `clean_accuracy` and `robust_accuracy` in [0, 1] (None or
        NaN stand for not measured); what else is missing is not drawn.
      examples: `clean` (n, H, W, C) in [0, 1], `labels` (n,) and `nets`, a list of
        mappings with `name`, `adversarial` (n, H, W, C), and, each (n,),
        `clean_prediction`, `prediction`, `clean_confidence` and `confidence`.

    Raises:
      ValueError: if `results` has no nets, a net lacks its name or an accuracy, or
        the arrays of `examples` do not fit together.
    """
    html = render(results, examples)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, html)


def render(
    results: Mapping[str, Any], examples: Mapping[str, Any] | None = None
) -> str:
    """Returns the report page as a string; see `write`."""
    nets = _checked_nets(results)
    threat = results.get('threat_model') or {}
    names = [str(name) for name in results.get('class_names') or []]
    proofs = [_proof(proof) for proof in results.get('proofs') or []]
    cards, factor, note = _cards(examples, names, nets)
    attacks = [attack for net in nets for attack in net.get('attacks') or []]
    return _template().render(
        amplification=f'{factor:g}',
        attacks=attacks,
        bars=_bars(nets),
        bounds=threat.get('bounds') or (),
        cards=cards,
        cards_note=note,
        change=_change(threat),
        curves=_curves(nets, threat, len(names)),
        data=results,
        environment=results.get('environment') or {},
        failed=[proof for proof in proofs if proof['state'] == 'failed'],
        glossary=_glossary([{'name': threat.get('norm')}, *attacks]),
        headline=headline(results),
        nets=nets,
        panel=functools.partial(_panel, _distance(threat)),
        proofs=proofs,
        spoken=_spoken(nets),
        style=style(),
        title=results.get('title') or 'Adversarial examples',
        training=_training(nets),
    )


def headline(results: Mapping[str, Any]) -> str:
    """Returns the outcome in one sentence that claims no more than the numbers say.

    The first net trained by the method 'standard' (or else the first net) is compared
    with that other net which has the highest robust accuracy.

    Args:
      results: as in `write`.

    Returns:
      The sentence, with a full stop.

    Raises:
      ValueError: as in `write`.
    """
    nets = _checked_nets(results)
    change = _change(results.get('threat_model') or {})
    base = next((net for net in nets if net.get('method') == 'standard'), nets[0])
    others = [net for net in nets if net is not base]
    other = max(
        others, key=lambda net: _number(net['robust_accuracy'], -1.0), default=None
    )
    first, second = _who(base, other)
    clean, robust = (_number(base[key]) for key in _ACCURACIES)
    text = f'{change} {_falls(first, clean, robust)}'
    if other is not None:
        text += f'; {_compared(second, other, base)}'
    return text[0].upper() + text[1:] + '.'


def _falls(who: str, clean: float, robust: float) -> str:
    before, after = percent(clean), percent(robust)
    if not (math.isfinite(clean) and math.isfinite(robust)):
        return f'was tried on {who}: {before} right without it, {after} with it'
    if before == after:
        return f'leaves {who} at {after} right answers'
    if robust > clean:
        return f'was tried on {who}: {before} right without it, {after} with it'
    return f'takes {who} from {before} to {after} right answers'


def _compared(who: str, net: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Returns how a net fares, next to the one the sentence has dealt with."""
    clean, robust = (_number(net[key]) for key in _ACCURACIES)
    rival = _number(base['robust_accuracy'])
    before, after = percent(clean), percent(robust)
    if not all(map(math.isfinite, (clean, robust, rival))) or robust > clean:
        return f'for {who} it is {before} without and {after} with it'
    way = f'stays at {after}' if before == after else f'goes from {before} to {after}'
    if after == percent(rival):
        return f'{who} does no better: it {way}'
    counts = [_number(n.get('examples')) for n in (net, base)]
    spread = [
        p * (1 - p) / n
        for p, n in zip((robust, rival), counts, strict=True)
        if math.isfinite(n) and n >= 1
    ]
    # Two standard errors of a difference, as if the images were drawn anew for each.
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
    """Returns words for one or two nets: by their training, or by their names."""
    words = []
    for net in [base] + ([] if other is None else [other]):
        method = str(net.get('method', '')).lower()
        if method == 'standard':
            words.append('the normally trained network')
        elif _ADVERSARIAL.search(method):
            words.append('the adversarially trained network')
        else:
            words.append('')
    if not all(words) or len(set(words)) < len(words):
        words = [
            f'the network “{net["name"]}”' for net in (base, other) if net is not None
        ]
    elif len(words) == 2:
        words[1] = 'the adversarially trained one'
    return [*words, ''][:2]


def _checked_nets(results: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    nets = results.get('nets')
    if not nets:
        raise ValueError(
            f"results must hold a list 'nets' of at least one net, got keys "
            f'{sorted(map(str, results))}.'
        )
    for index, net in enumerate(nets):
        missing = [key for key in ('name', *_ACCURACIES) if key not in net]
        if missing:
            raise ValueError(
                f"results['nets'][{index}] must hold 'name', 'clean_accuracy' and "
                f"'robust_accuracy', lacks {missing}."
            )
    return nets


# Numbers as words. A no-break space keeps a number and its unit on one line.


def percent(value: object) -> str:
    """Returns a share with one decimal; only exactly 0 and 1 print as 0 and 100 %."""
    number = _number(value)
    if not math.isfinite(number):
        return DASH
    if 0 < number < 0.0005:
        return '<\u20090.1\u00a0%'
    if 0.9995 <= number < 1:
        return '>\u200999.9\u00a0%'
    return f'{100 * number:.1f}\u00a0%'


def integer(value: object) -> str:
    """Returns a count with thin spaces between the thousands."""
    number = _number(value)
    return f'{number:,.0f}'.replace(',', '\u2009') if math.isfinite(number) else DASH


def decimal(value: object) -> str:
    """Returns a number with up to six digits."""
    number = _number(value)
    return f'{number:.6g}' if math.isfinite(number) else DASH


def duration(value: object) -> str:
    """Returns seconds as a time that is easy to read."""
    seconds = _number(value)
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f'{seconds:.1f}\u00a0s'
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes}\u00a0min {seconds}\u00a0s'
    return f'{minutes // 60}\u00a0h {minutes % 60}\u00a0min'


def _number(value: object, otherwise: float = math.nan) -> float:
    """Returns a finite float, or what stands for none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise


def _size(threat: Mapping[str, Any]) -> str:
    """Returns eps in words: 8/255 where that is what was meant."""
    eps = _number(threat.get('eps'))
    if len(f'{eps:.6g}') > 6 and abs(eps * 255 - round(eps * 255)) < 1e-4:
        return f'{round(eps * 255)}/255'
    return f'{eps:.4g}'


def _distance(threat: Mapping[str, Any]) -> str:
    norm = str(threat.get('norm', '')).lower()
    return _DISTANCES.get(norm, ('', 'allowed size of the change, ε'))[1]


def _change(threat: Mapping[str, Any]) -> str:
    """Returns what the attacker may do, as the subject of a sentence."""
    if not math.isfinite(_number(threat.get('eps'))):
        return 'the attack'
    norm = str(threat.get('norm', '')).lower()
    words = _DISTANCES.get(norm, ('a change of size at most {}',))[0]
    return words.format(_size(threat))


# The parts of the page.


def _cards(
    examples: Mapping[str, Any] | None,
    names: Sequence[str],
    nets: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], float, str]:
    """Returns what each example shows, the common amplification, and a remark."""
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
    factor = plots.amplification(*deltas)
    cards = []
    for index in range(shown):
        truth = _class(labels[index], names)
        card = {'label': truth, 'nets': []}
        for net, x, delta in zip(examples['nets'], attacked, deltas, strict=True):
            before, after = (
                _at(net, key, index) for key in ('clean_prediction', 'prediction')
            )
            name = str(net['name'])
            card['nets'].append(
                {
                    'name': name,
                    'place': order.index(name) % 6 if name in order else 5,
                    'original': _image(clean[index]),
                    'change': _image(0.5 + factor * delta[index]),
                    'attacked': _image(x[index]),
                    'before': _class(before, names),
                    'after': _class(after, names),
                    'sure_before': percent(_at(net, 'clean_confidence', index)),
                    'sure_after': percent(_at(net, 'confidence', index)),
                    'verdict': _verdict(labels[index], before, after),
                }
            )
        cards.append(card)
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
    """Returns a style class and words for what the attack did to one answer."""
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


def _image(image: np.ndarray) -> str:
    """Returns a picture as a data address."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = plots.picture(image, limit=MAX_SIDE)
    # The style sheet asks for square pixels, but a printed page may still be smoothed
    # by whatever shows it: small images are therefore enlarged here already.
    times = max(PRINT_SIDE // max(pixels.shape[:2]), 1)
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    Image.fromarray(pixels).save(stream, 'PNG', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(stream.getvalue()).decode()


def _proof(proof: Mapping[str, Any]) -> dict[str, Any]:
    checked, failed = (_number(proof.get(key)) for key in ('checked', 'failed'))
    if failed > 0:
        state = 'failed'
    elif failed == 0 and checked > 0:
        state = 'passed'
    else:
        # Nothing was looked at, or nobody said how it went: that is no success.
        state = 'open'
    return {**proof, 'state': state}


def _panel(distance: str, kind: str, chart: Any, name: str, alt: str) -> str:
    """Returns one chart as two drawings; the style sheet shows one of them."""
    import markupsafe

    draw = {
        'bars': plots.attack_bars,
        'curves': functools.partial(plots.robustness_curves, quantity=distance),
        'training': plots.training_curves,
    }[kind]
    parts = []
    for word, width in (('wide', WIDE), ('narrow', NARROW)):
        figure = draw(chart['rows'], width=width, **chart.get('more', {}))
        svg = drawing.to_svg(figure, prefix=f'{name}-{word}', alt=alt)
        parts.append(f'<div class="{word}">{svg}</div>')
    return markupsafe.Markup(''.join(parts))


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
    eps = _number(threat.get('eps'))
    return {
        'rows': rows if any(sizes for _, sizes, _ in rows) else [],
        'chance': 1 / classes if classes else None,
        'more': {
            'chance': 1 / classes if classes else None,
            'eps': eps if math.isfinite(eps) else None,
            'mark': f'ε = {_size(threat)}, the size used on this page',
        },
    }


_NO_ATTACK, _WORST = 'no attack', 'worst case of all'


def _bars(nets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for net in nets:
        bars = {_NO_ATTACK: _number(net['clean_accuracy'])}
        for attack in net.get('attacks') or []:
            name = str(attack.get('name', DASH))
            # Two attacks of one name are two bars.
            while name in (*bars, _WORST):
                name += '′'
            bars[name] = _number(attack.get('robust_accuracy'))
        bars[_WORST] = _number(net['robust_accuracy'])
        rows.append((str(net['name']), bars))
    # The worst case stands last even where a later net has attacks of its own.
    order = [name for _, bars in rows for name in bars if name != _WORST]
    order = [*dict.fromkeys(order), _WORST]
    rows = [
        (name, [(attack, bars.get(attack, math.nan)) for attack in order])
        for name, bars in rows
    ]
    return {'rows': rows, 'more': {'emphasised': (_WORST,)}}


def _training(nets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [(str(net['name']), net.get('history') or []) for net in nets]
    return {'rows': rows if any(history for _, history in rows) else []}


def _glossary(used_parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns terms and meanings: the general ones, and those that were used."""
    used = ' '.join(
        re.sub(r'[^a-z0-9]+', ' ', f'{a.get("name")} {a.get("description")}'.lower())
        for a in used_parts
    )
    return [
        (term, meaning)
        for pattern, term, meaning in _GLOSSARY
        if not pattern or re.search(pattern, used)
    ]


def _spoken(nets: Sequence[Mapping[str, Any]]) -> str:
    """Returns the key numbers as text, for charts that are listened to."""
    return '; '.join(
        f'{net["name"]}: {percent(net["clean_accuracy"])} without attack, '
        f'{percent(net["robust_accuracy"])} in the worst case'
        for net in nets
    )


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    def known(write_number: Callable[[object], str]) -> Callable[[object], str]:
        # A key that is missing arrives here as an object that refuses float().
        return lambda value: write_number(
            None if isinstance(value, jinja2.Undefined) else value
        )

    environment = jinja2.Environment(
        autoescape=True, lstrip_blocks=True, trim_blocks=True
    )
    for write_number in (decimal, duration, integer, percent):
        environment.filters[write_number.__name__] = known(write_number)
    text = importlib.resources.files(__package__).joinpath('page.html.jinja')
    return environment.from_string(text.read_text('utf-8'))


@functools.cache
def style() -> str:
    """The style sheet of every page that is made here."""
    text = importlib.resources.files(__package__).joinpath('page.css')
    return text.read_text('utf-8')
