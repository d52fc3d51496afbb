"""Every Python block of the README runs, and what it says of itself is true.

A block is executed by itself, as it stands, in a namespace that holds what its reader
has by then: a model, images, and the names of earlier blocks. The images are a few
digits, also where the README loads MNIST, and the networks tiny; nothing else is made
smaller.
"""

import inspect
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import advjax
from advjax import attacks, balls, data, defenses, losses, masks, models, zoo
from tests.conftest import ROOT

SHAPE = (8, 8, 1)
ROOMS = (
    'attacks', 'certify', 'data', 'defenses', 'evaluation', 'features', 'geometry',
    'keys', 'losses', 'models', 'training', 'zoo',
)  # fmt: skip


def blocks():
    """{'heading, number': source}, each source on the lines it has in the README."""
    found, heading, fence, count, code = {}, '', None, 0, []
    for number, line in enumerate((ROOT / 'README.md').read_text().splitlines()):
        if fence is None and line.startswith('```'):
            fence, code = line[3:], ['\n' * number]
        elif fence is None and re.match('#+ ', line):
            heading, count = line.lstrip('# '), 0
        elif fence is not None and line.startswith('```'):
            if fence == 'python':
                count += 1
                found[f'{heading}, {count}'] = '\n'.join(code)
            fence = None
        elif fence is not None:
            code.append(line)
    return found


BLOCKS = blocks()
PREPARED = {}  # What a block finds besides or instead of the common names.
CHECKS = {}  # What its comments promise.


def prepares(name):
    return lambda function: PREPARED.setdefault(name, function)


def checks(name):
    return lambda function: CHECKS.setdefault(name, function)


def dataset(split, count, name='digits'):
    whole = data.load('digits', split)
    return whole._replace(
        images=whole.images[:count], labels=whole.labels[:count], name=name
    )


def centroids(scale):
    """The nearest-centroid classifier of digits: a good one without training."""
    train = data.load('digits', 'train')
    x = np.asarray(data.to_float(train.images)).reshape(len(train.labels), -1)
    means = np.stack([x[train.labels == k].mean(axis=0) for k in range(10)])
    params = {'w': means.T, 'b': -(means**2).sum(axis=1)[None] / 2}
    params = jax.tree.map(lambda a: jnp.asarray(scale * a, jnp.float32), params)
    return models.logits_fn(zoo.softmax_regression(SHAPE), params)


def common():
    """The names of a reader who has a model and four images."""
    some = dataset('test', 4)
    key, model = jax.random.key(0), zoo.mlp(SHAPE, 10, (16,))
    params, state = model.init(key)
    logits_fn = centroids(10.0)
    x, y = data.to_float(some.images), jnp.asarray(some.labels)
    attack = attacks.pgd(balls.linf(0.3), steps=40, rate=0.01 / 0.3)
    names = {
        'jax': jax, 'advjax': advjax, 'linf': balls.linf, 'l2': balls.l2,
        'masked': masks.masked, 'logits_fn': logits_fn, 'model': model,
        'params': params, 'state': state, 'key': key, 'x': x, 'y': y,
        'attack': attack, 'both': attacks.worst_of([attack, attacks.fgsm(0.3)]),
        'radii': jnp.linspace(0.0, 0.4, 5), 'dataset': some,
        'train': dataset('train', 64), 'held_out': some,
        'batch': {'image': x, 'label': y}, 'optimizer': optax.adam(1e-3),
        'optax': optax,
    }  # fmt: skip
    return {**{room: getattr(advjax, room) for room in ROOMS}, **names}


def noted(name, code):
    """The names listed in the comment beside some code."""
    listed = re.findall(r'\w+', re.search(code + '  # (.*)', BLOCKS[name])[1])
    assert len(listed) > 2
    return listed


def same(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **{'atol': 1e-6, **tolerance})


@jax.jit
def run(attack, logits_fn, key, x, y):
    return attack(logits_fn, key, x, y)


def within(x_adv, x, eps):
    assert x_adv.shape == x.shape
    assert float(jnp.abs(x_adv - x).max()) <= eps + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1


