"""Every attack satisfies every law."""

import pytest

from tests import contract


# All laws of one attack in a row: they share its program.
@pytest.mark.parametrize('law', contract.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize('case', contract.CASES, ids=lambda case: case.name)
def test_contract(case, law):
    case.check(law)
