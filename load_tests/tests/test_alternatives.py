"""The alternatives are held to the servers' contract; where one fails a check, a table says why.

A listed difference that is no longer there fails, too. A check is left out only where the code that
it is about is another alternative's, which is tried.
"""

import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from clients.client import Client
from clients.contract.checks import CHECKS, framing, isolation, leaks, resource_limits
from clients.contract.server_under_test import run_checks
from clients.system.processes import command, process_tree, run_captured, running_server
from conftest import wait_until

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "alternatives"
FLOOD = "a_flooding_client_does_not_starve_others"
THOUSAND = "a_thousand_idle_connections_stay_open"
DIFFERENCES = {
    "graceful": {
        "a_signal_ends_it_during_a_request": "it answers what was asked, and ends after --deadline",
        "sigterm_ends_it": "the same: a client does not read its replies",
    },
    "gevent_server": {
        FLOOD: "it lets the others run only where it would wait, and a client that always has "
        "something to read never makes it wait",
    },
    "selectors_loop --selector select": {
        THOUSAND: "select() takes descriptors up to 1,023 only: it rejects the other connections",
    },
    "socketserver_threads": {
        "out_of_descriptors_it_keeps_serving": "it tries accept() again at once, forever, and logs "
        "nothing: BaseServer drops the OSError (socketserver.py, _handle_request_noblock)",
        "without_a_free_descriptor_it_retries": "the same",
    },
    "thread_pool": {
        THOUSAND: "each silent client holds one of ten threads",
    },
    "uvloop_protocol": {
        "out_of_descriptors_it_keeps_serving": "it closes new connections and logs nothing: libuv "
        "keeps a spare descriptor for that (uv__emfile_trick, unix/stream.c)",
        "without_a_free_descriptor_it_retries": "the same",
        FLOOD: "libuv reads up to 32 times before it goes on to the others (uv__read, "
        "unix/stream.c), and uvloop 256 KiB each time: with 0.2 ms a greeting that takes a second",
    },
}
UNSURE = {  # checks that an alternative passes in one run, and not in another
    # It tries accept() --backlog times, and logs a traceback for each: near the bound of CPU time.
    "asyncio_protocol": {"out_of_descriptors_it_keeps_serving"},
}
if sys.version_info >= (3, 15):  # a traceback for each accept() that fails (baseserver.py): near
    UNSURE["gevent_server"] = {  # the bound of CPU time, and beyond it where tracebacks cost more
        "out_of_descriptors_it_keeps_serving",
        "without_a_free_descriptor_it_retries",
    }

