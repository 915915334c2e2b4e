"""The peers are held to the contract of the servers; where one does not keep it, a table says why.

A difference that is listed and not there any more fails, too. Most of the time of a claim is
waiting, so the claims on a peer are tried eight at a time.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.contract.checks import CHECKS
from clients.contract.server_under_test import run_check

PEERS_FOLDER = Path(__file__).parent.parent / "alternatives"

GREEDY = "a_flooding_client_does_not_starve_others"
DIFFERENCES = {
    "gevent_server": {
        GREEDY: "it lets the others run only where it would wait, and who always has something to "
        "read never makes it wait",
    },
    "socketserver_threads": {
        "out_of_descriptors_it_keeps_serving": "it retries accept() without a pause, and logs "
        "nothing: BaseServer drops the OSError (socketserver.py, _handle_request_noblock)",
        "without_a_free_descriptor_it_retries": "the same",
    },
    "thread_pool": {
        "a_thousand_idle_connections_stay_open": "each idle client occupies one of ten threads",
    },
    "uvloop_protocol": {
        "out_of_descriptors_it_keeps_serving": "newcomers are turned away without a word: libuv "
        "keeps a spare descriptor to accept and close them (uv__emfile_trick, unix/stream.c)",
        "without_a_free_descriptor_it_retries": "the same",
        GREEDY: "libuv reads up to 32 times before it goes on to the others (uv__read, "
        "unix/stream.c), and uvloop 256 KiB each time: with 0.2 ms a greeting that takes a second",
    },
}
UNSURE = {}  # claims that a peer keeps in one run, and not in another
if sys.version_info >= (3, 15):  # a traceback for each accept() that fails (baseserver.py): near
    UNSURE["gevent_server"] = {  # the bound of CPU time, and beyond it where tracebacks cost more
        "out_of_descriptors_it_keeps_serving",
        "without_a_free_descriptor_it_retries",
    }
OPTIONS = {
    "selectors_loop": [["--selector", name] for name in ("select", "poll", "epoll")],
    "loop_with_pool": [["--pool", "threads"], ["--pool", "processes", "--workers", "2"]],
}
PEERS = [
    pytest.param(path, options, id=" ".join([path.stem, *options[1:]]))
    for path in sorted(PEERS_FOLDER.glob("*.py"))
    if path.stem != "common"
    for options in OPTIONS.get(path.stem, [[]])
]


@pytest.mark.parametrize(("program", "options"), PEERS)
def test_a_peer_keeps_the_contract_but_for_the_listed_differences(program, options):
    listed = DIFFERENCES.get(program.stem, {})

    def checked(name):
        limits = {"timeout": 2.0} if name in listed else {}  # it will time out
        return run_check(program, CHECKS[name], *options, **limits)

    with ThreadPoolExecutor(8) as pool:
        results = [*pool.map(checked, CHECKS)]
    broken = {one.check: one.reason for one in results if one.outcome == "failed"}
    assert set(broken) - UNSURE.get(program.stem, set()) == set(listed), broken


def test_each_listed_difference_is_of_a_peer_and_a_claim():
    assert set(DIFFERENCES) <= {path.stem for path in PEERS_FOLDER.glob("*.py")}
    names = {name for listed in DIFFERENCES.values() for name in listed}
    assert names <= set(CHECKS)