@checks('An attack is a value, 1')
def same_program(n):
    within(n.x_adv, n.x, 0.3)
    assert (n.logits_fn(n.x_adv).argmax(axis=1) != n.y).any()
    wider = attacks.pgd(balls.linf(0.4), steps=40, rate=0.1)
    within(n.run(wider, n.key, n.x, n.y), n.x, 0.4)
    assert n.run._cache_size() == 1


@prepares('An attack is a value, 2')
def three_models(n):
    def randomised_model(key, x):
        return n.logits_fn(x + 0.1 * jax.random.normal(key, x.shape))

    return {
        'randomised_model': randomised_model,
        'model_a': n.logits_fn,
        'model_b': centroids(5.0),
    }


@checks('An attack is a value, 2')
def attacks_again(n):
    assert n.x_adv.shape == (16, *n.x.shape)
    for eps, x_adv in zip(n.radii, n.x_adv, strict=True):
        within(x_adv, n.x, eps)
    within(run(n.both, n.logits_fn, n.key, n.x, n.y), n.x, 0.3)
    assert n.fused(n.x).shape == (4, 10)
    step = attacks.pgd(0.3, 1)
    for model in (n.noisy, n.fused):
        within(run(step, model, n.key, n.x, n.y), n.x, 0.3)


@checks('An attack is a value, 3')
def found_with_its_proof(n):
    wrong = n.logits_fn(n.found.x).argmax(axis=1) != n.y
    np.testing.assert_array_equal(n.found.rank > 0, wrong)
    assert ((n.found.queries >= 1) & (n.found.queries <= 5000)).all()


@prepares('AutoAttack, 1')
def two_images(n):
    return {'x': n.x[:2], 'y': n.y[:2]}


@checks('AutoAttack, 1')
def which_and_images(n):
    for version in noted('AutoAttack, 1', r'autoattack\(linf\(8 / 255\)\)'):
        own = {'fab': None} if version == 'custom' else None
        attacks.autoattack(8 / 255, version, members=own)
    assert n.report.broken_by.shape == (2,)
    assert n.report.worst.shape == n.x.shape
    within(n.report.worst, n.x, 8 / 255)
    for member in n.report.names:
        assert f'after {member} ' in n.printed


@prepares('Transfer, randomness, defences, 1')
def a_defence(n):
    def jpeg(x):
        return jnp.round(x * 7) / 7

    mask = jnp.zeros((1, *SHAPE)).at[:, :4].set(1) > 0
    hot = jax.tree_util.Partial(lambda f, x: 100 * f(x), n.logits_fn)

    def loss(params):
        logits = models.logits_fn(n.model, params, n.state)(n.x)
        return losses.cross_entropy(logits, n.y).mean()

    return {
        'net': n.logits_fn, 'jpeg': jpeg, 'distilled': hot, 'mask': mask,
        'loss': loss, 'before': n.params,
        'a': n.logits_fn, 'b': centroids(5.0),
    }  # fmt: skip


@checks('Transfer, randomness, defences, 1')
def straight_through(n):
    within(n.x_adv, n.x, 8 / 255)
    same(n.model(n.x), n.net(n.jpeg(n.x)))
    slope = jax.grad(lambda x: n.model(x).sum())(n.x)
    same(slope, jax.grad(lambda x: n.net(x).sum())(n.jpeg(n.x)), rtol=1e-5)
    same(n.soft(n.x), n.net(n.x), rtol=1e-5)

    patched = run(n.patch, n.logits_fn, n.key, n.x, n.y)
    same(patched[:, 4:], n.x[:, 4:], atol=0)
    assert (jnp.abs(patched - n.x)[:, :4].max() > 0.5).all()
    saved = run(n.saved, n.logits_fn, n.key, n.x, n.y)
    same(saved * 255, jnp.round(saved * 255), atol=1e-4)
    fooled = n.logits_fn(saved).argmax(axis=1) != n.y
    assert fooled.all()

    moved = jax.tree.map(jnp.subtract, n.params, n.before)
    assert 0.09 < optax.tree_utils.tree_norm(moved) < 0.1001
    assert n.loss(n.params) > n.loss(n.before)