ALL = set(CHECKS)
COMMON = {  # all of it is in common.py; selectors_loop is held to it
    "bad_options_get_one_clear_line",
    "it_can_restart_on_the_same_port_at_once",
    "it_logs_nothing_with_quiet",
    "its_defaults_are_127_0_0_1_port_3267_backlog_5",
    "its_first_line_is_the_listening_address",
    "the_compute_option_uses_cpu",
}
LOGS = {"it_logs_a_reset_as_a_reset", "it_logs_connections_messages_and_byte_counts"}
FULL_LOG = {"it_ends_while_its_log_is_not_read"}
SIGNALS = {"a_signal_ends_it_during_a_request", "ctrl_c_ends_it", "sigterm_ends_it"}
BACKLOG = {"it_obeys_host_and_backlog"}
WAIT = {"the_wait_option_only_sleeps", "any_byte_stream_is_greeted_with_wait_and_compute"}
GROWTH = "memory_does_not_grow_with_messages"
SLOW_READER = "a_slow_reader_gets_every_byte"
NEVER_READS = "a_client_that_never_reads_meets_backpressure"
MANY = "any_byte_stream_is_greeted_in_order"
IDLE_CPU = "an_idle_server_uses_no_cpu"
FAST = {"timeout": 1.0, "quiet_period": 0.25}  # what never comes is not waited for
LOAD = 0.25  # resets more clients than a pool has threads, and sends twice what may be kept
WORK = ["--wait", "0.001", "--compute", "0.0001"]
SERVING = {name for subject in (framing, isolation, leaks) for name in vars(subject)} & ALL
LIMITS = set(vars(resource_limits)) & ALL
WORKERS = {"it_logs_nothing_with_quiet", "its_first_line_is_the_listening_address"} | FULL_LOG
WITH_WORK = {  # in the others there is no message, one at a time, or megabytes
    "a_reset_ends_one_connection",
    "no_descriptor_thread_or_memory_leaks",
    MANY,
}
ONE_CONNECTION = {  # checks of the code that serves one connection
    "each_message_is_greeted",
    FLOOD,
    GROWTH,
    NEVER_READS,
    SLOW_READER,
}
SELECTOR = LIMITS | {MANY, IDLE_CPU, SLOW_READER, THOUSAND, "no_descriptor_thread_or_memory_leaks"}
CASES = {
    "asyncio_protocol": SERVING | LIMITS | SIGNALS | BACKLOG | LOGS | WAIT | FULL_LOG,
    "asyncio_streams": SERVING - {THOUSAND} | LOGS | WAIT,  # the others: asyncio_protocol
    "gevent_server": SERVING | LIMITS | SIGNALS | BACKLOG | WAIT,
    "graceful": SIGNALS | FULL_LOG,  # all else is in selectors_loop
    "handover": {"ctrl_c_ends_it"},  # without --control it is graceful
    "loop_per_thread": LIMITS | {"sigterm_ends_it", MANY, IDLE_CPU},  # selectors_loop
    "loop_with_pool": WAIT  # without work it is asyncio_streams
    | {
        "a_signal_ends_it_during_a_request",
        "the_compute_option_uses_cpu",
    },
    "prefork": LIMITS | SIGNALS | {MANY, IDLE_CPU} | WORKERS,
    "prefork --share exclusive": LIMITS | {MANY},
    "prefork --share reuseport": LIMITS | {MANY},
    "selectors_loop --selector epoll": ALL,
    "selectors_loop --selector poll": SELECTOR - {THOUSAND},
    "selectors_loop --selector select": SELECTOR,
    "shedding --clients 9999 --max-age 3600": set(vars(framing))
    & ALL - {SLOW_READER},  # it receives otherwise
    "socketserver_threads": SERVING | LIMITS | SIGNALS | LOGS | WAIT | FULL_LOG,
    "thread_pool": SERVING - ONE_CONNECTION | LIMITS | SIGNALS,  # converse() in common.py
    "uvloop_protocol": SERVING | LIMITS | SIGNALS | BACKLOG,  # asyncio_protocol
    # It reads again after each wait, but not while its replies cannot be sent.
    "asyncio_protocol working": WITH_WORK | {NEVER_READS, SLOW_READER},
    "asyncio_streams working": WITH_WORK,
    "gevent_server working": WITH_WORK,
    "loop_with_pool working --workers 2": WITH_WORK
    | SIGNALS
    | WORKERS
    | {"an_idle_client_does_not_block_others", "it_closes_after_a_half_close", IDLE_CPU},
    "loop_with_pool working --compute 0": WITH_WORK | {"each_message_is_greeted", IDLE_CPU},
    "selectors_loop working": WITH_WORK,
    "socketserver_threads working": WITH_WORK,
    "uvloop_protocol working": WITH_WORK,
}
# With work, these serve as selectors_loop does, and thread_pool as socketserver_threads.
SAME_WITH_WORK = {"graceful", "handover", "loop_per_thread", "prefork", "shedding", "thread_pool"}
CHATS = {"chat_loop", "chat_threads"}  # another protocol: test_under_pressure.py


@pytest.mark.parametrize("case", CASES)
def test_an_alternative_keeps_the_contract_but_for_the_listed_differences(case):
    name, *options = case.split()
    if "working" in options:
        options.remove("working")
        options = WORK + options
    listed = CASES[case] & set(DIFFERENCES.get(case, DIFFERENCES.get(name, {})))
    failed = {}
    for names, limits in ((CASES[case] - listed, {}), (listed, FAST)):
        checks = [CHECKS[name] for name in sorted(names)]
        for result in run_checks(FOLDER / f"{name}.py", checks, *options, load=LOAD, **limits):
            if result.outcome == "failed":
                failed[result.check] = result.reason
    assert set(failed) - UNSURE.get(name, set()) == listed, failed


