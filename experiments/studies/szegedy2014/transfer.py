"""Section 4.2: images made to fool one network, shown to others (Tables 2 to 4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from advjax.report import charts
from advjax.training import Fit
from experiments.frame.findings import Findings, claim, picture, table
from experiments.studies.szegedy2014.distortion import (
    Found,
    mean_sizes,
    noise,
    rms,
    scaled,
)
from experiments.studies.szegedy2014.networks import HALVES, TABLE_1, error

PAPER_TABLE_2 = np.array([
    [100, 11.7, 22.7, 2, 3.9, 2.7],
    [87.1, 100, 35.2, 35.9, 27.3, 9.8],
    [71.9, 76.2, 100, 48.1, 47, 34.4],
    [28.9, 13.7, 21.1, 100, 6.6, 2],
    [38.2, 14, 23.8, 20.3, 100, 2.7],
    [23.4, 16, 24.8, 9.4, 6.6, 100],
])  # fmt: skip
"""Rows: made for. Columns: shown to. Columns 1, 4 and 6 were read again (R)."""

_READ_AGAIN = (0, 3, 5)

PAPER_TABLE_3 = np.array([[100, 26.2, 5.9], [6.25, 100, 5.1], [8.2, 8.2, 100]])
PAPER_TABLE_4 = np.array([[100, 98, 43], [96, 100, 22], [27, 50, 100]])
"""Transfer between halves, at its own size and amplified to RMS 0.1."""

AMPLIFIED = 0.1


def cross(
    fits: Mapping[str, Fit], inputs: Mapping[str, np.ndarray], y: np.ndarray
) -> np.ndarray:
    """Errors in per cent: one row per set of inputs, one column per network."""
    return np.array(
        [[error(fit.logits_fn, x, y) for fit in fits.values()] for x in inputs.values()]
    )


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """What a square table holds beside its diagonal."""
    return matrix[~np.eye(len(matrix), dtype=bool)]


def between_models(
    config: Any,
    fits: Mapping[str, Fit],
    found: Mapping[str, Found],
    x: np.ndarray,
    y: np.ndarray,
) -> Findings:
    """Table 2: who else is fooled, beside Gaussian noise of the same size."""
    six = {name: fits[name] for name in TABLE_1}
    adv = {name: found[name].drawn for name in TABLE_1}
    noisy = {name: x + noise(config, x.shape, rms(a - x)) for name, a in adv.items()}
    plain = {f'Gaussian, RMS {s}': x + noise(config, x.shape, s)
             for s in (0.1, 0.3)}  # fmt: skip
    crossed, beside = cross(six, adv, y), cross(six, noisy, y)
    rest = cross(six, {'clean': x, **plain}, y)
    gain = off_diagonal(crossed) - off_diagonal(beside)
    cell = {(a, b): crossed[i, j] for i, a in enumerate(TABLE_1)
            for j, b in enumerate(TABLE_1)}  # fmt: skip
    claims = [
        claim(
            'mean error of the 30 pairs beyond that on noise of the same RMS',
            gain.mean(), band=(0, None), unit='%',
        ),
        claim(
            'pairs with a larger error than on noise of the same RMS',
            100 * np.mean(gain > 0), unit='%',
        ),
        claim(
            'the smallest error of a network on images made for it',
            np.diag(crossed).min(), paper='100', tag='R', band=(99, 100), unit='%',
        ),
    ]  # fmt: skip
    for source, shown in (('FC10(1e-2)', 'FC10(1e-4)'), ('FC100', 'FC10(1e-4)'),
                          ('FC200', 'FC100'), ('FC10(1)', 'AE400')):  # fmt: skip
        value = PAPER_TABLE_2[TABLE_1.index(source), TABLE_1.index(shown)]
        claims.append(
            claim(f'error of {shown} on images made for {source}', cell[source, shown],
                  paper=value, tag='R', unit='%')
        )  # fmt: skip
    rows = [
        [f'for {name}'] + [
            f'{crossed[i, j]:.1f} ({PAPER_TABLE_2[i, j]:g}'
            + ('' if j in _READ_AGAIN else ', M') + ')'
            for j in range(6)
        ]
        for i, name in enumerate(TABLE_1)
    ]  # fmt: skip
    rows += [
        [f'noise, RMS as for {name}', *map('{:.1f}'.format, row)]
        for name, row in zip(TABLE_1, beside, strict=True)
    ]
    rows += [
        [name, *map('{:.1f}'.format, row)]
        for name, row in zip(('clean', *plain), rest, strict=True)
    ]
    together = np.concatenate([crossed, beside])
    labels = [f'made for {n}' for n in TABLE_1] + [f'noise as for {n}' for n in TABLE_1]
    return Findings(
        claims,
        [
            picture(
                'Whom else they fool',
                f'Error in per cent of the network of each column on {len(x)} images '
                'that L-BFGS changed to fool the network of the row; below, on those '
                'images with Gaussian noise of exactly the same root mean square.',
                charts.matrix, together, labels, TABLE_1, form='{:.0f}',
            )
        ],
        [
            table(
                'Error (%) of the column on images of the row (Table 2)',
                ['images', *TABLE_1], rows,
                'In brackets the figures of the paper; those with an M were not read '
                'again. Noise is not clipped, so that its size is the same.',
            )
        ],
    )  # fmt: skip


def between_halves(
    config: Any,
    fits: Mapping[str, Fit],
    errors: Mapping[str, Any],
    found: Mapping[str, Found],
    x: np.ndarray,
    y: np.ndarray,
) -> Findings:
    """Tables 3 and 4: networks that share no training image."""
    three = {name: fits[name] for name in HALVES}
    own = {name: found[name].drawn for name in HALVES}
    grown = {n: x + scaled(a - x, AMPLIFIED) for n, a in own.items()}
    at_own, at_large = cross(three, own, y), cross(three, grown, y)
    sizes = np.linspace(0, 0.2, 11)
    source = own[HALVES[0]]
    curves = np.array([
        [error(three[n].logits_fn, moved, y) for n in HALVES]
        + [error(three[HALVES[0]].logits_fn, random, y)]
        for s in sizes
        for moved, random in [(
            x + scaled(source - x, s), x + noise(config, x.shape, s)
        )]
    ])  # fmt: skip
    noisy = {
        f'Gaussian, RMS {s}': x + noise(config, x.shape, s) for s in (0.06, AMPLIFIED)
    }
    beside = cross(three, noisy, y)
    claims = []
    for j, who, small, large in (
        (1, 'another architecture on the same images', 26.2, 98),
        (2, 'the same architecture on other images', 5.9, 43),
    ):
        name = f'{HALVES[j]}, {who},'
        claims += [
            claim(f'error of {name} on images made for {HALVES[0]}', at_own[0, j],
                  paper=f'{small:g}', tag='R', unit='%'),
            claim(f'error of {name} on them amplified to RMS 0.1', at_large[0, j],
                  paper=f'{large:g}', tag='R', unit='%'),
            claim(f'error of {HALVES[j]} on them above that on such Gaussian noise',
                  at_large[0, j] - beside[1, j], paper=f'{large - 2.7:.0f}',
                  band=(20, None), unit='%'),
        ]  # fmt: skip
    gain = off_diagonal(at_large) - off_diagonal(at_own)
    claims += [
        claim('mean error of the six pairs that amplification adds', gain.mean(),
              paper=f'{np.mean(off_diagonal(PAPER_TABLE_4 - PAPER_TABLE_3)):.0f}',
              band=(20, None), unit='%'),
        claim('largest error on Gaussian noise of RMS 0.1', beside[1].max(),
              paper='2.6 to 2.8', tag='R', unit='%'),
    ]  # fmt: skip
    own_size = mean_sizes({n: found[n] for n in HALVES}, x)
    rows = []
    for title, ours, theirs in (
        ('', at_own, PAPER_TABLE_3), (', RMS 0.1', at_large, PAPER_TABLE_4)
    ):  # fmt: skip
        for i, name in enumerate(HALVES):
            size = title or f' (RMS {own_size[name]:.3f})'
            cells = map('{:.1f} ({:g})'.format, ours[i], theirs[i])
            rows.append([f'for {name}{size}', *cells])
    rows += [
        [name, *map('{:.1f}'.format, row)]
        for name, row in zip(noisy, beside, strict=True)
    ]
    rows += [
        [f'all of {part}, clean', *(f'{errors[n][i]:.1f}' for n in HALVES)]
        for i, part in enumerate(('P1', 'P2', 'test'))
    ]
    names = [f'{HALVES[0]}: made for it', f'{HALVES[1]}: same images',
             f'{HALVES[2]}: other images', f'{HALVES[0]}: Gaussian noise']  # fmt: skip
    return Findings(
        claims,
        [
            picture(
                'Networks that share no training image',
                f'Changes that L-BFGS made for {HALVES[0]}, scaled to one size, shown '
                'to it, to another network trained on the same half of the images (P1) '
                'and to one trained on the other half (P2).',
                charts.lines,
                [
                    charts.Line(name, 100 * sizes, curves[:, j], dashed=j == 3)
                    for j, name in enumerate(names)
                ],
                charts.Axis('size of the change, RMS in % of the pixel range'),
                charts.Axis('error (%)', limits=(0, 101)),
                marks={'amplified in the paper': 100 * AMPLIFIED},
            )
        ],
        [
            table(
                'Error (%) across training sets (Tables 3 and 4)',
                ['images', *HALVES], rows,
                'In brackets the figures of the paper, of which 26.2, 5.9, 98 and 43 '
                'were read again. The paper prints a formula for the amplification '
                'that cannot give its size; here every change has RMS 0.1 exactly.',
            )
        ],
    )  # fmt: skip
