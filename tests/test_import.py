"""Importing advjax is quick and touches no device."""

import statistics
import subprocess
import sys


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
