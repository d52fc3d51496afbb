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
import io
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from advjax import plots

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
    # In the same folder, because only then the final move cannot be torn apart.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_text(html, encoding='utf-8', newline='\n')
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _panel(distance: str, kind: str, drawing: Any, name: str, alt: str) -> str:
    """Returns one chart as two drawings; the style sheet shows one of them."""
    import markupsafe

    draw = {
        'bars': plots.attack_bars,
        'curves': functools.partial(plots.robustness_curves, quantity=distance),
        'training': plots.training_curves,
    }[kind]
    parts = []
    for word, width in (('wide', WIDE), ('narrow', NARROW)):
        figure = draw(drawing['rows'], width=width, **drawing.get('more', {}))
        svg = plots.to_svg(figure, prefix=f'{name}-{word}', alt=alt)
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
    return environment.from_string(_PAGE.replace('STYLE_SHEET', _CSS))


_CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --panel: #fff; --ink: #1d2733; --soft: #4f5a67; --line: #dde2e8;
  --good: #0b6b4f; --bad: #b3261e; --loud: #fdecea; --code: #eef1f4;
  --figure-0: #d9702b; --figure-1: #005a8f; --figure-2: #8a3a8f;
  --figure-3: #2f8f6b; --figure-4: #7a6a00; --figure-5: #5b6470;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --panel: #1a2027; --ink: #e8ecf1; --soft: #aab4c0;
    --line: #323b46; --good: #6fd3b0; --bad: #ff9a8f; --loud: #3a1d1b; --code: #242c35;
    --figure-ink: #e8ecf1; --figure-muted: #98a3b0; --figure-grid: #323b46;
    --figure-0: #f2a263; --figure-1: #62b1ec; --figure-2: #d79be0;
    --figure-3: #7fd1ae; --figure-4: #d6c45c; --figure-5: #aab4c0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans',
    'Helvetica Neue', Arial, sans-serif;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%;
}
main, header, footer { max-width: 61rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3.5rem; }
h1 {
  font-size: clamp(1.5rem, 1.2rem + 1.3vw, 2.125rem); line-height: 1.3;
  font-weight: 650; letter-spacing: -.012em; margin: .4rem 0 1.2rem; max-width: 27em;
  text-wrap: balance;
}
h2 { font-size: 1.375rem; line-height: 1.3; margin: 0 0 .4rem; font-weight: 650; }
section { margin-top: 3.5rem; }
p, ul, dl { margin: 0 0 1rem; }
p, li, dd { max-width: 42em; }
.kicker { color: var(--soft); font-size: .9375rem; margin: 0; }
.soft, small { color: var(--soft); }
small { font-size: .875rem; }
.panel, .card, .tile {
  background: var(--panel); border: 1px solid var(--line); border-radius: .6rem;
}
.panel { padding: 1.25rem; margin: 1.25rem 0; }
.panel svg { display: block; width: 100%; height: auto; }
.narrow { display: none; max-width: 30rem; margin: 0 auto; }
.dot {
  display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  background: var(--dot); margin-right: .45em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.net-0 { --dot: var(--figure-0); } .net-1 { --dot: var(--figure-1); }
.net-2 { --dot: var(--figure-2); } .net-3 { --dot: var(--figure-3); }
.net-4 { --dot: var(--figure-4); } .net-5 { --dot: var(--figure-5); }
.tiles, .cards {
  display: grid; gap: 1rem; list-style: none; padding: 0; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
}
.cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18.5rem), 1fr)); }
.tile { padding: 1rem 1.25rem 1.1rem; border-top: 4px solid var(--dot); }
.tile p { margin: 0; }
.tile .soft { font-size: .9375rem; }
.figures { display: flex; gap: 1.75rem; margin: .7rem 0 0; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dt { font-size: .875rem; font-weight: 400; color: var(--soft); }
.figures dd {
  margin: 0; font-size: 1.9rem; line-height: 1.2; font-weight: 650; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.card { padding: .9rem 1rem 1rem; min-width: 0; }
.card h3 { font-size: 1rem; margin: 0; font-weight: 650; }
.card .net { border-top: 1px solid var(--line); margin-top: .6rem; padding-top: .5rem; }
.card .net p {
  display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: 1rem;
  margin: 0 0 .4rem; font-size: .9375rem;
}
.equation {
  display: grid; grid-template-columns: 1fr auto 1fr auto 1fr; gap: 0 .4rem;
}
.equation figure {
  display: grid; grid-row: span 2; grid-template-rows: subgrid; margin: 0; min-width: 0;
  text-align: center; line-height: 1.3;
}
.equation > span { align-self: center; color: var(--soft); }
.equation img {
  display: block; width: 100%; height: auto; border-radius: 3px; background: #808080;
  image-rendering: crisp-edges; image-rendering: pixelated;
  outline: 1px solid var(--line);
}
figcaption { font-size: .9375rem; margin-top: .3rem; hyphens: auto; }
figcaption small { display: block; font-size: .8125rem; }
.verdict { font-weight: 600; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .plain { color: var(--soft); }
.alarm {
  border: 2px solid var(--bad); background: var(--loud); border-radius: .6rem;
  padding: 1rem 1.25rem; margin-bottom: 1.75rem;
}
.alarm h2 { color: var(--bad); }
.alarm ul { margin: .4rem 0 0; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; font-weight: 650; padding: 0 0 .4rem; font-size: 1rem; }
table + table { margin-top: 1.75rem; }
th, td {
  padding: .5rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums;
}
thead th { color: var(--soft); font-weight: 500; line-height: 1.3; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 600; }
th small { display: block; font-weight: 400; line-height: 1.4; }
tr.worst td, tr.worst th { border-bottom: 0; font-weight: 650; }
.checks { list-style: none; padding: 0; }
.checks li { padding-left: 1.9rem; position: relative; margin-bottom: .7rem; }
.checks .mark { position: absolute; left: 0; font-weight: 700; }
.checks small { display: block; }
.glossary { columns: 2 24rem; column-gap: 2.5rem; }
.glossary div { break-inside: avoid; padding-bottom: .9rem; }
dt { font-weight: 650; } dd { margin: 0; }
.facts { display: grid; gap: .15rem 1.25rem; grid-template-columns: auto 1fr; }
.facts dt { font-weight: 400; color: var(--soft); }
pre {
  background: var(--code); border-radius: .6rem; padding: .9rem 1.1rem; overflow: auto;
  font-size: .9375rem; white-space: pre-wrap;
}
summary { cursor: pointer; color: var(--soft); font-size: .9375rem; }
details { margin-top: .75rem; }
details p { margin: .6rem 0 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
footer { margin-top: 3.5rem; padding-bottom: 3rem; color: var(--soft); }
footer p { border-top: 1px solid var(--line); padding-top: 1rem; max-width: none; }
@media screen and (max-width: 47rem) {
  body { font-size: 1rem; }
  header { padding-top: 1.75rem; }
  main, header, footer { padding-left: 1rem; padding-right: 1rem; }
  section { margin-top: 2.75rem; }
  .panel { padding: 1rem .75rem; }
  .wide { display: none; } .narrow { display: block; }
  .data thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .data, .data tbody, .data caption { display: block; }
  .data tr { display: grid; grid-template-columns: 1fr 1fr; column-gap: 1.25rem;
    padding: .6rem 0; border-bottom: 1px solid var(--line); }
  .data tr:last-child { border: 0; }
  .data th, .data td { border: 0; padding: .1rem 0; }
  .data tbody th { grid-column: 1 / -1; }
  .data td { display: flex; justify-content: space-between; gap: .5rem; }
  .data td::before { content: attr(data-label); color: var(--soft); font-weight: 400; }
  .data td:empty { display: none; }
  .data td:nth-child(2) { grid-column: 1 / -1; }
}
@media print {
  body { background: none; font-size: 10.5pt; }
  main, header, footer { max-width: none; padding: 0; }
  header { padding: 0; }
  section { margin-top: 1.75rem; }
  h2 { break-after: avoid; }
  .panel, .card, .tile, .alarm, table, li { break-inside: avoid; }
  .tables { break-inside: auto; }
  .cards { grid-template-columns: repeat(4, 1fr); gap: .5rem; }
  .card { padding: .5rem .6rem; font-size: 8.5pt; }
  .card h3, .card .net p, figcaption { font-size: inherit; }
  .card .net { margin-top: .3rem; padding-top: .3rem; }
  .card .dot { margin-right: .25em; }
  .equation { column-gap: .2rem; }
  figcaption small { font-size: 7.5pt; }
  .glossary { columns: 2; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .equation img { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details { display: none; }
}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="advjax">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>STYLE_SHEET</style>
</head>
<body>
<header>
{% if failed %}
<div class="alarm" role="alert">
<h2>✗ {{ failed|length }} of {{ proofs|length }} checks failed</h2>
<p>Do not rely on any number of this page before the cause is found.</p>
<ul>
{% for proof in failed %}
<li>{{ proof.claim }}: not so for {{ proof.failed|integer }} of
{{ proof.checked|integer }}.</li>
{% endfor %}
</ul>
</div>
{% endif %}
<p class="kicker">{{ title }}{% if data.dataset and data.dataset not in title %} ·
{{ data.dataset }}{% endif %}</p>
<h1>{{ headline }}</h1>
<p>Someone who knows everything about a network can compute, for each image, the change
that does the most harm. The rule here: {{ change }}
{%- if bounds|length == 2 %}, on a scale from {{ bounds[0]|decimal }} to
{{ bounds[1]|decimal }}{% endif %}. The right-hand number below is
the share of images whose answer stays right under the worst of the attacks that were
tried.</p>
<ul class="tiles">
{% for net in nets %}
<li class="tile net-{{ loop.index0 % 6 }}">
<p><strong>{{ net.name }}</strong></p>
{% if net.description %}<p class="soft">{{ net.description }}</p>{% endif %}
{% if net.examples %}
<p class="soft">tested on {{ net.examples|integer }} images</p>
{% endif %}
<dl class="figures">
<div><dt>right without attack</dt><dd>{{ net.clean_accuracy|percent }}</dd></div>
<div><dt>right under attack</dt><dd>{{ net.robust_accuracy|percent }}</dd></div>
</dl>
</li>
{% endfor %}
</ul>
</header>
<main>
{% if cards %}
<section aria-labelledby="images">
<h2 id="images">What the attack does to an image</h2>
<p>Left the original, in the middle what was added to it, right the sum. Under a
picture stands the network’s answer and how sure it says it is. The change is drawn
{% if amplification == '1' %}as strong as it is{% else %}{{ amplification }} times as
strong as it is, the same in every picture{% endif %}; grey means that nothing was
changed.{% if cards_note %} {{ cards_note }}{% endif %}</p>
<ul class="cards">
{% for card in cards %}
<li class="card">
<h3>This is: {{ card.label }}</h3>
{% for net in card.nets %}
<div class="net net-{{ net.place }}">
<p><span><span class="dot"></span>{{ net.name }}</span>
<span class="verdict {{ net.verdict[0] }}">{{ net.verdict[1] }}</span></p>
<div class="equation">
<figure><img src="{{ net.original }}" alt="Original image of {{ card.label }}">
<figcaption>{{ net.before }}<small>{{ net.sure_before }}</small></figcaption></figure>
<span aria-hidden="true">+</span>
<figure><img src="{{ net.change }}"
 alt="Change made by the attack on {{ net.name }}, amplified {{ amplification }} times">
<figcaption class="soft">change<small>×&#8201;{{ amplification }}</small></figcaption>
</figure>
<span aria-hidden="true">=</span>
<figure><img src="{{ net.attacked }}"
 alt="Attacked image, for which {{ net.name }} answers {{ net.after }}">
<figcaption><b class="{{ net.verdict[0] }}">{{ net.after }}</b>
<small>{{ net.sure_after }}</small></figcaption></figure>
</div>
</div>
{% endfor %}
</li>
{% endfor %}
</ul>
</section>
{% endif %}
{% if curves.rows %}
<section aria-labelledby="curve">
<h2 id="curve">What a smaller or larger change would do</h2>
<p>Each point is the share of right answers when the attacker may change images by up
to that size.
{%- if curves.chance %} A network that only guesses is right about
{{ curves.chance|percent }} of the time; an attacker can push it lower than that.
{%- endif %}</p>
<div class="panel">
{{ panel('curves', curves, 'curve', 'Right answers against the size of the attack. '
  ~ spoken) }}
<details><summary>The numbers of this chart</summary>
{% for name, sizes, accuracies in curves.rows %}
<p><strong>{{ name }}</strong>:
{% for size in sizes %}
{{ size|decimal }} → {{ accuracies[loop.index0]|percent }}{{ '; ' if not loop.last }}
{% endfor %}</p>
{% endfor %}
</details>
</div>
</section>
{% endif %}
{% if attacks %}
<section aria-labelledby="attacks">
<h2 id="attacks">Attack by attack</h2>
<p>Each attack searches for a harmful change in its own way. In the worst case of all,
an image counts as right only if its answer stayed right under every one of them.
{% if nets | selectattr('survivors', 'true') | list %}
The attacks took turns: each was shown only what those above it had left right, and its
number is what was still right after it.
{% endif %}</p>
<div class="panel">
{{ panel('bars', bars, 'bars', 'Right answers under each attack. ' ~ spoken) }}
</div>
<p>Nothing an attack says about itself is believed: each image it found is checked
again from outside. Images that broke the rules, or did not fool the network after
all, are rejected and do not count.</p>
<div class="panel tables">
{% for net in nets %}
{% if net.attacks %}
<table class="data" role="table">
<caption class="net-{{ loop.index0 % 6 }}"><span class="dot"></span>{{ net.name }}
</caption>
<thead role="rowgroup"><tr role="row">
<th role="columnheader" scope="col">attack</th>
<th role="columnheader" scope="col">right answers</th>
<th role="columnheader" scope="col">found</th>
<th role="columnheader" scope="col">verified</th>
<th role="columnheader" scope="col">rejected</th>
<th role="columnheader" scope="col">largest change</th>
<th role="columnheader" scope="col">runs of the net</th>
</tr></thead>
<tbody role="rowgroup">
{% for attack in net.attacks %}
<tr role="row">
<th role="rowheader" scope="row">{{ attack.name }}
{%- if attack.description %}<small>{{ attack.description }}</small>{% endif %}</th>
<td role="cell" data-label="right answers">{{ attack.robust_accuracy|percent }}</td>
<td role="cell" data-label="found">{{ attack.found|integer }}</td>
<td role="cell" data-label="verified">{{ attack.verified|integer }}</td>
<td role="cell" data-label="rejected">{{ attack.rejected|integer }}</td>
<td role="cell" data-label="largest">{{ attack.max_norm|decimal }}</td>
<td role="cell" data-label="runs">{{ attack.model_calls|integer }}</td>
</tr>
{% endfor %}
<tr role="row" class="worst">
<th role="rowheader" scope="row">worst case of all</th>
<td role="cell" data-label="right answers">{{ net.robust_accuracy|percent }}</td>
<td role="cell"></td><td role="cell"></td><td role="cell"></td><td role="cell"></td>
<td role="cell"></td>
</tr>
</tbody>
</table>
{% endif %}
{% endfor %}
</div>
</section>
{% endif %}
{% set eventful = nets|selectattr('events', 'defined')|selectattr('events')|list %}
{% if training.rows or eventful %}
<section aria-labelledby="training">
<h2 id="training">How the training went</h2>
{% if training.rows %}
<p>Measured after each pass over the training images, on images that were held back.
The attack behind the dashed lines may be quicker and weaker than those above. The
losses of two ways of training need not be comparable.</p>
<div class="panel">
{{ panel('training', training, 'training',
  'Accuracy on held-out images and training loss, over the epochs.') }}
</div>
{% endif %}
{% if eventful %}
<ul>
{% for net in eventful %}
{% for event in net.events %}
<li><strong>{{ net.name }}</strong>: {{ event }}</li>
{% endfor %}
{% endfor %}
</ul>
{% endif %}
</section>
{% endif %}
{% if proofs %}
<section aria-labelledby="checks">
<h2 id="checks">What was checked</h2>
<ul class="checks">
{% for proof in proofs %}
{% set style, mark, word = {'passed': ('good', '✓', 'holds'), 'failed': ('bad', '✗',
  'failed'), 'open': ('plain', '–', 'not checked')}[proof.state] %}
<li><span class="mark {{ style }}" role="img" aria-label="{{ word }}">{{ mark }}</span>
{% if proof.state == 'failed' %}<strong class="bad">{{ proof.claim }}: failed</strong>
{% else %}{{ proof.claim }}{% endif %}
<small>
{%- if proof.state == 'open' %}nothing was checked
{%- elif proof.state == 'failed' %}{{ proof.failed|integer }} of
{{ proof.checked|integer }} failed
{%- else %}{{ proof.checked|integer }} checked, none failed{% endif %}
{%- if proof.detail %}; {{ proof.detail }}{% endif %}</small></li>
{% endfor %}
</ul>
</section>
{% endif %}
<section aria-labelledby="words">
<h2 id="words">The words of this page</h2>
<dl class="glossary">
{% for term, meaning in glossary %}
<div><dt>{{ term }}</dt><dd>{{ meaning }}</dd></div>
{% endfor %}
</dl>
</section>
<section aria-labelledby="again">
<h2 id="again">Do it again</h2>
{% if data.command %}<pre><code>{{ data.command }}</code></pre>{% endif %}
<dl class="facts">
{% if data.seed is defined %}<dt>seed</dt><dd>{{ data.seed }}</dd>{% endif %}
{% if data.wall_seconds is defined %}
<dt>all of it took</dt><dd>{{ data.wall_seconds|duration }}</dd>
{% endif %}
{% for net in nets if net.train_seconds is defined %}
<dt>training {{ net.name }}</dt><dd>{{ net.train_seconds|duration }}</dd>
{% endfor %}
{% for name, value in environment.items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
</section>
</main>
<footer><p>Made by advjax{% if data.created %}, {{ data.created }}{% endif %}.</p>
</footer>
</body>
</html>
"""
