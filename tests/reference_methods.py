r"""Published training methods in plain NumPy, float64: loss and gradient of each.

A continuation of `tests.reference`, in the same spirit: each function is written to be
read beside the paper and its authors' code, and shares no code with the library. There
is no JAX in it either: a network is differentiated by hand, a loss by a complex step in
its logits (exact to rounding), a gradient of an input gradient by a complex step along
it.

*   A network is a list of (W (n_in, n_out), b (n_out,)), with ReLU between them and
    relu'(0) = 0; x is (B, d); y is (B,) classes or (B, K) probabilities of them.
*   A method returns (loss, gradient): the number its authors minimise, and its
    gradient, a list like the network. Trajectories return networks.
*   Nothing is random: starts, noise and adversarial images are arguments. Where the
    search is part of the method it is given too, from a given start.
*   Where paper and code disagree this is the code, and the docstring says so. Left out
    throughout: BatchNorm, dropout, half precision and, but for AWP, weight decay.
*   PyTorch gives each of two equal arguments of max(a, b) half a gradient, so such a
    clamp of x to [0, 1] halves the gradient of pixels that are exactly 0 or 1. Here the
    gradient of a clip is 1 on the edge: keep images off it where that matters.
"""

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Net = list[tuple[Array, Array]]
Result = tuple[float, Net]
Loss = Callable[..., Array]

STEP = 1e-30
UNIT_BOX = (0.0, 1.0)

# ------------------------------------------------------------------- differentiation


def logits(net: Net, x: Array) -> Array:
    """Logits (B, K). Where a ReLU is open the real part of its argument decides."""
    for w, b in net[:-1]:
        x = x @ w + b
        x = np.where(x.real > 0, x, 0)
    return x @ net[-1][0] + net[-1][1]


def pull_back(net: Net, x: Array, cotangent: Array) -> tuple[Net, Array]:
    """Gradients of sum_i <c_i, z(x_i)>: in the parameters, and in x (B, d)."""
    inputs, opened = [], []
    for w, b in net[:-1]:
        inputs.append(x)
        x = x @ w + b
        opened.append(x.real > 0)
        x = np.where(opened[-1], x, 0)
    inputs.append(x)
    grads, c = [], cotangent
    for k in reversed(range(len(net))):
        grads.append((inputs[k].T @ c, c.sum(axis=0)))
        c = c @ net[k][0].T
        if k > 0:
            c = c * opened[k - 1]
    return grads[::-1], c


def logit_gradients(loss: Loss, *z: Array) -> list[Array]:
    """Gradients (B, K) of a loss (B,) in each of its logits, example by example."""
    out = []
    for i, a in enumerate(z):
        g = np.empty_like(a)
        for k in range(a.shape[1]):
            moved = a.astype(complex)
            moved[:, k] += 1j * STEP
            g[:, k] = loss(*z[:i], moved, *z[i + 1 :]).imag / STEP
        out.append(g)
    return out


def add(net: Net, other: Net, scale: float = 1.0) -> Net:
    """Layer by layer, net + scale * other."""
    return [
        (w + scale * v, b + scale * c)
        for (w, b), (v, c) in zip(net, other, strict=True)
    ]


def mean_and_gradient(net: Net, loss: Loss, *images: Array) -> Result:
    """Mean over the batch of loss(z(images_1), z(images_2), ...), and its gradient."""
    z = [logits(net, x) for x in images]
    total = [(np.zeros_like(w), np.zeros_like(b)) for w, b in net]
    for x, c in zip(images, logit_gradients(loss, *z), strict=True):
        total = add(total, pull_back(net, x, c / len(x))[0])
    return float(loss(*z).mean()), total


def gradient_of_input_gradient(net: Net, x: Array, y: Array, u: Array) -> Net:
    """Gradient in the parameters of sum_i <u_i, grad_x CE(x_i)>, u held fixed.

    It is d/dt at 0 of the gradient in the parameters of sum_i CE(x_i + t u_i), which a
    complex step takes exactly.
    """
    moved = x + 1j * STEP * u
    z = logits(net, moved)
    grads, _ = pull_back(net, moved, softmax(z) - targets(y, z.shape[1]))
    return [(w.imag / STEP, b.imag / STEP) for w, b in grads]


