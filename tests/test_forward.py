"""What an outer loss gets: pure passes, dropout by number, classes, the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from advjax import losses, models, training
from advjax.training.forward import Forward
from advjax.training.logit_pairing import _partners

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (6, 4, 4, 1))
Y = jnp.arange(6, dtype=jnp.int32) % 3


class Dropping(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return linen.Dense(3)(x)


MODEL = models.from_linen(Dropping(), X[:1], 'train')
PARAMS, STATE = MODEL.init(KEY)
FORWARD = Forward(jnp.ones(6, bool), MODEL, PARAMS, STATE, X, KEY)


def test_a_pass_is_a_pure_function_and_draws_by_number():
    one, again, other = (FORWARD(STATE, X, draw=d)[0] for d in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_array_equal(one, FORWARD(STATE, X)[0])


def test_classes_are_known_without_a_pass():
    assert FORWARD.classes == 3


@pytest.mark.parametrize('name', ['trades', 'mart', 'fgsm_at'])
def test_clean_and_adversarial_passes_draw_apart(name):
    seen = []

    class Spied:
        def __call__(self, state, x, *, draw=0, **view):
            seen.append(draw)
            return FORWARD(state, x, draw=draw, **view)

    getattr(training, name)(0.1).outer(Spied(), STATE, X, X, Y)
    assert seen == [0, 1]


def test_a_view_may_not_take_the_name_of_the_draw():
    with pytest.raises(ValueError, match='draw'):
        training.method(training.unperturbed, training.on_adversarial, view={'draw': 1})


@pytest.mark.parametrize(
    'wrong',
    [
        lambda loss, logits, state: (jnp.mean(loss), logits, state),
        lambda loss, logits, state: (loss[:, None], logits, state),
        lambda loss, logits, state: (loss, jnp.argmax(logits, axis=1), state),
        lambda loss, logits, state: (loss, logits[:3], state),
        lambda loss, logits, state: (loss, logits),
        lambda loss, logits, state: loss,
        lambda loss, logits, state: (loss, logits, {'other': loss}),
        lambda loss, logits, state: [loss, logits, state],
    ],
)
def test_an_outer_loss_of_another_shape_is_refused_by_name(wrong):
    def my_own_outer(forward, state, x, x_adv, y):
        logits, state = forward(state, x_adv)
        return wrong(losses.cross_entropy(logits, y), logits, state)

    method = training.method(training.unperturbed, my_own_outer)
    state = training.create(MODEL, optax.sgd(0.1), key=KEY)
    batch = {'image': X, 'label': Y}
    with pytest.raises(ValueError, match='outer loss my_own_outer must return'):
        jax.eval_shape(training.step, method, state, batch, KEY)


def test_partners_are_found_among_the_examples_that_count():
    whole = _partners(jnp.ones(6, bool))
    np.testing.assert_array_equal(whole, np.roll(np.arange(6), 3))
    odd = _partners(jnp.ones(5, bool))
    np.testing.assert_array_equal(odd, np.roll(np.arange(5), 2))
    mask = jnp.array([True, False, True, True, False, True])
    counted = np.array([0, 2, 3, 5])
    np.testing.assert_array_equal(_partners(mask)[counted], [3, 5, 0, 2])
    assert _partners(jnp.zeros(4, bool)).shape == (4,)
