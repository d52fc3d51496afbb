"""What users bring: a ball, a search, a function, a random model, and no more."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advjax import (
    attacks,
    balls,
    evaluation,
    keys,
    linf,
    models,
    testing,
    training,
    zoo,
)
from advjax.attacks.search import call
from advjax.masks import masked
from advjax.types import Array, Ball, Composite, Found, Sampled, Search, dataclass
from tests import contract
from tests.conftest import ROOT
from tests.contract import KEY, images, network


@dataclass
class Upwards:
    """Pixels may only become brighter: a ball of a user's own."""

    eps: Array
    bounds = (0.0, 1.0)
    norm_name = 'upwards'

    def project(self, x, x0):
        return jnp.clip(jnp.clip(x, x0, x0 + self.eps), 0, 1)

    def sample(self, key, x0):
        up = keys.draw(
            lambda k: jax.random.uniform(k, x0.shape[1:]),
            keys.per_example(key, x0.shape[0]),
        )
        return jnp.clip(x0 + self.eps * up, 0, 1)

    def steepest(self, grad):
        return (grad > 0).astype(grad.dtype)

    def norm(self, delta):
        return jnp.where(delta < -1e-6, jnp.inf, delta).max(axis=(1, 2, 3))

    def contains(self, x, x0):
        return balls.contains(self, x, x0)

    def confine(self, x, otherwise=0.0):
        return x

    def with_eps(self, eps):
        return Upwards(eps)

    def unbounded(self):
        return self

    def take(self, index, size):
        return self


MASK = np.arange(20).reshape(1, *contract.SHAPE) % 3 > 0
BALLS = {'own': Upwards(jnp.float32(0.2)), 'masked': masked(linf(0.2), MASK)}
each_ball = pytest.mark.parametrize('ball', BALLS.values(), ids=BALLS)
MODEL = zoo.softmax_regression(contract.SHAPE, contract.CLASSES)


def test_the_ball_has_the_protocol_and_no_more():
    members = {name for name in dir(Ball) if not name.startswith('_')}
    own = {name for name in dir(Upwards(jnp.float32(0.1))) if not name.startswith('_')}
    assert own - {'replace'} == members
    assert isinstance(BALLS['own'], Ball)


@each_ball
def test_attacks_stay_in_it(ball):
    testing.check_attack(attacks.pgd(ball, 8, rate=0.3))


@each_ball
@pytest.mark.parametrize('name', ['fast', 'free', 'grad_align', 'pgd_at', 'trades'])
def test_methods_train_in_it(ball, name):
    options = {'coefficient': 0.2} if name == 'grad_align' else {}
    method = {'free': lambda b: training.free(b, 2)}.get(
        name, lambda b: getattr(training, name)(b, **options)
    )(ball)
    x, y = images()
    state = training.create(
        MODEL, optax.sgd(0.1), key=KEY, method=method, shape=x.shape
    )
    batch = {'image': x, 'label': y}
    new, metrics = jax.jit(training.step)(method, state, batch, KEY)
    assert np.isfinite(metrics['loss'])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new.params, state.params)
    assert max(jax.tree.leaves(moved)) > 0


@each_ball
def test_universal_and_evaluation_work_in_it(ball):
    f, (x, y) = network(), images()
    report = evaluation.evaluate(
        f,
        x,
        y,
        {'pgd': attacks.pgd(ball, 10), 'one': attacks.universal(ball, 10, batch=4)},
        key=KEY,
    )
    assert report.success[0].any()
    assert not report.rejected.any()
    curve = evaluation.robustness_curve(
        f, x, y, attacks.pgd(ball, 5), [0.0, 0.1, 0.4], key=KEY
    )
    assert curve.accuracy[0] == 1
    assert curve.accuracy[-1] < 1


def test_what_a_ball_lacks_is_named():
    class Half:
        def project(self, x, x0):
            return x

    with pytest.raises(ValueError, match=r"lacks \['bounds', 'confine', 'contains'"):
        attacks.pgd(Half())


def test_a_ball_that_is_no_pytree_is_refused():
    class Plain:
        eps, bounds, norm_name = 0.1, None, 'plain'
        project = sample = steepest = norm = contains = len
        confine = with_eps = unbounded = take = len

    with pytest.raises(
        ValueError, match=r'decorate Plain with advjax\.types\.dataclass'
    ):
        attacks.pgd(Plain())


# ----------------------------------------------------------------------------- searches


