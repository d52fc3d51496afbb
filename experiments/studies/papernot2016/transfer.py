"""Whether examples made with confidence fool networks the attacker has not seen."""

from typing import Any

import numpy as np

from experiments.frame.measures import answers, run_attack
from experiments.frame.work import Work
from experiments.studies.papernot2016.measures import carlini_wagner
from experiments.studies.papernot2016.networks import Nets


def by_kappa(config: Any, work: Work, nets: Nets, test: Any) -> dict[str, Any]:
    """How often examples of an ordinary network fool two others, by kappa."""
    source, other = nets.teacher(1.0), nets.other()
    distilled = nets.student(config.temperatures[-1])
    x, y = test
    count = config.aimed_images
    xs, ys = x[: 2 * count], y[: 2 * count]
    right = [answers(f, xs) == ys for f in (source, other, distilled)]
    kept = np.flatnonzero(np.all(right, axis=0))[:count]
    xs, ys = xs[kept], ys[kept]
    rows = []
    for kappa in config.kappas:
        moved = run_attack(carlini_wagner(config, kappa), source, work.key, xs, ys)
        fooled = [np.mean(answers(f, moved) != ys) for f in (source, other, distilled)]
        apart = np.linalg.norm(np.asarray(moved - xs).reshape(len(xs), -1), axis=1)
        rows.append([*fooled, apart.mean()])
    return {'rows': np.array(rows)}
