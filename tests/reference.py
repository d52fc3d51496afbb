"""Published algorithms in plain NumPy, float64: the oracles of the test suite.

Each function is written to be read beside its paper, one example at a time where that
is clearer, and shares no code with the library. Conventions, in all of this file:

*   x is (B, d), y is (B,) class indices (or -1/+1 where said), logits z are (B, K).
*   Attacks maximise. They take the gradient of a loss with respect to the logits,
    `loss_gradient(z, y) -> (B, K)`; a targeted attack is one of the targeted losses,
    with y the target. There is no sign flag.
*   Attacks return the list of iterates, the start first, `steps + 1` in all. A given
    start `x_init` is used as it is (neither projected nor clipped); None is x itself.
*   alpha is the step in the units of x, not relative to eps. eps is a number or (B,).
*   sign(0) = 0, and a zero gradient normalises to zero: such an example does not move.
*   box is (low, high), or None for no clipping. x itself must lie in the box.
*   Where a loss is not differentiable the gradient is one-sided: of equal logits the
    lower index is the larger, relu'(0) = 0. JAX splits ties of max evenly and gives the
    minimum of two equal arguments half a gradient: keep tests away from ties.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = np.ndarray
Box = tuple[float, float] | None
Size = float | Array  # one number, or one for each example, (B,)
LossGradient = Callable[[Array, Array], Array]
Projection = Callable[[Array, Array, Size, Box], Array]

UNIT_BOX = (0.0, 1.0)
BISECTIONS = 200
DUAL = {1: np.inf, 2: 2, np.inf: 1}


def _float64(a: npt.ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)


def _column(eps: Size) -> Array:
    """eps, a number or (B,), as something that broadcasts over (B, d)."""
    return _float64(eps).reshape(-1, 1)


def _bisect(allowed: Callable[[float], bool], good: float, bad: float) -> float:
    """The last allowed number between one that is allowed and one that is not."""
    for _ in range(BISECTIONS):
        middle = 0.5 * (good + bad)
        if allowed(middle):
            good = middle
        else:
            bad = middle
    return good


def norm(delta: Array, p: float) -> Array:
    """Lp norm of each row, (B,); p is 0, 1, 2 or inf."""
    delta = _float64(delta)
    if p == 0:
        return np.sum(delta != 0, axis=1).astype(np.float64)
    if p == 1:
        return np.sum(np.abs(delta), axis=1)
    if p == 2:
        return np.sqrt(np.sum(delta**2, axis=1))
    return np.max(np.abs(delta), axis=1)


def clip(x: Array, box: Box) -> Array:
    """Return x inside the box; x itself if there is none."""
    return x if box is None else np.clip(x, box[0], box[1])


# ------------------------------------------------------------------------------ models


class Model(Protocol):
    """What the attacks need: logits, and a cotangent of them pulled back to x."""

    def logits(self, x: Array) -> Array: ...

    def input_gradient(self, x: Array, cotangent: Array) -> Array: ...


class Linear:
    """Linear model, z = W x + b."""

    def __init__(self, w: Array, b: Array):
        self.w = _float64(w)  # (K, d)
        self.b = _float64(b)  # (K,)

    def logits(self, x: Array) -> Array:
        """Logits, (B, d) -> (B, K)."""
        return _float64(x) @ self.w.T + self.b

    def input_gradient(self, x: Array, cotangent: Array) -> Array:
        """Gradient in x of <c, z(x)>: W' c, (B, d)."""
        del x
        return _float64(cotangent) @ self.w


class TwoLayer:
    """Two-layer ReLU net, z = W2 relu(W1 x + b1) + b2."""

    def __init__(self, w1: Array, b1: Array, w2: Array, b2: Array):
        self.w1 = _float64(w1)  # (H, d)
        self.b1 = _float64(b1)  # (H,)
        self.w2 = _float64(w2)  # (K, H)
        self.b2 = _float64(b2)  # (K,)

    def logits(self, x: Array) -> Array:
        """Logits, (B, d) -> (B, K)."""
        hidden = np.maximum(_float64(x) @ self.w1.T + self.b1, 0.0)
        return hidden @ self.w2.T + self.b2

    def input_gradient(self, x: Array, cotangent: Array) -> Array:
        """Gradient in x of <c, z(x)>: W1' (1[W1 x + b1 > 0] * W2' c), (B, d)."""
        active = (_float64(x) @ self.w1.T + self.b1) > 0
        return ((_float64(cotangent) @ self.w2) * active) @ self.w1


def binary_as_two_class(w: Array, b: float) -> Linear:
    """Two-class model z = (0, w'x + b) of a linear score s = w'x + b.

    Its cross entropy at class (y + 1) / 2 is zeta(-y s), its margin is y s.
    """
    w = _float64(w)
    return Linear(np.stack([np.zeros_like(w), w]), np.array([0.0, b]))


# ------------------------------------------------------------------------------ losses


