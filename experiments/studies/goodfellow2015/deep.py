"""Sections 4 and 6 to 8: deep and shallow networks under FGSM.

Trains every network of the paper that fits a few minutes, and perturbs all test images
by FGSM on the cost that each was trained with, without clipping. An error is the share
of all test images that the judge gets wrong on them; a confidence is its mean over
those mistakes, as in the paper.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advjax import attacks, data, keys, linf, losses, models, training, zoo
from advjax.evaluation import verify
from advjax.evaluation.verify import logits_of
from experiments.frame import measures
from experiments.frame.datasets import Sets
from experiments.frame.work import Work
from experiments.studies.goodfellow2015.rbf import rbf as rbf_network
from experiments.studies.goodfellow2015.rubbish import rubbish

COMPETING, INDEPENDENT = 'softmax', 'sigmoid'
L1_STRONG, L1_WEAK = 2.5e-3, 2.5e-5
"""The paper's coefficient, with which training failed, and a hundredth of it."""


class Net(NamedTuple):
    """A trained network and how its logits are meant."""

    logits_fn: Any
    probabilities: str = COMPETING

    @property
    def loss(self):
        """The cost it was trained with, which is what FGSM ascends."""
        competing = self.probabilities == COMPETING
        return losses.cross_entropy if competing else losses.one_vs_rest

    @property
    def squash(self):
        """Logits to probabilities."""
        competing = self.probabilities == COMPETING
        return jax.nn.softmax if competing else jax.nn.sigmoid