# ----------------------------------------------------------------------------- losses


def log_softmax(z: Array) -> Array:
    shifted = z - z.real.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(z: Array) -> Array:
    return np.exp(log_softmax(z))


def targets(y: Array, classes: int) -> Array:
    """Probabilities (B, K) of labels (B,); probabilities as they are."""
    return np.eye(classes)[y] if y.ndim == 1 else y


def cross_entropy(z: Array, y: Array) -> Array:
    return -(targets(y, z.shape[1]) * log_softmax(z)).sum(axis=1)


def kl(p: Array, q: Array) -> Array:
    """KL(softmax p || softmax q) of two logits, (B,)."""
    return (softmax(p) * (log_softmax(p) - log_softmax(q))).sum(axis=1)


def absolute(a: Array) -> Array:
    return np.sign(a.real) * a


def input_gradient(net: Net, x: Array, y: Array) -> Array:
    """Gradient (B, d) of each example's own cross entropy."""
    z = logits(net, x)
    return pull_back(net, x, softmax(z) - targets(y, z.shape[1]))[1]


def unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=1, keepdims=True)


# --------------------------------------------------------------------------- searches


def sign_ascent(
    x: Array,
    start: Array,
    gradient: Callable[[Array], Array],
    eps: float,
    alpha: float,
    steps: int,
) -> Array:
    """Signed steps of alpha, each followed by the eps box and then by [0, 1].

    The start is used as it is. yaodongyu/TRADES `trades.py`, YisenWang/MART `mart.py`,
    goldblum/AdversariallyRobustDistillation `main.py`.
    """
    adv = start
    for _ in range(steps):
        adv = adv + alpha * np.sign(gradient(adv))
        adv = np.clip(adv, x - eps, x + eps)
        adv = np.clip(adv, *UNIT_BOX)
    return adv


def adam_ascent(
    x: Array,
    start: Array,
    gradient: Callable[[Array], Array],
    eps: float,
    rates: Sequence[float],
) -> Array:
    """Adam (0.9, 0.999, 1e-9) on the pixels, projected after every step.

    `rates` are in pixels. The start, too, is projected. interval-bound-propagation
    `src/attacks.py` (UnrolledAdam) and deepmind-research `adversarial_robustness/jax/
    attacks.py`: 0.1, with 0.1 of it after step 5 of 10 in the second's training. With
    the mean over the batch in place of the sum only the 1e-9 weighs more.
    """

    def project(a):
        return np.clip(x + np.clip(a - x, -eps, eps), *UNIT_BOX)

    adv = project(start)
    m = np.zeros_like(x)
    u = np.zeros_like(x)
    for t, rate in enumerate(rates, start=1):
        g = gradient(adv)
        m = 0.9 * m + 0.1 * g
        u = 0.999 * u + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (np.sqrt(u / (1 - 0.999**t)) + 1e-9)
        adv = project(adv + rate * step)
    return adv


def cross_entropy_ascent(
    net: Net, x: Array, y: Array, start: Array, eps: float, alpha: float, steps: int
) -> Array:
    """PGD on the cross entropy, as Madry, MART and ARD run it."""
    return sign_ascent(
        x, start, lambda adv: input_gradient(net, adv, y), eps, alpha, steps
    )


def kl_ascent(
    net: Net,
    x: Array,
    start: Array,
    eps: float,
    alpha: float,
    steps: int,
    teacher: Net | None = None,
) -> Array:
    """TRADES' search: KL(softmax f(x) || softmax f(x')) from x + 0.001 N(0, 1).

    In RSLAD's the first f is that of a teacher.
    """
    clean = logits(teacher or net, x)

    def gradient(adv):
        # d/dz_adv of KL(p || q) is q - p.
        return pull_back(net, adv, softmax(logits(net, adv)) - softmax(clean))[1]

    return sign_ascent(x, start, gradient, eps, alpha, steps)