@checks('Defences, and signs that gradients are hidden, 1')
def nine_and_ten(n):
    ours = [
        name
        for name, made in inspect.getmembers(defenses, inspect.isfunction)
        if inspect.signature(made).return_annotation is defenses.Defended
    ]
    # Besides the two that take your own.
    assert len(set(ours) - {'preprocessed', 'randomised'}) == 9
    assert n.report.names == ('naive', 'adaptive')
    assert 'of 10 signs of masked gradients' in n.printed


@checks('A threat model says which attacks apply, 1')
def refused(n):
    assert n.threat.refusals()['pgd'] == 'needs white-box knowledge'
    assert n.report.names == tuple(n.threat.attacks())
    assert 'square' in n.report.names
    assert n.report.calls.max() <= 2000


@prepares('Geometry, features, bounds, 1')
def mnist_sized(n):
    model = zoo.fast_mnist()
    params, state = model.init(n.key)
    images = n.dataset.images.repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    x = data.to_float(images)
    return {
        'model': model, 'params': params, 'state': state, 'x': x,
        'logits_fn': models.logits_fn(model, params, state),
        'dataset': n.dataset._replace(images=images),
        'directions': jax.random.normal(n.key, (5, *x.shape[1:])),
        'signs': jnp.where(n.y > 4, 1, -1),
    }  # fmt: skip


@checks('Geometry, features, bounds, 1')
def measured(n):
    assert (n.how.worst >= n.how.mean).all()
    assert (jnp.abs(n.gap) <= 1 + 1e-6).all()
    assert n.rho.shape == (5,)
    assert n.seen(n.x).shape == (4, 100)
    for made in (n.d_robust, n.d_det):
        assert made.images.shape == n.dataset.images.shape
        assert (made.images != n.dataset.images).any()
    same(n.d_robust.labels, n.dataset.labels)
    same(n.d_det.labels, (n.dataset.labels + 1) % 10)
    norms = advjax.certify.lipschitz_bounds(n.layers, (28, 28, 1))
    same(n.bound, np.prod(norms), rtol=1e-5)
    same(advjax.certify.run(n.layers, n.x), n.logits_fn(n.x), atol=1e-5)


@checks('What you can rely on, 1')
def per_example(n):
    for name in n.report.names:
        assert name in n.printed
    assert 'worst case' in n.printed
    assert n.report.calls.shape == (2, 4)
    assert n.report.robust.shape == n.report.broken_by.shape == (4,)
    assert n.report.norm.shape == n.report.margin.shape == (2, 4)
    assert (np.diff(n.curve.accuracy) <= 0).all()


