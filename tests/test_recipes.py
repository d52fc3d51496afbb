"""The published recipes: their numbers, the real networks, a run of each, shrunk."""

import dataclasses
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import balls, data, training
from advjax.balls import linf
from experiments.commands import attack, choices, configuration, fitting, recipes, train
from experiments.commands.configuration import Config, complete
from experiments.frame import datasets, process

NAMES = list(recipes.RECIPES)
KEY = jax.random.key(0)
PER_EPOCH = 383  # Batches of 128 from 49,000 images.


def shrunk(recipe):
    """The recipe for a minute on a laptop: all its parts, none of its figures.

    A narrow network (a shallow one in place of a deep one), 128 images, one epoch, few
    attack steps. Optimizer, schedule, augmentation and what belongs to the method stay.
    """
    config = recipe.config
    wide = config.model.startswith('wide')
    return dataclasses.replace(
        config,
        model='wide_resnet_10_1' if wide else config.model,
        width=0.25 if wide else 1 / 16,
        stages=None if wide else 1,
        epochs=1,
        batch_size=32,
        attack_steps=2 if config.attack_steps else None,
        replays=2,
        train_images=128,
        test_images=16,
        held_out=32,
        strong_steps=2,
        restarts=1,
        baseline=False,
    )


def made(count, seed):
    """Images like CIFAR-10's where there are none."""
    draw = np.random.RandomState(seed)
    images = draw.randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    names = tuple('abcdefghij')
    labels = (np.arange(count) % 10).astype(np.int32)
    return data.Dataset(images, labels, names, 'cifar10', str(seed))


@pytest.fixture(scope='module', autouse=True)
def cifar10():
    """A few images, real ones where the prepared set is at hand."""
    sizes, whole, found = {'train': 200, 'test': 40}, data.load, {}
    for seed, (split, count) in enumerate(sizes.items()):
        try:
            found[split] = whole('cifar10', f'{split}[:{count}]')
        except (data.DatasetNotFound, ImportError, OSError):
            found[split] = made(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, 'load', lambda name, split, **_: found[split])
        yield found


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def whole(folder):
    """One recipe from the command's beginning to its page."""
    small = shrunk(recipes.RECIPES['free_cifar10'])
    results = train.main(small, folder / 'free', fresh=False, progress=False)
    return results, folder / 'free'


def test_all_that_were_asked_for_are_there():
    assert NAMES == list(typing.get_args(recipes.Name)) == [
        'fast_cifar10', 'pgd_cifar10', 'trades_cifar10', 'awp_cifar10', 'free_cifar10',
        'gradalign_cifar10', 'advprop_cifar10',
    ]  # fmt: skip
    for name, recipe in recipes.RECIPES.items():
        assert recipe.name == name
        assert recipe.source
        assert recipe.deviations
        assert recipe.command == f'python -m experiments train --recipe {name}'
        assert all(figure.tag in ('R', 'C', 'M') for figure in recipe.published)
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.config.epochs = 1  # pyrefly: ignore[read-only]
        hash(recipe.config)


@pytest.mark.parametrize(
    ('name', 'eps', 'epochs', 'decay', 'step'),
    [
        ('fast_cifar10', 8 / 255, 15, 5e-4, 10 / 255),
        ('pgd_cifar10', 8 / 255, 200, 5e-4, 2 / 255),
        ('trades_cifar10', 0.031, 76, 2e-4, 0.007),
        ('awp_cifar10', 8 / 255, 200, 5e-4, 2 / 255),
        ('free_cifar10', 8 / 255, 26, 2e-4, 8 / 255),
        ('gradalign_cifar10', 8 / 255, 30, 5e-4, 8 / 255),
        ('advprop_cifar10', 4 / 255, 30, 5e-4, 1 / 255),
    ],
)
def test_numbers_of_the_papers(name, eps, epochs, decay, step):
    c = complete(recipes.RECIPES[name].config)
    assert (c.dataset, c.batch_size, c.optimizer) == ('cifar10', 128, 'sgd')
    assert c.augment == ('crop', 'flip')
    assert (c.eps, c.epochs, c.weight_decay) == (eps, epochs, decay)
    assert c.attack_rate * c.eps == pytest.approx(step)
    assert c.held_out == 1000
    assert c.ema == c.label_smoothing == 0


