"""What minimum-norm attacks share: the closest adversarial example found so far.

Such an attack looks for the smallest perturbation that succeeds. Its ball names the
norm and the range, and its radius how far the search may end: infinite by default,
the threat model's where only adversarial examples within it are of use. It returns
the closest adversarial example, and the clean image where none was found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from advjax.attacks.goal import Goal
from advjax.attacks.search import iterate, spent
from advjax.rows import choose, wide
from advjax.types import Array, Ball, Found, Key, Search

TIE = 2e-6
"""A margin below this share of the largest logit, here or clean, is a tie.

The closest adversarial example lies on the decision boundary, where the rounding of
another program (another batch size, another device) could turn the answer back.
"""


class MinimumNorm(Search, Protocol):
    """A search for the smallest perturbation in the norm of its ball."""

    @property
    def ball(self) -> Ball: ...  # noqa: D102


class Refined(MinimumNorm, Protocol):
    """One that ends with ``refine`` bisections towards the clean image."""

    @property
    def refine(self) -> int: ...  # noqa: D102


class Confident(Refined, Protocol):
    """One that may ask for a margin of ``kappa``."""

    @property
    def kappa(self) -> Array: ...  # noqa: D102


class Clean(NamedTuple):
    """The model at the clean images.

    Attributes:
      rank: (B,), that of the result where nothing is found.
      scale: (B,) the largest logit, to which rounding is relative.
    """

    rank: Array
    scale: Array


class Verdict(NamedTuple):
    """Whether points are successes to be recorded, (B,), and their ranks."""

    won: Array
    rank: Array

    @property
    def crossed(self) -> Array:
        """Whether the boundary is behind, by however little: what steers a walk.

        A walk that waited for a success to record would stand still on a tie.
        """
        return self.rank > 0


class Nearest(NamedTuple):
    """The closest adversarial example so far.

    Attributes:
      x: (B, ...), the clean image before there is any.
      norm: (B,) its distance, infinite before there is any.
      rank: (B,) its rank.
      clean: rank and scale at the clean image.
    """

    x: Array
    norm: Array
    rank: Array
    clean: Clean

    @property
    def found(self) -> Array:
        """(B,) whether there is one."""
        return jnp.isfinite(self.norm)

    def judge(self, goal: Goal, logits: Array, kappa: float | Array = 0.0) -> Verdict:
        """Whether these logits (B, K) are a success by a margin above ``kappa``."""
        return judge(goal, logits, self.clean.scale, kappa)

    def update(self, ball: Ball, x: Array, x0: Array, seen: Verdict) -> 'Nearest':
        """Takes ``x`` where it is a success and closer; the first of equals."""
        norm = jnp.where(seen.won, ball.norm(x - x0), jnp.inf).astype(self.norm.dtype)
        return closer(self, self._replace(x=x, norm=norm, rank=seen.rank))

    def none(self) -> 'Nearest':
        """The same before anything was found, even at the clean image."""
        return self._replace(norm=jnp.full_like(self.norm, jnp.inf))


def judge(
    goal: Goal, logits: Array, scale: Array, kappa: float | Array = 0.0
) -> Verdict:
    """See ``Nearest.judge``; ``scale`` (B,) is the size of the clean logits."""
    rank = goal.rank_of(logits)
    size = jnp.max(jnp.abs(logits.astype(jnp.float32)), axis=1)
    # Logits may vanish on the boundary; the terms that cancel there do not.
    tie = TIE * jnp.maximum(size, scale)
    return Verdict(jnp.isposinf(rank) | (rank > kappa + tie), rank)


def begin(goal: Goal, x0: Array) -> Nearest:
    """The clean image itself where it is a success: one model call."""
    logits = goal.logits_fn(x0)
    size = jnp.max(jnp.abs(logits.astype(jnp.float32)), axis=1)
    # A NaN or infinite logit does not say how large the others are.
    scale = jnp.nan_to_num(size, posinf=0)
    won, rank = judge(goal, logits, scale)
    norm = jnp.where(won, 0.0, jnp.inf).astype(x0.dtype)
    return Nearest(x0, norm, rank, Clean(rank, scale))


class Following(NamedTuple):
    """Where DDN and FMN stand: the perturbation, and the radius it should have."""

    delta: Array
    eps: Array
    nearest: Nearest
    time: Array


def cosine(time: Array, steps: int) -> Array:
    """Falls from 1 to 0 over the steps, along half a cosine."""
    return (1 + jnp.cos(jnp.pi * time.astype(jnp.float32) / steps)) / 2


def following(goal: Goal, eps: Array, x0: Array) -> Following:
    """The state at the clean image, whatever the model says there."""
    nearest = begin(goal, x0).none()
    return Following(jnp.zeros_like(x0), eps, nearest, jnp.zeros((), jnp.int32))


def follow(attack: Any, goal: Goal, key: Key, x0: Array) -> Found:
    """All steps, a look at where the last one ends, and the bisections."""
    state = iterate(attack, goal, key, x0)
    x = x0 + state.delta
    seen = state.nearest.judge(goal, goal.logits_fn(x))
    return refined(attack, state.nearest.update(attack.ball, x, x0, seen), goal, x0)


def closer(one: Nearest, other: Nearest) -> Nearest:
    """The closer of two per example, the first of equals."""
    better = other.norm < one.norm
    return Nearest(
        choose(better, other.x, one.x),
        jnp.where(better, other.norm, one.norm),
        jnp.where(better, other.rank, one.rank),
        one.clean,
    )


def search_constant(
    solve: Callable[[Array], Nearest], best: Nearest, first: Array, searches: int
) -> Nearest:
    """Searches the constant c with the closest success, example by example.

    Tenfold after a failure as long as nothing has succeeded, then by bisection between
    the largest c that failed and the smallest that succeeded.

    Args:
      solve: c (B,) -> the closest success found with it.
      best: what is known before.
      first: the first c.
      searches: number of values.
    """

    def search(carry, _):
        best, low, high, c = carry
        new = solve(c)
        high = jnp.where(new.found, jnp.minimum(high, c), high)
        low = jnp.where(new.found, low, jnp.maximum(low, c))
        c = jnp.where(jnp.isfinite(high), (low + high) / 2, c * 10)
        return (closer(best, new), low, high, c), None

    zero = jnp.zeros_like(best.norm)
    carry = best, zero, zero + jnp.inf, zero + first
    return jax.lax.scan(search, carry, length=searches)[0][0]


def refine(
    best: Nearest,
    goal: Goal,
    ball: Ball,
    x0: Array,
    steps: int,
    path: Callable[[Array], Array] | None = None,
) -> Nearest:
    """Bisects the way from the clean image to the example found.

    ``steps`` model calls bring it 2^-steps of the way close to the boundary.

    Args:
      best: the example found.
      goal: what counts as success.
      ball: its norm decides what is closer.
      x0: clean images.
      steps: number of bisections.
      path: share (B,) of the way in [0, 1] -> points; the segment by default.
    """

    def segment(share):
        return x0 + wide(share, x0) * (end - x0)

    def halve(carry, _):
        best, low, high = carry
        middle = (low + high) / 2
        x = (path or segment)(middle)
        seen = best.judge(goal, goal.logits_fn(x))
        won = seen.won & best.found
        best = best.update(ball, x, x0, Verdict(won, seen.rank))
        return (best, jnp.where(won, low, middle), jnp.where(won, middle, high)), None

    end = best.x
    low = jnp.zeros_like(best.norm)
    carry = best, low, jnp.ones_like(low)
    return jax.lax.scan(halve, carry, length=steps)[0][0]


def result(
    attack: MinimumNorm, best: Nearest, x0: Array, queries: Array | None = None
) -> Found:
    """The example found, and the clean image where none lies in the ball.

    Args:
      attack: the search; its ball has the last word.
      best: what it found.
      x0: clean images.
      queries: (B,) model calls spent; as many as declared by default.
    """
    within = best.found & attack.ball.contains(best.x, x0)
    return Found(
        choose(within, best.x, x0),
        jnp.where(within, best.rank, best.clean.rank),
        spent(attack, x0) if queries is None else queries,
    )


def refined(attack: Refined, best: Nearest, goal: Goal, x0: Array) -> Found:
    """``result`` after ``attack.refine`` bisections."""
    return result(attack, refine(best, goal, attack.ball, x0, attack.refine), x0)


def confident(attack: Confident, best: Nearest, goal: Goal, x0: Array) -> Found:
    """``refined``, except where ``attack.kappa`` asks for confidence.

    A confident example must not be moved back to the boundary.
    """
    moved = refine(best, goal, attack.ball, x0, attack.refine)
    stays = attack.kappa > 0
    return result(
        attack, jax.tree.map(lambda a, b: jnp.where(stays, a, b), best, moved), x0
    )
