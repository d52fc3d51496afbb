"""The two networks that all studies look at: one trained normally, one to be robust."""

from advjax import balls, models, training, zoo
from advjax.types import LogitsFn
from experiments.frame.datasets import Sets
from experiments.frame.work import Work

EPS = {'mnist': 0.3, 'digits': 0.15}
"""Radius of the Linf ball that the robust network is trained in."""

_EPOCHS = {'mnist': 10, 'digits': 30}
_BATCH = {'mnist': 100, 'digits': 64}


def natural(work: Work, sets: Sets) -> training.Fit:
    """The network of "Fast is better than free", trained on clean images."""
    return _trained(work, sets, 'natural', training.standard())


def robust(work: Work, sets: Sets) -> training.Fit:
    """The same network, trained by FGSM from random starts at ``EPS``.

    Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994.
    """
    eps = EPS.get(sets.train.name, 0.0)
    return _trained(work, sets, f'robust-{eps}', training.fast(balls.linf(eps)))


def last_of(fit: training.Fit) -> LogitsFn:
    """A network as its training ended, not as it was in its best epoch."""
    return models.logits_fn(fit.model, *fit.last.result)


def _trained(work: Work, sets: Sets, name: str, method: training.Method):
    dataset, size = sets.train.name, len(sets.train.labels)
    if dataset not in EPS:
        raise ValueError(f'dataset must be one of {list(EPS)}, got {dataset!r}')
    return work.fit(
        f'{dataset}-{size}-{name}',
        method,
        zoo.fast_mnist(sets.shape, sets.classes),
        sets,
        epochs=_EPOCHS[dataset],
        batch_size=_BATCH[dataset],
        shared=True,
    )
