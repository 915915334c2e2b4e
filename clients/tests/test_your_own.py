"""One command checks a server of the reader's own, and tests find it in its folder."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from clients import break_it
from clients.contract.checks import CHECKS
from clients.system import processes

pytestmark = pytest.mark.slow

PERL = """#!/usr/bin/env perl
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 5) or die;
$| = 1;
print "listening on 127.0.0.1:", $socket->sockport, "\\n";
while (my $client = $socket->accept) {
    while (sysread($client, my $chunk, 1024)) { syswrite($client, "Hello, $chunk") }
    close $client;
}
"""


def run(*words, cwd=None):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def contract(*words):
    return run("-m", "clients.contract", *words)


# The command


def test_it_prints_a_line_per_check_and_exits_0_if_none_failed():
    done = contract("02_threaded", "each_message_is_greeted", "sigterm_ends_it")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^passed +(\w+)$", done.stdout, re.MULTILINE) == [
        "each_message_is_greeted",
        "sigterm_ends_it",
    ]
    assert "2 passed, 0 failed, 0 not applicable\n" in done.stdout


def test_a_failure_says_what_was_sent_expected_and_received_in_80_columns():
    mutant = break_it.mutants_of(processes.find_server("02_threaded"))["echo-after-reply"]
    with mutant.written() as copy:
        done = contract(copy, "sigterm_ends_it", "each_message_is_greeted")
    assert done.returncode == 1
    assert "failed          each_message_is_greeted" in done.stdout
    text = " ".join(done.stdout.split())
    assert "sent b'x': expected b'Hello, x', received b'bobHello'" in text
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_check_that_is_not_applicable_has_not_failed():
    done = contract("01_blocking", "out_of_threads_it_keeps_serving", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "schema": 2,
        "server": "01_blocking",
        "passed": True,
        "error": "",
        "checks": [
            {
                "check": "out_of_threads_it_keeps_serving",
                "outcome": "not applicable",
                "reason": "it starts no thread for a client",
            }
        ],
    }


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl here")
def test_a_server_in_another_language_is_checked(tmp_path):
    program = tmp_path / "server"
    program.write_text(PERL)
    program.chmod(0o755)
    done = contract(program, "each_message_is_greeted", "sigterm_ends_it", "--json")
    assert done.returncode == 1
    outcomes = {one["check"]: one["outcome"] for one in json.loads(done.stdout)["checks"]}
    assert outcomes == {"each_message_is_greeted": "passed", "sigterm_ends_it": "failed"}


def test_a_server_that_never_listens_is_reported_once(tmp_path):
    program = tmp_path / "ill.py"
    program.write_text("raise SystemExit('I am ill')")
    done = contract(program, "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["passed"]
    assert "I am ill" in json.loads(done.stdout)["error"]
    done = contract(tmp_path / "missing")
    assert done.returncode == 1
    assert re.fullmatch(r"no server \S+: name one of .*\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["it_flies"], "no check it_flies"),
        (["--timeout", "nan", "sigterm_ends_it"], "expected a number from 0.1 to 3600, not 'nan'"),
    ],
)
def test_it_rejects_unknown_checks_and_bad_options(words, answer):
    done = contract("01_blocking", *words)
    assert done.returncode == 2
    assert answer in done.stderr


def test_the_page_lists_every_check_in_order_below_its_file():
    page = (processes.ROOT / "clients" / "CONTRACT.md").read_text()
    named, file = {}, None
    pattern = r"^### .*\(contract/checks/(\w+)\.py\)|^- `(\w+)`"
    for subject, name in re.findall(pattern, page, re.MULTILINE):
        if subject:
            file = f"clients.contract.checks.{subject}"
        else:
            named[name] = file
    assert list(named) == list(CHECKS)
    assert named == {name: function.__module__ for name, function in CHECKS.items()}


# The folder


@pytest.fixture
def with_mine(tmp_path):
    """Return a copy of what the contract's tests need, with a 04_mine/server.py."""
    for name in ("01_blocking", "02_threaded", "03_epoll", "clients"):
        shutil.copytree(processes.ROOT / name, tmp_path / name)
    for name in ("conftest.py", ".pytest.ini"):
        shutil.copy(processes.ROOT / name, tmp_path)
    shutil.copytree(processes.ROOT / "02_threaded", tmp_path / "04_mine")
    (tmp_path / "04_mine" / "test_threaded.py").unlink()
    return tmp_path


def test_a_new_folder_is_found_and_every_check_runs_for_it(with_mine):
    wrong = with_mine / "05_wrong" / "server.py"
    shutil.copytree(with_mine / "04_mine", wrong.parent)
    wrong.write_text(wrong.read_text().replace('b"Hello, "', 'b"Hullo, "'))
    pytest_there = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "clients/tests/test_contract.py",
    ]
    listed = run(*pytest_there, "--collect-only", cwd=with_mine).stdout
    for check in CHECKS:
        assert f"test_check[04_mine-{check}]" in listed

    both = "(04_mine or 05_wrong) and each_message_is_greeted"
    done = run(*pytest_there, "-k", both, cwd=with_mine)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "FAILED clients/tests/test_contract.py::test_check[05_wrong-" in done.stdout


def test_the_check_on_the_page_runs(with_mine):
    page = (processes.ROOT / "clients" / "CONTRACT.md").read_text()
    written = re.search(r"```python\n(@check.*?)```", page, re.DOTALL)[1]
    name = re.search(r"def (\w+)", written)[1]
    with open(with_mine / "clients" / "contract" / "checks" / "isolation.py", "a") as file:
        file.write(f"\n\n{written}")
    for server, outcome in (("01_blocking", "failed"), ("04_mine", "passed")):
        done = run("-m", "clients.contract", server, "--timeout", 1, name, cwd=with_mine)
        assert done.stdout.startswith(outcome), done.stdout + done.stderr
