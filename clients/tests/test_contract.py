"""Every model is held to every claim of the contract.

That each claim can fail, the deliberate faults prove: see test_break_it.py.
"""

import pytest

from clients.contract.claims import CLAIMS
from clients.contract.judge import hold
from clients.contract.terms import NotApplicable


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claim(model, claim):
    _, program = model
    try:
        hold(program, claim)
    except NotApplicable as reason:
        pytest.skip(str(reason))
