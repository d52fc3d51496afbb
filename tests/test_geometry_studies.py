"""What the geometric studies build: tasks, a bent network, networks of known rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, geometry, losses, models
from advjax.balls import linf
from experiments.frame import two_classes
from experiments.frame.work import Work
from experiments.studies.charles2019.classifiers import two_layers
from experiments.studies.geometry import spheres
from experiments.studies.geometry import two_spheres as known
from experiments.studies.tanay2016 import bent, path, tilting

KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp('work')
    with Work(folder, folder / 'shared') as opened:
        yield opened


@pytest.fixture(scope='module')
def task(work):
    return two_classes.pair(work, work.sets('digits'))


def test_a_pair_has_every_image_of_two_classes(work, task):
    sets = work.sets('digits')
    labels = np.concatenate([sets.train.labels, sets.held_out.labels])
    assert (task.y == 1).sum() == (labels == 7).sum()
    assert (task.y == -1).sum() == (labels == 3).sum()
    assert len(task.y) == len(task.x)
    assert (task.test_y == 1).sum() == (sets.test.labels == 7).sum()
    assert task.x.min() == 0
    assert task.x.max() == 1
    i, j = task.means
    np.testing.assert_allclose(j, task.x[task.y == 1].mean(axis=0))
    both = two_classes.only(sets)
    assert both.classes == 2
    assert set(both.train.labels) == {0, 1}
    assert (both.test.labels == 1).sum() == (sets.test.labels == 7).sum()
    assert np.linalg.norm(i - j) > 1


def test_a_plane_as_a_network_keeps_its_distances(task):
    plane = geometry.halfway(*task.means)
    network = two_classes.as_network(plane, task.shape)
    x = task.images(task.test_x)
    logits = network(x)
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0],
        geometry.signed_distance(plane, task.test_x),
        atol=1e-5,
    )
    wrong = two_classes.error(plane, task.test_x, task.test_y)
    assert wrong == np.mean((logits[:, 1] > 0) != (task.test_y > 0))


def test_principal_components_are_those_of_the_data(task):
    rows, sizes = tilting.components(task.x)
    expected = np.linalg.svd(task.x - task.x.mean(axis=0), compute_uv=False)
    expected = expected / np.sqrt(len(task.x))
    np.testing.assert_allclose(sizes, expected, atol=1e-6)
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-9)
    along = (task.x - task.x.mean(axis=0)) @ rows[3]
    assert along.std() == pytest.approx(sizes[3])


def test_the_bent_network_is_linear_to_fgsm_and_not_to_others(task):
    made = bent.bent_network(task, 0.1, 100.0, 0.99)
    z, b = made.direction, made.plane.normal
    assert abs(z @ b) < 1e-9
    assert abs(z @ np.sign(b)) < 1e-9
    along = (task.x - task.x.mean(axis=0)) @ z
    inside = np.abs(along) < made.tau
    assert 0.98 <= inside.mean() <= 1
    x, y = task.images(task.x[inside]), (task.y[inside] > 0).astype(int)
    # On the images: the same logits, the same gradients, the same step.
    np.testing.assert_allclose(made.network(x), made.linear(x), atol=1e-5)
    fgsm = attacks.fgsm(linf(0.1, bounds=None))
    steps = [f.astype(jnp.float32) for f in (
        fgsm(made.network, KEY, x, y), fgsm(made.linear, KEY, x, y))]  # fmt: skip
    np.testing.assert_array_equal(*steps)
    np.testing.assert_allclose(made.network(steps[0]), made.linear(steps[0]), atol=1e-4)
    # A step along z of three times tau turns answers that are not far away.
    turn = np.where(y > 0, -1, 1)[:, None] * (made.tau + 0.1) * z
    moved = x + turn.reshape(x.shape).astype(np.float32)
    assert (losses.margin(made.network(moved), y) > 0).mean() > 0.95


def test_bright_halves_have_no_adversarial_examples():
    toy = bent.halves((28, 28, 1), 100)
    plane = geometry.nearest_centroid(toy.x[toy.y < 0], toy.x[toy.y > 0])
    assert bent.certain(plane, toy, 0.2) == 1
    assert bent.certain(plane, toy, 0.3) == 0
    assert geometry.strength(plane, *toy.means) == pytest.approx(1)


def test_the_path_is_recorded_as_it_is(work, task):
    found = path.regularisation_path(work, task, (1e-2, 1.0), 500)
    for plane, error, strength, degrees in zip(
        found.planes, found.test_error, found.strength, found.degrees, strict=True
    ):
        right = task.test_y * geometry.signed_distance(plane, task.test_x) > 0
        assert error == pytest.approx(1 - right.mean())
        assert strength == pytest.approx(1 / np.cos(np.radians(degrees)))
    assert found.test_error[found.best] == found.test_error.min()


def test_two_layers_are_homogeneous():
    model = two_layers((4, 4, 1), 8)
    params, state = model.init(KEY)
    f = models.logits_fn(model, params, state)
    x = jax.random.normal(KEY, (5, 4, 4, 1))
    np.testing.assert_allclose(f(3 * x), 3 * f(x), rtol=1e-4, atol=1e-5)
    assert (f(-x) != -f(x)).any(), 'but not linear'


@pytest.mark.parametrize(('count', 'error'), [(1, 1e-2), (5, 1e-6)])
def test_quadratic_networks_of_a_given_rate(count, error):
    alphas = spheres.quadratic_network(50, count, error)
    assert known.exact_error(alphas) == pytest.approx(error, rel=1e-6)
    assert (alphas > 1).sum() == count


def test_errors_are_counted_on_common_points():
    every = [spheres.quadratic_network(30, 3, rate) for rate in (1e-1, 1e-2)]
    seen = spheres.errors_seen([known.quadratic(a) for a in every], 30, 1.0, 20_000)
    np.testing.assert_allclose(seen, [2000, 200], atol=4 * np.sqrt([1800, 198]).max())
    found = spheres.distance_found(known.quadratic(every[0]), 30, 1.0, 64)
    assert found.mean() == pytest.approx(known.exact_distance(every[0]), rel=0.3)
