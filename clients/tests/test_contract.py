"""Every model passes every check of the contract.

That each check can fail is proved by the mutants: see test_break_it.py.
"""

import functools
import json
import re
import resource
import time
from pathlib import Path

import pytest

from clients.contract.checks import CHECKS, isolation
from clients.contract.checks.resource_limits import limit
from clients.contract.server_under_test import ServerUnderTest, run_check, run_checks
from clients.system import processes
from clients.system.procfs import thread_state
from conftest import cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results_of(request):
    """Return results_of(a model's name): {check's name: CheckResult} of the tests of this run.

    The checks of a model are run together: they share servers.
    """

    @functools.cache
    def results_of(name):
        tests = [item for item in request.session.items if item.originalname == "test_check"]
        chosen = [test.callspec.params for test in tests]
        checks = [CHECKS[params["check"]] for params in chosen if params["name"] == name]
        return {one.check: one for one in run_checks(processes.models()[name], checks)}

    return results_of


MODELS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"contract {name}"))
    for name in processes.models()
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", MODELS)
def test_check(results_of, name, check):
    result = results_of(name)[check]
    if result.outcome == "not applicable":
        pytest.skip(result.reason)
    assert result.outcome == "passed", result.reason


SAID = 'logging.info("%s:%d said %r", *remote, chunk)'
FAILURES = {  # name: (model, text in its server, what replaces it, check, reason)
    "traceback": (
        "01_blocking",
        "(signal.SIGINT, signal.SIGTERM)",
        "(signal.SIGTERM,)",
        "ctrl_c_ends_it",
        "after SIGINT: a traceback in the log: KeyboardInterrupt",
    ),
    "exit status": (
        "01_blocking",
        "lambda *_: os._exit(0)",
        "signal.SIG_DFL",
        "sigterm_ends_it",
        "after SIGTERM: exit status -15, the end of its log: ",
    ),
    "default": (
        "01_blocking",
        'default="127.0.0.1"',
        'default="127.0.0.2"',
        "its_defaults_are_127_0_0_1_port_3267_backlog_5",
        "the host without --host: expected '127.0.0.1', found '127.0.0.2'",
    ),
    "quiet": (
        "01_blocking",
        'level="WARNING" if args.quiet else "INFO"',
        'level="INFO"',
        "it_logs_nothing_with_quiet",
        "the log with --quiet: expected '', found ",
    ),
    "a crash, not its consequences": (
        "01_blocking",
        SAID,
        "logging.info(chunks)",
        "an_idle_client_does_not_block_others",
        "the server crashed: NameError: name 'chunks' is not defined",
    ),
    "the exception of a thread": (
        "02_threaded",
        SAID,
        "logging.info(chunks)",
        "each_message_is_greeted",
        "sent b'bob': expected b'Hello, bob', received b'' and end of file. "
        "The last exception in its log: NameError: name 'chunks' is not defined",
    ),
    "the first wrong byte of a long reply": (
        "01_blocking",
        'return b"Hello, " + chunk',
        'return b"Hello, " + (chunk if len(chunk) < 500 else chunk.replace(b"ABC", b"ABc"))',
        "each_message_is_greeted",
        r"received 507, which differ from byte \d+ on: b'CDEFGHIJKLMNOPQRSTUV' and "
        "b'cDEFGHIJKLMNOPQRSTUV'",
    ),
    "two sends of one reply": (
        "01_blocking",
        "conn.sendall(greet(chunk))",
        'conn.sendall(b"Hello, ")\n                conn.sendall(chunk)',
        "memory_does_not_grow_with_messages",
        r"not done within \d+ s: \d+ replies took [45]\d ms each \(median\); 40 ms is",
    ),
    "a connection that is closed after a reply": (
        "02_threaded",
        "while chunk := conn.recv(1024):",
        "if chunk := conn.recv(1024):",
        "no_descriptor_thread_or_memory_leaks",
        "sent b'and keep this connection'",
    ),
    "a thread of a connection that is closed after a reply": (
        "02_threaded",
        "while chunk := conn.recv(1024):",
        "if chunk := conn.recv(1024):",
        "out_of_threads_it_keeps_serving",
        "sent b'and keep this connection, or the count is wrong'",
    ),
    "an option": (
        "01_blocking",
        "except (OSError, OverflowError, TypeError)",
        "except (OSError, TypeError)",
        "bad_options_get_one_clear_line",
        "--port 65536: expected one line on standard error",
    ),
}


