"""Every attack satisfies every clause of the contract."""

import pytest

from tests import contract


@pytest.mark.parametrize('case', contract.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize('check', contract.CHECKS, ids=lambda check: check.__name__)
def test_contract(check, case):
    check(case)