def test_numbers_of_the_attacks_that_test():
    steps = {}
    for name, recipe in recipes.RECIPES.items():
        c = recipe.config
        steps[name] = c.strong_steps, c.strong_rate * c.eps, c.restarts
    assert steps['fast_cifar10'] == (50, pytest.approx(2 / 255), 10)
    assert steps['pgd_cifar10'] == (10, pytest.approx(2 / 255), 1)
    assert steps['trades_cifar10'] == (20, pytest.approx(0.003), 1)
    assert steps['free_cifar10'] == (20, pytest.approx(2 / 255), 10)
    assert steps['gradalign_cifar10'] == (50, pytest.approx(2 / 255), 10)


@pytest.mark.parametrize(
    ('name', 'points'),
    [
        ('fast_cifar10', {0: 0, 3.75: 0.1, 7.5: 0.2, 11.25: 0.1, 15: 0}),
        ('pgd_cifar10', {0: 0.1, 99: 0.1, 100.1: 0.01, 149: 0.01, 150.1: 0.001}),
        ('awp_cifar10', {0: 0.1, 99: 0.1, 100.1: 0.01, 149: 0.01, 150.1: 0.001}),
        ('trades_cifar10', {0: 0.1, 73.9: 0.1, 74.1: 0.01, 76: 0.01}),
        ('gradalign_cifar10', {0: 0, 6: 0.15, 12: 0.3, 21: 0.15, 30: 0}),
    ],
)
def test_learning_rates_at_the_published_epochs(name, points):
    config = complete(recipes.RECIPES[name].config)
    rate = choices.learning_rate(config, config.epochs * PER_EPOCH)
    found = [float(rate(round(epoch * PER_EPOCH))) for epoch in points]
    np.testing.assert_allclose(found, list(points.values()), atol=1e-4)


def test_free_makes_the_published_number_of_updates():
    config = recipes.RECIPES['free_cifar10'].config
    updates = config.epochs * PER_EPOCH * config.replays
    assert abs(updates - 80_000) < 0.005 * 80_000
    rate = choices.learning_rate(config, updates)
    assert [float(rate(s)) for s in (39_000, 41_000, 61_000)] == pytest.approx(
        [0.1, 0.01, 0.001]
    )


PARAMETERS = {'wide_resnet_34_10': 46_160_474, 'preact_resnet18': 11_172_170}