def log_softmax(z: Array) -> Array:
    """Log-probabilities z - log sum exp z, row by row."""
    z = _float64(z)
    shifted = z - np.max(z, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def softmax(z: Array) -> Array:
    """Probabilities exp z / sum exp z, row by row."""
    return np.exp(log_softmax(z))


def cross_entropy(z: Array, y: Array) -> Array:
    """Cross entropy -log softmax(z)_y, (B,)."""
    return np.array([-row[label] for row, label in zip(log_softmax(z), y, strict=True)])


def cross_entropy_gradient(z: Array, y: Array) -> Array:
    """Gradient of `cross_entropy` in z: softmax(z) - onehot(y), (B, K)."""
    out = softmax(z)
    for i, label in enumerate(y):
        out[i, label] -= 1.0
    return out


def targeted_cross_entropy(z: Array, target: Array) -> Array:
    """Log-probability of the target, log softmax(z)_t, (B,)."""
    return -cross_entropy(z, target)


def targeted_cross_entropy_gradient(z: Array, target: Array) -> Array:
    """Gradient of `targeted_cross_entropy`: onehot(t) - softmax(z), (B, K)."""
    return -cross_entropy_gradient(z, target)


def _best_other(z: Array, label: int) -> int:
    """Index argmax_{j != label} z_j of one row; of equal logits the lowest."""
    others = [j for j in range(len(z)) if j != label]
    return max(others, key=lambda j: (z[j], -j))


def cw_margin(z: Array, y: Array, kappa: float = np.inf) -> Array:
    """Carlini-Wagner margin min( max_{j != y} z_j - z_y, kappa ), (B,).

    Positive when misclassified. The PGD code of Madry's challenges maximises
    -relu(z_y - max_{j != y} z_j + 50), which is this with kappa = 50, less 50.

    Reference: Carlini & Wagner 2017, 1608.04644, f_6 in its untargeted form.
    """
    z = _float64(z)
    values = []
    for row, label in zip(z, y, strict=True):
        values.append(min(row[_best_other(row, label)] - row[label], kappa))
    return np.array(values)


def cw_margin_gradient(z: Array, y: Array, kappa: float = np.inf) -> Array:
    """Gradient of `cw_margin`: +1 at the best other class, -1 at y, 0 from kappa on."""
    z = _float64(z)
    out = np.zeros_like(z)
    for i, label in enumerate(y):
        other = _best_other(z[i], label)
        if z[i, other] - z[i, label] < kappa:
            out[i, other] = 1.0
            out[i, label] = -1.0
    return out


def targeted_cw_margin(z: Array, target: Array, kappa: float = np.inf) -> Array:
    """Targeted Carlini-Wagner margin min( z_t - max_{j != t} z_j, kappa ), (B,).

    Positive when the target is reached. It is minus the paper's
    f_6(x') = max( max_{i != t} Z_i - Z_t, -kappa ), which is minimised.

    Reference: Carlini & Wagner 2017, 1608.04644, section VI.A (f_6 with kappa).
    """
    z = _float64(z)
    values = []
    for row, label in zip(z, target, strict=True):
        values.append(min(row[label] - row[_best_other(row, label)], kappa))
    return np.array(values)


def targeted_cw_margin_gradient(
    z: Array, target: Array, kappa: float = np.inf
) -> Array:
    """Gradient of `targeted_cw_margin`: +1 at t, -1 at the best other, 0 from kappa."""
    z = _float64(z)
    out = np.zeros_like(z)
    for i, label in enumerate(target):
        other = _best_other(z[i], label)
        if z[i, label] - z[i, other] < kappa:
            out[i, label] = 1.0
            out[i, other] = -1.0
    return out


def _descending(z: Array) -> Array:
    """Order pi of one row, from the largest logit down; ties to the lower index."""
    return np.argsort(-z, kind='stable')


def dlr(z: Array, y: Array) -> Array:
    """DLR loss -(z_y - max_{i != y} z_i) / (z_pi1 - z_pi3 + 1e-12), (B,).

    Raises:
      ValueError: fewer than three classes.

    Reference: Croce & Hein 2020, 2003.01690, section 4; 1e-12 from their code.
    """
    z = _float64(z)
    if z.shape[1] < 3:
        raise ValueError(f'DLR needs at least 3 classes, got {z.shape[1]}')
    values = []
    for row, label in zip(z, y, strict=True):
        pi = _descending(row)
        difference = row[label] - row[_best_other(row, label)]
        values.append(-difference / (row[pi[0]] - row[pi[2]] + 1e-12))
    return np.array(values)


def dlr_gradient(z: Array, y: Array) -> Array:
    """Gradient of `dlr` in z, through the denominator too, as autograd has it."""
    z = _float64(z)
    out = np.zeros_like(z)
    for i, label in enumerate(y):
        pi, other = _descending(z[i]), _best_other(z[i], label)
        difference = z[i, label] - z[i, other]
        scale = z[i, pi[0]] - z[i, pi[2]] + 1e-12
        out[i, label] -= 1.0 / scale
        out[i, other] += 1.0 / scale
        out[i, pi[0]] += difference / scale**2
        out[i, pi[2]] -= difference / scale**2
    return out


def targeted_dlr(z: Array, y: Array, target: Array) -> Array:
    """Targeted DLR -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2 + 1e-12), (B,).

    Here y is the true class (not the target), t the target.

    Raises:
      ValueError: fewer than four classes.

    Reference: Croce & Hein 2020, 2003.01690; 1e-12 from their code.
    """
    z = _float64(z)
    if z.shape[1] < 4:
        raise ValueError(f'targeted DLR needs at least 4 classes, got {z.shape[1]}')
    values = []
    for row, label, t in zip(z, y, target, strict=True):
        pi = _descending(row)
        scale = row[pi[0]] - 0.5 * (row[pi[2]] + row[pi[3]]) + 1e-12
        values.append(-(row[label] - row[t]) / scale)
    return np.array(values)


def targeted_dlr_gradient(z: Array, y: Array, target: Array) -> Array:
    """Gradient of `targeted_dlr` in z, through the denominator too."""
    z = _float64(z)
    out = np.zeros_like(z)
    for i, (label, t) in enumerate(zip(y, target, strict=True)):
        pi = _descending(z[i])
        difference = z[i, label] - z[i, t]
        scale = z[i, pi[0]] - 0.5 * (z[i, pi[2]] + z[i, pi[3]]) + 1e-12
        out[i, label] -= 1.0 / scale
        out[i, t] += 1.0 / scale
        out[i, pi[0]] += difference / scale**2
        out[i, pi[2]] -= 0.5 * difference / scale**2
        out[i, pi[3]] -= 0.5 * difference / scale**2
    return out


def kl(p: Array, q: Array) -> Array:
    """Divergence KL( softmax(p) || softmax(q) ) of two sets of logits, (B,).

    Reference: Zhang 2019, 1901.08573; in TRADES p are the logits of x and q of x'.
    """
    log_p, log_q = log_softmax(p), log_softmax(q)
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=1)


