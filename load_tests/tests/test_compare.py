"""The comparison, end to end: what it measures, and what it does when things go wrong."""

import csv
import gzip
import json
import re
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import psutil
import pytest

from clients.system.processes import models, module_command
from load_tests.harness.stats import FATES, never_served

LISTEN = """
import argparse, os, socket, sys, threading
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
listener = socket.create_server(("127.0.0.1", parser.parse_known_args()[0].port))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
count = 0
def handle(conn):
    global count
    while chunk := conn.recv(1024):
        conn.sendall({answer} + chunk)
        count += 1
        if count == {last}:
            print("I am so tired", file=sys.stderr, flush=True)
            os._exit(3)
while True:
    threading.Thread(target=handle, args=listener.accept()[:1], daemon=True).start()
"""


def start(*options, out):
    line = module_command("load_tests.compare", "--out", out, *options)
    return subprocess.run(line, capture_output=True, text=True, timeout=200)


def results_of(out):
    """Return the runs {(model, load): run} of a comparison; each scoreboard must add up."""
    results = json.loads((out / "results.json").read_text())
    for run in results["runs"]:
        if not run["error"]:
            board = run["scoreboard"]
            assert board["came"] == sum(board[name] for name in FATES)
    return {(run["model"], run["load"]): run for run in results["runs"]}


