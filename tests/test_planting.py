"""Adding an attack or a method takes as many files as CONTRIBUTING.md says."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

MOST = 3


def diffs():
    """The diffs of CONTRIBUTING.md, each a list of (path, is new, hunks)."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    found = []
    for block in re.findall(r'```diff\n(.*?)```', text, re.S):
        files = []
        for part in re.split(r'^--- ', block, flags=re.M)[1:]:
            head, rest = part.split('\n', 1)
            target, rest = rest.split('\n', 1)
            hunks = [h.split('\n')[1:] for h in re.split(r'^@@', rest, flags=re.M)[1:]]
            path = target.removeprefix('+++ b/')
            files.append((path, head == '/dev/null', [[*h[:-1]] for h in hunks]))
        found.append(files)
    return found


def plant(files, folder):
    """Applies a diff; every line of context must stand in the file, in order."""
    for path, new, hunks in files:
        if new:
            lines = [line[1:] for hunk in hunks for line in hunk]
            (folder / path).write_text('\n'.join(lines) + '\n')
            continue
        lines = (folder / path).read_text().split('\n')
        for hunk in hunks:
            context = [line[1:] for line in hunk if line.startswith(' ')]
            (at,) = [
                i for i in range(len(lines)) if lines[i : i + len(context)] == context
            ]
            lines[at : at + len(context)] = [line[1:] for line in hunk]
        (folder / path).write_text('\n'.join(lines))


CHECK = {
    'attack': """
from advjax import attacks, testing
from tests import contract

new = [e for e in attacks.catalogue() if e.name == 'heavy_ball']
assert new[0].factory is attacks.heavy_ball
cases = [c for c in contract.listed(attacks.catalogue()) if 'heavy_ball' in c.name]
assert len(cases) == 4, cases
for law in testing.LAWS:
    for case in cases[:2]:
        case.check(law)
from advjax.attacks.entry import markdown
assert '| `heavy_ball` | Linf, L2, L1, L0 |' in markdown(attacks.catalogue())
threat = attacks.ThreatModel(capability=attacks.Capability('l2', 0.5))
assert 'heavy_ball' in threat.attacks()
""",
    'method': """
from advjax import testing, training
from advjax.training import entries
from experiments.commands import choices, configuration
from experiments.commands.compare_methods import methods
from experiments.frame.counting import gradient_evaluations

entry = training.catalogue()[-1]
assert entry.factory is training.worst_half
assert '| `worst_half` | `worst_half` |' in entries.table()
wanted = configuration.Config(method='worst_half', attack_steps=3)
config = configuration.complete(wanted)
assert choices.method(config, 0.1, 10).inner.steps == 3
row = methods.chosen('worst_half')[-1]
assert row.title == 'worst half' and row.defends
assert row.build(methods.Setting(0.1, 5), {}).inner.steps == 5
assert gradient_evaluations(lambda _: entry.build(0.1, 3)) == entry.gradients(3) == 4
testing.check_method(entry.build())
""",
}


@pytest.mark.parametrize('kind', CHECK)
def test_what_is_planted_obeys_the_laws(kind, tmp_path):
    files = diffs()[list(CHECK).index(kind)]
    assert len(files) <= MOST
    for folder in ('advjax', 'tests'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for folder in ('experiments', 'README.md'):
        (tmp_path / folder).symlink_to(ROOT / folder)
    plant(files, tmp_path)
    done = subprocess.run(
        [sys.executable, '-c', CHECK[kind]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_diff_that_does_not_fit_is_noticed(tmp_path):
    (tmp_path / 'a.py').write_text('one\ntwo\n')
    plant([('a.py', False, [[' one', '+new', ' two']])], tmp_path)
    assert (tmp_path / 'a.py').read_text() == 'one\nnew\ntwo\n'
    with pytest.raises(ValueError, match='unpack'):
        plant([('a.py', False, [[' three', '+new']])], tmp_path)
