"""Failures: equal names, full disks, untrusted text, two comparisons at once, Ctrl-C."""

import contextlib
import fcntl
import gzip
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from clients.system.processes import ROOT, models, module_command, running_server
from conftest import cli, skip_without, wait_until
from load_tests.harness.files import CannotWrite, ensure_writable
from load_tests.tests.made import read

pytestmark = pytest.mark.slow

READMES = [ROOT / "README.md", *ROOT.glob("load_tests/*.md")]
QUICK = ["--users", 2, "--seconds", 0.5]
TABLE = [*QUICK, "--no-pictures"]
BAD = "\x1b[31m\u202e[/red]:boom:"  # a terminal's command, a letter that turns the line, markup
SERVER = """
import os, signal, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
def serve(conn):
    with conn:
        while chunk := conn.recv(1024):
            conn.sendall({answer})
"""
THREADS = """
while True:
    threading.Thread(target=serve, args=listener.accept()[:1]).start()
"""
FORKS = """
signal.signal(signal.SIGCHLD, {children})
while True:
    conn, _ = listener.accept()
    if not os.fork():
        serve(conn)
        os._exit(0)
    conn.close()
"""


def start(module, *options, **more):
    line = module_command(f"load_tests.{module}", *options)
    more = {"capture_output": True, "text": True, "timeout": 300, "cwd": ROOT} | more
    return subprocess.run(line, **more)


def compare(out, *options, **more):
    return start("compare", *options, "--out", out, **more)


def server(path, answer='b"Hello, " + chunk', rest=THREADS):
    path.parent.mkdir(exist_ok=True)
    path.write_text(SERVER.replace("{answer}", answer) + rest)
    return path


def test_the_second_comparison_into_a_folder_is_turned_away(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        done = compare(tmp_path, "03_epoll", *TABLE)
    finally:
        os.close(folder)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "--out" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["compare", "bench"])
