"""Equal identities mean that nothing has changed, in this process and in others."""

import functools
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from advjax import attacks, balls, identity, training, zoo

W = np.arange(6.0).reshape(3, 2)


def factory(w):
    def model(x):
        return x @ w

    return model


def shifted(strength):
    return lambda logits_fn, key, x, y: x + strength


class Model:
    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        return x @ self.w

    def method(self, x):
        return x @ self.w


class Module(nnx.Module):
    def __init__(self, seed):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(seed))

    def __call__(self, x):
        return self.layer(x)


class Dense(linen.Module):
    size: int = 2

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.size)(x)


def schedule(steps):
    return optax.chain(
        optax.clip(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, steps))
    )


# Each makes the same twice of the same argument, and another of another.
PAIRS = {
    'number': (float, 1, 2),
    'type': (lambda dtype: np.ones(2, dtype), np.float32, np.float64),
    'shape': (lambda shape: np.zeros(shape), (2, 3), (3, 2)),
    'key': (jax.random.key, 0, 1),
    'order': (list, (1, 2), (2, 1)),
    'name': (lambda key: {key: 1}, '1', 1),
    'closure': (factory, W, 2 * W),
    'lambda': (shifted, 0.1, 0.2),
    'object with __call__': (Model, W, 2 * W),
    'bound method': (lambda w: Model(w).method, W, 2 * W),
    'partial': (functools.partial(functools.partial, factory), W, 2 * W),
    'Partial': (lambda w: jax.tree_util.Partial(jnp.dot, w), W, 2 * W),
    'jit': (lambda w: jax.jit(factory(w)), W, 2 * W),
    'cache': (lambda w: functools.cache(factory(w)), W, 2 * W),
    'nnx': (Module, 0, 1),
    'linen': (Dense, 2, 3),
    'optimizer': (schedule, 100, 101),
    'attack': (lambda steps: attacks.pgd(0.1, steps), 3, 4),
    'ball': (balls.linf, 0.1, 0.2),
    'method': (lambda beta: training.trades(0.1, beta), 1.0, 6.0),
    'network': (zoo.mlp, (3, 4), (3, 5)),
}


@pytest.mark.parametrize('name', PAIRS)
def test_what_is_the_same_and_what_is_not(name):
    make, one, other = PAIRS[name]
    assert identity.of(make(one)) == identity.of(make(one))
    assert identity.of(make(one)) != identity.of(make(other))


def test_code_is_what_it_does_and_not_where_it_stands():
    sources = {
        'as it was': 'def f(x):\n    return x + 1',
        'further down': '\n\n\ndef f(x):\n    # A comment.\n    return x + 1',
        'another constant': 'def f(x):\n    return x + 2',
        'another operation': 'def f(x):\n    return x - 1',
        'another default': 'def f(x, y=1):\n    return x + y',
        'its default': 'def f(x, y=2):\n    return x + y',
        'a helper': 'def g(x):\n    return x + 1\ndef f(x):\n    return g(x)',
        'its helper': 'def g(x):\n    return x + 2\ndef f(x):\n    return g(x)',
        'a global': 'k = 1\ndef f(x):\n    return x + k',
        'its global': 'k = 2\ndef f(x):\n    return x + k',
    }
    texts = {}
    for name, source in sources.items():
        room = {'__name__': '__main__'}
        exec(source, room)
        texts[name] = identity.of(room['f'])
    assert texts.pop('further down') == texts['as it was']
    assert len(set(texts.values())) == len(texts)


def test_cycles_end():
    ring: list = [1]
    ring.append(ring)
    other: list = [2]
    other.append(other)
    assert identity.of(ring) != identity.of(other)


def test_every_attack_and_method_has_one():
    for entry in attacks.catalogue():
        if entry.norms:
            made = [identity.of(entry.build(entry.norms[0])) for _ in range(2)]
            assert made[0] == made[1], entry.name
    for entry in training.catalogue():
        if not entry.needs:
            assert identity.of(entry.build()) == identity.of(entry.build()), entry.name


@pytest.mark.parametrize('held', [threading.Lock(), sys.stderr])
def test_what_cannot_be_known_again_is_refused_with_the_way_out(held):
    message = 'the logits fn cannot be told .* holds a .*Pass a function, a pytree'
    with pytest.raises(identity.UnidentifiedError, match=message):
        identity.each(logits_fn=factory(held))


def test_the_rest_of_a_script_does_not_matter(tmp_path):
    """An object of a class of the script is known by the class."""
    script = (
        'from advjax import identity\n'
        'class Model:\n'
        '    def __call__(self, x):\n'
        '        return {} * x\n'
        'print(identity.of(Model()))\n'
    )
    texts = []
    for factor, after in ((2, ''), (2, '# Another remark.'), (3, '')):
        (tmp_path / 'script.py').write_text(script.format(factor) + after)
        done = subprocess.run(
            [sys.executable, 'script.py'], cwd=tmp_path, capture_output=True, text=True
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 17


def test_another_process_finds_the_same():
    program = (
        'from tests import test_identity as t\n'
        'for name, (make, one, _) in t.PAIRS.items():\n'
        '    print(name, t.identity.of(make(one)))'
    )
    env = {**os.environ, 'PYTHONHASHSEED': '7'}
    done = subprocess.run(
        [sys.executable, '-c', program],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    here = [
        f'{name} {identity.of(make(one))}' for name, (make, one, _) in PAIRS.items()
    ]
    assert done.stdout.splitlines() == here


def test_a_package_is_its_version_or_its_source():
    assert identity.of_package('optax') == optax.__version__
    assert len(identity.of_package('advjax')) == 64
    assert identity.of_package('json').startswith('python 3')
