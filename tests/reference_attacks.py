"""Published attacks in plain NumPy, float64: oracles for the larger attacks.

A continuation of `tests.reference`, in the same spirit: each function is written to be
read beside its paper and shares no code with the library. What is added to the
conventions there:

*   x is (B, ...) of any shape unless said otherwise, y is (B,) class indices.
*   A model is given as callables, in float64:
        value_and_gradient(x) -> (loss (B,), its gradient in x, like x)
        logits(x) -> (B, K)
        gradient(x) -> the gradient in x of what is maximised, like x
        jacobian(x) -> (B, K, ...), the gradients in x of all the logits
    Losses are maximised. The label is the callable's own affair.
*   norm is 'linf', 'l2' or 'l1'. eps is a number or (B,).
*   Nothing is random: starts and draws are arguments.
*   Where a paper and its authors' code disagree this is the code, and the docstring
    says so. Guards of the code against division by zero (+ 1e-12 in a denominator) are
    left out: a zero gradient is a zero step, and one that is zero but for rounding is a
    full step here, next to none in the code. Where the code draws a random direction
    for a zero gradient (DDN), the example stays where it is.
*   Several of these attacks compare numbers that may be equal but for rounding (the
    loss of a corner visited twice, a point put exactly on the boundary): two correct
    implementations then part. Compare on models and starts that stay away from it.

Only the last section, a model with a known nearest adversarial example, needs SciPy.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize

from tests import reference

Array = np.ndarray
Box = reference.Box
Size = reference.Size
ValueAndGradient = Callable[[Array], tuple[Array, Array]]
Function = Callable[[Array], Array]

UNIT_BOX = reference.UNIT_BOX
P = {'linf': np.inf, 'l2': 2, 'l1': 1}
STEEPEST = {
    'linf': reference.steepest_linf,
    'l2': reference.steepest_l2,
    'l1': reference.steepest_l1,
}
# What the published code does. Its L2 projection is not the nearest point of ball and
# box together: that one is reference.project_l2_box.
PROJECT = {
    'linf': reference.project_linf_box,
    'l2': reference.project_l2_then_clip,
    'l1': reference.project_l1_box,
}


def _rows(x: Array) -> Array:
    """Examples as the rows of a float64 matrix, (B, ...) -> (B, d)."""
    x = np.asarray(x, dtype=np.float64)
    return x.reshape(len(x), -1)


def _sizes(eps: Size, batch: int) -> Array:
    """The size of each example's ball, (B,), from a number or (B,)."""
    return np.broadcast_to(np.asarray(eps, dtype=np.float64), (batch,))


def _where(chosen: Array, a: Array, b: Array) -> Array:
    """Examples of a where chosen (B,), those of b elsewhere."""
    return np.where(np.reshape(chosen, (-1,) + (1,) * (np.ndim(a) - 1)), a, b)


def _anneal(first: float, last: float, i: int, steps: int) -> float:
    """Cosine from first, at i = 0, towards last, at i = steps (never reached)."""
    return last + (first - last) * (1 + np.cos(np.pi * i / steps)) / 2


# ------------------------------------------------------------------------------- APGD


class Ascent(NamedTuple):
    """A run of APGD. The n-th iteration makes iterates[n] from what came before.

    The last misclassified point, which AutoAttack returns, is the last such iterate.
    """

    iterates: list[Array]  # The points evaluated, the start first: steps + 1.
    losses: Array  # (steps + 1, B), of the iterates.
    step_sizes: Array  # (steps, B): row n - 1 made iterates[n].
    checkpoints: list[int]  # After how many iterations the step was reconsidered.
    reset: Array  # (checkpoints, B), whether the example went back to its best point.
    best: Array  # The iterate with the highest loss, the first of equals.
    best_loss: Array  # (B,)
    kept: Array | None = None  # L1 only, (steps, B): coordinates allowed to move.


class _Point(NamedTuple):
    """A point, (B, d), and what is known of it."""

    x: Array
    loss: Array
    gradient: Array


def _choose(chosen: Array, a: _Point, b: _Point) -> _Point:
    return _Point(*(_where(chosen, u, v) for u, v in zip(a, b, strict=True)))


def _evaluator(f: ValueAndGradient, shape: tuple[int, ...]) -> Callable[..., _Point]:
    """`f`, which sees examples of the model's shape, as a function of rows."""

    def evaluate(rows: Array) -> _Point:
        loss, gradient = f(rows.reshape(shape))
        return _Point(rows, np.asarray(loss, np.float64), _rows(gradient))

    return evaluate


def _ascent(
    points: list[_Point],
    shape: tuple[int, ...],
    best: _Point,
    step_sizes: list[Array],
    checkpoints: list[int],
    reset: list[Array],
    kept: list[Array] | None = None,
) -> Ascent:
    """The record of a run, in the model's shape."""
    return Ascent(
        iterates=[point.x.reshape(shape) for point in points],
        losses=np.array([point.loss for point in points]),
        step_sizes=np.array(step_sizes).reshape(-1, shape[0]),
        checkpoints=checkpoints,
        reset=np.array(reset, bool).reshape(-1, shape[0]),
        best=best.x.reshape(shape),
        best_loss=best.loss,
        kept=None if kept is None else np.array(kept).reshape(-1, shape[0]),
    )


def apgd_checkpoints(steps: int) -> list[int]:
    """Numbers of iterations after which APGD reconsiders its step.

        gap_1 = max( floor(.22 n), 1 )
        gap_{j+1} = max( gap_j - max( floor(.03 n), 1 ), max( floor(.06 n), 1 ) )

    The code's whole numbers. The paper has w_j = ceil(p_j n), p_1 = .22 and
    p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06), which for n = 100 is the same.

    Reference: fra31/auto-attack, autopgd_base.py; Croce & Hein 2020, 2003.01690, 3.
    """
    gap = max(int(0.22 * steps), 1)
    shrink, least = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    checkpoints = []
    reached = gap
    while reached <= steps:
        checkpoints.append(reached)
        gap = max(gap - shrink, least)
        reached += gap
    return checkpoints