# ------------------------------------------------------------------ standard, FGSM, PGD


def standard(net: Net, x: Array, y: Array) -> Result:
    """(1/B) sum CE(f(x), y). With x adversarial: Madry et al. 2018, arXiv 1706.06083.

    MadryLab `train.py` feeds the adversarial batch only, and minimises the mean.
    """
    return mean_and_gradient(net, lambda z: cross_entropy(z, y), x)


def fgsm(net: Net, x: Array, y: Array, eps: float, box=None) -> Array:
    """FGSM: x + eps sign grad_x J; Goodfellow et al. 2015 do not clip."""
    adv = x + eps * np.sign(input_gradient(net, x, y))
    return adv if box is None else np.clip(adv, *box)


def mixed(net: Net, x: Array, adv: Array, y: Array, alpha: float = 0.5) -> Result:
    """FGSM-AT: alpha J(x) + (1 - alpha) J(x + eps sign grad_x J), the sign held fixed.

    Goodfellow et al. 2015, arXiv 1412.6572.
    """
    return mean_and_gradient(
        net,
        lambda z, z_adv: (
            alpha * cross_entropy(z, y) + (1 - alpha) * cross_entropy(z_adv, y)
        ),
        x,
        adv,
    )


def fgsm_rs_image(
    net: Net,
    x: Array,
    y: Array,
    delta: Array,
    eps: float,
    alpha: float,
    clip_start: bool,
) -> Array:
    """FGSM-RS's image from a given delta ~ U(-eps, eps).

    Wong et al. 2020, arXiv 2001.03994; locuslab/fast_adversarial. The
    paper clips nothing to [0, 1]. The MNIST code takes the gradient at x + delta as it
    is (clip_start False), the CIFAR code (`CIFAR10/train_fgsm.py`) first brings delta
    into [0, 1] - x (True); both clip the result. The CIFAR code draws channel i from
    U(-eps_i, eps_0), eps in normalised units: a slip, not transcribed.
    """
    if clip_start:
        delta = np.clip(x + delta, *UNIT_BOX) - x
    g = input_gradient(net, x + delta, y)
    delta = np.clip(delta + alpha * np.sign(g), -eps, eps)
    return x + (np.clip(x + delta, *UNIT_BOX) - x)


def fgsm_rs(
    net: Net, x: Array, y: Array, delta: Array, eps: float, alpha: float, clip_start
) -> Result:
    """FGSM-RS: the cross entropy at `fgsm_rs_image`, on adversarial images only."""
    return standard(net, fgsm_rs_image(net, x, y, delta, eps, alpha, clip_start), y)


# -------------------------------------------------------------------------- GradAlign


def grad_align_weight(eps: float) -> float:
    """lambda(eps) of the CIFAR-10 runs, eps in 1/255: 0.2 at 8, 2.0 at 16.

    exp(eps ln(10) / 8 + ln 0.02), from the commands of the authors' repository.
    """
    return float(np.exp(eps * np.log(10) / 8 + np.log(0.02)))


