"""Every attack of the library: norms, aim, knowledge of the model, paper, quick run."""

from advjax.attacks.apgd import apgd
from advjax.attacks.autoattack import autoattack
from advjax.attacks.boundary import boundary
from advjax.attacks.carlini_wagner import carlini_wagner
from advjax.attacks.ddn import ddn
from advjax.attacks.deepfool import deepfool
from advjax.attacks.ead import ead
from advjax.attacks.entry import Entry
from advjax.attacks.estimation import nes, spsa
from advjax.attacks.fab import fab
from advjax.attacks.fmn import fmn
from advjax.attacks.frank_wolfe import frank_wolfe
from advjax.attacks.hop_skip_jump import hop_skip_jump
from advjax.attacks.jsma import jsma
from advjax.attacks.lbfgs import lbfgs
from advjax.attacks.named import (
    adam_pgd,
    bim,
    fgm,
    fgsm,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pgd_l0,
    pgd_l1,
    rand_fgsm,
    vmi_fgsm,
)
from advjax.attacks.random_search import random_search
from advjax.attacks.spatial import spatial
from advjax.attacks.square import square
from advjax.attacks.universal import universal

_ALL = ('linf', 'l2', 'l1', 'l0')
_FEW = {'steps': 5, 'rate': 0.3}

_ENTRIES = (
    Entry(fgsm, ('linf',), 'fixed radius', 'white box', 'Goodfellow 2015, 1412.6572'),
    Entry(fgm, _ALL, 'fixed radius', 'white box', 'Goodfellow 2015, 1412.6572'),
    Entry(rand_fgsm, ('linf',), 'fixed radius', 'white box', 'Tramer 2018, 1705.07204'),
    Entry(bim, _ALL, 'fixed radius', 'white box', 'Kurakin 2017, 1607.02533', _FEW),
    Entry(pgd, _ALL, 'fixed radius', 'white box', 'Madry 2018, 1706.06083', _FEW),
    Entry(pgd_l1, ('l1',), 'fixed radius', 'white box', 'Tramer 2019, 1904.13000',
          {**_FEW, 'quantile': 0.8}),
    Entry(pgd_l0, ('l0',), 'fixed radius', 'white box', 'Croce 2019, 1909.05040',
          {'steps': 5}),
    Entry(adam_pgd, _ALL, 'fixed radius', 'white box', 'Uesato 2018, 1802.05666', _FEW),
    Entry(mi_fgsm, _ALL, 'fixed radius', 'transfer', 'Dong 2018, 1710.06081', _FEW),
    Entry(ni_fgsm, _ALL, 'fixed radius', 'transfer', 'Lin 2020, 1908.06281', _FEW),
    Entry(vmi_fgsm, _ALL, 'fixed radius', 'transfer', 'Wang 2021, 2103.15571',
          {**_FEW, 'samples': 2}),
    Entry(apgd, ('linf', 'l2', 'l1'), 'fixed radius', 'white box',
          'Croce 2020, 2003.01690', {'steps': 8}),
    Entry(frank_wolfe, ('linf', 'l2', 'l1'), 'fixed radius', 'white box',
          'Chen 2020, 1811.10828', {'steps': 9}),
    Entry(autoattack, ('linf', 'l2', 'l1'), 'fixed radius', 'white box',
          'Croce 2020, 2003.01690', {'classes': 4, 'steps': 5, 'queries': 20}),
    Entry(lbfgs, ('l2',), 'minimum norm', 'white box', 'Szegedy 2014, 1312.6199',
          {'steps': 20, 'searches': 5}),
    Entry(deepfool, ('l2', 'linf', 'l1'), 'minimum norm', 'white box',
          'Moosavi-Dezfooli 2016, 1511.04599', {'steps': 20}),
    Entry(carlini_wagner, ('l2', 'linf', 'l0'), 'minimum norm', 'white box',
          'Carlini 2017, 1608.04644', {'steps': 100, 'searches': 20, 'c': 0.1}),
    Entry(ead, ('l1',), 'minimum norm', 'white box', 'Chen 2018, 1709.04114',
          {'steps': 60, 'searches': 3, 'c': 0.1}),
    Entry(ddn, ('l2',), 'minimum norm', 'white box', 'Rony 2019, 1811.09600',
          {'steps': 50}),
    Entry(fmn, ('l2', 'linf', 'l1', 'l0'), 'minimum norm', 'white box',
          'Pintor 2021, 2102.12827', {'steps': 50}),
    Entry(fab, ('linf', 'l2', 'l1'), 'minimum norm', 'white box',
          'Croce 2020, 1907.02044', {'steps': 30}),
    Entry(jsma, ('l0',), 'minimum norm', 'white box', 'Papernot 2016, 1511.07528',
          {'budget': 0.5}),
    Entry(square, ('linf', 'l2', 'l1'), 'fixed radius', 'scores',
          'Andriushchenko 2020, 1912.00049', {'queries': 40}),
    Entry(spsa, _ALL, 'fixed radius', 'scores', 'Uesato 2018, 1802.05666',
          {'queries': 124, 'samples': 20, 'rate': 0.3}),
    Entry(nes, _ALL, 'fixed radius', 'scores', 'Ilyas 2018, 1804.08598',
          {'queries': 64, 'samples': 10}),
    Entry(random_search, _ALL, 'fixed radius', 'scores', 'a baseline',
          {'queries': 50}),
    Entry(boundary, ('l2',), 'minimum norm', 'decisions', 'Brendel 2018, 1712.04248',
          {'queries': 300}),
    Entry(hop_skip_jump, ('l2', 'linf'), 'minimum norm', 'decisions',
          'Chen 2020, 1904.02144', {'queries': 600, 'first': 50}),
    Entry(spatial, (), 'other', 'scores', 'Engstrom 2019, 1712.02779',
          {'counts': (5, 3, 3)}),
    Entry(universal, _ALL, 'other', 'white box', 'Shafahi 2020, 1811.11304',
          {'steps': 20, 'batch': 8}),
)  # fmt: skip


def catalogue() -> tuple[Entry, ...]:
    """All attacks: first-order ones, minimum norm, black box, others.

    >>> [entry.name for entry in catalogue() if 'l0' in entry.norms][:3]
    ['fgm', 'bim', 'pgd']
    """
    return _ENTRIES