def kl_gradient_p(p: Array, q: Array) -> Array:
    """Gradient of `kl` in its first logits: P * (log P - log Q - KL), (B, K)."""
    log_p, log_q = log_softmax(p), log_softmax(q)
    return np.exp(log_p) * (log_p - log_q - kl(p, q)[:, None])


def kl_gradient_q(p: Array, q: Array) -> Array:
    """Gradient of `kl` in its second logits: softmax(q) - softmax(p), (B, K)."""
    return softmax(q) - softmax(p)


def binary_softplus(s: Array, y: Array) -> Array:
    """Logistic loss zeta(-y s) = log(1 + exp(-y s)), (B,).

    The score s is (B,) and y in {-1, +1}.

    Reference: Goodfellow 2015, 1412.6572, section 5.
    """
    return np.logaddexp(0.0, -_float64(y) * _float64(s))


def binary_softplus_gradient(s: Array, y: Array) -> Array:
    """Gradient of `binary_softplus` in s: -y sigma(-y s), (B,)."""
    y, s = _float64(y), _float64(s)
    return -y * np.exp(-np.logaddexp(0.0, y * s))


# --------------------------------------------------------------------- steps and balls


def gradient(model: Model, x: Array, y: Array, loss_gradient: LossGradient) -> Array:
    """Gradient in x of the sum over the batch of loss(model(x), y), (B, d)."""
    return model.input_gradient(x, loss_gradient(model.logits(x), y))


def steepest_linf(g: Array) -> Array:
    """Direction argmax <g, d> over ||d||_inf <= 1: sign(g), with sign(0) = 0."""
    return np.sign(g)


def steepest_l2(g: Array) -> Array:
    """Direction argmax <g, d> over ||d||_2 <= 1: g / ||g||_2, or 0 if g is zero."""
    out = np.zeros_like(_float64(g))
    for i, row in enumerate(_float64(g)):
        # Dividing by the largest entry first: the square of 1e-200 would be zero.
        largest = np.max(np.abs(row))
        if largest > 0:
            scaled = row / largest
            out[i] = scaled / np.sqrt(np.sum(scaled**2))
    return out


def steepest_l1(g: Array) -> Array:
    """Direction argmax <g, d> over ||d||_1 <= 1: the largest |g_i|, ties to lower i."""
    out = np.zeros_like(_float64(g))
    for i, row in enumerate(_float64(g)):
        k = int(np.argmax(np.abs(row)))
        out[i, k] = np.sign(row[k])
    return out


def project_linf_box(z: Array, x0: Array, eps: Size, box: Box = UNIT_BOX) -> Array:
    """Nearest point, argmin_x ||x - z||_2 over ||x - x0||_inf <= eps and the box.

    Both sets are boxes and x0 lies in both, so clipping to one and then to the other is
    the exact projection, in either order.
    """
    z, x0, eps = _float64(z), _float64(x0), _column(eps)
    return clip(np.clip(z, x0 - eps, x0 + eps), box)


def project_l2_then_clip(z: Array, x0: Array, eps: Size, box: Box = UNIT_BOX) -> Array:
    """Ball, then box: clip( x0 + (z - x0) min(1, eps / ||z - x0||_2) ).

    What published PGD code does (e.g. AutoAttack's L2 steps). Feasible, but not the
    nearest point of ball and box together: that is `project_l2_box`.
    """
    z, x0 = _float64(z), _float64(x0)
    eps = np.broadcast_to(_float64(eps), (len(z),))
    out = np.empty_like(z)
    for i in range(len(z)):
        delta = z[i] - x0[i]
        length = np.sqrt(np.sum(delta**2))
        if length > eps[i]:
            delta = delta * (eps[i] / length)
        out[i] = x0[i] + delta
    return clip(out, box)