def grad_align(
    net: Net,
    x: Array,
    adv: Array,
    y: Array,
    eta: Array,
    weight: float,
    detach_first: bool = True,
) -> Result:
    r"""CE(f(x_adv)) + lambda (1 - E cos(grad_x l(x), grad_x l(x + eta))).

    Andriushchenko and Flammarion 2020, arXiv 2007.02617;
    tml-epfl/understanding-fast-adv-training `train.py`. Where code and paper differ:

    *   With FGSM (attack='fgsm') the first gradient is the one FGSM used, detached:
        only the one at x + eta is differentiated, eta ~ U(-eps, eps). With PGD the
        first is a gradient at x of its own, and both are differentiated (detach_first
        False), as the formula of the paper reads.
    *   FGSM's gradient is taken at clamp(x + its start), which is x from the start
        zero of their scripts; from a random one (the flag's default) it is not. x + eta
        is not clamped.
    *   Examples of which either gradient is exactly zero are left out of the MEAN of
        the cosine: it is divided by the number that remain. With none left it is NaN.
    """
    loss, grads = standard(net, adv, y)
    g1 = input_gradient(net, x, y)
    g2 = input_gradient(net, x + eta, y)
    kept = (np.linalg.norm(g1, axis=1) != 0) & (np.linalg.norm(g2, axis=1) != 0)
    x1, x2, y, g1, g2 = x[kept], (x + eta)[kept], y[kept], g1[kept], g2[kept]
    u1, u2 = unit(g1), unit(g2)
    cos = (u1 * u2).sum(axis=1)

    def towards(u, v, g):
        # d cos / d g = (v - cos u) / |g| with u = g / |g|.
        return (v - cos[:, None] * u) / np.linalg.norm(g, axis=1, keepdims=True)

    scale = -weight / len(cos)
    second = gradient_of_input_gradient(net, x2, y, towards(u2, u1, g2))
    grads = add(grads, second, scale)
    if not detach_first:
        first = gradient_of_input_gradient(net, x1, y, towards(u1, u2, g1))
        grads = add(grads, first, scale)
    return loss + weight * (1 - cos.mean()), grads


# ------------------------------------------------------------------------------- Free


def free(
    net: Net,
    batches: Sequence[tuple[Array, Array]],
    replays: int,
    eps: float,
    alpha: float,
    rate: float,
    delta: Array,
    clip: str = 'input',
) -> tuple[list[Net], list[Array], list[float]]:
    """Free adversarial training by plain SGD: every network, noise and loss.

    Each replay takes both gradients at the same parameters and noise, from one backward
    pass; the noise moves by alpha sign(g) into the eps box, the parameters by -rate g.
    Noise is carried over replays and minibatches, to whatever image has that place.

    Shafahi et al. 2019, arXiv 1904.12843. What differs:

    *   clip='input': ashafahi/free_adv_train and mahyarnajibi/FreeAdversarialTraining
        run the network on clip(x + delta, 0, 1), whose gradient is zero where the clip
        cuts, and carry delta itself. A zero gradient leaves the noise where it is.
    *   clip='delta': locuslab/fast_adversarial `train_free.py` runs it on x + delta and
        then brings delta into [0, 1] - x of THIS x; on the next minibatch the first
        replay may leave [0, 1].
    *   clip='image': the network runs on clip(x + delta, 0, 1) and the gradient is the
        one in that image, as the algorithm writes it; no authors' code does this.
    *   The algorithm in the paper has neither clip. alpha is eps in all but the
        ImageNet configuration, where it is an argument of its own.
    *   A last, smaller minibatch uses and updates the first rows of the noise only (the
        two PyTorch repositories; clip='input' of mahyarnajibi clamps all of it).
    """
    nets, noises, losses = [], [], []
    delta = delta.copy()
    for x, y in batches:
        n = len(x)
        for _ in range(replays):
            raw = x + delta[:n]
            seen = raw if clip == 'delta' else np.clip(raw, *UNIT_BOX)
            z = logits(net, seen)
            losses.append(float(cross_entropy(z, y).mean()))
            cotangent = (softmax(z) - targets(y, z.shape[1])) / n
            grads, g = pull_back(net, seen, cotangent)
            if clip == 'input':
                g = g * ((raw >= UNIT_BOX[0]) & (raw <= UNIT_BOX[1]))
            delta[:n] = np.clip(delta[:n] + alpha * np.sign(g), -eps, eps)
            if clip == 'delta':
                delta[:n] = np.clip(x + delta[:n], *UNIT_BOX) - x
            net = add(net, grads, -rate)
            nets.append(net)
            noises.append(delta.copy())
    return nets, noises, losses


# ------------------------------------------------------------------- TRADES, MART, ALP


def trades(net: Net, x: Array, adv: Array, y: Array, beta: float) -> Result:
    """CE(f(x), y) + beta KL(softmax f(x) || softmax f(x')).

    Zhang et al. 2019, arXiv 1901.08573; yaodongyu/TRADES `trades.py`. The
    gradient passes through both arguments of KL. The code divides KL's sum by the
    batch_size it was given, also where the last minibatch is smaller: not transcribed.
    """
    return mean_and_gradient(
        net,
        lambda z, z_adv: cross_entropy(z, y) + beta * kl(z, z_adv),
        x,
        adv,
    )


