"""All attacks of the library: the entries that stand beside their factories."""

from advjax.attacks.apgd import ENTRY as APGD
from advjax.attacks.autoattack import ENTRY as AUTOATTACK
from advjax.attacks.boundary import ENTRY as BOUNDARY
from advjax.attacks.carlini_wagner import ENTRY as CARLINI_WAGNER
from advjax.attacks.ddn import ENTRY as DDN
from advjax.attacks.deepfool import ENTRY as DEEPFOOL
from advjax.attacks.ead import ENTRY as EAD
from advjax.attacks.entry import Entry
from advjax.attacks.estimation import ENTRIES as ESTIMATION
from advjax.attacks.fab import ENTRY as FAB
from advjax.attacks.fmn import ENTRY as FMN
from advjax.attacks.frank_wolfe import ENTRY as FRANK_WOLFE
from advjax.attacks.hop_skip_jump import ENTRY as HOP_SKIP_JUMP
from advjax.attacks.jsma import ENTRY as JSMA
from advjax.attacks.lbfgs import ENTRY as LBFGS
from advjax.attacks.named import ENTRIES as NAMED
from advjax.attacks.random_search import ENTRY as RANDOM_SEARCH
from advjax.attacks.spatial import ENTRY as SPATIAL
from advjax.attacks.square import ENTRY as SQUARE
from advjax.attacks.universal import ENTRY as UNIVERSAL

CATALOGUE = (
    *NAMED,
    APGD,
    FRANK_WOLFE,
    AUTOATTACK,
    LBFGS,
    DEEPFOOL,
    CARLINI_WAGNER,
    EAD,
    DDN,
    FMN,
    FAB,
    JSMA,
    SQUARE,
    *ESTIMATION,
    RANDOM_SEARCH,
    BOUNDARY,
    HOP_SKIP_JUMP,
    SPATIAL,
    UNIVERSAL,
)


def catalogue() -> tuple[Entry, ...]:
    """All attacks: first-order ones, minimum norm, black box, others.

    >>> [entry.name for entry in catalogue() if 'l0' in entry.norms][:3]
    ['fgm', 'bim', 'pgd']
    """
    return CATALOGUE