@dataclass
class Once:
    """A search of a user's own: one random point."""

    ball: Ball
    calls, ranked = 1, True

    def search(self, goal, key, x):
        point = self.ball.sample(key, x)
        _, rank = goal.value_and_rank(point, key)
        return Found(point, rank, jnp.ones(x.shape[:1], jnp.int32))

    __call__ = call


def test_a_search_is_an_attack_everywhere():
    attack = Once(linf(0.3))
    assert isinstance(attack, Search)
    laws = [law for law in testing.LAWS if law.__name__ != 'worse_for_the_model']
    testing.check_attack(attack, fills=False, laws=laws)
    f, (x, y) = network(), images()
    both = attacks.restarts(attacks.targeted(attack, 2), 3)
    assert both.calls == 3 * 2 * (1 + 1)
    report = evaluation.evaluate(f, x, y, both, key=KEY, survivors=True)
    assert report.calls.max() <= both.calls


def test_the_rank_that_is_found_is_that_of_the_point():
    f, (x, y) = network(), images()
    goal = attacks.goal(f, y)
    each = keys.per_example(KEY, len(x))
    for case in contract.CASES:
        if case.name in ('eot', 'views', 'from_prediction', 'ensemble'):
            continue
        attack = case.build(case.ball)
        found = jax.jit(lambda a, g, k, x: a.search(g, k, x))(attack, goal, each, x)
        assert found.queries.shape == (len(x),), case.name
        if attack.ranked:
            again = goal.value_and_rank(found.x, each)[1]
            np.testing.assert_allclose(
                found.rank, again, rtol=1e-4, atol=2e-5, err_msg=case.name
            )
        else:
            assert found.rank is None


def test_found_is_told_by_a_method():
    def aimed(logits_fn, key, x, y, target):
        assert target.shape == y.shape
        assert jnp.issubdtype(target.dtype, jnp.integer)
        gradient = jax.grad(lambda x: jnp.sum(logits_fn(x)[:, target]))(x)
        return x + 0.1 * jnp.sign(gradient)

    f, (x, y) = network(), images()
    result = jax.jit(lambda x: attacks.targeted(aimed, 3)(f, KEY, x, y))(x)
    assert (contract.margin(f, result, y) > contract.margin(f, x, y)).all()


def test_a_function_without_a_target_is_refused_by_name():
    def plain(logits_fn, key, x, y):
        return x

    for attack in (plain, attacks.restarts(plain, 2), attacks.worst_of([plain])):
        with pytest.raises(ValueError, match=r'test_a_function.*plain takes'):
            attacks.targeted(attack, 3)
    f, (x, y) = network(), images()
    with pytest.raises(ValueError, match='argument target'):
        attacks.restarts(plain, 2)(f, KEY, x, y, target=y)


def test_targeted_refuses_a_target():
    f, (x, y) = network(), images()
    with pytest.raises(ValueError, match='chooses its own targets'):
        attacks.targeted(attacks.pgd(0.1, 2), 2)(f, KEY, x, y, target=y)


def test_parts_of_composites_have_the_draws_of_the_whole():
    f, (x, y) = network(), images()
    each = keys.per_example(KEY, len(x))
    goal = attacks.goal(f, y)
    pgd = attacks.pgd(0.1, 3, rate=0.5)
    for whole in (
        attacks.restarts(pgd, 3),
        attacks.targeted(pgd, 2),
        attacks.worst_of({'a': pgd, 'b': attacks.fgsm(0.1)}),
    ):
        assert isinstance(whole, Composite)
        found = [part.search(goal, each, x) for part in whole.parts().values()]
        ranks = [goal.value_and_rank(one.x, each)[1] for one in found]
        expected = whole.search(goal, each, x).rank
        np.testing.assert_allclose(np.max(ranks, axis=0), expected, atol=1e-5)


def test_a_cascade_runs_composites_within_composites():
    f, (x, y) = network(), images()
    pgd = attacks.pgd(0.1, 3, rate=0.5)
    nested = {'all': attacks.worst_of([attacks.restarts(pgd, 2), attacks.fgsm(0.1)])}
    whole = evaluation.evaluate(f, x, y, nested, key=KEY)
    parts = evaluation.evaluate(f, x, y, nested, key=KEY, survivors=True)
    np.testing.assert_array_equal(whole.robust, parts.robust)
    assert parts.calls.sum() < whole.calls.sum()


