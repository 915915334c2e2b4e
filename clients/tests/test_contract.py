"""Every model is held to every claim of the contract.

That each claim can fail, the deliberate faults prove: see test_break_it.py.
"""

import pytest

from clients.contract.candidate import hold, judge
from clients.contract.claims import CLAIMS
from clients.contract.terms import NotApplicable
from clients.system import launch


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claim(model, claim):
    _, program = model
    try:
        hold(program, claim)
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("was", "now", "claim", "words"),
    [
        (
            'logging.info("stopped")',
            'logging.exception("stopped")',
            "ctrl_c_ends_it",
            "after SIGINT: a traceback in the log. Its last words: ",
        ),
        (
            "signal.default_int_handler",
            "signal.SIG_DFL",
            "sigterm_ends_it",
            "after SIGTERM: exit status -15 instead of 0. Its last words: ",
        ),
        (
            'default="127.0.0.1"',
            'default="127.0.0.2"',
            "its_defaults_are_127_0_0_1_port_3267_and_backlog_5",
            "the host without --host: expected '127.0.0.1', found '127.0.0.2'",
        ),
        (
            'level="WARNING" if args.quiet else "INFO"',
            'level="INFO"',
            "when_quiet_it_logs_nothing",
            "the log with --quiet: expected '', found ",
        ),
    ],
)
def test_what_is_broken_is_called_by_its_name(tmp_path, was, now, claim, words):
    source = launch.find("01_blocking").read_text()
    assert was in source
    program = tmp_path / "server.py"
    program.write_text(source.replace(was, now))
    verdict, why = judge(program, CLAIMS[claim], patience=5.0)
    assert verdict == "broken"
    assert why.startswith(words)
