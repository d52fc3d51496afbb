"""Every attack satisfies every law."""

import pytest

from tests import contract


@pytest.mark.parametrize('case', contract.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize('law', contract.LAWS, ids=lambda law: law.__name__)
def test_contract(law, case):
    case.check(law)