def mart(net: Net, x: Array, adv: Array, y: Array, beta: float) -> Result:
    """BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)).

    BCE = -log p_y(x') - log(1.0001 - max_{k != y} p_k(x') + 1e-12).

    Wang et al. 2020 (ICLR); YisenWang/MART `mart.py`, labels only. In the
    paper 1.0001 is 1; in the code KL has log(p' + 1e-12) and the weight is
    1.0000001 - p_y(x). Nothing is detached: neither the weight nor p(x).
    """

    def loss(z, z_adv):
        p, q = softmax(z), softmax(z_adv)
        rows = np.arange(len(y))
        order = np.argsort(q.real, axis=1, kind='stable')
        other = np.where(order[:, -1] == y, order[:, -2], order[:, -1])
        bce = cross_entropy(z_adv, y) - np.log(1.0001 - q[rows, other] + 1e-12)
        divergence = (p * (np.log(p) - np.log(q + 1e-12))).sum(axis=1)
        return bce + beta * divergence * (1.0000001 - p[rows, y])

    return mean_and_gradient(net, loss, x, adv)


def adversarial_logit_pairing(
    net: Net, x: Array, adv: Array, y: Array, weight: float
) -> Result:
    """(CE(f(x), y) + CE(f(x'), y)) / 2 + weight mean_k (z_k(x) - z_k(x'))^2.

    Kannan et al. 2018, arXiv 1803.06373; tensorflow/models `research/
    adversarial_logit_pairing/train.py`. The cross entropy is the mean over the batch of
    clean and adversarial images together, hence the half. The paper says L2 loss; the
    code takes the mean, not the sum, over classes as over examples, smooths labels by
    0.1 by default (pass y smoothed) and differentiates both logits. Its attack 'pgd'
    starts at random and maximises the cross entropy of the PREDICTED class.
    """
    return mean_and_gradient(
        net,
        lambda z, z_adv: (
            0.5 * (cross_entropy(z, y) + cross_entropy(z_adv, y))
            + weight * ((z - z_adv) ** 2).mean(axis=1)
        ),
        x,
        adv,
    )


def clean_logit_pairing(net: Net, x: Array, y: Array, weight: float) -> Result:
    """CE(f(x), y) + weight (2/B) sum_{i <= B/2} mean_k (z_k(x_i) - z_k(x_{i+B/2}))^2.

    Kannan et al. 2018, arXiv 1803.06373: images with Gaussian noise on
    them, each paired with an unrelated one, which in a shuffled batch is the one half a
    batch further. The published code has no such loss; the mean over classes is taken
    over from its adversarial twin.
    """
    half = len(x) // 2

    def loss(z, other):
        both = cross_entropy(z, y[:half]) + cross_entropy(other, y[half:])
        return 0.5 * both + weight * ((z - other) ** 2).mean(axis=1)

    return mean_and_gradient(net, loss, x[:half], x[half:])


# -------------------------------------------------------------------------------- LLR


def nonlinearity(net: Net, x: Array, y: Array, delta: Array) -> Array:
    """l(x + delta) - l(x) - <delta, grad_x l(x)>, signed, (B,)."""
    linear = (delta * input_gradient(net, x, y)).sum(axis=1)
    moved = cross_entropy(logits(net, x + delta), y)
    return moved - cross_entropy(logits(net, x), y) - linear


def nonlinearity_gradient(
    net: Net, x: Array, y: Array, adv: Array, as_in_code: bool = False
) -> Array:
    """Gradient in x' of |nonlinearity|; the code's forgets that delta moves <delta, g>.

    The published code stops the gradient of delta, so that it ascends along
    sign(.) grad l(x') instead of sign(.) (grad l(x') - grad l(x)).
    """
    sign = np.sign(nonlinearity(net, x, y, adv - x))[:, None]
    g = input_gradient(net, adv, y)
    return sign * (g if as_in_code else g - input_gradient(net, x, y))