def _increases(losses: list[Array], last: int, wrap: bool) -> Array:
    """How often the loss rose in the last so many iterations, (B,)."""
    losses = [np.zeros_like(losses[0]), *losses[1:]] if wrap else losses
    pairs = itertools.pairwise(losses[-last - 1 :])
    return np.sum([after > before for before, after in pairs], axis=0)


def apgd(
    value_and_gradient: ValueAndGradient,
    x0: Array,
    start: Array,
    eps: Size,
    steps: int,
    norm: str,
    box: Box = UNIT_BOX,
    rho: float = 0.75,
    momentum: float = 0.75,
    project: reference.Projection | None = None,
    wrap: bool = False,
) -> Ascent:
    """Auto-PGD in Linf or L2, one run without restarts; s = 2 eps at first.

        z^k     = P( x^k + s steepest(g^k) )
        x^{k+1} = P( x^k + a (z^k - x^k) + (1 - a) (x^k - x^{k-1}) ),
        a = momentum, but 1 in the first iteration.

    At a checkpoint with `gap` iterations since the one before
        (1)  the loss rose in at most rho gap of those iterations, or
        (2)  s was not halved at the last checkpoint, and since then the best loss has
             not risen,
    halve s and continue from the best point with its gradient: x^{k+1} = x_best. The
    momentum of the next iteration is then x_best - x^k, as if x_best had been reached
    in one step from x^k.

    (2) cannot hold at the first checkpoint: the code's flag starts as 'was halved'. In
    the paper it can. (1) is < in the paper, <= in the code; and the paper looks after
    one iteration more.

    Args:
      value_and_gradient: of the loss that is maximised.
      x0: the middle of the ball, (B, ...).
      start: the first iterate, used as it is.
      eps: radius of the ball, a number or (B,).
      steps: iterations n; the loss is evaluated n + 1 times.
      norm: 'linf' or 'l2'.
      box: interval of pixel values, or None.
      rho: share of the iterations in which the loss must rise.
      momentum: a above.
      project: P(z, x0, eps, box) on (B, d), by default ball first and then box, as in
        the code.
      wrap: repeat an oversight of the code, which has no loss of the start in its
        history and compares the first loss with an empty row of zeros instead.

    Reference: Croce & Hein 2020, 2003.01690, algorithm 1; fra31/auto-attack,
    autopgd_base.py.
    """
    shape, centre = np.shape(x0), _rows(x0)
    evaluate = _evaluator(value_and_gradient, shape)
    project = PROJECT[norm] if project is None else project
    step = 2 * _sizes(eps, len(centre))
    checkpoints = apgd_checkpoints(steps)
    gaps = dict(zip(checkpoints, np.diff([0, *checkpoints]), strict=True))

    point = best = evaluate(_rows(start))
    previous, points, step_sizes, reset = point.x, [point], [], []
    halved, best_before = np.ones(len(centre), bool), best.loss
    for n in range(1, steps + 1):
        a = 1.0 if n == 1 else momentum
        x = point.x
        z = x + step[:, None] * STEEPEST[norm](point.gradient)
        z = project(z, centre, eps, box)
        moved = x + a * (z - x) + (1 - a) * (x - previous)
        point = evaluate(project(moved, centre, eps, box))
        previous = x
        points.append(point)
        step_sizes.append(step)
        best = _choose(point.loss > best.loss, point, best)
        if n in gaps:
            rises = _increases([p.loss for p in points], gaps[n], wrap)
            stuck = ~halved & (best_before >= best.loss)
            halved = (rises <= rho * gaps[n]) | stuck
            best_before = best.loss
            step = np.where(halved, step / 2, step)
            point = _choose(halved, best, point)
            reset.append(halved)
    return _ascent(points, shape, best, step_sizes, checkpoints, reset)


def sparse_sign(gradient: Array, kept: Array) -> Array:
    """Sign of the `kept` largest |g_i|, divided by its L1 norm; (B, d).

    Of a tie at the threshold all are kept, and coordinates with g_i = 0 do not move.

    Reference: Croce & Hein 2021, 2103.01208; fra31/auto-attack, autopgd_base.py.
    """
    out = np.zeros_like(gradient)
    for i, g in enumerate(gradient):
        threshold = np.sort(np.abs(g))[len(g) - kept[i]]
        s = np.sign(g) * (np.abs(g) >= threshold)
        out[i] = s / max(np.sum(np.abs(s)), 1)
    return out


