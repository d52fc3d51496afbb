"""Importing advjax is quick, touches no device, and goes in no circle."""

import ast
import statistics
import subprocess
import sys

from tests.conftest import ROOT


def seconds(module):
    code = f'import time; t = time.perf_counter(); import {module}; ' + (
        'print(time.perf_counter() - t)'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    return float(out.stdout)


def test_import_takes_little_longer_than_jax():
    seconds('advjax')  # Warms the file cache.
    ours, theirs = (
        statistics.median(seconds(m) for _ in range(3)) for m in ('advjax', 'jax')
    )
    assert ours - theirs <= 1.5


def test_every_room_together_takes_little_longer_than_jax():
    rooms = 'advjax.attacks, advjax.evaluation, advjax.models, advjax.training'
    assert seconds(rooms) - seconds('jax') <= 3.0


def test_import_touches_no_device_and_no_heavy_package():
    code = """
import advjax, sys
for room in advjax.__all__:
    getattr(advjax, room)
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'matplotlib', 'jinja2', 'tyro',
         'tqdm', 'orbax.checkpoint.v1', 'grain', 'PIL'}
print(sorted(heavy & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    # flax itself brings some of them; advjax adds none.
    flax = subprocess.run(
        [
            sys.executable,
            '-c',
            'import flax.nnx, optax, sys; print(sorted(sys.modules))',
        ],
        capture_output=True,
        text=True,
    )
    ours = set(eval(out.stdout)) - set(eval(flax.stdout))
    assert ours == set()


def test_every_public_name_exists():
    import advjax

    for name in advjax.__all__:
        room = getattr(advjax, name)
        for inner in getattr(room, '__all__', ()):
            assert hasattr(room, inner), f'{name}.{inner}'
    assert set(advjax.__all__) <= set(dir(advjax))


def _at_import(body):
    """The import statements of a module that run when it is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and 'TYPE_CHECKING' not in ast.unparse(node.test):
            yield from _at_import([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _at_import([*node.body, *node.orelse, *node.finalbody])


def _imports(rooms):
    """{module: the modules of these rooms that it imports}, by their names."""
    paths = [path for room in rooms for path in (ROOT / room).rglob('*.py')]
    trees = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        trees[name] = ast.parse(path.read_text())
    return {
        name: {
            found
            for node in _at_import(tree.body)
            for alias in node.names
            for found in [
                alias.name
                if isinstance(node, ast.Import)
                else f'{node.module}.{alias.name}'
                if f'{node.module}.{alias.name}' in trees
                else node.module
            ]
            if found in trees
        }
        for name, tree in trees.items()
    }


def _circle(graph):
    """Modules of which each imports the next, and the last the first; or nothing."""
    done, way = set(), []

    def visit(name):
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        way.append(name)
        for other in sorted(graph[name]):
            if circle := visit(other):
                return circle
        done.add(way.pop())
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name))), [])


def test_no_modules_import_each_other():
    assert _circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c']
    graph = _imports(('advjax', 'experiments'))
    assert 'experiments.frame.findings' in graph['experiments.frame.study']
    assert _circle(graph) == []


def test_the_frame_knows_no_study():
    for name, found in _imports(('experiments',)).items():
        if name.startswith('experiments.frame'):
            rooms = ('experiments.studies', 'experiments.commands')
            assert not [other for other in found if other.startswith(rooms)], name
