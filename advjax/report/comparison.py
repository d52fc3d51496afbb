"""Networks under the same attacks, side by side: figures, checks, example images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from advjax.balls import Ball
from advjax.evaluation import Curve, Evaluation
from advjax.report import page
from advjax.report.checks import checks_of
from advjax.report.headline import headline
from advjax.types import HostArray, LogitsFn

EXAMPLES = 9
"""Images on a page."""


@dataclasses.dataclass(frozen=True)
class Net:
    """One network of a comparison.

    Attributes:
      found: its evaluation.
      logits_fn: the network, to state its confidence in the example images; None leaves
        that out.
      method: how it was trained; 'standard' is what others are compared with.
      adversarial: whether it was trained against an adversary; None if that is
        unknown, and then the page calls the network by its name.
      description: a sentence to be read after its name.
      attacks: {name: a sentence about the attack}.
      curve: accuracy over radii.
      history: rows of ``Fit.history``.
      train_seconds: what the training took.
      events: ``Fit.events``.
    """

    found: Evaluation
    logits_fn: LogitsFn | None = None
    method: str = ''
    adversarial: bool | None = None
    description: str = ''
    attacks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curve: Curve | None = None
    history: Sequence[Mapping[str, Any]] = ()
    train_seconds: float | None = None
    events: Sequence[str] = ()

    def figures(self, name: str, eps: float | None = None) -> dict[str, Any]:
        """Its part of ``results.json``; see ``Comparison.eps``."""
        summary = self.found.summary()
        for row in summary['attacks']:
            row['description'] = self.attacks.get(row['name'], '')
        net = {
            'name': name,
            'method': self.method,
            'adversarial': self.adversarial,
            'description': self.description,
            **summary,
            'history': list(self.history),
            'events': list(self.events),
        }
        if self.train_seconds is not None:
            net['train_seconds'] = self.train_seconds
        if self.curve is not None:
            radii, accuracy = self.curve.eps.tolist(), self.curve.accuracy.tolist()
            net['curve'] = {'eps': radii, 'accuracy': accuracy}
        return net if eps is None else {**net, **_by_distance(self.found, net, eps)}


def _by_distance(
    found: Evaluation, net: Mapping[str, Any], eps: float
) -> dict[str, Any]:
    """The figures of a minimum-norm search, from its distances."""
    robust, radii = found.accuracy_at(eps), eps * np.arange(16) / 5
    known = found.clean_correct & np.isfinite(found.distance)
    distances = found.distance[known]
    figures: dict[str, Any] = {
        'robust_accuracy': robust,
        'attacks': [{**row, 'robust_accuracy': robust} for row in net['attacks']],
        'curve': {
            'eps': radii.tolist(),
            'accuracy': [found.accuracy_at(r) for r in radii],
        },
    }
    if len(distances):
        figures['distance'] = {
            'median': float(np.median(distances)),
            'mean': float(distances.mean()),
            'found': len(distances),
        }
    return figures


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Networks that the same attacks were tried on, for ``report.write``.

    Attributes:
      nets: {name: network}, all evaluated on the same images and in the same ball.
      x: (N, H, W, C) the clean images, which examples are chosen from; None shows none.
      y: (N,) their labels.
      class_names: names of the classes.
      eps: for minimum-norm attacks, which search without a radius: the radius at which
        their distances are read. Otherwise None: it is that of the ball.
      about: what else ``results.json`` holds; of that the page shows 'title',
        'dataset', 'command', 'seed', 'created', 'wall_seconds' and 'environment'.
      checks: more of what was checked: mappings with 'claim', 'checked' and 'failed'
        (numbers) and 'detail'.
    """

    nets: Mapping[str, Net]
    x: HostArray | None = None
    y: HostArray | None = None
    class_names: Sequence[str] = ()
    eps: float | None = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()

    def results(self) -> dict[str, Any]:
        """What ``results.json`` holds.

        Raises:
          ValueError: if there is no network, or they were not attacked alike.
        """
        found = [net.found for net in self.nets.values()]
        if not found:
            raise ValueError('nets must hold at least one network, got none')
        alike = {(*_threat(e.ball), len(e.clean_correct)) for e in found}
        if len(alike) > 1:
            raise ValueError(
                'nets must have been attacked on the same images and in one ball, got '
                f'norm, radius and number of images {sorted(alike)}'
            )
        ball = found[0].ball
        norm, eps = _threat(ball)
        eps = eps if self.eps is None else self.eps
        return {
            **self.about,
            'class_names': list(self.class_names),
            'threat_model': {
                'norm': norm,
                'eps': eps if np.isfinite(eps) else None,
                'bounds': list(ball.bounds or ()),
            },
            'nets': [net.figures(name, self.eps) for name, net in self.nets.items()],
            'proofs': [*checks_of(found, ball), *self.checks],
        }

    def html(self) -> str:
        """The page."""
        return page.render(self.results(), self._examples())

    def _examples(self) -> dict[str, Any] | None:
        """The first images that every network is right on unattacked."""
        if self.x is None or self.y is None:
            return None
        x, y = np.asarray(self.x), np.asarray(self.y)
        nets = self.nets.values()
        right = np.flatnonzero(np.all([n.found.clean_correct for n in nets], axis=0))
        # One of each class first, for variety.
        _, first = np.unique(y[right], return_index=True)
        order = np.concatenate([right[np.sort(first)], right])
        chosen = np.array(list(dict.fromkeys(order))[:EXAMPLES], int)
        return {
            'clean': x[chosen],
            'labels': y[chosen],
            'nets': [
                {
                    'name': name,
                    'adversarial': net.found.worst[chosen],
                    'clean_prediction': net.found.clean_prediction[chosen],
                    'prediction': net.found.prediction[chosen],
                    **_confidences(net, x[chosen], net.found.worst[chosen]),
                }
                for name, net in self.nets.items()
            ],
        }

    def __str__(self) -> str:
        """The outcome in one sentence."""
        return headline(self.results())


def _confidences(net: Net, clean: np.ndarray, shown: np.ndarray) -> dict[str, Any]:
    logits_fn: Any = net.logits_fn
    if logits_fn is None:
        return {}

    def sure(images: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.softmax(logits_fn(images)).max(axis=1))

    return {'clean_confidence': sure(clean), 'confidence': sure(shown)}


def _threat(ball: Ball) -> tuple[str, float]:
    """Norm and radius; float32 as the decimal that was meant, 0.3, not 0.30000001."""
    return ball.norm_name.capitalize(), float(str(np.float32(ball.eps)))


def table(results: Mapping[str, Any]) -> str:
    """The accuracies of all networks as a text table.

    Args:
      results: of ``Comparison.results`` or ``report.write``.
    """
    nets = results['nets']
    rows = [('', *(net['name'] for net in nets))]
    rows.append(('clean', *(f'{net["clean_accuracy"]:.2%}' for net in nets)))
    for i, attack in enumerate(nets[0]['attacks']):
        figures = (f'{net["attacks"][i]["robust_accuracy"]:.2%}' for net in nets)
        rows.append((attack['name'], *figures))
    rows.append(('worst case', *(f'{net["robust_accuracy"]:.2%}' for net in nets)))
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join(
        '  '.join([row[0].ljust(wide[0]), *map(str.rjust, row[1:], wide[1:])])
        for row in rows
    )
