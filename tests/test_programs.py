"""A long process lets compiled programs go."""

import jax
import jax.numpy as jnp

from advjax import programs


def test_programs_are_let_go_when_maps_run_out(monkeypatch, tmp_path):
    maps, most = tmp_path / 'maps', tmp_path / 'most'
    monkeypatch.setattr(programs, '_MAPS', maps)
    monkeypatch.setattr(programs, '_MOST', most)
    traced = []
    f = jax.jit(lambda x: traced.append(1) or x + 1)

    def let_go():
        found = programs.let_go()
        f(jnp.zeros(3))
        return found, len(traced)

    assert let_go() == (False, 1)  # No such files, as on other systems.
    most.write_text('100\n')
    maps.write_text('a map\n' * 59)
    assert let_go() == (False, 1)
    maps.write_text('a map\n' * 61)
    assert let_go() == (True, 2)
    most.write_text('many')
    assert let_go() == (False, 2)
