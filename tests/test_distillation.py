"""Distillation: soft labels, temperatures, and the same seam as every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, data, keys, linf, losses, models, training, zoo
from tests.test_models import NnxNet

KEY = jax.random.key(0)
SHAPE = (4, 5, 1)
X = jax.random.uniform(KEY, (6, *SHAPE))
Y = jnp.arange(6, dtype=jnp.int32) % 3
BATCH = {'image': X, 'label': Y}
MODEL = zoo.mlp(SHAPE, 3, (8,))
SGD = optax.sgd(0.1)
STEP = jax.jit(training.step)
TEACHER = models.logits_fn(MODEL, MODEL.init(jax.random.key(7))[0])


def start():
    return training.create(MODEL, SGD, key=KEY)


def gradient_of(new, old):
    return jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, old.params)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-5, **tolerance}),
        a,
        b,
    )


@pytest.mark.parametrize(('hard', 'inner'), [(0.0, None), (0.3, None), (0.3, 0.1)])
def test_the_loss_and_its_gradient_are_those_of_the_equation(hard, inner):
    """In plain JAX from the paper: soft labels at T, the student at T."""
    temperature, state = 4.0, start()
    shift = 0 if inner is None else inner

    def moved(logits_fn, key, x, y):
        return x + shift

    method = training.distillation(TEACHER, temperature, hard=hard, inner=moved)
    soft = jax.nn.softmax(TEACHER(X) / temperature)

    def expected(params):
        z = models.logits_fn(MODEL, params)(X + shift)
        log_q = jax.nn.log_softmax(z / temperature)
        loss = -(1 - hard) * (soft * log_q).sum(1)
        loss += hard * losses.cross_entropy(z, Y)
        return loss.mean()

    new, metrics = STEP(method, state, BATCH, KEY)
    value, gradient = jax.value_and_grad(expected)(state.params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    close(gradient_of(new, state), gradient)


def inner_keys():
    return keys.of_index(jax.random.split(jax.random.fold_in(KEY, 0))[0], jnp.arange(6))


def clip_to_ball(x_adv, eps):
    return jnp.clip(jnp.clip(x_adv, X - eps, X + eps), 0, 1)


def divergence(z, answers, t=1.0):
    p, q = jax.nn.softmax(answers / t), jax.nn.softmax(z / t)
    return (p * jnp.log(p / q)).sum(1)


@pytest.mark.parametrize(('temperature', 'alpha'), [(30.0, 1.0), (4.0, 0.3)])
def test_ard_is_its_equation_and_its_attack(temperature, alpha):
    """Plain JAX from the authors' code: labels at t = 1, attack included."""
    state = start()
    method = training.adversarially_robust_distillation(
        TEACHER, 0.1, temperature, alpha, steps=3
    )
    f = models.logits_fn(MODEL, state.params)
    x_adv = linf(0.1).sample(keys.fold(inner_keys(), 0), X)
    for _ in range(3):

        def ce(x):
            return -jax.nn.log_softmax(f(x))[jnp.arange(6), Y].sum()

        step = 0.1 * 2.5 / 3 * jnp.sign(jax.grad(ce)(x_adv))
        x_adv = clip_to_ball(x_adv + step, 0.1)

    def expected(params):
        f = models.logits_fn(MODEL, params)
        soft = temperature**2 * divergence(f(x_adv), TEACHER(X), temperature)
        hard = -jax.nn.log_softmax(f(X))[jnp.arange(6), Y]
        return (alpha * soft + (1 - alpha) * hard).mean()

    new, metrics = STEP(method, state, BATCH, KEY)
    value, gradient = jax.value_and_grad(expected)(state.params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
    close(gradient_of(new, state), gradient, atol=1e-4)


def test_rslad_is_its_equation_and_its_attack():
    """Plain JAX from the authors' code: the teacher's answers in both problems."""
    state = start()
    f = models.logits_fn(MODEL, state.params)
    each = keys.fold(inner_keys(), 0)
    noise = keys.draw(lambda k: jax.random.normal(k, SHAPE), each)
    x_adv = clip_to_ball(X + 0.001 * noise, 0.1)
    for _ in range(2):
        gradient = jax.grad(lambda x: divergence(f(x), TEACHER(X)).sum())(x_adv)
        x_adv = clip_to_ball(x_adv + 0.1 * 2.5 / 2 * jnp.sign(gradient), 0.1)

    def expected(params):
        f = models.logits_fn(MODEL, params)
        adversarial = divergence(f(x_adv), TEACHER(X))
        return (5 / 6 * adversarial + 1 / 6 * divergence(f(X), TEACHER(X))).mean()

    method = training.rslad(TEACHER, 0.1, steps=2)
    new, metrics = STEP(method, state, BATCH, KEY)
    value, gradient = jax.value_and_grad(expected)(state.params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
    close(gradient_of(new, state), gradient)
    # No label anywhere.
    other = {**BATCH, 'label': (Y + 1) % 3}
    close(STEP(method, state, other, KEY)[0].params, new.params, atol=0)


def test_robust_distillation_reduces_to_what_it_is_made_of():
    def params(method):
        return STEP(method, start(), BATCH, KEY)[0].params

    ard, rslad = training.adversarially_robust_distillation, training.rslad
    close(params(ard(TEACHER, 0.2, weight=0.0)), params(training.standard()), atol=1e-7)
    defensive = params(training.distillation(TEACHER, 1.0))
    # Divergence and cross entropy differ by a constant.
    close(params(ard(TEACHER, 0.0, temperature=1.0)), defensive, atol=1e-6)
    close(params(rslad(TEACHER, 0.0)), defensive, atol=1e-6)
    close(params(rslad(TEACHER, 0.3, weight=0.0)), defensive, atol=1e-6)
    attacked = attacks.pgd(0.2, 10, keep_best=False)
    on_attacked = params(training.distillation(TEACHER, 1.0, inner=attacked))
    close(params(ard(TEACHER, 0.2, temperature=1.0)), on_attacked, atol=1e-6)
    # A student that answers like its teacher has nothing to learn.
    student = models.logits_fn(MODEL, start().params)
    close(params(rslad(student, 0.0)), start().params, atol=1e-6)


def test_temperature_and_weight_are_leaves():
    before = STEP._cache_size()
    for t, alpha in ((2.0, 0.1), (30.0, 1.0)):
        method = training.adversarially_robust_distillation(TEACHER, 0.1, t, alpha, 2)
        STEP(method, start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1

    def one(alpha):
        method = training.rslad(TEACHER, 0.1, steps=1)
        method = method.replace(outer=method.outer.replace(weight=alpha))
        return training.step(method, start(), BATCH, KEY)[0].params

    many = jax.jit(jax.vmap(one))(jnp.array([0.0, 0.5]))
    for i, alpha in enumerate((0.0, 0.5)):
        close(jax.tree.map(lambda a, i=i: a[i], many), one(jnp.float32(alpha)))


def test_soft_labels_and_batch_normalisation_in_distillation():
    """Both kinds of images count in the statistics, the attacked ones first."""
    model = models.from_nnx(functools.partial(NnxNet, rate=0.0))
    x = X[:, :, :4]
    batch = {'image': x, 'label': Y}
    state = training.create(model, SGD, key=KEY)
    teacher = models.logits_fn(model, *model.init(jax.random.key(3)))
    method = training.adversarially_robust_distillation(teacher, 0.1, 3.0, 0.5, 2)

    def brighter(logits_fn, key, x, y):
        return x + 1

    new, _ = STEP(training.method(brighter, method.outer), state, batch, KEY)
    _, stats = model.apply(state.params, state.model_state, x + 1, train=True)
    _, stats = model.apply(state.params, stats, x, train=True)
    close(new.model_state, stats)
    hard, _ = STEP(method, state, batch, KEY)
    soft, _ = STEP(method, state, {**batch, 'label': jax.nn.one_hot(Y, 3)}, KEY)
    close(hard.params, soft.params, atol=1e-6)


def test_only_what_is_asked_for_passes_the_network():
    """One pass in defensive distillation, two in the robust ones."""
    asked = []

    def forward(state, x, draw=0):
        asked.append(x)
        return jnp.zeros((6, 3)), state

    for method, count in (
        (training.distillation(TEACHER), 1),
        (training.adversarially_robust_distillation(TEACHER, 0.1), 2),
        (training.rslad(TEACHER, 0.1), 2),
    ):
        asked.clear()
        method.outer(forward, {}, X, X + 1, Y)
        assert len(asked) == count
        np.testing.assert_array_equal(asked[0], X + 1)


def test_a_teacher_at_a_temperature_divides_its_logits():
    state = start()
    new, metrics = STEP(training.at_temperature(5.0), state, BATCH, KEY)

    def expected(params):
        z = models.logits_fn(MODEL, params)(X)
        return losses.cross_entropy(z / 5, Y).mean()

    value, gradient = jax.value_and_grad(expected)(state.params)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    close(gradient_of(new, state), gradient)
    one = STEP(training.at_temperature(1.0), state, BATCH, KEY)[0]
    close(one.params, STEP(training.standard(), state, BATCH, KEY)[0].params, atol=0)


def test_a_certain_teacher_gives_the_labels_themselves():
    sure = jax.tree_util.Partial(lambda x: 1e4 * jax.nn.one_hot(Y, 3))
    for temperature in (1.0, 20.0):
        soft = STEP(training.distillation(sure, temperature), start(), BATCH, KEY)[0]
        hard = STEP(training.at_temperature(temperature), start(), BATCH, KEY)[0]
        close(soft.params, hard.params, atol=1e-6)
    only_hard = training.distillation(sure, 20.0, hard=1.0)
    plain = STEP(training.standard(), start(), BATCH, KEY)[0]
    close(STEP(only_hard, start(), BATCH, KEY)[0].params, plain.params, atol=1e-6)


def test_the_teacher_is_asked_about_clean_images():
    asked = []

    def teacher(x):
        asked.append(x)
        return jnp.zeros((x.shape[0], 3))

    inner = attacks.fgsm(linf(0.2))
    method = training.distillation(teacher, 2.0, inner=inner)
    assert method.adversarial
    training.step(method, start(), BATCH, KEY)
    np.testing.assert_array_equal(asked[0], X)


def test_the_student_does_not_move_its_teacher():
    def loss(teacher):
        outer = training.distillation(teacher, 2.0).outer

        def forward(state, x, draw=0):
            return jnp.ones((6, 3)) * jnp.arange(3.0)[None], state

        return outer(forward, {}, X, X, Y)[0].sum()

    gradient = jax.grad(loss)(TEACHER)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_one_program_for_every_teacher_and_temperature():
    before = STEP._cache_size()
    for seed, temperature in ((1, 5.0), (2, 20.0), (3, 100.0)):
        teacher = models.logits_fn(MODEL, MODEL.init(jax.random.key(seed))[0])
        STEP(training.distillation(teacher, temperature), start(), BATCH, KEY)
    assert STEP._cache_size() <= before + 1


def test_several_teachers_are_an_ensemble():
    other = models.logits_fn(MODEL, MODEL.init(jax.random.key(8))[0])
    both = attacks.ensemble([TEACHER, other])
    one, two, mean = (
        STEP(training.distillation(t, 1e3), start(), BATCH, KEY)[1]['loss']
        for t in (TEACHER, other, both)
    )
    np.testing.assert_allclose(mean, (one + two) / 2, rtol=1e-4)


def test_distilled_by_the_loop_it_answers_at_temperature_one_and_saturates():
    """What the defence is: softmax gradients that vanish, logits that do not care."""
    train = data.load('digits', 'train')
    rest, held = data.split_held_out(train, 300, seed=0)
    model = zoo.mlp((8, 8, 1), 10, (32,))
    optimizer = optax.adam(3e-2)

    def fitted(method):
        options = {'epochs': 8, 'batch_size': 64}
        return training.fit(method, model, optimizer, rest, held, key=KEY, **options)

    plain = fitted(training.at_temperature(1.0))
    teacher = fitted(training.at_temperature(20.0))
    student = fitted(training.distillation(teacher.logits_fn, 20.0))
    x, y = data.to_float(held.images), jnp.asarray(held.labels)
    f = student.logits_fn
    assert (jnp.argmax(f(x), 1) == y).mean() > 0.9

    def size(f):
        gradient = jax.grad(lambda x: losses.cross_entropy(f(x), y).sum())(x)
        return float(jnp.median(jnp.abs(gradient).sum((1, 2, 3))))

    assert size(f) < 1e-6 * size(plain.logits_fn)
    assert size(attacks.rescaled(f, 20.0)) > 0.5 * size(plain.logits_fn)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: training.at_temperature(0.0), 'temperature must be positive .* 0.0'),
        (lambda: training.at_temperature(float('nan')), 'temperature must be .* nan'),
        (lambda: training.distillation(TEACHER, -1.0), 'temperature must be .* -1.0'),
        (lambda: training.distillation(TEACHER, float('inf')), 'finite, got inf'),
        (lambda: training.distillation(TEACHER, hard=1.5), r'hard must lie in \[0, 1'),
        (lambda: training.distillation('net'), 'expected a callable'),
        (
            lambda: training.adversarially_robust_distillation(TEACHER, 0.1, 0.0),
            'temperature must be positive',
        ),
        (
            lambda: training.adversarially_robust_distillation(TEACHER, 0.1, weight=2),
            r'weight must lie in \[0, 1\], got 2',
        ),
        (lambda: training.rslad(TEACHER, 0.1, weight=-1.0), r'weight must .* -1.0'),
        (lambda: training.rslad(TEACHER, 0.1, steps=0), 'steps must be an integer'),
        (lambda: training.rslad('net', 0.1), 'expected a callable'),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