one_comparison = pytest.mark.xdist_group("one_comparison")  # serves all tests that ask for it


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One quick comparison of all models; most tests look at what it made."""
    out = tmp_path_factory.mktemp("compared")
    done = start("--users", "2,12", "--seconds", 2, out=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@one_comparison
def test_all_models_are_measured_with_all_loads(compared):
    out, text = compared
    runs = results_of(out)
    assert set(runs) == {(name, load) for name in models() for load in (2, 12)}
    for name in models():
        assert text.count(name) >= 2


@one_comparison
def test_blocking_starves_all_but_one_and_the_others_nobody(compared):
    runs = results_of(compared[0])
    assert never_served(runs["01_blocking", 12]["scoreboard"]) >= 8
    assert max(count for _, count in runs["01_blocking", 12]["serving"]) == 1
    assert runs["01_blocking", 12]["latency"]["first"]["p90"]["exact"] is False
    for name in ("02_threaded", "03_epoll"):
        assert max(count for _, count in runs[name, 12]["serving"]) > 1
        assert runs[name, 12]["scoreboard"]["failed"] == 0


@one_comparison
def test_the_server_was_watched(compared):
    runs = results_of(compared[0])
    assert runs["01_blocking", 12]["server"]["threads_most"] == 1
    assert runs["02_threaded", 12]["server"]["threads_most"] > 2
    assert runs["03_epoll", 12]["server"]["threads_most"] == 1
    for run in runs.values():
        assert run["server"]["cpu_us_per_greeting"] > 0
        assert run["server"]["rss_most"] > 2**20
        assert run["generator"]["cpu_share"] > 0


@one_comparison
def test_raw_samples_are_kept_to_the_microsecond(compared):
    out, _ = compared
    rows = samples(out)
    runs = results_of(out)
    for (name, load), run in runs.items():
        mine = [row for row in rows if row["model"] == name and float(row["load"]) == load]
        assert len({row["visitor"] for row in mine}) == run["scoreboard"]["came"]
        answered = [row for row in mine if row["outcome"] == "answered"]
        assert all(float(row["began"]) <= float(row["ended"]) for row in answered)
    assert any(re.search(r"\.\d{5}[1-9]$", row["ended"]) for row in rows)


@one_comparison
def test_a_picture_and_a_page_that_needs_nothing_else(compared):
    out, _ = compared
    light, dark = (plt.imread(out / f"comparison{name}.png") for name in ("", "-dark"))
    assert light.shape[:2] == dark.shape[:2]
    assert light[0, 0, :3].mean() == 1
    assert dark[0, 0, :3].mean() < 0.1
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?https?://", page)
    for link in re.findall(r"href='([^']+)'", page):
        assert (out / link).is_file()
    assert page.count("data:image/png") >= 6
    assert "Closed loop" in page


@one_comparison
def test_old_results_can_be_compared_with_new_ones(compared, tmp_path):
    out, _ = compared
    done = start("03_epoll", "--users", 2, "--seconds", 1, "--against", out / "results.json",
                 out=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = re.findall(r"03_epoll.*", done.stdout)[-1]
    assert len(re.findall(r"\d+\.\d\d", row)) >= 3


def test_open_loop(tmp_path):
    done = start("03_epoll", "--arrivals", 40, "--seconds", 2, out=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Open loop" in done.stdout
    run = results_of(tmp_path)["03_epoll", 40]
    # Poisson: 80 on average; 30 to 130 covers more than five standard deviations.
    assert 30 < run["scoreboard"]["came"] < 130


def test_open_loop_goes_on_where_nobody_is_served(tmp_path):
    done = start("01_blocking", "--arrivals", 40, "--seconds", 2, out=tmp_path)
    assert done.returncode == 0, done.stderr
    board = results_of(tmp_path)["01_blocking", 40]["scoreboard"]
    assert board["came"] > 30
    assert never_served(board) > board["came"] / 3


@pytest.mark.parametrize(("load", "fate"), [("chatterbox", "still served"), ("idlers", "idle")])
def test_other_loads(tmp_path, load, fate):
    done = start("03_epoll", "--users", 5, "--seconds", 2, "--load", load, out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = results_of(tmp_path)["03_epoll", 5]
    assert run["scoreboard"][fate] == run["scoreboard"]["came"] == 5
    assert (run["greetings"] > 100) == (load == "chatterbox")


def test_two_workers_lose_nobody(tmp_path):
    done = start("03_epoll", "--users", 10, "--seconds", 2, "--processes", 2, out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = results_of(tmp_path)["03_epoll", 10]
    workers = {row["visitor"].split("/")[0] for row in samples(tmp_path)}
    assert len(workers) == 2
    assert run["scoreboard"]["came"] >= 10


def samples(out):
    with gzip.open(out / "samples.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def test_bad_servers_are_reported_and_the_others_still_run(tmp_path):
    names = {"wrong": ('b"Hallo, "', 0), "crash": ('b"Hello, "', 10)}
    for name, (answer, last) in names.items():
        text = LISTEN.replace("{answer}", answer).replace("{last}", str(last))
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "ill.py").write_text("raise SystemExit('I am ill')")
    programs = [tmp_path / f"{name}.py" for name in (*names, "ill")]
    done = start(*programs, "03_epoll", "--users", 3, "--seconds", 2, out=tmp_path / "out")
    assert done.returncode == 1
    runs = results_of(tmp_path / "out")
    text = " ".join(done.stdout.split())
    assert "Hallo" in text
    assert runs["wrong", 3]["scoreboard"]["failed"] > 0
    assert runs["wrong", 3]["scoreboard"]["finished"] == runs["wrong", 3]["greetings"] == 0
    assert "status 3" in runs["crash", 3]["error"]
    assert "I am so tired" in runs["crash", 3]["error"]
    assert "I am ill" in runs["ill", 3]["error"]
    assert runs["03_epoll", 3]["scoreboard"]["finished"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no_such_server"], "no server no_such_server"),
        (["--users", "0"], "whole numbers from 1 to 20000"),
        (["--users", "many"], "whole numbers from 1 to 20000"),
        (["--seconds", "0.1"], "a number from 0.5"),
        (["--load", "visitors", "--against", "missing.json"], "missing.json"),
        (["--arrivals", "5", "--load", "idlers"], "leave out --load"),
        (["--heavy", "1"], "--heavy needs --compute or --wait"),
    ],
)
def test_bad_options(tmp_path, options, words):
    done = start(*options, out=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_heavy_client_is_measured_beside_the_visitors_and_is_none_of_them(tmp_path):
    options = ["--users", 2, "--heavy", 1, "--compute", 0.05, "--seconds", 1]
    done = start("02_threaded", *options, out=tmp_path)
    assert done.returncode == 0, done.stderr
    [run] = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert run["latency"]["heavy"]["answered"] > 0
    assert run["latency"]["heavy"]["p50"]["ms"] >= 50
    assert run["latency"]["visit"]["asked"] == run["scoreboard"]["came"]


def test_too_few_descriptors(tmp_path):
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
    code = f"{limit} del sys.argv[0]; runpy.run_module('load_tests.compare', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", "--users", "1000", "--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ulimit" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reports_what_was_measured_and_leaves_nobody_behind(tmp_path, number):
    options = ["03_epoll", "--users", "2,3", "--seconds", "4", "--out", tmp_path]
    process = subprocess.Popen(
        module_command("load_tests.compare", *options),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if "3 users" in line:  # the second run has begun
                break
        time.sleep(1)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    assert "Interrupted" in text
    assert len(results_of(tmp_path)) == 1
    assert (tmp_path / "report.html").is_file()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert family
    assert not alive