@pytest.mark.parametrize('name', NAMES)
def test_the_real_recipe_builds(name):
    """Shapes alone: nothing is allocated."""
    config = complete(recipes.RECIPES[name].config)
    model = choices.network(config, (32, 32, 3), 10, to_train=True)
    method = choices.method(config, linf(config.eps), 100)
    optimizer = choices.optimizer(config, 100)
    assert choices.optimizer(config, 100) is optimizer
    assert method.train_mode == config.attack_in_train_mode
    shape = (config.batch_size, 32, 32, 3)
    create = training.create
    state = jax.eval_shape(
        lambda key: create(model, optimizer, key=key, method=method, shape=shape), KEY
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    expected = PARAMETERS[config.model]
    if config.layout == 'wong2020':
        expected = 11_171_146
    if config.method == 'advprop':
        assert expected < count < 1.01 * expected
    else:
        assert count == expected
    batch = {
        'image': jax.ShapeDtypeStruct(shape, jnp.float32),
        'label': jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    }
    after, metrics = jax.eval_shape(training.step, method, state, batch, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics['loss'].shape == ()
    for leaf in jax.tree.leaves((after.params, after.model_state)):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize('name', [n for n in NAMES if n != 'free_cifar10'])
def test_the_shrunk_recipe_trains(name, folder):
    recipe = recipes.RECIPES[name]
    config = complete(shrunk(recipe))
    for kept in ('method', 'layout', 'normalise', 'optimizer', 'learning_rate', 'rise',
                 'schedule', 'drops', 'weight_decay', 'augment', 'eps', 'attack_rate',
                 'beta', 'awp', 'attack_in_train_mode', 'bfloat16'):  # fmt: skip
        assert getattr(config, kept) == getattr(recipe.config, kept)
    sets = fitting.load(config)
    assert [len(s.labels) for s in sets] == [128, 32, 16]
    ball = balls.of_norm(config.norm, config.eps)
    found = fitting.networks(config, sets, ball, folder / name, False)
    (row,) = found[-1].fit.history
    assert row['step'] == 4
    assert np.isfinite(row['train_loss'])
    branches = ['advprop', 'advprop, auxiliary branch']
    assert [net.name for net in found] == (
        branches if config.method == 'advprop' else [config.method]
    )
    for net in found:
        assert net.logits_fn(jnp.zeros((2, 32, 32, 3))).shape == (2, 10)


def test_a_recipe_from_the_command_to_the_page(whole):
    results, run = whole
    (net,) = results['nets']
    assert net['history'][0]['step'] == 2 * 4  # Every batch twice.
    assert [a['name'] for a in net['attacks']][2] == 'pgd-2 x 1'
    assert not any(proof['failed'] for proof in results['proofs'])
    assert results['config']['augment'] == ['crop', 'flip']
    assert json.loads((run / 'results.json').read_text()) == results
    assert results['images'] in ('', 're-encoded JPEGs')
    assert results['images'] in (run / 'report.html').read_text()


def test_the_network_of_a_recipe_is_attacked_again(whole):
    results, run = whole
    config = attack.Config(run, 'fgsm', images=16)
    after = attack.main(config, run / 'again', False)
    assert after['nets'][0]['name'] == 'free-0'
    assert after['threat_model']['eps'] == results['threat_model']['eps']


def test_sets_say_when_they_are_no_originals(tmp_path, monkeypatch):
    class Builder:
        data_path = tmp_path

    monkeypatch.setattr(datasets.prepared, 'open_set', lambda *_: Builder)
    record = tmp_path / 'dataset_info.json'
    record.write_text('{"description": "after one JPEG re-encoding of every image"}')
    assert datasets.about_images('cifar10') == 're-encoded JPEGs'
    record.write_text('{"description": "60,000 colour images"}')
    assert datasets.about_images('cifar10') == ''
    record.unlink()
    assert datasets.about_images('cifar10') == ''
    assert datasets.about_images('digits') == ''


def test_flags_change_a_recipe():
    parsed = train.parse(['--recipe', 'pgd_cifar10'])
    for field in dataclasses.fields(Config):
        wanted = getattr(recipes.RECIPES['pgd_cifar10'].config, field.name)
        assert getattr(parsed, field.name) == wanted, field.name
    parsed = train.parse(['--epochs', '2', '--recipe=pgd_cifar10', '--width', '0.25'])
    assert (parsed.recipe, parsed.epochs, parsed.width) == ('pgd_cifar10', 2, 0.25)
    assert parsed.schedule == 'piecewise'
    plain = train.parse(['--augment', 'crop', 'cutout', '--drops', '0.9'])
    assert (plain.recipe, plain.dataset) == (None, 'digits')
    assert (plain.augment, plain.drops) == (('crop', 'cutout'), (0.9,))


def test_an_unknown_recipe_is_refused_by_name():
    for read in (lambda n: train.parse(['--recipe', n]), lambda n: recipes.cli([n])):
        with pytest.raises(ValueError, match=r'recipe must be one of .*fast_cifar100'):
            read('fast_cifar100')


def test_the_tables_hold_every_figure_with_its_tag():
    text, page = recipes.table(), recipes.table(markdown=True)
    for name in NAMES:
        assert name in text
        assert name in page
    for shown in (text, page):
        assert '86.06 / 46.06 PGD-50-10 (R)' in shown
        assert '81.00 / 47.58 PGD-50-10 (M)' in shown
        assert '(m)' not in shown
    rows = page.splitlines()
    assert {row.count('|') for row in rows} == {7}
    assert all(row.endswith('|  |') for row in rows[2:])  # Nothing was measured.
    full = recipes.described(recipes.RECIPES['trades_cifar10'])
    assert 'eps = 0.031' in full
    assert 'weight decay spares' in full


# Every method and every network that the command line names.


def test_names_on_the_command_line_are_those_of_the_tables():
    assert set(typing.get_args(configuration.MethodName)) == set(choices.METHODS)
    assert set(typing.get_args(configuration.ModelName)) == set(choices.MODELS)


@pytest.mark.parametrize('name', list(choices.METHODS))
def test_every_method_takes_a_step(name):
    """Of shapes: the arithmetic of methods is tested where they are."""
    config = complete(
        Config(method=name, model='split_norm_cnn', width=0.25, label_smoothing=0.1)
    )
    model = choices.network(config, (8, 8, 1), 10)
    teacher = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w,
                                    jnp.zeros((64, 10)))  # fmt: skip
    method = choices.method(config, linf(config.eps), 10, [teacher])
    optimizer = choices.optimizer(config, 10)
    shape = (4, 8, 8, 1)
    state = jax.eval_shape(
        lambda key: training.create(
            model, optimizer, key=key, method=method, shape=shape
        ),
        KEY,
    )  # fmt: skip
    batch = {
        'image': jax.ShapeDtypeStruct(shape, jnp.float32),
        'label': jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    after, _ = jax.eval_shape(training.step, method, state, batch, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_numbers_reach_the_method():
    def of(**settings):
        config = complete(Config(dataset='cifar10', **settings))
        return choices.method(config, linf(config.eps), 100)

    assert of(method='trades').outer.beta == 6
    assert of(method='trades', beta=2.0).outer.beta == 2
    assert of(method='trades', awp=0.005).on_weights.gamma == np.float32(0.005)
    assert of(method='awp').on_weights.gamma == np.float32(0.01)
    assert of(method='awp', awp=0.1).on_weights.gamma == np.float32(0.1)
    assert of(method='pgd_at').inner.steps == 7
    assert of(method='pgd_at', attack_steps=3, attack_rate=0.5).inner.rate == 0.5
    assert of(method='free', replays=3).replays == 3
    assert of(method='advprop').inner.attacks[0].steps == 5
    assert float(of(method='grad_align').outer.coefficient) == pytest.approx(0.2)
    four = of(method='grad_align', eps=4 / 255).outer.coefficient
    assert float(four) == pytest.approx(0.02 * 10**0.5, rel=1e-5)
    assert of(method='grad_align', eps=0.3).outer.coefficient == np.float32(0.2)
    assert of(method='grad_align', beta=0.7).outer.coefficient == np.float32(0.7)
    grown = of(method='pgd_at', eps_warmup=0.5)
    radii = [float(grown.at(step).inner.ball.eps) for step in (0, 25, 50, 99)]
    np.testing.assert_allclose(radii, np.array([0, 4, 8, 8]) / 255, rtol=1e-5)


def test_schedules_and_optimizers():
    config = Config(schedule='cosine', learning_rate=0.4, rise=0.1)
    rate = choices.learning_rate(config, 100)
    assert [float(rate(s)) for s in (0, 5, 10, 55, 100)] == pytest.approx(
        [0, 0.2, 0.4, 0.2, 0], abs=1e-6
    )
    assert choices.learning_rate(Config(schedule='constant'), 9)(3) == 5e-3
    weights = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
    still = jax.tree.map(jnp.zeros_like, weights)
    for kind in ('sgd', 'nesterov'):
        config = Config(
            schedule='constant', learning_rate=0.5, optimizer=kind, weight_decay=0.1
        )
        optimizer = choices.optimizer(config, 10)
        state = optimizer.init(weights)
        updates, state = optimizer.update(still, state, weights)
        first = -0.05 * (1.9 if kind == 'nesterov' else 1)
        np.testing.assert_allclose(updates['kernel'], first, rtol=1e-6)
        np.testing.assert_array_equal(updates['bias'], 0)


def test_augmentation_keeps_its_order():
    assert choices.augmentation(Config()) is None
    x, y = jax.random.uniform(KEY, (4, 32, 32, 3)), jnp.arange(4)
    keys = jax.random.split(KEY, 4)
    ours = choices.augmentation(Config(augment=('crop', 'flip')))(keys, x, y)
    wanted = data.augment.chain(data.augment.pad_crop(4), data.augment.flip())
    np.testing.assert_array_equal(ours[0], wanted(keys, x, y)[0])
    assert choices.averaging(Config()) is None
    assert choices.averaging(Config(ema=0.9)).decay == np.float32(0.9)


def test_bfloat16_is_for_accelerators(monkeypatch):
    config = shrunk(recipes.RECIPES['fast_cifar10'])

    def network(to_train=True):
        return choices.network(config, (32, 32, 3), 10, to_train=to_train)

    assert network() is network(False)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert network() is not network(False)  # Attacked in float32.
    one, two = (jax.eval_shape(net.init, KEY) for net in (network(), network(False)))
    assert one == two


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'normalise': True}, 'model fast_mnist has no option normalise'),
        ({'bfloat16': True}, 'has no option bfloat16'),
        ({'layout': 'x', 'model': 'resnet18'}, 'resnet18 has no option layout'),
        ({'stages': 1, 'model': 'wide_resnet_10_1'}, 'has no option stages'),
        ({'method': 'advprop'}, 'model must have split normalisation for advprop'),
    ],
)
def test_networks_refuse_what_they_do_not_have(settings, words):
    with pytest.raises(ValueError, match=words):
        choices.network(Config(**settings), (32, 32, 3), 10)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'width': 0.0}, 'width must be positive'),
        ({'train_images': 0}, 'train_images must be at least 1, got 0'),
        ({'eps_warmup': 1.5}, r'eps_warmup must lie in \[0, 1\], got 1.5'),
        ({'drops': (0.5, 2.0)}, r'drops must lie in \[0, 1\], got 2.0'),
    ],
)
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        complete(Config(**settings))