@prepares('Models, 1')
def own_networks(n):
    class MyNnxModule(nnx.Module):
        def __init__(self, rngs):
            self.out = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x):
            return self.out(x.reshape(len(x), -1))

    class MyLinenModule(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            return linen.Dense(10)(x)

    made = []

    def kept(factory):
        def make(*args, **options):
            made.append(factory(*args, **options))
            return made[-1]

        return make

    # That of the zoo is made now, once and for all, and not kept.
    zoo.madry_mnist()
    names = ('from_nnx', 'from_linen', 'from_function')
    small = zoo.softmax_regression(SHAPE)
    return {
        'MyNnxModule': MyNnxModule,
        'MyLinenModule': MyLinenModule,
        'example': n.x[:1],
        'init': lambda key: small.init(key)[0],
        'apply': lambda params, x: small.apply(params, {}, x)[0],
        'made': made,
        'replaced': (models, {f: kept(getattr(models, f)) for f in names}),
    }


@checks('Models, 1')
def all_are_models(n):
    assert len(n.made) == 3
    for model in n.made:
        params, state = model.init(n.key)
        assert models.logits_fn(model, params, state)(n.x).shape == (4, 10)
    assert n.logits_fn(jnp.zeros((2, 28, 28, 1))).shape == (2, 10)
    for name in noted('Models, 1', r'zoo.madry_mnist\(\)'):
        assert isinstance(getattr(n.zoo, name)(), models.Model)
    leaves = jax.tree.leaves(n.logits_fn)
    assert len(leaves) == len(jax.tree.leaves(n.params)) > 0


@prepares('Training, 1')
def no_mnist(n):
    del n
    short = dataset('train', 1064, 'mnist')

    def load(name, split):
        assert (name, split) == ('mnist', 'train')
        return short

    return {'replaced': (data, {'load': load})}


@checks('Training, 1')
def trained(n):
    assert int(n.state.step) == 1
    assert bool(n.metrics['finite'])
    assert len(n.held_out.labels) == 1000
    assert len(n.fit.history) == 10
    assert (n.folder / 'runs/mine').is_dir()
    assert n.fit.logits_fn(n.x).shape == (4, 10)
    assert all(isinstance(event, str) for event in n.fit.events)


@checks('Training, 2')
def two_functions(n):
    state = n.training.create(n.model, n.optimizer, key=n.key)
    state, metrics = jax.jit(n.training.step)(n.method, state, n.batch, n.key)
    assert int(state.step) == 1
    # Four random answers among ten: about log(10), and the pairing on top.
    assert 1 < metrics['loss'] < 10


@prepares('Training, 3')
def generated_digits(n):
    return {'generated': dataset('test', 100)}


@checks('Training, 3')
def recipe(n):
    assert int(n.fit.last.step) == 15 * -(-64 // 38)
    for name in noted('Training, 3', 'augment=augment,'):
        if name in ('cutout', 'cutmix', 'rand_augment'):
            assert callable(getattr(n.data.augment, name))
    assert n.fit.last.mean is not None


@checks('Training, 5')
def many_runs(n):
    np.testing.assert_array_equal(n.states.step, [10, 10, 10])
    first = jax.tree.leaves(n.states.params)[0]
    assert first.shape[0] == 3
    assert not np.array_equal(first[0], first[1])


@prepares('Training, 4')
def split_norms(n):
    params, state = zoo.split_norm_cnn().init(n.key)
    return {'params': params, 'state': state}


@checks('Training, 4')
def teachers(n):
    assert len(n.teacher.history) == 10
    # One attack was given, so the network needs no more than its one auxiliary branch.
    made = zoo.split_norm_cnn(SHAPE)
    state = n.training.create(made, n.optimizer, key=n.key)
    moved, _ = jax.jit(n.training.step)(n.helped, state, n.batch, n.key)
    assert int(moved.step) == 1
    assert n.auxiliary(jnp.zeros((2, 28, 28, 1))).shape == (2, 10)
    robust = n.training.distillation(n.teacher.logits_fn, 20.0, inner=n.attack)
    assert robust.adversarial
    assert not n.student.adversarial


def test_the_blocks_are_found_and_every_note_here_belongs_to_one():
    text = (ROOT / 'README.md').read_text()
    assert len(BLOCKS) == len(re.findall('^```python$', text, re.MULTILINE)) > 0
    assert {*PREPARED, *CHECKS} <= BLOCKS.keys()


@pytest.mark.parametrize('name', BLOCKS)
def test_block(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # Some write to runs/.
    names = common()
    names.update(PREPARED.get(name, lambda n: {})(types.SimpleNamespace(**names)))
    room, replaced = names.pop('replaced', (None, {}))
    for attribute, value in replaced.items():
        monkeypatch.setattr(room, attribute, value)
    exec(compile(BLOCKS[name], 'README.md', 'exec'), names)
    monkeypatch.undo()
    names.update(folder=tmp_path, printed=capsys.readouterr().out)
    CHECKS.get(name, lambda n: None)(types.SimpleNamespace(**names))


def test_every_method_is_in_the_table():
    import advjax.training as room

    text = (ROOT / 'README.md').read_text()
    made = [
        name
        for name in room.__all__
        if not name.endswith('Error')
        and 'Method' in str(inspect.signature(getattr(room, name)).return_annotation)
        and name not in ('method', 'scheduled', 'scaled')
    ]
    assert len(made) > 20
    assert [name for name in made if f'`{name}' not in text] == []
