"""What the rows say: the table, its notes, the claims, a picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advjax.report import charts
from experiments.commands.compare_methods.methods import Row
from experiments.frame.findings import Claim, Picture, Table, claim, picture, table

WIDE = 30.0
"""Points of AutoAttack accuracy over standard training that are a wide margin."""


def networks(
    rows: Sequence[Row], found: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry for every network that was attacked, with a note in words."""
    standard = found['standard']['networks'][0]['autoattack']
    entries = []
    for row in rows:
        one = found[row.name]
        for number, network in enumerate(one['networks']):
            # Of a split network the auxiliary branch is the one trained to withstand.
            auxiliary = number > 0
            entry = {**one, **network, 'defends': row.defends or auxiliary}
            entry['margin'] = network['autoattack'] - standard
            entry['note'] = _note(row, entry, '' if auxiliary else row.why)
            entries.append(entry)
    return entries


def _note(row: Row, entry: Mapping[str, Any], why: str) -> str:
    parts = [row.note] if row.note else []
    if entry['replays'] > 1:
        parts.append(f'{entry["replays"]} updates per batch')
    parts += [failure(event) for event in entry['events']]
    if entry['constant']:
        parts.append('collapsed to a constant class')
    elif entry['margin'] < WIDE:
        parts.append(why or 'fails, and it is not understood why')
    return '; '.join(parts)


def failure(event: str) -> str:
    """An event of ``training.fit`` without its figures."""
    what, _, after = event.partition(';')
    what = what.partition(':')[0]
    return f'{what},{after}' if after else what


def of(
    entries: Sequence[Mapping[str, Any]], config: Any, eps: float, processes: int
) -> Table:
    """The table of the page and of the README."""
    where = ', one core for each training' if processes > 1 else ''
    error = 100 * math.sqrt(0.15 * 0.85 / config.test_images)
    return table(
        f'Every method, the same budget: Linf {eps:g}',
        [
            'method', 'clean, %', f'PGD-{config.pgd_steps}, %', 'AutoAttack, %',
            's per epoch', 'gradients per step', 'epochs', 'note',
        ],
        [
            [
                e['title'], round(e['clean'], 1), round(e['pgd'], 1),
                round(e['autoattack'], 1), round(e['seconds'], 3),
                e['evaluations'], e['epochs'], e['note'],
            ]
            for e in entries
        ],
        note=(
            f'Accuracy on {config.test_images} random test images of {config.dataset}; '
            f'one seed, standard error {error:.1f} points at 85 %. Budget: '
            f'{config.budget:g} gradient evaluations for each training image, in whole '
            'epochs. Gradients per step, counted in its program, are per image. '
            f'PGD-{config.pgd_steps} has {config.restarts} restarts with steps of '
            'eps / 30. Seconds are of the median epoch, held-out evaluation '
            f'included{where}.'
        ),
    )  # fmt: skip


def markdown(found: Table) -> str:
    """The table for a README."""
    head = '| ' + ' | '.join(found.columns) + ' |'
    rule = '|---|' + '---:|' * (len(found.columns) - 2) + '---|'
    lines = ['| ' + ' | '.join(map(_cell, row)) + ' |' for row in found.rows]
    return '\n'.join([head, rule, *lines, '', found.note, ''])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.3g}'
    return str(value).replace('|', '\\|')


def claims(entries: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims; bands were set before the run."""
    by_title = {e['title']: e for e in entries}
    found = [
        claim(
            'standard training under AutoAttack',
            by_title['standard']['autoattack'],
            band=(None, 5),
            unit='%',
        ),
        claim(
            'largest excess of AutoAttack over PGD, points: it is the stronger one',
            max(e['autoattack'] - e['pgd'] for e in entries),
            band=(None, 1),
        ),
    ]
    return found + [
        claim(
            f'{e["title"]}: points above standard training under AutoAttack',
            e['margin'],
            band=(WIDE, None),
            reason=e['note'],
        )
        for e in entries
        if e['defends']
    ]


def chart(entries: Sequence[Mapping[str, Any]]) -> Picture:
    """Clean accuracy and what is left of it."""
    kinds = {'clean': 'clean', 'PGD': 'pgd', 'AutoAttack': 'autoattack'}
    return picture(
        'What is left under attack',
        'Every network was trained for the same number of gradient evaluations.',
        charts.bars,
        [e['title'] for e in entries],
        {label: [e[key] for e in entries] for label, key in kinds.items()},
        charts.Axis('accuracy, %', limits=(0, 100)),
    )