def test_a_student_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match='teacher must name the run'):
        choices.method(complete(Config(method='ard')), linf(0.1), 10)


def test_a_teacher_is_the_network_of_a_run(whole, monkeypatch):
    _, run = whole
    config = dataclasses.replace(
        shrunk(recipes.RECIPES['free_cifar10']), method='rslad', teacher=(run,),
        train_images=32,
    )  # fmt: skip
    sets = fitting.load(complete(config))
    given = []

    def fit(method, *_, **__):
        given.append(method)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, 'fit', fit)
    with pytest.raises(KeyboardInterrupt):
        fitting.networks(complete(config), sets, linf(0.1), run / 'student', False)
    teacher = fitting.runs.trained(run, (32, 32, 3), 10)[0]
    shapes = [leaf.shape for leaf in jax.tree.leaves(teacher)]
    inside = [leaf.shape for leaf in jax.tree.leaves(given[0])]
    assert all(shape in inside for shape in shapes)


def test_processes_are_told_by_the_environment(monkeypatch):
    said = {}
    monkeypatch.setattr(jax.distributed, 'initialize', said.update)
    monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
    monkeypatch.setenv('JAX_PROCESS_ID', '1')
    process.join_processes()
    assert said == {'num_processes': 2, 'process_id': 1}


def test_a_preempted_command_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def stop(*_):
        raise training.Preempted(7)

    monkeypatch.setattr(train, 'main', stop)
    with pytest.raises(SystemExit) as ended:
        train.cli(['--directory', str(tmp_path)])
    assert ended.value.code == 0
    assert 'Told to stop after 7 updates' in capsys.readouterr().out