def llr_image(
    net: Net,
    x: Array,
    y: Array,
    start: Array,
    eps: float,
    rates: Sequence[float],
    as_in_code: bool = False,
) -> Array:
    """LLR's inner maximum of |nonlinearity| by Adam on the pixels."""
    return adam_ascent(
        x,
        start,
        lambda adv: nonlinearity_gradient(net, x, y, adv, as_in_code),
        eps,
        rates,
    )


def llr(
    net: Net,
    x: Array,
    adv: Array,
    y: Array,
    weight: float,
    slope: float,
    nominal: float = 1.0,
) -> Result:
    """l(x) + lambda |l(x') - l(x) - <d, grad l(x)>| + mu |<d, grad l(x)>|, d = x' - x.

    Qin et al. 2019, arXiv 1907.02610 (weight lambda, slope mu);
    google-deepmind/local_linearity_regularizer `regularizers.py`, `graph.py`. d is held
    fixed, grad l(x) is not: its gradient in the parameters is taken. The code's numbers
    are nominal 2, lambda 4 and mu 4 * 0.3, 10 steps of Adam at 0.1 from a random start
    and eps warmed up over 500 steps; the paper's
    are said to be 1, 4, 3 and 2 steps. Networks have softplus.
    """
    delta = adv - x
    classes = net[-1][1].size
    t = targets(y, classes)
    g = input_gradient(net, x, y)
    linear = (delta * g).sum(axis=1)
    clean = cross_entropy(logits(net, x), y)
    gap = cross_entropy(logits(net, adv), y) - clean - linear
    s, r = np.sign(gap), np.sign(linear)
    loss = (nominal * clean + weight * s * gap + slope * r * linear).mean()

    n = len(x)
    back = softmax(logits(net, adv)) - t
    grads = pull_back(net, adv, weight * s[:, None] * back / n)[0]
    back = softmax(logits(net, x)) - t
    back = (nominal - weight * s)[:, None] * back / n
    grads = add(grads, pull_back(net, x, back)[0])
    u = (slope * r - weight * s)[:, None] * delta / n
    return float(loss), add(grads, gradient_of_input_gradient(net, x, y, u))


# -------------------------------------------------------------------------------- AWP


def awp_direction(net: Net, grads: Net, proxy_rate: float = 0.01) -> list[Array]:
    """Perturbation of each weight matrix, before gamma: ||w|| (w' - w) / ||w' - w||.

    w' is one step of gradient ASCENT from w by a copy of the network. Only tensors of
    more than one dimension whose name contains 'weight': biases, and scales and shifts
    of normalisation, stay. Each tensor has its own Frobenius norm.
    """
    out = []
    for (w, _), (g, _) in zip(net, grads, strict=True):
        diff = (w + proxy_rate * g) - w
        out.append(np.linalg.norm(w) / (np.linalg.norm(diff) + 1e-20) * diff)
    return out


def awp_step(
    net: Net,
    method: Callable[[Net], Result],
    gamma: float,
    rate: float,
    proxy_rate: float = 0.01,
    weight_decay: float = 0.0,
) -> tuple[float, Net, Net, Net]:
    """One SGD step with adversarial weights: loss, gradient, and both networks.

    method is `net -> (loss, gradient)` with images x' crafted BEFORE, at w, and held
    fixed: the cross entropy at x' (AT-AWP) or the TRADES loss (TRADES-AWP, in which the
    proxy, too, climbs the whole of CE + beta KL). Returned are the loss at w + v, its
    gradient there, w + v, and w after the step.

    Wu et al. 2020, arXiv 2004.05884; csdongxian/AWP `utils_awp.py`,
    `train_trades_cifar.py`. The paper asks for ||v|| <= gamma ||w||; the code
    sets ||v|| = gamma ||w|| outright. The optimizer steps
    from w + v and v is subtracted afterwards: for the gradient that is a step from w,
    but (coupled) weight decay then decays w + v. The proxy runs in train mode and its
    BatchNorm statistics are thrown away. gamma 0.01 and proxy rate 0.01 for AT, gamma
    0.005 and proxy rate 0.1 (which cancels) for TRADES, from epoch 10 on.
    """
    _, ascent = method(net)
    direction = awp_direction(net, ascent, proxy_rate)
    moved = [(w + gamma * d, b) for (w, b), d in zip(net, direction, strict=True)]
    loss, grads = method(moved)
    stepped = add(moved, add(grads, moved, weight_decay), -rate)
    after = [(w - gamma * d, b) for (w, b), d in zip(stepped, direction, strict=True)]
    return loss, grads, moved, after


