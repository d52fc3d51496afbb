"""Pytrees that know what they are, and refusals of what is not an image."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from advjax import attacks, balls
from advjax.training.named import Mixed, Trades
from advjax.types import as_pytree, check_images, dataclass


def test_values_of_different_kinds_have_different_structures():
    """Flax's dataclasses are equal here: jit may run one's program on the other."""
    values = [
        balls.linf(0.1),
        balls.l2(0.1),
        balls.l1(0.1),
        balls.l0(0.1),
        attacks.restarts(attacks.fgsm(0.1), 2),
        attacks.targeted(attacks.fgsm(0.1), 2),
        attacks.from_prediction(attacks.fgsm(0.1)),
        Mixed(jnp.float32(1)),
        Trades(jnp.float32(1)),
        attacks.fgsm(0.1),
        attacks.fgm(balls.l2(0.1)),
    ]
    structures = [jax.tree.structure(value) for value in values]
    for one, other in itertools.combinations(structures, 2):
        assert one != other


def test_equal_values_have_equal_structures():
    assert jax.tree.structure(attacks.pgd(0.1)) == jax.tree.structure(attacks.pgd(0.2))
    assert jax.tree.structure(attacks.mi_fgsm(0.1)) == jax.tree.structure(
        attacks.mi_fgsm(0.2)
    )
    assert jax.tree.structure(attacks.pgd(0.1, 3)) != jax.tree.structure(
        attacks.pgd(0.1, 4)
    )


@dataclass
class Pair:
    """Two children and a static field between them."""

    a: object
    size: int = struct.field(pytree_node=False, default=3)
    b: object = 2.0


def test_a_dataclass_is_a_frozen_pytree():
    pair = Pair(1.0, size=4)
    assert jax.tree.leaves(pair) == [1.0, 2.0]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, pair)
    assert (doubled.a, doubled.size, doubled.b) == (2.0, 4, 4.0)
    assert pair.replace(b=5.0) == Pair(1.0, size=4, b=5.0)
    with pytest.raises(AttributeError):
        pair.a = 3.0  # pyrefly: ignore[read-only]
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(pair)]
    assert paths == ['.a', '.b']
    assert 'size=4' in repr(pair)


def test_plain_functions_become_static_structure_and_pytrees_stay():
    attack = attacks.fgsm(0.1)
    assert as_pytree(attack) is attack
    wrapped = as_pytree(max)
    assert jax.tree.leaves(wrapped) == []
    assert wrapped(1, 2) == 2
    with pytest.raises(ValueError, match='expected a callable, got 3'):
        as_pytree(3)


@pytest.mark.parametrize(
    ('x', 'words'),
    [
        (jnp.zeros((2, 3), jnp.uint8), 'got uint8'),
        (jnp.zeros((2, 3), jnp.bfloat16), 'got bfloat16'),
        (jnp.zeros(()), 'leading batch axis'),
    ],
)
def test_what_is_no_image_is_refused(x, words):
    with pytest.raises(ValueError, match=words):
        check_images(x)