@pytest.mark.parametrize(
    ("name", "before", "after", "check", "reason"), FAILURES.values(), ids=FAILURES
)
def test_a_failed_check_says_what_is_wrong(tmp_path, name, before, after, check, reason):
    source = processes.find_server(name).read_text()
    assert before in source
    program = tmp_path / "server.py"
    program.write_text(source.replace(before, after))
    result = run_check(program, CHECKS[check], timeout=2.0, quiet_period=1.0)
    assert (result.check, result.outcome) == (check, "failed")
    assert re.search(reason if "\\d" in reason else re.escape(reason), result.reason), result.reason


@pytest.mark.parametrize(
    "check", ["any_byte_stream_is_greeted_in_order", "memory_does_not_grow_with_messages"]
)
def test_a_check_has_a_deadline_and_reports_it(check):
    began, limits = time.monotonic(), {"timeout": 0.8, "quiet_period": 0.1}
    result = run_check(processes.find_server("02_threaded"), CHECKS[check], "--wait", 0.5, **limits)
    assert result.outcome == "failed"
    assert result.reason.startswith("not done within 4.5 s: ")
    assert time.monotonic() - began < 60  # it would take hours


def test_a_crash_is_named_once(tmp_path):
    program = tmp_path / "server.py"
    source = processes.find_server("03_epoll").read_text()
    program.write_text(source.replace("bytes_received += len(chunk)", "bytes_received += length"))
    done = cli("clients.contract", program, *list(CHECKS)[:3], "--timeout", 1)
    assert done.stdout.count("the server crashed: NameError: name 'length' is not defined") == 1
    assert done.stdout.count("the same crash") == 2
    assert "0 passed, 3 failed" in " ".join(done.stdout.split())  # a long path breaks the line


FORKS = """
import os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
print("listening on %s:%d" % listener.getsockname(), flush=True)
while True:
    conn, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        while chunk := conn.recv(1024):
            conn.sendall(b"Hello, " + chunk)
        os._exit(0)
    conn.close()
"""


def test_a_child_that_still_serves_does_not_prevent_a_restart(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(FORKS)
    limits = {"timeout": 5.0, "quiet_period": 0.4}
    result = run_check(program, CHECKS["it_can_restart_on_the_same_port_at_once"], **limits)
    assert result.outcome == "passed", result.reason
    result = run_check(program, CHECKS["sigterm_ends_it"], timeout=1.0, quiet_period=0.4)
    assert "after SIGTERM: all its processes ended" in result.reason


@pytest.mark.parametrize(
    ("name", "outcome"), [("01_blocking", "not applicable"), ("03_epoll", "passed")]
)
def test_a_short_accept_queue_of_the_kernel_is_no_failure(monkeypatch, name, outcome):
    monkeypatch.setattr(isolation, "accept_queue_limit", lambda backlog: 129)
    check = CHECKS["a_thousand_idle_connections_stay_open"]
    result = run_check(processes.find_server(name), check, quiet_period=0.4)
    assert result.outcome == outcome, result.reason


def test_a_server_that_reports_the_port_of_another_program_fails(tmp_path, serve):
    port = serve("02_threaded").address[1]
    program = tmp_path / "server.py"
    program.write_text(
        f"import time\nprint('listening on 127.0.0.1:{port}', flush=True)\ntime.sleep(60)"
    )
    result = run_check(program, CHECKS["its_first_line_is_the_listening_address"])
    assert result.outcome == "failed"
    assert result.reason == f"it reports that it listens on port {port}, but another program does"


ACCEPTS_IN_MANY_THREADS = """
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


def test_sigstopped_stops_every_thread(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(ACCEPTS_IN_MANY_THREADS)
    with processes.running_server(program) as server:
        for _ in range(20):
            with ServerUnderTest(server).sigstopped():
                tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
                states = [thread_state(task) for task in tasks]
            assert len(states) == 401
            assert set(states) == {"T"}


@pytest.mark.parametrize(
    ("number", "value"), [(resource.RLIMIT_NOFILE, 400), (resource.RLIMIT_AS, 2**30)]
)
def test_no_check_raises_a_hard_limit_which_only_root_may(number, value):
    with processes.spawn(["sleep", "60"]) as process:
        process.rlimit(number, (value // 2, value))
        for wanted, soft in ((2, 1), (1 / 4, 1 / 4), (1 / 2, 1 / 2)):
            limit(process, number, int(wanted * value))
            assert process.rlimit(number) == (soft * value, value)


def test_a_server_of_another_user_is_no_failure(other_user):
    wrapper, program = other_user
    names = "no_descriptor_thread_or_memory_leaks", "out_of_threads_it_keeps_serving"
    done = cli("clients.contract", program, *names, "--json", wrapper=wrapper)
    for result in json.loads(done.stdout)["checks"]:
        assert result["outcome"] == "not applicable"
        assert result["reason"].startswith("the server belongs to another user (")
