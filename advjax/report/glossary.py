"""The words of a report, for readers new to the field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# (pattern for what was used, term, meaning); an empty pattern is always shown.
GLOSSARY = (
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


def glossary(used_parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Terms and meanings: the general ones, and those of the attacks used."""
    used = ' '.join(
        re.sub(r'[^a-z0-9]+', ' ', f'{a.get("name")} {a.get("description")}'.lower())
        for a in used_parts
    )
    return [
        (term, meaning)
        for pattern, term, meaning in GLOSSARY
        if not pattern or re.search(pattern, used)
    ]
