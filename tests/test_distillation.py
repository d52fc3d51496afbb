"""Distillation: soft labels, temperatures, and the same seam as every method."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import attacks, data, linf, losses, models, training, zoo

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
    return training.create(MODEL, SGD, KEY)


def gradient_of(new, old):
    return jax.tree.map(lambda a, b: (b - a) / 0.1, new.params, old.params)


def close(a, b, **tolerance):
    jax.tree.map(
        lambda p, q: np.testing.assert_allclose(p, q, **{'atol': 1e-5, **tolerance}),
        a,
        b,
    )


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_soft_cross_entropy_is_its_formula_and_hard_labels_are_a_case():
    z = np.asarray(jax.random.normal(KEY, (5, 4)))
    p = softmax(np.asarray(jax.random.normal(jax.random.key(1), (5, 4))))
    expected = -(p * np.log(softmax(z))).sum(1)
    np.testing.assert_allclose(
        training.soft_cross_entropy(jnp.asarray(z), jnp.asarray(p)), expected, rtol=1e-5
    )
    y = jnp.array([0, 1, 2, 3, 1])
    np.testing.assert_allclose(
        training.soft_cross_entropy(jnp.asarray(z), jax.nn.one_hot(y, 4)),
        losses.cross_entropy(jnp.asarray(z), y),
        rtol=1e-6,
    )
    # A certain teacher and a student that has ruled the class out: no 0 * inf.
    ruled_out = jnp.array([[0.0, -jnp.inf]])
    assert training.soft_cross_entropy(ruled_out, jnp.array([[1.0, 0.0]])) == 0


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

        def forward(state, x):
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
        return training.fit(method, model, optimizer, rest, held, KEY, **options)

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
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