def test_each_alternative_and_each_check_is_tried():
    programs = {path.stem for path in FOLDER.glob("*.py")} - {"common"} - CHATS
    assert programs == {case.split()[0] for case in CASES}
    working = {case.split()[0] for case in CASES if "working" in case}
    assert working == programs - SAME_WITH_WORK
    assert set(DIFFERENCES) <= programs | set(CASES)
    assert {check for listed in DIFFERENCES.values() for check in listed} <= ALL
    tried = set().union(*CASES.values())
    assert tried == ALL
    assert COMMON | LOGS | FULL_LOG | SIGNALS | BACKLOG | WAIT | WITH_WORK | ONE_CONNECTION <= ALL


# Runs a server whose accept() fails, from the second connection on, once with each of these errors.
FAILING_ACCEPT = """
import errno, os, runpy, socket, sys
errors = [errno.ECONNABORTED, errno.EPROTO, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM]
accept, accepted = socket.socket.accept, []
def failing(listener):
    if accepted and errors:
        error = errors.pop(0)
        raise OSError(error, os.strerror(error))
    accepted.append(accept(listener))
    return accepted[-1]
socket.socket.accept = failing
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("case", ["selectors_loop", "prefork --processes 1", "thread_pool"])
def test_after_errors_of_accept_a_new_connection_is_served_while_a_silent_one_stays(case):
    name, *options = case.split()
    wrapper = ("-c", FAILING_ACCEPT)
    with running_server(FOLDER / f"{name}.py", *options, wrapper=wrapper) as server:
        with Client(*server.address, timeout=30) as silent:
            silent.greet(b"first")
            with Client(*server.address, timeout=30) as new:
                assert new.greet(b"second") == b"Hello, second"
    assert 5 <= server.log().count("cannot accept") <= 6


def test_the_page_names_the_defaults_that_help_shows():
    page = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^- `(\w+\.py)`((?: `--\w+ \w+` \(default [\d.]+\))+)", page, re.MULTILINE)
    assert {program for program, _ in rows} == {"chat_loop.py", "graceful.py", "thread_pool.py"}
    for program, options in rows:
        shown = run_captured(command(FOLDER / program, "--help")).stdout
        for option, value in re.findall(r"(--\w+) \w+` \(default ([\d.]+)\)", options):
            assert re.search(rf"{option} [^(]+\(default:\s+{value}\)", shown), (option, shown)


def workers(server):
    return [one for one in process_tree(server.process) if one.pid != server.process.pid]


def test_a_prefork_worker_that_is_killed_is_replaced():
    with running_server(FOLDER / "prefork.py", "--processes", 2) as server:
        before = workers(server)
        for one in before:
            one.kill()
        psutil.wait_procs(before, 30)
        with Client(*server.address, timeout=30) as client:
            assert client.greet(b"bob") == b"Hello, bob"
        until = time.monotonic() + 30
        while len(now := set(workers(server)) - set(before)) < 2:
            assert time.monotonic() < until, now
        assert server.log().count("ended (wait status 9); starting another") == 2


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("loop_per_thread --threads 3", 3),
        ("loop_with_pool", 1),
        ("loop_with_pool --wait 0.1", 101),  # with the loop's
        ("loop_with_pool --wait 0.1 --workers 3", 4),
    ],
)
def test_there_are_as_many_threads_as_the_page_says(line, count):
    name, *options = line.split()
    with running_server(FOLDER / f"{name}.py", *options) as server:
        wait_until(
            lambda: server.process.num_threads() == count, lambda: f"{server.process.num_threads()}"
        )


def test_a_pool_of_processes_that_loses_one_ends_with_its_server_and_says_so():
    options = ("--compute", 0.001, "--workers", 3)
    with running_server(FOLDER / "loop_with_pool.py", *options) as server:
        first, *others = workers(server)
        assert len(others) == 2
        os.kill(first.pid, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGCONT)  # SIGCHLD comes of these, too
        with Client(*server.address, timeout=30) as client:
            assert client.greet(b"bob") == b"Hello, bob"
        first.kill()
        assert server.process.wait(30) == 1
        assert "a worker has ended" in server.log()
        psutil.wait_procs(others, 30)
        assert not any(one.is_running() for one in others)