def recipe(config: Any, images: int, epochs: int, *first: Any) -> Any:
    """SGD with momentum and bounded column norms, after pylearn2's maxout on MNIST.

    There the momentum rises from 0.5 to 0.7 over 250 epochs and the rate hardly falls;
    for a short training the momentum is 0.7 and the rate falls to a twentieth.
    ``first`` are transformations of the gradient before it.
    """
    steps = epochs * -(-images // config.batch_size)
    rate = optax.linear_schedule(config.learning_rate, config.learning_rate / 20, steps)
    inner = optax.sgd(rate, momentum=0.7)
    return optax.chain(*first, inner, training.max_column_norm(1.9365))


def train(work: Work, sets: Sets, config: Any) -> dict[str, Net]:
    """All networks but the ensemble, by name."""
    ball = linf(config.eps, bounds=None)
    fgsm = attacks.fgsm(ball)
    maxout = zoo.maxout(sets.shape, sets.classes, units=config.units)
    images = len(sets.train.labels)

    def fit(
        name: str,
        method: training.Method,
        epochs: int,
        *,
        attack: Any = None,
        optimizer: Any = None,
        model: models.Model = maxout,
        batch_size: int = config.batch_size,
        recovery: training.settings.OnFailure = 'restart',
    ) -> Any:
        """With ``attack`` what is kept is the epoch most robust to it."""
        return work.fit(
            name,
            method,
            model,
            sets,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer or recipe(config, images, epochs),
            seed=config.seed,
            attack=attack,
            recovery=recovery,
        ).logits_fn

    few = config.control_epochs
    independent = training.standard(losses.one_vs_rest)
    softmax = fit(
        'softmax',
        training.standard(),
        config.softmax_epochs,
        model=zoo.softmax_regression(sets.shape, sets.classes),
        optimizer=optax.sgd(0.1),
        batch_size=100,
    )
    steps = config.rbf_epochs * -(-images // 100)
    rbf = fit(
        'rbf',
        independent,
        config.rbf_epochs,
        model=rbf_network(sets.shape, sets.classes),
        optimizer=optax.adam(training.triangular(0.1, steps)),
        batch_size=100,
    )
    naive = fit('maxout', training.standard(), config.epochs)
    # The paper, too, stops by the adversarial error on validation images.
    trained = fit(
        'adversarial', training.fgsm_at(ball, 0.5), config.epochs, attack=fgsm
    )
    signs = fit('signs', training.noise(ball, attacks.starts.corner), few, attack=fgsm)
    uniform = fit('uniform', training.noise(ball), few, attack=fgsm)
    sigmoids = fit('sigmoids', independent, few)
    decayed = {}
    for name, coefficient in (('l1', L1_STRONG), ('l1_weak', L1_WEAK)):
        decay = optax.masked(training.l1_decay(coefficient), first_layer)
        decayed[name] = fit(
            name,
            training.standard(),
            few,
            optimizer=recipe(config, images, few, decay),
            # That it answers one class is the finding, no reason for another seed.
            recovery='rollback',
        )
    return {
        'softmax': Net(softmax),
        'rbf': Net(rbf, INDEPENDENT),
        'maxout': Net(naive),
        'adversarial': Net(trained),
        'signs': Net(signs),
        'uniform': Net(uniform),
        'sigmoids': Net(sigmoids, INDEPENDENT),
        **{name: Net(found) for name, found in decayed.items()},
    }


def first_layer(params: Any) -> Any:
    """True for the weights of the first maxout layer alone."""
    off = jax.tree.map(lambda leaf: False, params)
    off['hidden'][0]['kernel'] = True
    return off


def train_ensemble(work: Work, sets: Sets, config: Any) -> list[Net]:
    """Independent maxout networks, trained at once as one stack of parameters.

    Each has its own initial weights, dropout and order of the images.
    """
    model = zoo.maxout(sets.shape, sets.classes, units=config.member_units)
    images = len(sets.train.labels)
    optimizer = recipe(config, images, config.member_epochs)

    def fit():
        each = keys.of_index(
            jax.random.key(config.seed + 1), jnp.arange(config.members)
        )
        on_device = data.device_data(sets.train)
        method = training.standard()

        def begin(key):
            return training.create(model, optimizer, key=key)

        def one(on_device, state, batch, key):
            return training.step(method, state, data.take(on_device, batch), key)[0]

        state = jax.jit(jax.vmap(begin))(each)
        step = jax.jit(jax.vmap(one, (None, 0, 0, 0)), donate_argnums=1)
        for epoch in range(config.member_epochs):
            order = [
                data.epoch_indices(jax.random.fold_in(k, epoch), images,
                                   config.batch_size) for k in each
            ]  # fmt: skip
            order = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *order)
            for batch in zip(*order, strict=True):
                state = step(on_device, state, data.Batch(*batch), each)
            work.say(f'ensemble: epoch {epoch + 1} of {config.member_epochs}')
        return state.params

    like = jax.eval_shape(model.init, jax.random.key(0))[0]
    stacked = work.keep_tree('ensemble', fit, like)
    members = (
        jax.tree.map(lambda a, m=m: a[m], stacked) for m in range(config.members)
    )
    return [Net(models.logits_fn(model, params)) for params in members]


class Judged(NamedTuple):
    """What a network says about images that were perturbed.

    Attributes:
      error: share of all images it gets wrong, in per cent.
      confidence: its mean probability of the class it names, over those mistakes, in
        per cent; NaN without mistakes.
      answers: (N,) its classes.
      wrong: (N,) its mistakes.
    """

    error: float
    confidence: float
    answers: np.ndarray
    wrong: np.ndarray


def judge(net: Net, ball: Any, x: np.ndarray, y: np.ndarray, adv: np.ndarray) -> Judged:
    """Shows images to a network; only what lies in the ball counts as a mistake."""
    wrong = verify(net.logits_fn, ball, x, y, adv).adversarial
    logits = jnp.asarray(logits_of(net.logits_fn, adv))
    best = np.asarray(net.squash(logits), np.float64).max(axis=1)
    confidence = best[wrong].mean() if wrong.any() else np.nan
    answers = np.asarray(logits).argmax(axis=1)
    return Judged(100 * wrong.mean(), 100 * confidence, answers, wrong)


def clean(net: Net, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Error and mean confidence on clean images, in per cent."""
    logits = jnp.asarray(logits_of(net.logits_fn, x))
    error = np.mean(np.asarray(logits).argmax(axis=1) != y)
    sure = jnp.mean(jnp.max(net.squash(logits), axis=1))
    return 100 * float(error), 100 * float(sure)


def perturbed(net: Net, ball: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """FGSM on a network's own cost, for all images."""
    attack = attacks.fgsm(ball, net.loss)
    parts = (np.array_split(a, max(1, len(x) // 2500)) for a in (x, y))
    return np.concatenate([
        measures.run_attack(attack, net.logits_fn, jax.random.key(0), *part)
        for part in zip(*parts, strict=True)
    ])  # fmt: skip


def both_wrong(teacher: Judged, other: Judged) -> tuple[float, float]:
    """How often ``other`` names the class that ``teacher`` takes by mistake, per cent.

    Over the mistakes of the teacher, and over those that both make.
    """
    same = teacher.answers == other.answers
    both = teacher.wrong & other.wrong
    shares = [
        100 * float(same[some].mean()) if some.any() else float('nan')
        for some in (teacher.wrong, both)
    ]
    return shares[0], shares[1]


def noise_classes(nets: Mapping[str, Net], sets: Sets, samples: int, key: Any) -> dict:
    """What the networks see in Gaussian noise, by name."""
    return {
        name: rubbish(
            net.logits_fn, sets.shape, key=key, samples=samples,
            probabilities=net.probabilities,
        )
        for name, net in nets.items()
    }  # fmt: skip
