"""AutoAttack: four different attacks without a parameter, the worst of them counts.

    version    members, in order
    standard   APGD-CE, APGD-T (targeted DLR, 9 targets), FAB-T (9 targets), Square
    plus       APGD-CE x 5, APGD-DLR x 5, FAB x 5, Square, APGD-T, FAB-T
    rand       APGD-CE and APGD-DLR, for a randomised model given as ``eot(f, 20)``

In L1 the members of ``standard`` have the settings of Croce and Hein 2021: APGD-CE
with 5 restarts, APGD-T with 5 targets, both through larger radii. Gradient methods
make 100 steps, Square 5,000 queries. All five runs of FAB in ``plus`` start half a
radius away; in the original the first starts at the image itself.

``autoattack(ball)`` is a ``worst_of``: called as an attack it is one compiled program.
``evaluation.evaluate(..., autoattack(ball), survivors=True)`` is the cascade of the
original: each member, and each target, sees only what the ones before it left standing.

Reference: Croce and Hein 2020, arXiv 2003.01690, section 6; 2021, arXiv 2103.01208.
"""

from collections.abc import Mapping
from typing import Any, Literal

from advjax import losses
from advjax.attacks.apgd import apgd
from advjax.attacks.checks import check_ball, check_count
from advjax.attacks.combine import WorstOf, restarts, targeted, worst_of
from advjax.attacks.fab import fab
from advjax.attacks.square import square
from advjax.types import Attack, Ball

Version = Literal['standard', 'plus', 'rand', 'custom']


def autoattack(
    ball: Ball | float,
    version: Version = 'standard',
    *,
    classes: int = 10,
    steps: int = 100,
    queries: int = 5000,
    members: Mapping[str, Attack] | None = None,
) -> WorstOf:
    """The ensemble of Croce and Hein.

    With 2 classes DLR does not exist: the margin takes its place, and the one wrong
    class is the only target. With 3 classes the targeted DLR is that of ``losses.dlr``.

    Args:
      ball: an Linf, L2 or L1 ball, or a number as the radius of ``linf``.
      version: 'standard', 'plus', 'rand' or 'custom'.
      classes: the number of classes of the model; 9 targets need 10.
      steps: iterations of APGD and FAB; 100 in the paper.
      queries: budget of Square; 5,000 in the paper.
      members: the attacks of a 'custom' version by name. None stands for the
        standard attack of that name: 'apgd_ce', 'apgd_dlr', 'apgd_t', 'fab',
        'fab_t' or 'square'.

    Raises:
      ValueError: for another ball or version, or if ``members`` does not go with it.
    """
    ball = check_ball(ball, 'autoattack', ('linf', 'l2', 'l1'))
    check_count('classes', classes, 2)
    known = _members(ball, classes, steps, queries)
    versions: dict[str, tuple[str, ...]] = {
        'standard': ('apgd_ce', 'apgd_t', 'fab_t', 'square'),
        'plus': ('apgd_ce', 'apgd_dlr', 'fab', 'square', 'apgd_t', 'fab_t'),
        'rand': ('apgd_ce', 'apgd_dlr'),
    }
    if version == 'custom':
        if not members:
            raise ValueError("members must name the attacks of version 'custom'")
        return worst_of({n: _of(known, n, attack) for n, attack in members.items()})
    if version not in versions:
        raise ValueError(
            f'version must be one of {[*versions, "custom"]}, got {version!r}'
        )
    if members is not None:
        raise ValueError(
            f"members must be None unless version is 'custom', {version!r}"
        )
    chosen = {name: known[name] for name in versions[version]}
    if version == 'plus':
        # Five runs from the clean image would be one.
        chosen['fab'] = fab(ball, steps, random_start=True)
        for name in ('apgd_ce', 'apgd_dlr', 'fab'):
            chosen[name] = restarts(chosen[name], 5)
    if version == 'standard' and ball.norm_name == 'l1':
        chosen['apgd_ce'] = restarts(chosen['apgd_ce'], 5)
    return worst_of(chosen)


def _members(ball: Ball, classes: int, steps: int, queries: int) -> dict[str, Any]:
    scale_free = losses.margin if classes == 2 else losses.dlr
    nine = min(9, classes - 1)
    aimed = min(5, nine) if ball.norm_name == 'l1' else nine
    return {
        'apgd_ce': apgd(ball, steps),
        'apgd_dlr': apgd(ball, steps, scale_free),
        'apgd_t': targeted(apgd(ball, steps, scale_free), aimed),
        'fab': fab(ball, steps),
        'fab_t': targeted(fab(ball, steps), nine),
        'square': square(ball, queries),
    }


def _of(known: dict[str, Any], name: str, attack: Attack | None) -> Attack:
    if attack is not None:
        return attack
    if name not in known:
        raise ValueError(
            f'members without an attack must be among {sorted(known)}, got {name!r}'
        )
    return known[name]