# ------------------------------------------------- AdvProp, ensemble AT, VAT


def advprop(
    main: Net, auxiliary: Net, x: Array, adv: Array, y: Array
) -> tuple[float, float]:
    """Loss of AdvProp for two networks that share weights: the paper's, the port's.

    Xie et al. 2020, arXiv 1911.09665: the SUM of
    L(x; main) and L(x'; auxiliary). The PyTorch port (tingxueronghua/
    pytorch-classification-advprop `imagenet.py`) takes one mean over both halves of the
    batch, half of it. The authors published no training code.
    """
    total = (
        cross_entropy(logits(main, x), y) + cross_entropy(logits(auxiliary, adv), y)
    ).mean()
    return float(total), float(total / 2)


def predicted(z: Array) -> Array:
    """The model's own answer as a label (B, K); ties share it."""
    best = (z == z.max(axis=1, keepdims=True)).astype(np.float64)
    return best / best.sum(axis=1, keepdims=True)


def ensemble_image(source: Net, x: Array, eps: float) -> Array:
    """FGSM on one source, at that source's own answer, clipped to [0, 1].

    ftramer/ensemble-adv-training `train_adv.py`, `fgs.py`. For RAND+FGSM (in
    the code an attack of the evaluation only) pass the image after its random step
    and eps less that step.
    """
    z = logits(source, x)
    return fgsm(source, x, predicted(z), eps, UNIT_BOX)


def ensemble_training(
    net: Net, sources: Sequence[Net], chosen: int, x: Array, y: Array, eps: float
) -> Result:
    """(CE(f(x), y) + CE(f(x'), y)) / 2, x' by the chosen of (*sources, net itself).

    Tramer et al. 2018, arXiv 1705.07204; `tf_utils.py`. One source is
    drawn for the whole minibatch, uniformly over the static ones and the model itself.
    The true labels train, the sources' own answers attack.
    """
    adv = ensemble_image([*sources, net][chosen], x, eps)
    return mixed(net, x, adv, y, 0.5)


def vat_direction(d: Array) -> Array:
    """takerum/vat_tf's normalisation: by the largest entry, then by the L2 norm."""
    d = d / (1e-12 + np.abs(d).max(axis=1, keepdims=True))
    return d / np.sqrt(1e-6 + (d**2).sum(axis=1, keepdims=True))


def vat_perturbation(
    net: Net, x: Array, d: Array, eps: float, xi: float = 1e-6, iterations: int = 1
) -> Array:
    """r_vadv from a given Gaussian d, by power iteration.

    d <- grad_d KL(p(x) || p(x + d)) at d = xi d / ||d||. Miyato et al. 2018, arXiv
    1704.03976; `vat.py`. L2 ball of radius eps, not clipped to
    [0, 1]. The code's 1e-6 under the root leaves ||r|| slightly below eps.
    """
    p = softmax(logits(net, x))
    for _ in range(iterations):
        moved = x + xi * vat_direction(d)
        d = pull_back(net, moved, (softmax(logits(net, moved)) - p) / len(x))[1]
    return eps * vat_direction(d)


def vat(net: Net, x: Array, r: Array, y: Array, weight: float = 1.0) -> Result:
    """CE(f(x), y) + weight KL(p(x) held fixed || p(x + r)).

    Miyato et al. 2018; `vat.py`, `train_semisup.py`. The code takes the second
    term over unlabelled images, and its flag balance_factor, which would be the weight,
    is never used.
    """
    fixed = logits(net, x)
    return mean_and_gradient(
        net,
        lambda z, moved: cross_entropy(z, y) + weight * kl(fixed, moved),
        x,
        x + r,
    )


