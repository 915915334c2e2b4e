"""A server of one's own is held to the contract by one command, and is found in its folder."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from clients import break_it
from clients.contract.checks import CLAIMS
from clients.system import processes

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


def check(*words):
    return run("-m", "clients.contract", *words)


# The command


def test_it_prints_a_line_a_claim_and_exits_0_if_all_hold():
    done = check("02_threaded", "each_message_is_greeted", "sigterm_ends_it")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^held +(\w+)$", done.stdout, re.MULTILINE) == [
        "each_message_is_greeted",
        "sigterm_ends_it",
    ]
    assert "2 held, 0 broken, 0 not applicable" in done.stdout


def test_what_is_broken_says_what_was_sent_expected_and_received_in_80_columns():
    fault = break_it.faults_of(processes.find("02_threaded"))["said-twice"]
    with fault.copied() as copy:
        done = check(copy, "sigterm_ends_it", "each_message_is_greeted")
    assert done.returncode == 1
    assert "BROKEN  each_message_is_greeted" in done.stdout
    told = " ".join(done.stdout.split())
    assert "sent b'x', expected b'Hello, x', received b'bobHello'" in told
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_is_not_applicable_is_not_broken():
    done = check("01_blocking", "out_of_threads_it_serves_on", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "server": "01_blocking",
        "keeps": True,
        "claims": [
            {
                "claim": "out_of_threads_it_serves_on",
                "verdict": "not applicable",
                "why": "it starts no thread for a client",
            }
        ],
    }


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl here")
def test_a_server_in_another_language_is_held_to_it(tmp_path):
    program = tmp_path / "server"
    program.write_text(PERL)
    program.chmod(0o755)
    done = check(program, "each_message_is_greeted", "sigterm_ends_it", "--json")
    assert done.returncode == 1
    verdicts = {one["claim"]: one["verdict"] for one in json.loads(done.stdout)["claims"]}
    assert verdicts == {"each_message_is_greeted": "held", "sigterm_ends_it": "broken"}


def test_what_never_listens_is_reported_once(tmp_path):
    program = tmp_path / "ill.py"
    program.write_text("raise SystemExit('I am ill')")
    done = check(program, "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["keeps"]
    assert "I am ill" in json.loads(done.stdout)["why"]
    done = check(tmp_path / "missing")
    assert done.returncode == 1
    assert re.fullmatch(r"no server \S+: name one of .*\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["it_flies"], "no claim it_flies"),
        (["--patience", "nan", "sigterm_ends_it"], "expected a number from 0.1 to 3600, not 'nan'"),
    ],
)
def test_what_it_does_not_know_it_refuses(words, answer):
    done = check("01_blocking", *words)
    assert done.returncode == 2
    assert answer in done.stderr


def test_the_page_names_every_claim_in_order_below_the_file_that_holds_it():
    page = (processes.ROOT / "clients" / "CONTRACT.md").read_text()
    named, file = {}, None
    pattern = r"\(contract/claims/(\w+)\.py\)|^- `(\w+)`: "
    for theme, name in re.findall(pattern, page, re.MULTILINE):
        if theme:
            file = f"clients.contract.checks.{theme}"
        else:
            named[name] = file
    assert list(named) == list(CLAIMS)
    assert named == {name: function.__module__ for name, function in CLAIMS.items()}


# The folder


@pytest.fixture
def with_mine(tmp_path):
    """Return a copy of what the tests of the contract need, with 04_mine/server.py in it."""
    for name in ("01_blocking", "02_threaded", "03_epoll", "clients"):
        shutil.copytree(processes.ROOT / name, tmp_path / name)
    for name in ("conftest.py", ".pytest.ini"):
        shutil.copy(processes.ROOT / name, tmp_path)
    shutil.copytree(processes.ROOT / "02_threaded", tmp_path / "04_mine")
    (tmp_path / "04_mine" / "test_threaded.py").unlink()
    return tmp_path


def test_a_folder_of_ones_own_is_found_and_held_to_every_claim(with_mine):
    models = "from clients.system import processes; print(*processes.models())"
    assert "04_mine" in run("-c", models, cwd=with_mine).stdout.split()

    pytest_there = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "clients/tests/test_contract.py",
    ]
    listed = run(*pytest_there, "--collect-only", cwd=with_mine).stdout
    for claim in CLAIMS:
        assert f"test_claim[04_mine-{claim}]" in listed

    one = "04_mine and each_message_is_greeted"
    done = run(*pytest_there, "-k", one, cwd=with_mine)
    assert "1 passed" in done.stdout, done.stdout
    server = with_mine / "04_mine" / "server.py"
    server.write_text(server.read_text().replace('b"Hello, "', 'b"Hullo, "'))
    assert "1 failed" in run(*pytest_there, "-k", one, cwd=with_mine).stdout


def test_the_claim_on_the_page_is_one(with_mine):
    page = (processes.ROOT / "clients" / "CONTRACT.md").read_text()
    written = re.search(r"```python\n(@claim.*?)```", page, re.DOTALL)[1]
    name = re.search(r"def (\w+)", written)[1]
    with open(with_mine / "clients" / "contract" / "claims" / "isolation.py", "a") as file:
        file.write(f"\n\n{written}")
    for server, verdict in (("01_blocking", "BROKEN"), ("04_mine", "held")):
        done = run("-m", "clients.contract", server, "--patience", 1, name, cwd=with_mine)
        assert done.stdout.startswith(verdict), done.stdout + done.stderr