def test_a_place_where_nothing_can_be_written_is_found_out_before_measuring(module, tmp_path):
    (tmp_path / "file").touch()
    option = "--out" if module == "compare" else "--json"
    done = start(module, "03_epoll", option, tmp_path / "file" / "results")
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write to {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1
    with pytest.raises(
        CannotWrite, match=f"^cannot write to {tmp_path / 'file'}: it is no folder$"
    ):
        ensure_writable(tmp_path / "file")


def full_disk(tmp_path, script):
    """Run a script where $1 is a disk of 24 MiB that no other process sees."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=24m none "$1" || exit 77\ncd "$2" && '
    line = ["unshare", "-Urm", "sh", "-c", mount + script, "sh", disk, ROOT]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        skip_without("mount namespaces", done.stderr.splitlines()[0])
    return done


FILL = 'head -c 20M /dev/zero > "$1/fill"; '
COMMAND = shlex.join([sys.executable, "-m", "load_tests.compare", "03_epoll", *map(str, QUICK)])


@pytest.mark.parametrize("place", ['--out "$1"', ""])
def test_a_full_disk_is_found_out_before_measuring(place, tmp_path):
    script = (
        f"{FILL} TMPDIR={'/tmp' if place else '$1'} {COMMAND} {place or f'--out {tmp_path}/out'}"
    )
    done = full_disk(tmp_path, script)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_what_was_measured_is_shown_on_a_disk_that_fills_up(tmp_path):
    said, begun = f"{tmp_path}/said", "grep -q '2 users'"
    script = (
        f'{COMMAND} --no-pictures --out "$1/out" > {said} & until {begun} {said}; do sleep 0.3; '
        f'done 2> /dev/null; cat /dev/zero > "$1/fill" 2> /dev/null; wait $!'
    )
    done, text = full_disk(tmp_path, script), (tmp_path / "said").read_text()
    assert done.returncode == 1
    assert re.search(r"03_epoll +2 +[1-9]", text)
    assert "could not be written" in text
    assert "Traceback" not in done.stderr + text


def interrupted(tmp_path, pipe, steps):
    """Interrupt a comparison as a terminal does, all of the pipeline; return what it said.

    steps: [(what is waited for, signal), …]
    """
    line = f"exec {COMMAND} --out {tmp_path}/out {pipe}".replace("03_epoll", "03_epoll 02_threaded")
    with open(tmp_path / "said", "w+") as said:
        process = psutil.Popen(["bash", "-c", line], cwd=ROOT, stdout=said, start_new_session=True)
        processes = [process]
        try:
            for when, number in steps:
                wait_until(lambda when=when: when(tmp_path))
                processes += process.children(recursive=True)
                os.killpg(process.pid, number)
            _, alive = psutil.wait_procs(processes, 200)
            assert not alive
        finally:
            for one in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
    return (tmp_path / "said").read_text()


def second_run(tmp_path):
    return "02_threaded" in (tmp_path / "said").read_text()


def a_moment_later(_):
    time.sleep(0.3)
    return True


def drawing(tmp_path):
    return (tmp_path / "out" / "comparison.png").is_file()


@pytest.mark.parametrize(
    ("pipe", "steps"),
    [
        ("2>&1 | tee /dev/null", [(second_run, signal.SIGINT), (a_moment_later, signal.SIGINT)]),
        ("2>&1", [(second_run, signal.SIGTERM), (drawing, signal.SIGINT)]),
    ],
)
def test_ctrl_c_and_sigterm_lose_nothing(tmp_path, pipe, steps):
    text = interrupted(tmp_path, pipe, steps)
    assert "Traceback" not in text
    [run] = read(tmp_path / "out" / "results.json").runs
    assert run.model == "03_epoll"
    with gzip.open(tmp_path / "out" / "samples.csv.gz", "rt") as file:
        assert len(file.readlines()) > 3 * run.outcomes.visitors
    if "tee" not in pipe:
        assert run.outcomes.visitors == run.outcomes.served >= 2
        assert "Interrupted: this is what was measured so far." in text
        assert "Interrupted: what was not drawn yet is not written." in text
        assert re.search(r"03_epoll +2 +[1-9]", text)


def test_why_there_was_no_visitor(tmp_path):
    six = tmp_path / "six.py"
    six.write_text('print("listening on ::1:3267", flush=True)\nimport time\ntime.sleep(60)')
    for more in TABLE, ["--web", six]:
        done = compare(tmp_path / "out", six, *more)
        assert done.returncode == 1
        assert "IPv6" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


BURN = """
import time
def burn(chunk):
    until = time.thread_time() + 0.002
    while time.thread_time() < until:
        pass
    return b"Hello, " + chunk
"""


LOSES_TIME = {"zombies": False, "ignored": True}  # server: if the time of its children is lost


def test_the_cpu_time_of_child_processes_is_counted_or_marked(tmp_path):
    """They use 2 ms per greeting; with SIG_DFL the server never waits for them."""
    servers = [
        server(
            tmp_path / f"{name}.py",
            "burn(chunk)",
            BURN + FORKS.replace("{children}", "signal.SIG_IGN" if lost else "signal.SIG_DFL"),
        )
        for name, lost in LOSES_TIME.items()
    ]
    file = tmp_path / "rounds.json"
    options = ["--connections", 2, "--rounds", 1, "--seconds", 0.05, "--json", file]
    for load in ("greet", "visit"):
        done = start("bench", *servers, *options, "--load", load)
        assert done.returncode == 0, done.stderr
        measured = json.loads(file.read_text())["measured"]
        assert {one["server"]: one["cpu_is_lower_bound"] for one in measured} == LOSES_TIME
        for one in measured:
            lost = LOSES_TIME[one["server"]]
            assert one["rounds"][0]["cpu"] >= 0.002 or (load == "visit" and lost)
            assert bool(re.search(rf"^{one['server']} .*≥", done.stdout, re.MULTILINE)) == lost
    wide = {"env": os.environ | {"COLUMNS": "150"}}
    options = ["--users", 4, "--seconds", 1, "--no-pictures"]
    done = compare(tmp_path / "out", *servers, *options, **wide)
    runs = read(tmp_path / "out" / "results.json").runs
    assert {run.model: run.usage.cpu_incomplete for run in runs} == LOSES_TIME
    for run in runs:
        lost = LOSES_TIME[run.model]
        assert run.usage.cpu_us_per_greeting >= 2000 or lost
        assert bool(re.search(rf"^ *{run.model} .*≥ [\d,]+ µs", done.stdout, re.MULTILINE)) == lost


@pytest.mark.parametrize("module", ["compare", "bench"])
def test_nothing_that_a_server_says_reaches_the_terminal_as_a_command(module, tmp_path):
    bad = tmp_path / f"x[red]y{BAD.replace('/', '')}.py"
    bad.write_text(f"import sys; print({BAD!r}, file=sys.stderr); sys.exit({BAD!r})")
    odd = server(tmp_path / r"odd$\frac{1$.py", f"({BAD!r} * 20).encode()")
    for program in (bad, odd):
        out = ["--out", tmp_path / "out"] if module == "compare" else []
        program = program if module == "compare" else shlex.quote(str(program))
        done = start(module, program, *(TABLE if out else ["--connections", 2]), *out)
        said = done.stdout + done.stderr
        assert done.returncode == 1
        assert "Traceback" not in said
        assert "[/red]" in said or "x[red]y" in said
        assert not {"\x1b", "\u202e"} & set(said)
    failed = "visitors failed, and no visitor was served: "  # this alone ends with status 1, too
    assert failed in " ".join(said.split()) or module == "bench"


WRONG = ["nan", "inf", "-inf", "1e300", "-1", "", "0x10", "1,", "9" * 400]
NUMBERS = {
    "compare": "users seconds repeat seed arrivals backlog wait compute slow-requests timeout "
    "retries processes workers switch-interval",
    "bench": "connections rounds seconds idle processes",
}
EACH = [(module, option) for module, options in NUMBERS.items() for option in options.split()]


@pytest.mark.parametrize(("module", "option"), EACH)
def test_impossible_numbers_end_with_status_2(module, option, capsys, monkeypatch):
    parse = __import__(f"load_tests.{module}", fromlist=["options"]).options
    for text in WRONG:
        monkeypatch.setattr(sys, "argv", [module, f"--{option}={text}"])
        with pytest.raises(SystemExit) as end:
            parse()
        assert end.value.code == 2
        assert f"--{option}" in capsys.readouterr().err.splitlines()[-1]


PARSE = """
import json, sys
from types import SimpleNamespace
from locust.argument_parser import parse_options
from locustfile import GreetingUser  # the file before this one: it adds its options
for words in json.load(sys.stdin):
    try:
        found = parse_options(words)
        print(json.dumps([0, found.web_host, found.master_bind_host]), flush=True)
    except SystemExit as end:
        print(json.dumps([end.code]), flush=True)

def draw(seed, worker, user, session):
    environment = SimpleNamespace(runner=SimpleNamespace(worker_index=worker))
    options = SimpleNamespace(seed=seed)
    user = SimpleNamespace(options=options, environment=environment, number=user)
    return GreetingUser.draw(user, "session", session).random()

keys = (1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)
print(json.dumps([draw(*key) for key in keys]))
"""
NAMES = ["arrivals", "slow-requests", "worker-count", "seconds", "timeout", "retries", "seed"]
IMPOSSIBLE = [[f"--{name}={text}"] for name in NAMES for text in ("nan", "1e300", "-1")]


def locust_lines():
    """Return the words of each command that starts Locust, in the texts and as many type it."""
    lines = ["locust -f load_tests/locustfile.py --host tcp://127.0.0.1:3267"]
    lines += ["locust -f load_tests/locustfile.py --master"]
    for readme in READMES:
        texts = readme.read_text().replace("\\\n", "").splitlines()
        lines += [one for one in texts if one.startswith(".venv/bin/locust ")]
    return [shlex.split(one)[1:] for one in lines if "--worker" not in one]


@pytest.fixture(scope="module")
def in_locust(tmp_path_factory):
    """What Locust makes of impossible and of real command lines, of the seed, and of tags.

    Locust is not imported here: it patches the process.
    """
    commands, parse = locust_lines(), tmp_path_factory.mktemp("parse") / "parse.py"
    parse.write_text(PARSE)
    files, given = f"load_tests/locustfile.py,{parse}", json.dumps(IMPOSSIBLE + commands)
    done = cli("locust", "-f", files, "--headless", "--tags", "chat", input=given)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == len(IMPOSSIBLE) + len(commands) + 1, done.stderr
    refused, rest = found[: len(IMPOSSIBLE)], found[len(IMPOSSIBLE) :]
    return refused, list(zip(commands, rest[:-1], strict=True)), rest[-1], done


@pytest.mark.xdist_group("in_locust")
def test_impossible_numbers_for_locust(in_locust):
    refused, _, _, done = in_locust
    assert refused == [[2]] * len(IMPOSSIBLE)
    said = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert [line.split("--")[1].split(":")[0] for line in said] == [
        line[0].split("=")[0][2:] for line in IMPOSSIBLE
    ]


@pytest.mark.xdist_group("in_locust")
def test_no_command_opens_a_port_to_every_machine(in_locust):
    assert len(in_locust[1]) >= 4
    for words, (status, page, master) in in_locust[1]:
        assert (status, page) == (0, "127.0.0.1")
        assert master == "127.0.0.1" or ("--master" in words and master == "192.168.1.10")


@pytest.mark.xdist_group("in_locust")
def test_think_times_depend_on_seed_worker_user_and_session_alone(in_locust):
    keys = "1/0/0/session/0", "2/0/0/session/0", "1/1/0/session/0", "1/0/1/session/0"
    expected = [random.Random(key).random() for key in (*keys, "1/0/0/session/1")]
    assert in_locust[2] == expected


@pytest.mark.xdist_group("in_locust")
def test_tags_are_refused_in_one_line(in_locust):
    *_, done = in_locust
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("no user class has tags")
    assert "Traceback" not in done.stderr


def test_locust_headless_with_the_configuration_file_is_one_load_and_its_report_is_true(tmp_path):
    where = ["--html", tmp_path / "report.html", "--json-file", tmp_path / "rows"]
    with running_server(models()["03_epoll"], "--quiet") as server:
        host = "tcp://%s:%d" % server.address
        load = ["--headless", "--users", 5, "--run-time", "8s", "--host", host]
        done = cli("locust", "--config", "load_tests/locust.conf", *load, *where)
    assert done.returncode == 0, done.stderr
    rows = {row["name"][0]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert set(rows) == {"1", "2", "3", "4"}  # without slow requests
    page = (tmp_path / "report.html").read_text()
    data = json.loads(re.search(r"templateArgs = (\{.*\})", page)[1])
    assert len(data["history"]) >= 2
    size = {row["name"][0]: row["avg_content_length"] for row in data["requests_statistics"]}
    assert size["1"] == 0
    assert size["2"] == pytest.approx(len("Hello, visitor 1"), abs=1)
    assert size["4"] > 4 * size["2"]
    requests = {row["name"][0]: row["num_requests"] for row in data["requests_statistics"]}
    assert requests["A"] == requests["1"] + requests["2"] + requests["3"]  # Aggregated


def test_names_that_locust_would_interpret_and_closed_streams(tmp_path):
    clone = tmp_path / "a,b {u}"
    for name in ("clients", "load_tests", "03_epoll"):
        without = shutil.ignore_patterns("*.html", "*.png", "results", "__pycache__")
        shutil.copytree(ROOT / name, clone / name, ignore=without)
    line = f"{COMMAND} --no-pictures --out 'out {{u}}' <&- >&-"
    done = subprocess.run(
        ["bash", "-c", line], cwd=clone, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (clone / "out {u}" / "locust-03_epoll-2.html").is_file()
    assert json.loads((clone / "out {u}" / "results.json").read_text())["failed_runs"] == []


def test_a_server_of_another_user_is_named_as_such(other_user, tmp_path):
    wrapper, program = other_user
    options = (program, "--users", 2, "--seconds", 1, "--out", tmp_path)
    done = cli("load_tests.compare", *options, wrapper=wrapper)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "runs as another user: its sockets and threads are not shown" in said
    assert "Traceback" not in said
