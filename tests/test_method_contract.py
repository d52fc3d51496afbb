"""Every method of the catalogue obeys the shipped laws, and each law can be broken."""

import ast
import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import pytest

from advjax import attacks, balls, losses, training
from advjax.testing import check_method
from advjax.testing.broken import LawBrokenError
from advjax.testing.method import LAWS, trained
from advjax.training.simultaneous import Simultaneous

TEACHER, SOURCES = trained(5), [trained(6), trained(7)]


def given(entry):
    parts = {}
    if 'teacher' in entry.needs:
        parts['teacher'] = TEACHER
    if 'sources' in entry.needs:
        parts['sources'] = SOURCES
    if entry.steps is not None:
        parts['steps'] = 2
    if entry.name == 'vat':
        # With a short probe the direction is rounding, another in every program.
        parts['probe'] = 1.0
    return parts


@pytest.mark.parametrize('entry', training.catalogue(), ids=lambda entry: entry.name)
def test_the_method_obeys_its_laws(entry):
    parts = given(entry)
    check_method(entry.build(**parts), limits=entry.at_limits(**parts))


# ------------------------------------------------------------------- broken on purpose


def scalar(forward, state, x, x_adv, y):
    logits, state = forward(state, x_adv)
    return jnp.mean(losses.cross_entropy(logits, y)), logits, state


def no_state(forward, state, x, x_adv, y):
    logits, _ = forward(state, x_adv)
    return losses.cross_entropy(logits, y), logits


def not_finite(forward, state, x, x_adv, y):
    logits, state = forward(state, x_adv)
    return (
        losses.cross_entropy(logits, y) + jnp.log(0 * x.sum((1, 2, 3))),
        logits,
        state,
    )


def couples(forward, state, x, x_adv, y):
    """The mean over the batch, padding included."""
    logits, state = forward(state, x_adv)
    loss = losses.cross_entropy(logits, y)
    return loss + jnp.mean(jnp.square(logits)), logits, state


def farther(logits_fn, key, x, y):
    return x + 0.01 * jnp.sign(jax.grad(lambda z: logits_fn(z).sum())(x))


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """An attack that leaves the image where the ball holds nothing else."""

    search: attacks.Ascent

    def __call__(self, logits_fn, key, x, y):
        return self.search(logits_fn, key, x, y) + 0.01


jax.tree_util.register_dataclass(Elsewhere, ['search'], [])


class Forgetful(Simultaneous):
    """A step of its own that averages as it likes, and checks nothing."""

    def __call__(self, method, state, task):
        def loss(params):
            def forward(state_, images, **_):
                return state.model.apply(params, state_, images, train=True)

            value, logits, after = method.outer(
                forward, state.model_state, task.x, task.x, task.y
            )
            return jnp.mean(value), (after, logits)

        (value, (after, _)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params
        )
        one = jnp.ones(())
        sums = training.steps.Sums(after, value, one, one)
        return training.steps.Differentiated(value, sums, gradient, state.carried)


jax.tree_util.register_pytree_node(
    Forgetful, lambda f: ((f.ball, f.rate), None), lambda _, c: Forgetful(*c)
)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Draws from the number of its calls."""

    calls: itertools.count

    def __call__(self, forward, state, x, x_adv, y):
        def drawn():
            return jnp.float32(next(self.calls))

        logits, state = forward(state, x_adv)
        noise = jax.experimental.io_callback(drawn, jax.ShapeDtypeStruct((), 'float32'))
        return losses.cross_entropy(logits, y) * (1 + noise), logits, state


def eager_differs(forward, state, x, x_adv, y):
    logits, state = forward(state, x_adv)
    factor = 1.0 if isinstance(x, jax.core.Tracer) else 2.0
    return factor * losses.cross_entropy(logits, y), logits, state


class Static:
    """A ball whose radius is structure: every radius is a program."""

    def __init__(self, eps):
        self.eps, self.bounds = eps, (0.0, 1.0)

    norm_name = 'linf'

    def with_eps(self, eps):
        return Static(float(eps))


def _as_linf(name):
    return property(lambda self: getattr(balls.linf(self.eps), name))


for _name in (
    'project', 'sample', 'steepest', 'norm', 'contains', 'confine', 'unbounded', 'take'
):  # fmt: skip
    setattr(Static, _name, _as_linf(_name))


jax.tree_util.register_pytree_node(
    Static, lambda ball: ((), ball.eps), lambda eps, _: Static(eps)
)


def at(inner=training.unperturbed, outer=training.on_adversarial, **fields):
    return training.method(inner, outer, **fields)


PGD = attacks.pgd(0.1, 2, keep_best=False)
FREE = training.free(0.1)

BROKEN = {
    'outer loss: returns losses': lambda: at(outer=no_state),
    'outer loss: a mean over': lambda: FREE.replace(
        update=Forgetful(FREE.update.ball, FREE.update.rate)
    ),
    'step: weights': lambda: at(outer=not_finite),
    'radius 0': lambda: at(Elsewhere(PGD)),
    'key': lambda: at(outer=Counts(itertools.count())),
    'mask': lambda: at(outer=couples),
    'jit': lambda: at(outer=eager_differs),
    'trace': lambda: at(attacks.pgd(Static(0.1), 2, keep_best=False)),
}


@pytest.mark.parametrize('law', BROKEN)
def test_each_law_can_be_broken(law):
    with pytest.raises(LawBrokenError) as raised:
        check_method(BROKEN[law]())
    assert raised.value.law.startswith(law)
    shown = re.search(r'^x = (.*)$', str(raised.value), re.MULTILINE)
    assert len(ast.literal_eval(shown[1])) == 1


def test_every_law_is_broken_above():
    assert all(any(law.startswith(b) for b in BROKEN) for law in LAWS)
    assert len(BROKEN) == len(LAWS)


def test_a_wrong_limit_is_found():
    limits = [('beta = 0', training.trades(0.1, 0.1, 2), training.standard())]
    with pytest.raises(AssertionError, match='limit: beta = 0'):
        check_method(training.trades(0.1, 6.0, 2), limits=limits)


@pytest.mark.parametrize('outer', [scalar, no_state])
def test_an_outer_loss_of_another_shape_is_refused_by_name(outer):
    with pytest.raises(AssertionError, match=f'loss {outer.__name__} must return'):
        check_method(at(outer=outer))


def test_noise_is_no_adversary_when_it_says_so():
    assert not at(farther, adversarial=False).adversarial
    assert at(farther).adversarial
    assert not at().adversarial
    for entry in training.catalogue():
        method = entry.build(**given(entry))
        inner = entry.adversary not in ('none', 'random')
        assert method.adversarial == inner, entry.name
        assert method.unlabelled == (entry.name == 'vat')
        assert (method.update is not None) == (entry.adversary == 'simultaneous')
        assert method.replays == (8 if entry.name == 'free' else 1)
