"""The scoreboard."""

from typing import Any

import numpy as np

from experiments.frame.findings import Claim, Tag, claim


def order_claims(config: Any, grid: dict) -> list[Claim]:
    """Who is more accurate on clean images, at every size."""
    published = '+0.9 (B7), +0.3 to +0.9 (B0 to B7)'
    pairs: list[tuple[str, str, str, Tag, Any]] = [
        ('advprop', 'clean', published, 'R', (0, None)),
        ('advprop', 'joint', '> 0', 'D', (0, None)),
        ('joint', 'clean', '< 0', 'M', None),
    ]
    claims = []
    for size in config.sizes:
        for more, less, paper, tag, band in pairs:
            gain = grid[more, size][0] - grid[less, size][0]
            claims.append(
                claim(
                    f'{size} training images, {config.seeds} seeds: clean accuracy, '
                    f'{"AdvProp" if more == "advprop" else more} - {less} training',
                    np.mean(gain),
                    paper=paper,
                    tag=tag,
                    band=band,
                    unit='points',
                    reason=chance(gain),
                )
            )
    return claims


def chance(differences: np.ndarray) -> str:
    """The reason if a mean difference is within two standard errors of 0, else ''."""
    count = len(differences)
    error = np.std(differences, ddof=1) / np.sqrt(count) if count > 1 else np.inf
    if abs(np.mean(differences)) > 2 * error:
        return ''
    return f'no difference to speak of: its standard error is {error:.2f} points'


def branch_claims(config, grid, own, still, attacked) -> list[Claim]:
    """What the two branches are."""
    main, aux = (
        np.concatenate([grid['advprop', size][b] for size in config.sizes])
        for b in (0, 1)
    )
    return [
        claim(
            'AdvProp, clean images, all sizes: main - auxiliary branch',
            np.mean(main - aux),
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
        claim(
            'distance of the statistics of the two branches, mean over layers',
            np.mean(own),
            paper='differ',
            band=(0.1, None),
            unit='standard deviations',
        ),
        claim(
            'the same at eps 0, where both branches see the same images',
            np.mean(still),
            paper='0',
            band=(0, 1e-6),
            unit='standard deviations',
        ),
        claim(
            f'PGD-20, eps {config.eps:g}, {config.attacked} images: robust accuracy of '
            'the auxiliary branch when training attacks it',
            attacked['own1'],
            paper='48 (own earlier figure)',
            tag='C',
            unit='%',
        ),
        claim(
            'the same, minus that of a training whose attack looks through the main '
            'branch',
            attacked['own1'] - attacked['main1'],
            paper='48 (own earlier figure)',
            tag='C',
            band=(10, None),
            unit='points',
        ),
        claim(
            'robust accuracy, auxiliary - main branch, of AdvProp',
            attacked['own1'] - attacked['own0'],
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
    ]