def _kept_of_sparsity(sparsity: Array, size: int) -> Array:
    """How many coordinates move, d - floor((1 - sparsity / d / 1.5) d), at least 1.

    In whole numbers, so that it is exact. The code takes the floor of a float32, which
    may come out one lower when sparsity is a multiple of 3: then it moves one
    coordinate more.
    """
    return size - np.minimum((3 * size - 2 * sparsity) // 3, size - 1)


def apgd_l1(
    value_and_gradient: ValueAndGradient,
    x0: Array,
    start: Array,
    eps: Size,
    steps: int,
    project: reference.Projection = reference.project_l1_box,
    box: Box = UNIT_BOX,
) -> Ascent:
    """Auto-PGD in L1, one run at one radius; s = eps at first, and no momentum.

        x^{k+1} = P( x^k + s sparse_sign(g^k, kept) )

    where P is the projection on ball and box together. Every max(floor(.04 n), 1)
    iterations, with sparsity = ||x_best - x0||_0:
        if sparsity < .95 times what it was at the last check:
            s = eps, and continue from the best point with its gradient
        else:
            s = max(s / 1.5, eps / 10)
        density = sparsity / d / 1.5.

    A coordinate counts for the sparsity if it differs from x0 at all. The code's
    x0 + u + (-u) leaves rounding errors, which it counts too; P here leaves none.

    Args:
      value_and_gradient: of the loss that is maximised.
      x0: the middle of the ball, (B, ...).
      start: the first iterate, used as it is.
      eps: radius of the ball, a number or (B,).
      steps: iterations n.
      project: P(z, x0, eps, box) on (B, d).
      box: interval of pixel values, or None.

    Reference: Croce & Hein 2021, 2103.01208; fra31/auto-attack, autopgd_base.py.
    """
    shape, centre = np.shape(x0), _rows(x0)
    evaluate = _evaluator(value_and_gradient, shape)
    batch, size = centre.shape
    eps = _sizes(eps, batch)
    step = eps
    every = max(int(0.04 * steps), 1)
    checkpoints = list(range(every, steps + 1, every))

    point = best = evaluate(_rows(start))
    # AutoAttack always gives a start, so the sparsity is that of the start at first.
    sparsity = np.sum(point.x != centre, axis=1)
    kept = _kept_of_sparsity(sparsity, size)
    points, step_sizes, reset, all_kept = [point], [], [], []
    for n in range(1, steps + 1):
        moved = point.x + step[:, None] * sparse_sign(point.gradient, kept)
        point = evaluate(project(moved, centre, eps, box))
        points.append(point)
        step_sizes.append(step)
        all_kept.append(kept)
        best = _choose(point.loss > best.loss, point, best)
        if n in checkpoints:
            before, sparsity = sparsity, np.sum(best.x != centre, axis=1)
            fell = 20 * sparsity < 19 * before  # .95 in whole numbers.
            kept = _kept_of_sparsity(sparsity, size)
            step = np.where(fell, eps, np.maximum(step / 1.5, eps / 10))
            point = _choose(fell, best, point)
            reset.append(fell)
    return _ascent(points, shape, best, step_sizes, checkpoints, reset, all_kept)


# ------------------------------------------------------------------------ DDN and FMN


class Minimal(NamedTuple):
    """A run of an attack that looks for the smallest adversarial perturbation."""

    iterates: list[Array]  # x0 first, steps + 1 in all; the last is not evaluated.
    sizes: Array  # (steps, B): row n - 1 is the radius for iterates[n].
    found: Array  # (B,), whether any evaluated iterate was adversarial.
    best: Array  # The smallest adversarial iterate, x0 if there is none.
    best_norm: Array  # (B,), inf if there is none.


class _Best(NamedTuple):
    """The smallest adversarial perturbation so far."""

    delta: Array
    norm: Array
    found: Array

    def update(self, delta: Array, norm: Array, adversarial: Array, less) -> '_Best':
        """With delta where it is adversarial and less(norm, norm so far)."""
        better = adversarial & less(norm, self.norm)
        return _Best(
            _where(better, delta, self.delta),
            np.where(better, norm, self.norm),
            self.found | adversarial,
        )


def _worst_norm(x: Array, norm: str, box: Box) -> Array:
    """The largest perturbation that the box allows, (B,)."""
    if box is None:
        return np.full(len(x), np.inf)
    return reference.norm(np.maximum(x - box[0], box[1] - x), P[norm])


def _adversarial(z: Array, y: Array, targeted: bool) -> Array:
    predicted = np.argmax(z, axis=1)
    return (predicted == y) if targeted else (predicted != y)


def _minimal(x: Array, shape, deltas: list[Array], sizes, best: _Best) -> Minimal:
    """The record of a run, in the model's shape."""
    return Minimal(
        iterates=[(x + delta).reshape(shape) for delta in deltas],
        sizes=np.array(sizes).reshape(-1, len(x)),
        found=best.found,
        best=(x + best.delta).reshape(shape),
        best_norm=np.where(best.found, best.norm, np.inf),
    )


def ddn(
    logits: Function,
    gradient: Function,
    x0: Array,
    y: Array,
    steps: int,
    gamma: float = 0.05,
    init_norm: float = 1.0,
    step_size: float = 1.0,
    last_step_size: float = 0.01,
    box: Box = UNIT_BOX,
    targeted: bool = False,
) -> Minimal:
    """Decoupled direction and norm attack (L2), without quantisation; delta_0 = 0.

        u           = delta_k + alpha_k g_k / ||g_k||_2
        eps_{k+1}   = (1 - gamma) eps_k if x + delta_k is adversarial, else (1 + gamma)
                      eps_k; no more than the longest perturbation in the box
        delta_{k+1} = clip( x + eps_{k+1} u / ||u||_2 ) - x

    with eps_0 = init_norm and alpha_k a cosine from step_size to last_step_size (lower
    end excluded). The norm is imposed, also upwards. The smallest adversarial one of
    the x + delta_0, ..., x + delta_{steps - 1} is returned.

    The paper's pseudocode (quoted from memory) lets u accumulate unprojected, evaluates
    the last iterate too, and puts no upper limit on eps.

    Args:
      logits: of the model.
      gradient: of the cross entropy at y, or of minus the cross entropy if targeted.
      x0: (B, ...) in the box.
      y: labels, or targets.
      steps: iterations, and evaluations.
      gamma: relative change of the norm.
      init_norm: eps_0.
      step_size: alpha_0.
      last_step_size: lower end of the cosine.
      box: interval of pixel values, or None.
      targeted: whether y is the target.

    Reference: Rony 2019, 1811.09600, algorithm 1; jeromerony/fast_adversarial, ddn.py.
    """
    shape, x = np.shape(x0), _rows(x0)
    worst = _worst_norm(x, 'l2', box)
    size, deltas, sizes = np.full(len(x), float(init_norm)), [np.zeros_like(x)], []
    best = _Best(deltas[0], worst, np.zeros(len(x), bool))
    for k in range(steps):
        delta = deltas[-1]
        at = (x + delta).reshape(shape)
        adversarial = _adversarial(logits(at), y, targeted)
        best = best.update(delta, reference.norm(delta, 2), adversarial, np.less)
        alpha = _anneal(step_size, last_step_size, k, steps)
        u = delta + alpha * reference.steepest_l2(_rows(gradient(at)))
        size = np.minimum(np.where(adversarial, 1 - gamma, 1 + gamma) * size, worst)
        scaled = size[:, None] * reference.steepest_l2(u)
        deltas.append(reference.clip(x + scaled, box) - x)
        sizes.append(size)
    return _minimal(x, shape, deltas, sizes, best)


def _boundary_distance(margin: Array, gradient: Array, norm: str) -> Array:
    """First-order distance |margin| / ||gradient||_q to the boundary, (B,)."""
    slope = reference.norm(gradient, reference.DUAL[P[norm]])
    return np.abs(margin) / np.maximum(slope, 1e-12)


def fmn(
    logits: Function,
    margin_gradient: Function,
    x0: Array,
    y: Array,
    steps: int,
    norm: str,
    step_size: float = 1.0,
    last_step_size: float = 0.01,
    gamma: float = 0.05,
    last_gamma: float = 0.001,
    box: Box = UNIT_BOX,
    targeted: bool = False,
) -> Minimal:
    """Fast minimum-norm attack from x itself; delta_0 = 0 and eps_0 = inf.

    With margin m (positive if adversarial) and its gradient g at x + delta_k:
        eps_{k+1} = min( (1 - gamma_k) eps_k, ||best||_p )     if x + delta_k is
                                                               adversarial
                    (1 + gamma_k) eps_k                        else, if any was before
                    ||delta_k||_p + |m| / ||g||_q              else (1/p + 1/q = 1)
        eps_{k+1} <= the longest perturbation in the box
        delta_{k+1} = clip( x + P_eps( delta_k + alpha_k g / ||g||_2 ) ) - x

    where P_eps is the Euclidean projection on the Lp ball of radius eps_{k+1}: unlike
    in DDN it does not lengthen. alpha_k and gamma_k are cosines from their first to
    their last value (lower end excluded). The step is normalised in L2 for every p. Of
    equally long adversarial perturbations the last is the best. (Such ties are common,
    as eps is at most ||best||_p after a success: compare norms, not points.) Until the
    first success this is Newton's method, and may come to lie on the boundary itself.

    Args:
      logits: of the model.
      margin_gradient: of max_{j != y} z_j - z_y; of z_y - max_{j != y} z_j if targeted.
      x0: (B, ...) in the box.
      y: labels, or targets.
      steps: iterations, and evaluations.
      norm: 'linf', 'l2' or 'l1'.
      step_size: alpha_0.
      last_step_size: lower end of alpha_k, in the code alpha_0 / 100.
      gamma: gamma_0.
      last_gamma: lower end of gamma_k, .001 in the code.
      box: interval of pixel values, or None.
      targeted: whether y is the target.

    Reference: Pintor 2021, 2102.12827, algorithm 1; pralab/
    Fast-Minimum-Norm-FMN-Attack, src/attacks/fmn.py.
    """
    shape, x = np.shape(x0), _rows(x0)
    margin_of = reference.targeted_cw_margin if targeted else reference.cw_margin
    worst = _worst_norm(x, norm, box)
    size, deltas, sizes = np.full(len(x), np.inf), [np.zeros_like(x)], []
    best = _Best(deltas[0], worst, np.zeros(len(x), bool))
    for k in range(steps):
        alpha = _anneal(step_size, last_step_size, k, steps)
        rate = _anneal(gamma, last_gamma, k, steps)
        delta = deltas[-1]
        at = (x + delta).reshape(shape)
        z, g = logits(at), _rows(margin_gradient(at))
        adversarial = _adversarial(z, y, targeted)
        length = reference.norm(delta, P[norm])
        best = best.update(delta, length, adversarial, np.less_equal)
        estimate = length + _boundary_distance(margin_of(z, y), g, norm)
        larger = np.where(best.found, size * (1 + rate), estimate)
        smaller = np.minimum(size * (1 - rate), best.norm)
        size = np.minimum(np.where(adversarial, smaller, larger), worst)
        moved = x + delta + alpha * reference.steepest_l2(g)
        moved = PROJECT[norm](moved, x, size, None)
        deltas.append(reference.clip(moved, box) - x)
        sizes.append(size)
    return _minimal(x, shape, deltas, sizes, best)


# --------------------------------------------------------------------------- DeepFool


class DeepFool(NamedTuple):
    """A run of DeepFool."""

    x: Array  # x0 + (1 + overshoot) r.
    r: Array  # Sum of the steps, like x0.
    iterations: Array  # (B,), how many steps were taken.
    label: Array  # (B,), the class of x.


def deepfool_step(
    z: Array, slopes: Array, label: int, norm: str, stability: float = 0.0
) -> Array:
    """Step to the nearest of the linearised boundaries of the class y = label, (d,).

        w_k = slopes_k - slopes_y,  f_k = z_k - z_y,
        l = argmin_{k != y} |f_k| / ||w_k||_q,
        r = ( |f_l| / ||w_l||_q ) steepest(w_l):
            |f_l| / ||w_l||_2^2 w_l  in L2,   |f_l| / ||w_l||_1 sign(w_l)  in Linf.

    Args:
      z: logits of one example, (K,).
      slopes: their gradients, (K, d).
      label: the class to be left.
      norm: 'linf', 'l2' or 'l1'.
      stability: added to the distance |f_l| / ||w_l||_q; later versions of the Python
        code have 1e-4.

    Reference: Moosavi-Dezfooli 2016, 1511.04599, algorithm 2 and its extension to Lp.
    """
    w, f = slopes - slopes[label], z - z[label]
    lengths = reference.norm(w, reference.DUAL[P[norm]])
    candidates = [k for k in range(len(z)) if k != label and lengths[k] > 0]
    if not candidates:
        return np.zeros(slopes.shape[1])
    nearest = min(candidates, key=lambda k: abs(f[k]) / lengths[k])
    distance = abs(f[nearest]) / lengths[nearest] + stability
    return distance * STEEPEST[norm](w[nearest, None])[0]


def deepfool(
    logits: Function,
    jacobian: Function,
    x0: Array,
    steps: int = 50,
    overshoot: float = 0.02,
    norm: str = 'l2',
    variant: str = 'python',
    stability: float = 0.0,
) -> DeepFool:
    """DeepFool, without a box: r = sum of `deepfool_step` until the class changes.

    The class to be left is the predicted class of x0. Three published forms differ in
    where the model is linearised, and where its class is looked at:
        'paper'   both at x0 + r; the overshoot is applied once, at the end
        'matlab'  linearised at x0 + r, class of x0 + (1 + overshoot) r
        'python'  both at x0 + (1 + overshoot) r

    Args:
      logits: of the model.
      jacobian: of the logits.
      x0: (B, ...).
      steps: the most steps taken; 50 in the Python code, 100 in MATLAB.
      overshoot: eta, .02.
      norm: 'linf', 'l2' or 'l1'.
      variant: see above.
      stability: see `deepfool_step`.

    Reference: Moosavi-Dezfooli 2016, 1511.04599, algorithm 2; LTS4/DeepFool,
    Python/deepfool.py and MATLAB/adversarial_perturbation.m.
    """
    x0 = np.asarray(x0, dtype=np.float64)
    linearise = 1 + overshoot if variant == 'python' else 1.0
    look = 1.0 if variant == 'paper' else 1 + overshoot
    r, iterations = np.zeros_like(x0), np.zeros(len(x0), int)
    for i in range(len(x0)):
        one, total = x0[i : i + 1], np.zeros_like(x0[i : i + 1])
        first = int(np.argmax(logits(one)[0]))
        while np.argmax(logits(one + look * total)[0]) == first:
            if iterations[i] == steps:
                break
            at = one + linearise * total
            z, slopes = logits(at)[0], _rows(jacobian(at)[0])
            step = deepfool_step(z, slopes, first, norm, stability)
            total = total + step.reshape(one.shape)
            iterations[i] += 1
        r[i] = total[0]
    x = x0 + (1 + overshoot) * r
    return DeepFool(x, r, iterations, np.argmax(logits(x), axis=1))


# ----------------------------------------------------------------------------- Square

SQUARE_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square_p(p_init: float, iteration: int) -> float:
    """Share of the pixels in the window: p_init, halved after 10, 50, 200, ...

    The iteration counts from 0, at the first window, and p is halved in the first
    iteration with a larger number than those in SQUARE_HALVINGS. Those are for 10000
    queries and are used as they are, as in AutoAttack (resc_schedule=False); the
    original code first maps the iteration to floor(10000 iteration / queries).

    Reference: Andriushchenko 2020, 1912.00049; fra31/auto-attack, square.py.
    """
    return p_init / 2 ** sum(iteration > halving for halving in SQUARE_HALVINGS)


def square_side(p: float, height: int, width: int, cap: bool = True) -> int:
    """Side of the window, round( sqrt(p height width) ), at least 1.

    With `cap` at most min(height, width) - 1: the original code (for square images),
    which AutoAttack's does not repeat.
    """
    side = max(round(float(np.sqrt(p * height * width))), 1)
    return min(side, max(min(height, width) - 1, 1)) if cap else side


def square_linf_windows(
    p_init: float, queries: int, height: int, width: int, cap: bool = True
) -> Array:
    """Sides of the windows of all queries after the first stripes, (queries,)."""
    ps = [square_p(p_init, i) for i in range(queries)]
    return np.array([square_side(p, height, width, cap) for p in ps], int)


class SquareDraws(NamedTuple):
    """The random numbers of the Linf Square attack, of B images (H, W, C).

    The original code draws windows and signs for each image, AutoAttack's once for the
    batch: then their axis B has length 1.
    """

    stripes: Array  # (B, 1, W, C) of -1 and 1: vertical stripes.
    rows: Array  # (Q, B), the topmost row of the window.
    columns: Array  # (Q, B), its leftmost column.
    signs: Array  # (Q, B, C) of -1 and 1: one for each channel of the window.


class Square(NamedTuple):
    """A run of the Square attack."""

    iterates: list[Array]  # The best point after each query, Q + 1 of them.
    margins: Array  # (Q + 1, B), z_y - max_{j != y} z_j of the iterates.
    accepted: Array  # (Q, B)
    sides: Array  # (Q,)
    queries: Array  # (B,), how many were spent, the stripes included.


def _square_proposal(
    best: Array, draws: SquareDraws, query: int, side: int, eps: Array
) -> Array:
    """The best images with their windows shifted by +-2 eps, not yet projected."""
    batch, _, _, channels = best.shape
    rows = np.broadcast_to(draws.rows[query], (batch,))
    columns = np.broadcast_to(draws.columns[query], (batch,))
    signs = np.broadcast_to(draws.signs[query], (batch, channels))
    out = best.copy()
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        window = out[i, row : row + side, column : column + side]
        window += 2 * eps[i] * signs[i]
    return out


def square_linf(
    logits: Function,
    x0: Array,
    y: Array,
    eps: Size,
    draws: SquareDraws,
    p_init: float = 0.8,
    box: Box = UNIT_BOX,
    cap: bool = True,
) -> Square:
    """Square attack in Linf, with the margin loss; x0 is (B, H, W, C).

    Start at clip(x0 + eps stripes). Each query adds 2 eps sign to one window of the
    best image and projects on ball and box, so that inside the window the perturbation
    is eps sign before the box. It is kept if the margin z_y - max_{j != y} z_j fell. An
    image is left alone as soon as its margin is <= 0: a tie counts as fooled.

    (The code also keeps a proposal with margin <= 0 whose loss did not fall; as only
    images with margin > 0 go on, with the margin as the loss that says nothing new.)

    Args:
      logits: of the model.
      x0: images in the box.
      y: labels.
      eps: radius, a number or (B,).
      draws: the random numbers; their number of queries Q, which does not count the
        stripes, is that of the attack.
      p_init: share of the pixels in the first window.
      box: interval of pixel values, or None.
      cap: see `square_side`.

    Reference: Andriushchenko 2020, 1912.00049, algorithms 1 and 2; fra31/auto-attack,
    square.py; max-andr/square-attack, attack.py.
    """
    x0 = np.asarray(x0, dtype=np.float64)
    batch, height, width, _ = x0.shape
    eps = _sizes(eps, batch)
    radius = eps.reshape(-1, 1, 1, 1)
    sides = square_linf_windows(p_init, len(draws.rows), height, width, cap)

    best = reference.clip(x0 + radius * draws.stripes, box)
    margin = -reference.cw_margin(logits(best), y)
    iterates, margins, accepted = [best], [margin], []
    queries = np.ones(batch, int)
    for query, side in enumerate(sides):
        active = margin > 0
        proposal = _square_proposal(best, draws, query, side, eps)
        proposal = reference.clip(np.clip(proposal, x0 - radius, x0 + radius), box)
        proposed = -reference.cw_margin(logits(proposal), y)
        keep = active & (proposed < margin)
        best, margin = _where(keep, proposal, best), np.where(keep, proposed, margin)
        queries = queries + active
        iterates.append(best)
        margins.append(margin)
        accepted.append(keep)
    accepted = np.array(accepted, bool).reshape(-1, batch)
    return Square(iterates, np.array(margins), accepted, sides, queries)


# -------------------------------------------------------------------------------- FAB


def _fill(amount: float, a: Array, room: Array) -> Array:
    """Cheapest d in L1 with <a, d> = amount: the largest |a_i| first, ties to lower i.

    The continuous knapsack: each coordinate gains |a_i| per unit spent.
    """
    d = np.zeros_like(a)
    for i in np.argsort(-np.abs(a), kind='stable'):
        if a[i] == 0 or amount <= 0:
            break
        spent = min(amount / abs(a[i]), room[i])
        d[i] = np.sign(a[i]) * spent
        amount -= abs(a[i]) * spent
    return d


def _follow(amount: float, a: Array, room: Array, norm: str) -> Array:
    """Shortest d in Linf or L2 with <a, d> = amount, by bisection in t.

    By the optimality conditions d_i = sign(a_i) min(t s_i, room_i), with s_i = 1 in
    Linf (every coordinate moves as far as the others or until its room ends) and
    s_i = |a_i| in L2 (t is the multiplier of the hyperplane).
    """
    speed = np.abs(a) if norm == 'l2' else np.ones_like(a)

    def path(t):
        return np.sign(a) * np.minimum(t * speed, room)

    low, high = 0.0, 1.0
    while np.sum(a * path(high)) < amount:
        high *= 2
    for _ in range(reference.BISECTIONS):
        middle = 0.5 * (low + high)
        if np.sum(a * path(middle)) < amount:
            low = middle
        else:
            high = middle
    return path(high)


def fab_projection(
    x: Array, w: Array, b: float, norm: str, box: Box = UNIT_BOX
) -> Array:
    """Point nearest to x in { z in box: <w, z> = b }, (d,); x lies in the box.

    If the hyperplane does not meet the box: the point of the box nearest to it, with
    the coordinates of w_i = 0 where they were. For 'l1' and 'linf' the nearest point
    need not be unique; this one is the authors': in Linf no coordinate with w_i != 0
    is spared, in L1 coordinates with large |w_i| go first. x itself if w = 0.

    Reference: Croce & Hein 2020, 1907.02044, eq. 4; fra31/auto-attack,
    fab_projections.py.
    """
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    gap = b - np.sum(w * x)
    a, amount = np.sign(gap) * w, abs(gap)
    if amount == 0 or not np.any(w):
        return x
    if box is None:
        room = np.full_like(x, np.inf)
    else:
        room = np.where(a > 0, box[1] - x, x - box[0])
    moves = a != 0
    if np.sum(np.abs(a[moves]) * room[moves]) <= amount:
        return x + np.where(moves, np.sign(a) * room, 0.0)
    room = np.where(moves, room, 0.0)
    if norm == 'l1':
        return x + _fill(amount, a, room)
    return x + _follow(amount, a, room, norm)


class FabState(NamedTuple):
    """Where FAB stands between two iterations."""

    x: Array  # Where the model is linearised next.
    best: Array  # The smallest adversarial example so far, x0 if there is none.
    best_norm: Array  # (B,), inf if there is none.


def fab_init(x0: Array) -> FabState:
    """FAB without a random start: from x0 itself."""
    x0 = np.asarray(x0, dtype=np.float64)
    return FabState(x0, x0, np.full(len(x0), np.inf))


def _fab_move(
    x: Array,
    x0: Array,
    w: Array,
    b: float,
    norm: str,
    box: Box,
    alpha_max: float,
    eta: float,
) -> Array:
    """The biased step of one example, clipped to the box; all (d,)."""
    d1 = fab_projection(x, w, b, norm, box) - x
    d2 = fab_projection(x0, w, b, norm, box) - x0
    # The floor is the authors'; it makes alpha = 1/2 > alpha_max when both are zero.
    n1, n2 = np.maximum(reference.norm(np.stack([d1, d2]), P[norm]), 1e-8)
    alpha = min(n1 / (n1 + n2), alpha_max)
    return reference.clip((1 - alpha) * (x + eta * d1) + alpha * (x0 + eta * d2), box)


def fab_step(
    logits: Function,
    jacobian: Function,
    state: FabState,
    x0: Array,
    y: Array,
    target: Array,
    norm: str,
    box: Box = UNIT_BOX,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> FabState:
    """One iteration of targeted FAB.

    With f = z_target - z_y and its gradient w at x_i, the linearised boundary in the
    box is { z: f + <w, z - x_i> = 0 }; d1 and d2 lead to it from x_i and from x0.
        alpha = min( ||d1|| / (||d1|| + ||d2||), alpha_max )
        x     = clip( (1 - alpha) (x_i + eta d1) + alpha (x0 + eta d2) )
    If the class of x is not y (any other will do): keep x if it is the nearest so far,
    and go back, x_{i+1} = x0 + beta (x - x0). Otherwise x_{i+1} = x.

    Untargeted FAB takes of all targets the one with the smallest |f| / ||w||_q.

    Reference: Croce & Hein 2020, 1907.02044, algorithm 1; fra31/auto-attack,
    fab_base.py.
    """
    shape, rows, x0_rows = np.shape(x0), _rows(state.x), _rows(x0)
    z, slopes = logits(state.x), jacobian(state.x)
    moved = np.empty_like(rows)
    for i, (label, t) in enumerate(zip(y, target, strict=True)):
        f = z[i, t] - z[i, label]
        w = np.ravel(slopes[i, t] - slopes[i, label])
        b = np.sum(w * rows[i]) - f
        moved[i] = _fab_move(rows[i], x0_rows[i], w, b, norm, box, alpha_max, eta)
    adversarial = np.argmax(logits(moved.reshape(shape)), axis=1) != y
    size = reference.norm(moved - x0_rows, P[norm])
    better = adversarial & (size < state.best_norm)
    back = _where(adversarial, x0_rows + beta * (moved - x0_rows), moved)
    return FabState(
        back.reshape(shape),
        _where(better, moved.reshape(shape), state.best),
        np.where(better, size, state.best_norm),
    )


# ------------------------------------------------------------------------------- JSMA


class Jsma(NamedTuple):
    """A run of JSMA."""

    x: Array
    pairs: list[list[tuple[int, int]]]  # What each example changed, in order.
    reached: Array  # (B,), whether x is of the target class.


def saliency_pair(
    slopes: Array, target: int, theta: float, domain: list[int]
) -> list[int] | None:
    """The most salient pair of coordinates, or None if no pair helps.

        alpha_pq = sum_{i in p,q} dZ_t/dx_i,
        beta_pq  = sum_{i in p,q} sum_{j != t} dZ_j/dx_i,
        argmax of -alpha beta over the pairs with alpha > 0 > beta,

    or alpha < 0 < beta if theta < 0, ties to the first pair. `slopes` is (K, d).

    Reference: Papernot 2016, 1511.07528, algorithm 3 and eqs. 8-10; Carlini & Wagner
    2017, 1608.04644.
    """
    up = np.sign(theta) * slopes[target]
    others = np.sign(theta) * (np.sum(slopes, axis=0) - slopes[target])
    found, highest = None, 0.0
    for p, q in itertools.combinations(domain, 2):
        alpha, beta = up[p] + up[q], others[p] + others[q]
        if alpha > 0 and beta < 0 and -alpha * beta > highest:
            found, highest = [p, q], -alpha * beta
    return found


def _at_end(x: Array, theta: float, box: tuple[float, float]) -> Array:
    """Where a coordinate cannot move on in the direction of theta."""
    return x >= box[1] if theta > 0 else x <= box[0]


def jsma(
    logits: Function,
    jacobian: Function,
    x0: Array,
    target: Array,
    theta: float,
    budget: int,
    box: tuple[float, float] = UNIT_BOX,
    once: bool = False,
) -> Jsma:
    """Jacobian-based saliency map attack, by brute force over all pairs.

    While the class is not the target, and at most floor(budget / 2) times: add theta to
    both coordinates of the most salient pair, clipped to the box. A coordinate leaves
    the search once it is at the end of the box. Stop when no pair helps.

    Args:
      logits: of the model; only their largest matters.
      jacobian: of the logits (JSMA-Z), or of the probabilities (JSMA-F).
      x0: (B, ...).
      target: (B,).
      theta: what is added to a coordinate; negative to decrease it.
      budget: number of coordinates that may change.
      box: interval of pixel values.
      once: a coordinate leaves the search as soon as it was changed, as in cleverhans;
        with |theta| = 1 on [0, 1] that is the same.

    Reference: Papernot 2016, 1511.07528, algorithms 2 and 3; cleverhans,
    saliency_map_method.py.
    """
    shape, x = np.shape(x0), _rows(x0).copy()
    pairs = [[] for _ in target]
    for i, t in enumerate(target):
        ended = _at_end(x[i], theta, box)
        while len(pairs[i]) < budget // 2:
            at = x[i].reshape(1, *shape[1:])
            if np.argmax(logits(at)[0]) == t:
                break
            slopes = _rows(jacobian(at)[0])
            pair = saliency_pair(slopes, t, theta, np.flatnonzero(~ended).tolist())
            if pair is None:
                break
            x[i, pair] = np.clip(x[i, pair] + theta, box[0], box[1])
            ended = ended | _at_end(x[i], theta, box)
            ended[pair] |= once
            pairs[i].append(tuple(pair))
    x = x.reshape(shape)
    return Jsma(x, pairs, np.argmax(logits(x), axis=1) == np.asarray(target))


# -------------------------------------------- a model that is not linear, but solvable


def _least_norm(rows: Array, bounds: Array) -> Array | None:
    """The d with the smallest ||d||_2 subject to rows d >= bounds, or None.

    Least distance programming: with E = [rows'; bounds'] and f = (0, ..., 0, 1) let
    u >= 0 minimise ||E u - f||_2 and r = E u - f. If r = 0 nothing satisfies the
    constraints, else d = -r_{1..n} / r_{n+1}. An active-set method: exact up to
    rounding.

    Reference: Lawson & Hanson 1974, Solving least squares problems, chapter 23.
    """
    e = np.vstack([rows.T, bounds])
    f = np.append(np.zeros(rows.shape[1]), 1.0)
    u, _ = optimize.nnls(e, f)
    r = e @ u - f
    if np.sqrt(np.sum(r**2)) < 1e-8:
        return None
    return -r[:-1] / r[-1]


def _least_norm_lp(
    equality: Array, value: float, above: Array, least: float, bounds: Array, p: float
) -> Array | None:
    """The same for p = 1 and inf, as a linear programme.

    Subject to <equality, d> = value, <above, d> >= least and bounds (d, 2). d is the
    difference of two non-negative vectors; the norm is their sum (p = 1) or a bound t
    on each (p = inf).
    """
    d = len(equality)
    linf = p == np.inf
    tail = [0.0] if linf else []
    cost = np.append(np.zeros(2 * d), 1.0) if linf else np.ones(2 * d)
    upper, limits = [[*-above, *above, *tail]], [-least]
    if linf:
        for i, sign in itertools.product(range(d), (1.0, -1.0)):
            row = np.zeros(2 * d + 1)
            row[i], row[d + i], row[-1] = sign, -sign, -1.0
            upper.append(row)
            limits.append(0.0)
    positive = [(0.0, max(high, 0.0)) for _, high in bounds]
    negative = [(0.0, max(-low, 0.0)) for low, _ in bounds]
    solution = optimize.linprog(
        cost,
        A_ub=np.array(upper),
        b_ub=limits,
        A_eq=[[*equality, *-equality, *tail]],
        b_eq=[value],
        bounds=[*positive, *negative, *([(0.0, None)] if linf else [])],
        options={'primal_feasibility_tolerance': 1e-10},
    )
    return solution.x[:d] - solution.x[d : 2 * d] if solution.success else None


class TwoPiece:
    """Two classes, with a decision function of exactly two linear pieces.

        s(x) = <a, x> + c + m relu(<v, x> + e),   z = (-s/2, s/2)

    Class 1 where s > 0. Its boundary is not flat, and yet the nearest point of it can
    be had exactly: on each side of <v, x> + e = 0 it is a piece of a hyperplane.
    """

    def __init__(self, a: Array, c: float, m: float, v: Array, e: float):
        self.a = np.asarray(a, np.float64)  # (d,)
        self.c = float(c)
        self.m = float(m)
        self.v = np.asarray(v, np.float64)  # (d,)
        self.e = float(e)

    def score(self, x: Array) -> Array:
        """Decision function s, (B, d) -> (B,)."""
        x = np.asarray(x, np.float64)
        return x @ self.a + self.c + self.m * np.maximum(x @ self.v + self.e, 0.0)

    def score_gradient(self, x: Array) -> Array:
        """Gradient of s, (B, d); relu'(0) = 0."""
        active = (np.asarray(x, np.float64) @ self.v + self.e) > 0
        return self.a + self.m * active[:, None] * self.v

    def logits(self, x: Array) -> Array:
        """Logits (-s/2, s/2), (B, d) -> (B, 2)."""
        s = self.score(x)
        return np.stack([-s / 2, s / 2], axis=1)

    def jacobian(self, x: Array) -> Array:
        """Gradients of both logits, (B, 2, d)."""
        g = self.score_gradient(x)
        return np.stack([-g / 2, g / 2], axis=1)

    def input_gradient(self, x: Array, cotangent: Array) -> Array:
        """Gradient in x of <c, z(x)>, (B, d)."""
        c = np.asarray(cotangent, np.float64)
        return (c[:, 1] - c[:, 0])[:, None] / 2 * self.score_gradient(x)

    def closest(self, x0: Array, p: float, box: Box = UNIT_BOX) -> Array | None:
        """Smallest d in Lp with s(x0 + d) = 0 and x0 + d in the box; (d,) or None.

        The shorter of the solutions on the two pieces; p = 1, 2 or inf. For p = 1 and
        inf the minimiser need not be unique. x0 is (d,) and lies in the box.
        """
        x0 = np.asarray(x0, np.float64)
        low, high = (-np.inf, np.inf) if box is None else box
        bounds = np.stack([low - x0, high - x0], axis=1)
        found = [self._closest_on(side, x0, p, bounds) for side in (-1.0, 1.0)]
        found = [d for d in found if d is not None]
        return min(found, key=lambda d: reference.norm(d[None], p)[0], default=None)

    def _closest_on(
        self, side: float, x0: Array, p: float, bounds: Array
    ) -> Array | None:
        """`closest` with the sign of <v, x> + e given; it may be zero."""
        a = self.a if side < 0 else self.a + self.m * self.v
        c = self.c if side < 0 else self.c + self.m * self.e
        value = -(a @ x0 + c)
        above, least = side * self.v, -side * (self.v @ x0 + self.e)
        if p != 2:
            return _least_norm_lp(a, value, above, least, bounds, p)
        eye, finite = np.eye(len(x0)), np.isfinite(bounds)
        rows = [a, -a, above, *eye[finite[:, 0]], *-eye[finite[:, 1]]]
        limits = [*bounds[finite[:, 0], 0], *-bounds[finite[:, 1], 1]]
        return _least_norm(np.array(rows), np.array([value, -value, least, *limits]))