def test_a_search_that_is_no_pytree_is_refused():
    class Loose:
        calls, ranked = 1, True

        def search(self, goal, key, x):
            return Found(x, None, jnp.ones(x.shape[:1], jnp.int32))

        __call__ = call

    with pytest.raises(ValueError, match='decorate Loose with advjax'):
        attacks.restarts(Loose(), 2)


def test_a_budget_is_asked_in_the_norm_at_hand():
    can = attacks.Capability('l1', 10.0, budget=101)
    threat = attacks.ThreatModel('untargeted', 'white', can)
    assert threat.refusals()['apgd'] == 'takes 103 model calls, 101 are allowed'


def test_universal_is_what_it_fits():
    f, (x, y) = network(), images()
    attack = attacks.universal(0.2, 5, batch=4)
    delta = attack.fit(f, x, y, key=KEY)
    whole = attack(f, KEY, x, y)
    np.testing.assert_allclose(attack.apply(x, delta), whole, atol=1e-6)


def test_a_result_is_ranked_without_the_loss():
    """Soft labels have no margin as a loss, and a rank all the same."""
    f, (x, y) = network(), images()
    soft = jax.nn.one_hot(y, contract.CLASSES) * 0.9 + 0.025
    last = attacks.pgd(0.1, 2, keep_best=False)
    for attack in (attacks.restarts(last, 2), attacks.spatial(counts=(3, 1, 1))):
        assert attack(f, KEY, x, soft).shape == x.shape


def test_stronger_versions_may_be_functions():
    def step(size):
        def attack(logits_fn, key, x, y):
            loss = jax.grad(lambda x: -logits_fn(x)[jnp.arange(len(y)), y].sum())
            return jnp.clip(x + size * jnp.sign(loss(x)), 0, 1)

        return attack

    law = [testing.attack.more_is_never_weaker]
    both = [step(0.02), step(0.05)]
    testing.check_attack(both[1], linf(0.05), stronger=both, laws=law)


# ------------------------------------------------------------------------ random models


def test_a_random_model_of_a_users_own():
    @dataclass
    class Noisy:
        logits_fn: object

        def sample(self, key, x):
            each = keys.per_example(key, x.shape[0])
            noise = keys.draw(lambda k: jax.random.normal(k, (2, *x.shape[1:])), each)
            return jax.vmap(lambda n: self.logits_fn(x + 0.01 * n), 1)(noise)

        def __call__(self, x):
            return self.logits_fn(x)

    f, (x, y) = Noisy(network()), images()
    assert isinstance(f, Sampled)
    value, rank = attacks.goal(f, y).value_and_rank(x, KEY)
    assert (value != attacks.goal(network(), y).value(x, KEY)).any()
    assert (rank < 0).all()
    with pytest.raises(ValueError, match='deterministic'):
        attacks.ensemble([f, f])


def test_random_models_are_ranked_by_draws_that_chose_nothing():
    f, (x, y) = network(), images()
    noisy = attacks.eot(lambda k, v: f(v + 0.5 * jax.random.normal(k, v.shape)), 2)
    goal, each = attacks.goal(noisy, y), keys.per_example(KEY, len(x))
    one = attacks.pgd(0.02, 20)
    chosen = attacks.restarts(one, 1).search(goal, each, x)
    again = one.search(goal, keys.fold(each, 0), x)
    np.testing.assert_allclose(chosen.x, again.x, atol=1e-6)
    assert np.mean(chosen.rank) < np.mean(again.rank)


# --- the house


def test_no_member_is_asked_for_that_no_protocol_names():
    found = {
        f'{path.relative_to(ROOT)}:{number}'
        for path in (ROOT / 'advjax').rglob('*.py')
        if path.name != 'identity.py'  # It looks into objects that it knows nothing of.
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r'\b(hasattr|getattr)\(', line)
    }
    assert len(found) <= 8, sorted(found)


def test_no_file_holds_control_characters():
    for folder in ('advjax', 'experiments', 'tests'):
        for path in (ROOT / folder).rglob('*.py'):
            odd = re.findall(r'[\x00-\x09\x0b-\x1f\x7f]', path.read_text())
            assert not odd, (path, odd)


def test_rooms_and_their_names():
    import advjax

    for room in ('starts', 'directions', 'schedules', 'transforms', 'gradients'):
        assert getattr(attacks, room).__name__ == f'advjax.attacks.{room}'
    assert advjax.masks.masked is masked
    assert len(attacks.__all__) <= 60
    assert models
