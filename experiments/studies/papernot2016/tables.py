"""All numbers by temperature, and who could attack the network with what."""

import functools
from typing import Any

import numpy as np

from advjax.attacks import Capability, ThreatModel
from experiments.frame.findings import table
from experiments.studies.papernot2016.measures import ATTACKS, percent


def result_table(config: Any, plain: Any, rows: Any):
    """All numbers by temperature."""

    def cells(name, row):
        return [
            name,
            percent(row, 'accuracy'),
            float(np.mean(row['logits'])),
            float(np.median(row['gradient'])),
            percent(row, 'zero'),
            *(percent(row, a) if a in row else None for a in ATTACKS),
            float(np.nanmean(row['distance'])),
            *(float(row[p]) if p in row else None
              for p in ('pixels-softmax', 'pixels-rescaled')),
        ]  # fmt: skip

    columns = [
        'network', 'accuracy (%)', 'logits, L1', 'gradient, log10', 'zero (%)',
        *(f'{word} (%)' for word in ATTACKS.values()),
        'Carlini-Wagner, L2', 'pixels, softmax', 'pixels, logits / T',
    ]  # fmt: skip
    body = [cells('undistilled', plain)]
    body += [cells(f'T = {t:g}', row) for t, row in rows.items()]
    note = (
        f'FGSM and PGD-{config.steps} in Linf at {config.eps:g}, any wrong answer; '
        'saliency and Carlini-Wagner towards a random class. Shares of images that are '
        'right without an attack.'
    )
    return table('By temperature', columns, body, note)


def threat_table(config: Any):
    """Who could attack the network, and with what."""
    box = functools.partial(Capability, bounds=(0.0, 1.0))
    threats = [
        ThreatModel('targeted', 'white', box('l0', float('inf'))),
        ThreatModel('targeted', 'white', box('l2')),
        ThreatModel('untargeted', 'white', box('linf', config.eps)),
        ThreatModel('confidence', 'white', box('linf', config.eps, budget=50)),
        ThreatModel('untargeted', 'gray', box('l2')),
        ThreatModel('untargeted', 'transfer', box('linf', config.eps)),
        ThreatModel('untargeted', 'score', box('linf', config.eps, queries=2000)),
        ThreatModel('targeted', 'decision', box('l2', queries=5000)),
    ]
    body = []
    for threat in threats:
        able = threat.capability
        limits = {'eps': able.eps, 'queries': able.queries, 'budget': able.budget}
        words = [f'{k} {v:g}' for k, v in limits.items() if v not in (None, np.inf)]
        entries = [entry.name for entry in threat.entries()]
        body.append(
            [threat.goal, threat.knowledge, ', '.join([able.norm, *words]),
             len(entries), ', '.join(entries)]
        )  # fmt: skip
    return table(
        'Threat models, and the attacks of the catalogue that apply',
        ['goal', 'knowledge', 'capability', 'number', 'attacks'],
        body,
        'The defence was first judged by the saliency attack on the softmax alone, one '
        'attack of the first row.',
    )