# ----------------------------------------------------------------------- distillation


def soft_labels(teacher: Net, x: Array, temperature: float) -> Array:
    """Defensive distillation's labels softmax(z(x) / T)."""
    return softmax(logits(teacher, x) / temperature)


def distillation(net: Net, x: Array, y: Array, temperature: float) -> Result:
    """CE(z(x) / T, y): of the teacher with labels, of the student with soft labels.

    Papernot et al. 2016, arXiv 1511.04508; carlini/nn_robust_attacks
    `train_models.py`. No factor T^2. Teacher and student start from the same network,
    trained for one epoch at T = 1 (the code), and the student answers at T = 1.
    """
    return mean_and_gradient(net, lambda z: cross_entropy(z / temperature, y), x)


def ard(
    net: Net,
    teacher: Net,
    x: Array,
    adv: Array,
    y: Array,
    temperature: float,
    alpha: float,
    over_classes: bool = True,
) -> Result:
    """(1 - alpha) CE(S(x), y) + alpha T^2 KL(T^T(x) || S^T(x')).

    Goldblum et al. 2020, arXiv 1905.09747;
    goldblum/AdversariallyRobustDistillation `main.py`. The teacher sees clean images.
    nn.KLDivLoss() of the code averages over examples AND classes, so that the second
    term there is a K-th of the paper's (over_classes True); with the default alpha = 1
    that is a learning rate. x' is PGD on the student's cross entropy, from a random
    start, with the student in train mode.
    """
    soft = logits(teacher, x) / temperature
    share = net[-1][1].size if over_classes else 1

    def loss(z, z_adv):
        pulled = temperature**2 * kl(soft, z_adv / temperature) / share
        return (1 - alpha) * cross_entropy(z, y) + alpha * pulled

    return mean_and_gradient(net, loss, x, adv)


def rslad(net: Net, teacher: Net, x: Array, adv: Array, alpha: float = 5 / 6) -> Result:
    """A K-th of alpha KL(T(x) || S(x')) + (1 - alpha) KL(T(x) || S(x)).

    Zi et al. 2021, arXiv 2108.07969; zibojia/RSLAD `resnet18_rslad_cifar10.py`, where
    torch.mean runs over examples and classes. x' is `kl_ascent` towards the TEACHER's
    answers to the clean images. The code adds 1e-5 to the teacher's probabilities in
    their own logarithm, which moves the loss by a constant: not transcribed.
    """
    soft = logits(teacher, x)
    classes = net[-1][1].size
    return mean_and_gradient(
        net,
        lambda z, z_adv: (
            (alpha * kl(soft, z_adv) + (1 - alpha) * kl(soft, z)) / classes
        ),
        x,
        adv,
    )


# -------------------------------------------------------------- noise, labels, averages


def gaussian(net: Net, x: Array, y: Array, noise: Array, sigma: float) -> Result:
    """CE(f(x + sigma n), y), n ~ N(0, I), not clipped.

    Cohen et al. 2019, arXiv 1902.02918; locuslab/smoothing `code/train.py`.
    """
    return standard(net, x + sigma * noise, y)


def smoothed(y: Array, classes: int, amount: float) -> Array:
    """(1 - s) onehot + s / K, over all K classes, as TensorFlow and PyTorch have it.

    Robust-training code also has s / (K - 1) over the other classes only: that is this
    with s K / (K - 1).
    """
    return (1 - amount) * np.eye(classes)[y] + amount / classes


def moving_average(average: Net, net: Net, step: int, decay: float) -> Net:
    """EMA of deepmind-research `adversarial_robustness/jax/utils.py`.

    The decay warms up: min(decay, (1 + step) / (10 + step)), step counted from 0.
    """
    d = min(decay, (1 + step) / (10 + step))
    return add([(d * w, d * b) for w, b in average], net, 1 - d)
