"""Every model is held to every claim of the contract.

That each claim can fail, the deliberate faults prove: see test_break_it.py.
"""

import contract
import pytest


@pytest.mark.parametrize("claim", contract.CLAIMS, ids=lambda claim: claim.__name__)
def test_claim(model, claim):
    _, program = model
    try:
        contract.hold(program, claim)
    except contract.NotApplicable as reason:
        pytest.skip(str(reason))
