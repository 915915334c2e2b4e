"""Every model is held to every claim of the contract.

That each claim can fail, the deliberate faults prove: see test_break_it.py.
"""

import pytest

from clients.contract import claims


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.__name__)
def test_claim(model, claim):
    _, program = model
    try:
        claims.hold(program, claim)
    except claims.NotApplicable as reason:
        pytest.skip(str(reason))