def project_l2_box(z: Array, x0: Array, eps: Size, box: Box = UNIT_BOX) -> Array:
    """Nearest point, argmin_x ||x - z||_2 over ||x - x0||_2 <= eps and the box.

    By bisection: with multiplier lam >= 0 of the ball, coordinate by coordinate
        x(lam) = clip( (z + lam x0) / (1 + lam) ),
    and ||x(lam) - x0|| falls as lam grows. Bisected in r = 1 / (1 + lam) in [0, 1],
        x = clip( x0 + r (z - x0) ),
    so that eps = 0 (lam = infinity) is in range. r = 1 if clip(z) lies in the ball.
    """
    z, x0 = _float64(z), _float64(x0)
    eps = np.broadcast_to(_float64(eps), (len(z),))
    out = np.empty_like(z)
    for i in range(len(z)):

        def point(r, i=i):
            return clip(x0[i] + r * (z[i] - x0[i]), box)

        def inside(r, i=i, point=point):
            return np.sqrt(np.sum((point(r) - x0[i]) ** 2)) <= eps[i]

        out[i] = clip(z[i], box) if inside(1.0) else point(_bisect(inside, 0.0, 1.0))
    return out


def project_l1_box(z: Array, x0: Array, eps: Size, box: Box = UNIT_BOX) -> Array:
    """Nearest point, argmin_x ||x - z||_2 over ||x - x0||_1 <= eps and the box.

    By bisection: with multiplier mu >= 0 of the ball, coordinate by coordinate
        x(mu) = clip( x0 + sign(d) max(|d| - mu, 0) ),  d = z - x0:
    a function of one variable that is convex, so its minimum over an interval is the
    free minimum, clipped. ||x(mu) - x0||_1 falls as mu grows, to 0 at mu = max |d|.
    """
    z, x0 = _float64(z), _float64(x0)
    eps = np.broadcast_to(_float64(eps), (len(z),))
    out = np.empty_like(z)
    for i in range(len(z)):
        d = z[i] - x0[i]

        def point(mu, i=i, d=d):
            return clip(x0[i] + np.sign(d) * np.maximum(np.abs(d) - mu, 0.0), box)

        def inside(mu, i=i, point=point):
            return np.sum(np.abs(point(mu) - x0[i])) <= eps[i]

        if inside(0.0):
            out[i] = clip(z[i], box)
        else:
            out[i] = point(_bisect(inside, np.max(np.abs(d)), 0.0))
    return out


def project_l0_box(z: Array, x0: Array, k: int | Array, box: Box = UNIT_BOX) -> Array:
    """Nearest point, argmin_x ||x - z||_2 over ||x - x0||_0 <= k and the box.

    A coordinate left at x0 costs d^2, d = z - x0; one that moves goes to clip(z) and
    costs (d - c)^2, c = clip(z) - x0. So move the k with the largest gain
    d^2 - (d - c)^2, of equal gains the lower index. The set is not convex, so
    `is_projection` does not apply.
    """
    z, x0 = _float64(z), _float64(x0)
    k = np.broadcast_to(np.asarray(k), (len(z),))
    out = x0.copy()
    for i in range(len(z)):
        d = z[i] - x0[i]
        c = clip(z[i], box) - x0[i]
        gain = d**2 - (d - c) ** 2
        moved = np.argsort(-gain, kind='stable')[: int(k[i])]
        out[i, moved] = clip(z[i], box)[moved]
    return out


def is_projection(
    x: Array, z: Array, feasible_points: Array, tolerance: float = 1e-9
) -> bool:
    """Whether <x - z, u - z> <= tolerance for all u: z may be the projection of x.

    For a convex set C and z in C this, for every u in C, is equivalent to z being the
    point of C nearest to x. With finitely many u it can only refute; the complete test
    is `max_linear_gain(x - z, x0, eps, p, box) - <x - z, z - x0> <= tolerance`.

    Args:
      x: the point that was projected, (d,).
      z: the claimed projection, (d,); that it is feasible is for the caller to check.
      feasible_points: (N, d).
      tolerance: absolute.
    """
    x, z = _float64(x), _float64(z)
    for u in _float64(feasible_points):
        if np.sum((x - z) * (u - z)) > tolerance:
            return False
    return True


def random_feasible_points(
    rng: np.random.Generator,
    x0: Array,
    eps: float,
    p: float,
    count: int,
    box: tuple[float, float] = UNIT_BOX,
) -> Array:
    """Points u of the box with ||u - x0||_p <= eps, for `is_projection`; (count, d).

    Not uniform: a random point of the box (a quarter of them corners, half with most
    coordinates put back to x0), drawn back to x0 until it is in the ball. Both sets are
    convex and hold x0, so the segment stays in the box.
    """
    x0 = _float64(x0)
    points = []
    for _ in range(count):
        u = rng.uniform(box[0], box[1], x0.shape)
        if rng.random() < 0.25:
            u = np.where(u < 0.5 * (box[0] + box[1]), box[0], box[1])
        if rng.random() < 0.5:
            u = np.where(rng.random(x0.shape) < 0.2, u, x0)
        delta = u - x0
        length = norm(delta[None], p)[0]
        if length > eps:
            delta = delta * (eps / length)
        points.append(np.clip(x0 + delta, box[0], box[1]))
    return np.array(points)


# ----------------------------------------------------------------------------- attacks


