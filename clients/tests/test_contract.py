"""Every model is held to every claim of the contract.

That each claim can fail, the deliberate faults prove: see test_break_it.py.
"""

import resource
import time
from pathlib import Path

import pytest

from clients.contract import __main__ as command
from clients.contract.checks import CLAIMS
from clients.contract.checks.resource_limits import limit
from clients.contract.errors import Broken, NotApplicable
from clients.contract.server_under_test import Candidate, hold, judge
from clients.system import processes
from clients.system.procfs import state


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
    source = processes.find("01_blocking").read_text()
    assert was in source
    program = tmp_path / "server.py"
    program.write_text(source.replace(was, now))
    verdict, why = judge(program, CLAIMS[claim], patience=5.0)
    assert verdict == "broken"
    assert why.startswith(words)


@pytest.mark.parametrize(
    "claim", ["any_bytes_cut_anyhow_come_back_whole_and_in_order", "what_was_answered_is_forgotten"]
)
def test_a_claim_has_a_bound_in_time_and_says_when_it_is_met(claim):
    began, limits = time.monotonic(), {"patience": 0.8, "a_while": 0.1}
    with pytest.raises(Broken, match=r"not done within 4\.5 s, the bound of a claim"):
        hold(processes.find("02_threaded"), CLAIMS[claim], "--wait", 0.5, **limits)
    assert time.monotonic() - began < 60  # it would take hours


def test_the_whole_has_a_bound_in_time_and_says_when_it_is_met(monkeypatch):
    monkeypatch.setattr(command, "WHOLE", 1e-9)
    results = command.judge_all(processes.find("02_threaded"), [*CLAIMS][:2], 5.0, None)
    assert [one["verdict"] for one in results] == ["not tried", "not tried"]
    assert results[0]["why"] == "5e-09 s, the bound of the whole, are over"
    assert command.report("02_threaded", results, None) == 1


def test_a_server_that_names_the_port_of_another_program_is_caught(tmp_path, serve):
    port = serve("02_threaded").address[1]
    program = tmp_path / "server.py"
    program.write_text(
        f"import time\nprint('listening on 127.0.0.1:{port}', flush=True)\ntime.sleep(60)"
    )
    verdict, why = judge(program, CLAIMS["its_first_line_says_where_it_listens"])
    assert (verdict, why) == (
        "broken",
        f"it says that it listens on port {port}, but another program does",
    )


MANY_ACCEPT = """
import socket, threading
def serve():
    while True:
        with listener.accept()[0]:
            pass
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(400):
    threading.Thread(target=serve, daemon=True).start()
print("listening on %s:%d" % listener.getsockname(), flush=True)
serve()
"""


def test_a_frozen_server_accepts_with_none_of_its_threads(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(MANY_ACCEPT)
    with processes.running_server(program) as server:
        candidate = Candidate(**vars(server))
        for _ in range(20):
            with candidate.frozen():
                tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
                states = [state(task) for task in tasks]
            assert len(states) == 401
            assert set(states) == {"T"}


@pytest.mark.parametrize(
    ("what", "some"), [(resource.RLIMIT_NOFILE, 400), (resource.RLIMIT_AS, 2**30)]
)
def test_no_claim_raises_a_hard_limit_which_root_alone_may(what, some):
    with processes.spawn(["sleep", "60"]) as process:
        process.rlimit(what, (some // 2, some))
        for most, now in ((2 * some, some), (some // 4, some // 4), (some // 2, some // 2)):
            limit(process, what, most)
            assert process.rlimit(what) == (now, some)
