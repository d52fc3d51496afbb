"""The scoreboard."""

from typing import Any

import numpy as np

from experiments.frame.findings import claim
from experiments.studies.papernot2016.measures import percent


def claims_of(config: Any, plain: Any, rows: Any, curve: np.ndarray) -> list:
    """The scoreboard; bands are those of the papers, set before measuring."""
    first, last = rows[config.temperatures[0]], rows[config.temperatures[-1]]
    top = config.temperatures[-1]
    seen = f'{config.saliency_images} images'
    bands = {1.0: ('91', (80, 100)), 5.0: ('24', (0, 60)), 100.0: ('0.5', (0, 5))}
    claims = []
    for t, row in rows.items():
        paper, band = bands.get(t, ('', None))
        claims.append(
            claim(
                f'T = {t:g}: saliency attack on the softmax reaches its target, {seen}',
                percent(row, 'jsma-softmax'),
                paper=paper,
                tag='R' if paper else 'D',
                band=band,
                unit='%',
            )
        )
    mean = {t: np.nanmean(row['distance']) for t, row in rows.items()}
    pooled = np.concatenate([row['distance'] for row in rows.values()])
    at = np.concatenate([np.full(len(r['distance']), t) for t, r in rows.items()])
    kept = np.isfinite(pooled)
    slope = np.corrcoef(at[kept], pooled[kept])[0, 1]
    return [
        *claims,
        claim(
            f'T = {top:g}: the same on logits divided by T',
            percent(last, 'jsma-rescaled'),
            paper='96.4',
            tag='R',
            band=(85, 100),
            unit='%',
        ),
        *(
            claim(
                f'{name.upper()} on the softmax, eps {config.eps:g}, {config.images} '
                f'images: success at T = 1 minus T = {top:g}',
                percent(first, f'{name}-softmax') - percent(last, f'{name}-softmax'),
                paper='> 0',
                band=(0, None),
                unit='points',
            )
            for name in ('fgsm', 'pgd')
        ),
        claim(
            f'T = {top:g}: PGD succeeds, logits divided by T',
            percent(last, 'pgd-rescaled'),
            paper='about 100',
            band=(95, 100),
            unit='%',
        ),
        claim(
            f'T = {top:g}: PGD, logits divided by T minus softmax',
            percent(last, 'pgd-rescaled') - percent(last, 'pgd-softmax'),
            paper='> 0',
            band=(0, None),
            unit='points',
        ),
        claim(
            f'T = {top:g}: Carlini-Wagner L2 reaches its target, {config.aimed_images} '
            'images',
            percent(last, 'cw'),
            paper='100',
            tag='R',
            band=(99, 100),
            unit='%',
        ),
        claim(
            'undistilled: its mean distance, random target',
            np.nanmean(plain['distance']),
            paper='1.76',
            tag='R',
            band=(1.4, 2.4),
        ),
        claim(
            f'T = {top:g}: its mean distance as a multiple of the undistilled',
            mean[top] / np.nanmean(plain['distance']),
            paper='1.25 (2.2 / 1.76)',
            tag='R',
            band=(None, 1.6),
        ),
        claim(
            'correlation of its distance with T, over all images and T',
            slope,
            paper='-0.05',
            tag='R',
            band=(-0.3, 0.3),
        ),
        claim(
            f'mean L1 norm of the logits, T = {top:g} over undistilled',
            np.mean(last['logits']) / np.mean(plain['logits']),
            paper='83 (482 / 5.8)',
            tag='R',
            band=(top / 2, top * 2),
        ),
        claim(
            f'images whose softmax gradient is exactly zero in float32, T = {top:g}',
            percent(last, 'zero'),
            paper='high',
            band=(50, 100),
            unit='%',
        ),
        claim(
            f'median gradient of the softmax, T = 1 over T = {top:g}: decimal digits',
            np.median(first['gradient']) - np.median(last['gradient']),
            paper='30',
            tag='M',
        ),
        claim(
            f'accuracy, T = {top:g} minus undistilled',
            percent(last, 'accuracy') - percent(plain, 'accuracy'),
            paper='-0.46 (99.51 to 99.05)',
            tag='M',
            unit='points',
        ),
        claim(
            f'transfer to an undistilled net of other training images: kappa '
            f'{config.kappas[-1]:g} minus 0',
            100 * (curve[-1, 1] - curve[0, 1]),
            paper='> 0, to about 100 at kappa 20',
            tag='R',
            band=(0, None),
            unit='points',
        ),
        claim(
            f'transfer to the distilled net at kappa {config.kappas[-1]:g}',
            100 * curve[-1, 2],
            paper='about 100',
            tag='R',
            unit='%',
        ),
    ]