def fgsm(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    box: Box = None,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """Fast gradient sign method, x~ = x + eps sign( grad_x J(x, y) ); [x, x~].

    The paper does not clip: box=None. With a box, x~ is clipped to it. From an x_init
    the step is made there; nothing is projected back to a ball.

    Reference: Goodfellow 2015, 1412.6572, section 4.
    """
    x = _float64(x if x_init is None else x_init)
    g = gradient(model, x, y, loss_gradient)
    return [x, clip(x + _column(eps) * steepest_linf(g), box)]


def fgm_l2(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    box: Box = None,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """Fast gradient method in L2, x~ = x + eps grad_x J / ||grad_x J||_2; [x, x~].

    Reference: Dong 2018, 1710.06081, section 2.1 (fast gradient method, L2 form).
    """
    x = _float64(x if x_init is None else x_init)
    g = gradient(model, x, y, loss_gradient)
    return [x, clip(x + _column(eps) * steepest_l2(g), box)]


def bim(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    steps: int,
    alpha: float = 1 / 255,
    box: tuple[float, float] = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """Basic iterative method (iterated FGSM), X_0 = X.

        X_{N+1} = Clip_{X,eps}( X_N + alpha sign( grad_X J(X_N, y) ) ),
        Clip_{X,eps}(X') = min( high, X + eps, max( low, X - eps, X' ) ).

    alpha is 1/255 in the paper, and steps min(eps + 4, 1.25 eps) with eps in 0..255.
    The iterative least-likely-class method is this with
    `targeted_cross_entropy_gradient` and y the least likely class of x.

    Reference: Kurakin 2017, 1607.02533, section 2.
    """
    x, eps = _float64(x), _column(eps)
    iterates = [x if x_init is None else _float64(x_init)]
    for _ in range(steps):
        g = gradient(model, iterates[-1], y, loss_gradient)
        moved = iterates[-1] + alpha * np.sign(g)
        low = np.maximum(box[0], x - eps)
        high = np.minimum(box[1], x + eps)
        iterates.append(np.minimum(high, np.maximum(low, moved)))
    return iterates


def pgd(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    alpha: Size,
    steps: int,
    steepest: Callable[[Array], Array],
    project: Projection,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """PGD, x^{t+1} = Proj_{x+S}( x^t + alpha steepest( grad_x L(x^t, y) ) ).

    Last iterate, no restarts, no freezing. alpha is a number or (B,). The random start
    is the caller's: Madry's code takes clip(x + U(-eps, eps)).

    Reference: Madry 2018, 1706.06083, section 2.1.
    """
    x = _float64(x)
    iterates = [x if x_init is None else _float64(x_init)]
    for _ in range(steps):
        g = gradient(model, iterates[-1], y, loss_gradient)
        iterates.append(
            project(iterates[-1] + _column(alpha) * steepest(g), x, eps, box)
        )
    return iterates


def pgd_linf(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    alpha: Size,
    steps: int,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """PGD in Linf, clip_[0,1]( clip_{x,eps}( x^t + alpha sign(grad L) ) )."""
    return pgd(
        model, x, y, eps, alpha, steps, steepest_linf, project_linf_box,
        box, x_init, loss_gradient,
    )  # fmt: skip


def pgd_l2(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    alpha: Size,
    steps: int,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
    project: Projection = project_l2_then_clip,
) -> list[Array]:
    """PGD in L2, x^{t+1} = clip_[0,1]( Proj_{ball}( x^t + alpha g / ||g||_2 ) ).

    Ball first, then box, as in published code. With `project=project_l2_box` the
    nearest point of both together: another algorithm, which differs once a pixel is
    clipped.
    """
    return pgd(
        model, x, y, eps, alpha, steps, steepest_l2, project,
        box, x_init, loss_gradient,
    )  # fmt: skip


def _normalise_l1(g: Array, reduction: str) -> Array:
    """Each row over ||g||_1 ('sum', the papers) or mean |g_i| ('mean', their code)."""
    out = np.zeros_like(_float64(g))
    for i, row in enumerate(_float64(g)):
        size = np.sum(np.abs(row)) if reduction == 'sum' else np.mean(np.abs(row))
        if size > 0:
            out[i] = row / size
    return out


def mi_fgsm(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    steps: int,
    mu: float = 1.0,
    alpha: Size | None = None,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
    reduction: str = 'sum',
    p: float = np.inf,
) -> list[Array]:
    """Momentum iterative FGSM, g_0 = 0 and x_0 = x.

        g_{t+1} = mu g_t + grad_x J(x_t, y) / ||grad_x J(x_t, y)||_1
        x_{t+1} = x_t + alpha sign(g_{t+1})                      (p = inf)
        x_{t+1} = x_t + alpha g_{t+1} / ||g_{t+1}||_2            (p = 2)

    alpha=None is eps / steps, the paper's choice, which keeps x_t in the ball by
    itself. The authors' code also clips to the eps ball and to the pixel range, and so
    does this. It divides by mean |g_i| in place of the L1 norm, which scales all of g
    and so cannot change the iterates (up to rounding); `reduction` is there to show it.
    A zero gradient adds nothing to g.

    Reference: Dong 2018, 1710.06081, algorithm 1 (p = inf).
    """
    x = _float64(x)
    alpha = _column(eps) / steps if alpha is None else _column(alpha)
    g = np.zeros_like(x)
    iterates = [x if x_init is None else _float64(x_init)]
    for _ in range(steps):
        raw = gradient(model, iterates[-1], y, loss_gradient)
        g = mu * g + _normalise_l1(raw, reduction)
        if p == np.inf:
            moved = iterates[-1] + alpha * np.sign(g)
            iterates.append(project_linf_box(moved, x, eps, box))
        else:
            moved = iterates[-1] + alpha * steepest_l2(g)
            iterates.append(project_l2_then_clip(moved, x, eps, box))
    return iterates


def ni_fgsm(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    steps: int,
    mu: float = 1.0,
    alpha: Size | None = None,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
    reduction: str = 'sum',
) -> list[Array]:
    """Nesterov iterative FGSM, g_0 = 0 and x_0 = x.

        x_t^nes = x_t + alpha mu g_t
        g_{t+1} = mu g_t + grad_x J(x_t^nes, y) / ||grad_x J(x_t^nes, y)||_1
        x_{t+1} = Clip_{x,eps}( x_t + alpha sign(g_{t+1}) )

    alpha=None is eps / steps. x^nes is not clipped. Here the reduction does matter: it
    sets how far ahead x^nes lies. The paper prints the L1 norm ('sum'), the authors'
    code divides by mean |g_i| ('mean'), a d times longer look-ahead.

    Reference: Lin 2020, 1908.06281, eqs. 6-8; JHL-HUST/SI-NI-FGSM, ni_fgsm.py.
    """
    x = _float64(x)
    alpha = _column(eps) / steps if alpha is None else _column(alpha)
    g = np.zeros_like(x)
    iterates = [x if x_init is None else _float64(x_init)]
    for _ in range(steps):
        ahead = iterates[-1] + alpha * mu * g
        raw = gradient(model, ahead, y, loss_gradient)
        g = mu * g + _normalise_l1(raw, reduction)
        moved = iterates[-1] + alpha * np.sign(g)
        iterates.append(project_linf_box(moved, x, eps, box))
    return iterates


def fgsm_rs(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    alpha: Size,
    box: tuple[float, float] = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
) -> list[Array]:
    """FGSM from a random start, x_init = x + delta with delta ~ U(-eps, eps).

        g     = grad_delta CE(f(x + delta), y)      (x + delta not clipped before this)
        delta = clip(delta + alpha sign(g), -eps, eps)
        delta = clip(x + delta, 0, 1) - x

    Returns [x + delta before, x + delta after]. The MNIST code; the CIFAR-10 code also
    clips the start to the pixel range: pass x_init clipped.

    Reference: Wong 2020, 2001.03994, algorithm 3 and locuslab/fast_adversarial.
    """
    x, eps = _float64(x), _column(eps)
    delta = np.zeros_like(x) if x_init is None else _float64(x_init) - x
    g = gradient(model, x + delta, y, loss_gradient)
    stepped = np.clip(delta + _column(alpha) * np.sign(g), -eps, eps)
    stepped = np.clip(x + stepped, box[0], box[1]) - x
    return [x + delta, x + stepped]


def trades_inner(
    model: Model,
    x: Array,
    eps: Size,
    alpha: Size,
    steps: int,
    noise: Array,
    box: Box = UNIT_BOX,
) -> list[Array]:
    """Inner maximisation of TRADES, of KL( softmax f(x) || softmax f(x') ).

        x' = x + noise
        x' <- clip_[0,1]( clip_{x,eps}( x' + alpha sign( grad_{x'} KL ) ) )

    The noise is what is added to x, 0.001 N(0, 1) in the paper, so already scaled; the
    start is not clipped. With noise 0 the gradient, softmax(q) - softmax(p) pulled
    back, is exactly zero and x' never moves.

    Reference: Zhang 2019, 1901.08573, algorithm 1 and yaodongyu/TRADES, trades.py.
    """
    x = _float64(x)
    clean = model.logits(x)
    return pgd_linf(
        model, x, np.zeros(len(x), int), eps, alpha, steps, box,
        x_init=x + _float64(noise),
        loss_gradient=lambda z, y: kl_gradient_q(clean, z),
    )  # fmt: skip


def adam_pgd(
    model: Model,
    x: Array,
    y: Array,
    eps: Size,
    alpha: Size,
    steps: int,
    p: float = np.inf,
    box: Box = UNIT_BOX,
    x_init: Array | None = None,
    loss_gradient: LossGradient = cross_entropy_gradient,
    b1: float = 0.9,
    b2: float = 0.999,
    adam_eps: float = 1e-8,
    project: Projection | None = None,
) -> list[Array]:
    """PGD whose gradient passes through Adam before the steepest step; t = 1, 2, ...

        m = b1 m + (1 - b1) g,     v = b2 v + (1 - b2) g^2
        u = ( m / (1 - b1^t) ) / ( sqrt( v / (1 - b2^t) ) + adam_eps )
        x <- project( x + alpha steepest(u) )

    g is the gradient of what is maximised, and u is ascended. For p = inf the step
    sign(u) = sign(m): b2 and adam_eps have no part in it. The moments belong to each
    coordinate and are never reset. `project=None` is ball then box, as in `pgd_linf`
    and `pgd_l2`.

    Reference: Kingma & Ba 2015, 1412.6980, algorithm 1, as optax.scale_by_adam.
    """
    x = _float64(x)
    steepest = steepest_linf if p == np.inf else steepest_l2
    if project is None:
        project = project_linf_box if p == np.inf else project_l2_then_clip
    m, v = np.zeros_like(x), np.zeros_like(x)
    iterates = [x if x_init is None else _float64(x_init)]
    for t in range(1, steps + 1):
        g = gradient(model, iterates[-1], y, loss_gradient)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + adam_eps)
        iterates.append(
            project(iterates[-1] + _column(alpha) * steepest(u), x, eps, box)
        )
    return iterates


# ------------------------------------------------------- closed forms for linear models


def _room(a: Array, x: Array, box: tuple[float, float]) -> Array:
    """How far each coordinate can move in the direction of a_i before the box ends."""
    return np.where(a > 0, box[1] - x, np.where(a < 0, x - box[0], 0.0))


def _path(t: float, a: Array, room: Array, p: float) -> Array:
    """Best delta of some size, for max <a, delta> in an Lp ball and a box; (d,).

    The optimality conditions leave a path with one parameter t >= 0, along which both
    <a, delta> and ||delta||_p grow (r_i is the room of coordinate i):
        p = inf  delta_i = sign(a_i) min(t, r_i)          t = size
        p = 2    delta_i = sign(a_i) min(t |a_i|, r_i)    t = inverse multiplier
        p = 1    spend t on the largest |a_i| up to r_i, the rest on the next, and so on
    """
    if p == np.inf:
        return np.sign(a) * np.minimum(t, room)
    if p == 2:
        return np.sign(a) * np.minimum(t * np.abs(a), room)
    delta = np.zeros_like(a)
    left = t
    for i in np.argsort(-np.abs(a), kind='stable'):
        spent = min(left, room[i])
        delta[i] = np.sign(a[i]) * spent
        left -= spent
    return delta


def _path_end(a: Array, room: Array, p: float) -> float:
    """A t at which every coordinate of `_path` has used its room."""
    if p == np.inf:
        return float(np.max(room))
    if p == 1:
        return float(np.sum(room)) * (1 + 1e-12)
    used = a != 0
    return 2.0 * float(np.max(room[used] / np.abs(a[used]), initial=0.0))


def max_linear_gain(a: Array, x: Array, eps: float, p: float, box: Box = None) -> float:
    """Value of max <a, delta> over ||delta||_p <= eps and x + delta in the box.

    Without a box eps ||a||_q, q the dual of p; p = 1, 2, inf. x and a are (d,).
    """
    a, x = _float64(a), _float64(x)
    if box is None:
        return float(eps * norm(a[None], DUAL[p])[0])
    room = _room(a, x, box)

    def inside(t):
        return norm(_path(t, a, room, p)[None], p)[0] <= eps

    end = _path_end(a, room, p)
    t = end if inside(end) else _bisect(inside, 0.0, end)
    return float(np.sum(a * _path(t, a, room, p)))


def nearest_in_halfspace(
    a: Array, gap: float, x: Array, p: float, box: Box = None
) -> Array | None:
    """Smallest delta, argmin ||delta||_p over <a, delta> >= gap, x + delta in the box.

    Zero if gap <= 0, None if the half-space cannot be reached. Without a box the norm
    is gap / ||a||_q, q the dual of p; p = 1, 2, inf. For p = 1 and inf the minimiser
    need not be unique. x and a are (d,).
    """
    a, x = _float64(a), _float64(x)
    if gap <= 0:
        return np.zeros_like(x)
    if box is None:
        if not np.any(a):
            return None
        if p == np.inf:
            return gap * np.sign(a) / np.sum(np.abs(a))
        if p == 2:
            return gap * a / np.sum(a**2)
        k = int(np.argmax(np.abs(a)))
        delta = np.zeros_like(x)
        delta[k] = gap / a[k]
        return delta
    room = _room(a, x, box)
    if np.sum(np.abs(a) * room) < gap:
        return None

    def reached(t):
        return np.sum(a * _path(t, a, room, p)) >= gap

    return _path(_bisect(reached, _path_end(a, room, p), 0.0), a, room, p)


def linear_minimal_perturbation(
    model: Linear, x: Array, y: Array, p: float, box: Box = None
) -> Array:
    """Smallest delta in Lp after which y is no longer the only largest logit, (B, d).

    The region where class y wins is the intersection of the half-spaces z_y > z_j, so
    the nearest point outside it lies in the nearest of the {z_j >= z_y}:
        min_{j != y} (z_y - z_j) / ||w_y - w_j||_q    without a box.
    Zero where x is misclassified already (or tied), nan where nothing is reachable.

    Reference: Moosavi-Dezfooli 2016, 1511.04599, section 3; Hein & Andriushchenko 2017,
    1705.08475, for the box.
    """
    x = _float64(x)
    z = model.logits(x)
    out = np.full_like(x, np.nan)
    for i, label in enumerate(y):
        best = np.inf
        for j in range(len(model.w)):
            if j == label:
                continue
            gap = z[i, label] - z[i, j]
            delta = nearest_in_halfspace(model.w[j] - model.w[label], gap, x[i], p, box)
            if delta is not None and norm(delta[None], p)[0] < best:
                best = norm(delta[None], p)[0]
                out[i] = delta
    return out


def linear_distance(
    model: Linear, x: Array, y: Array, p: float, box: Box = None
) -> Array:
    """Lp distance to the nearest point where y does not win, (B,).

    Zero where y does not win at x, inf where it wins in the whole box. For a binary
    score s = w'x + b and y in {-1, +1} take
    `linear_distance(binary_as_two_class(w, b), x, (y + 1) // 2, p, box)`, which without
    a box is max(y s, 0) / ||w||_q.
    """
    delta = linear_minimal_perturbation(model, x, y, p, box)
    return np.where(np.isnan(delta[:, 0]), np.inf, norm(delta, p))


def linear_robust_accuracy(
    model: Linear, x: Array, y: Array, eps: Size, p: float, box: Box = None
) -> float:
    """Fraction of all points that no delta of norm <= eps misclassifies.

    A tie of logits counts as an error, so robust is distance > eps.
    """
    return float(np.mean(linear_distance(model, x, y, p, box) > _float64(eps)))


def binary_worst_score(
    w: Array,
    b: float,
    x: Array,
    y: Array,
    eps: Size,
    p: float = np.inf,
    box: Box = None,
) -> Array:
    """Score of the worst x' within eps of x: s - y eps ||w||_q, s = w'x + b; (B,).

    With a box s - y max <-y w, delta> over ball and box. For p = inf this is the score
    of FGSM (with clipping if there is a box). y is in {-1, +1}.

    Reference: Goodfellow 2015, 1412.6572, section 5, with the sign of the perturbation
    corrected: grad_x zeta(-y s) = -y sigma(-y s) w, so eta = -y eps sign(w).
    """
    w, x = _float64(w), _float64(x)
    eps = np.broadcast_to(_float64(eps), (len(x),))
    scores = []
    for i in range(len(x)):
        harm = max_linear_gain(-y[i] * w, x[i], eps[i], p, box)
        scores.append(np.sum(w * x[i]) + b - y[i] * harm)
    return np.array(scores)


def binary_worst_loss(
    w: Array,
    b: float,
    x: Array,
    y: Array,
    eps: Size,
    p: float = np.inf,
    box: Box = None,
) -> Array:
    """Worst zeta(-y s) within eps of x, zeta( eps ||w||_q - y (w'x + b) ), (B,)."""
    return binary_softplus(binary_worst_score(w, b, x, y, eps, p, box), y)


def binary_robust_accuracy(
    w: Array,
    b: float,
    x: Array,
    y: Array,
    eps: Size,
    p: float = np.inf,
    box: Box = None,
) -> float:
    """Fraction with y s > eps ||w||_q; a score of exactly 0 counts as an error."""
    return float(np.mean(_float64(y) * binary_worst_score(w, b, x, y, eps, p, box) > 0))


def goodfellow_printed_loss(w: Array, b: float, x: Array, y: Array, eps: Size) -> Array:
    """Goodfellow's loss as printed, zeta( y (eps ||w||_1 - w'x - b) ), (B,).

    Wrong for y = -1: there it is the best case, not the worst. For tests that show the
    difference only.

    Reference: Goodfellow 2015, 1412.6572, section 5.
    """
    w, x, y = _float64(w), _float64(x), _float64(y)
    return np.logaddexp(0.0, y * (_float64(eps) * np.sum(np.abs(w)) - x @ w - b))


# ---------------------------------------------------------------------- sampling facts
# All of these are about the ball alone: they hold for samples that no box has clipped.


def ball_radius_cdf(r: Array, d: int) -> Array:
    """Cdf of ||delta||_p / eps for delta uniform in the d-dimensional Lp ball: r^d.

    The same for every norm: a ball of radius r has r^d times the volume.
    """
    return np.clip(_float64(r), 0.0, 1.0) ** d


def mean_abs_coordinate_linf(eps: float) -> float:
    """E |delta_i| = eps / 2 for delta uniform in the Linf ball."""
    return eps / 2


def mean_abs_coordinate_l1(eps: float, d: int) -> float:
    """E |delta_i| = eps / (d + 1) for delta uniform in the L1 ball.

    E ||delta||_1 = eps d / (d + 1) by `ball_radius_cdf`, shared equally.
    """
    return eps / (d + 1)


def mean_square_coordinate_l2(eps: float, d: int) -> float:
    """E delta_i^2 = eps^2 / (d + 2) for delta uniform in the L2 ball.

    E ||delta||_2^2 = eps^2 d / (d + 2) by `ball_radius_cdf`, shared equally.
    """
    return eps**2 / (d + 2)


def kolmogorov_distance(samples: Array, cdf: Callable[[Array], Array]) -> float:
    """Kolmogorov distance sup |empirical cdf - cdf| of n samples.

    By the Dvoretzky-Kiefer-Wolfowitz inequality above 2.23 / sqrt(n) with probability
    at most 1e-4 if the samples do come from the (continuous) cdf.
    """
    samples = np.sort(_float64(samples))
    n = len(samples)
    values = cdf(samples)
    above = np.max(np.arange(1, n + 1) / n - values)
    below = np.max(values - np.arange(n) / n)
    return float(max(above, below))
