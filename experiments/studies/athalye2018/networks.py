"""The networks of this study alone: on codes, a generator, and an honest one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from advjax import balls, defenses, models, training, zoo
from advjax.types import LogitsFn
from experiments.frame.datasets import Sets
from experiments.frame.work import Work


def on_codes(config: Any, work: Work, sets: Sets) -> LogitsFn:
    """The network on thermometer codes, trained through the encoder."""
    height, width, channels = sets.shape
    inner = zoo.fast_mnist((height, width, channels * config.levels), sets.classes)
    fit = work.fit(
        'codes',
        training.standard(),
        defenses.thermometer_model(inner, config.levels),
        sets,
        epochs=config.code_epochs,
        learning_rate=2e-3,
    )
    return models.logits_fn(inner, fit.params, fit.model_state)


def decoder(config: Any, work: Work, sets: Sets) -> defenses.Decoder:
    """The generator of the projection."""
    x, _ = work.images(sets.train)
    train = functools.partial(
        defenses.train_decoder, latent=20, steps=config.decoder_steps
    )
    like = jax.eval_shape(train, jnp.asarray(x[:1]), key=work.key)
    return work.keep_tree(
        'decoder', lambda: jax.jit(train)(jnp.asarray(x[:10_000]), key=work.key), like
    )


def honest(config: Any, work: Work, sets: Sets) -> LogitsFn:
    """A network trained on PGD, whose gradients are what they seem."""
    count = config.honest_images or len(sets.train.labels)
    small = work.sets(config.dataset, train_images=count)
    return work.fit(
        'honest',
        training.pgd_at(balls.linf(config.honest_eps), 5),
        zoo.fast_mnist(sets.shape, sets.classes),
        small._replace(test=sets.test),
        epochs=config.honest_epochs,
        learning_rate=2e-3,
    ).logits_fn
