"""The comparison, end to end: what it measures, and what it does when things go wrong."""

import ast
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from math import ceil

import psutil
import pytest

from clients.system.processes import models, module_command
from conftest import cli
from load_tests import compare
from load_tests.harness import results, samples
from load_tests.harness.results import OUTCOMES

pytestmark = pytest.mark.slow

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


def start(*options, out, pictures=False):
    more = [] if pictures else ["--no-pictures"]
    return cli("load_tests.compare", "--out", out, *options, *more)


def runs_of(out):
    """Return the runs {(model, load): Run} of a comparison."""
    return {(run.model, run.load): run for run in results.read(out / "results.json").runs}


def frame_of(out):
    import pandas  # not at the top: one worker runs all that needs it

    frame = pandas.read_csv(out / "samples.csv.gz", dtype={"session": str})
    return frame.assign(ms=1000 * (frame.ended - frame.began))


one_comparison = pytest.mark.xdist_group("one_comparison")  # serves all tests that ask for it


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """One quick comparison of all models; most tests look at what it made."""
    out = tmp_path_factory.mktemp("compared")
    done = start("--users", "2,12", "--seconds", 2, out=out, pictures=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.fixture(scope="session")
def impatient(tmp_path_factory):
    """Visitors that give up, in an open loop; 03_epoll greets all of them."""
    out = tmp_path_factory.mktemp("impatient")
    options = ["--arrivals", 40, "--seconds", 2, "--timeout", 0.4, "--retries", 1, "--repeat", 2]
    done = start("01_blocking", "03_epoll", *options, "--processes", 2, out=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@one_comparison
def test_all_models_are_measured_with_all_loads(compared):
    out, text = compared
    assert set(runs_of(out)) == {(name, load) for name in models() for load in (2, 12)}
    for name in models():
        assert text.count(name) >= 2
    assert "Closed loop: a user sends nothing while it waits" in " ".join(text.split())


@one_comparison
def test_blocking_starves_all_but_one_and_the_others_none(compared):
    runs = runs_of(compared[0])
    assert runs["01_blocking", 12].outcomes.unserved >= 8
    assert max(one.in_service for one in runs["01_blocking", 12].moments) == 1
    assert runs["01_blocking", 12].latency["first_greeting"].p90.exact is False
    for name in ("02_threaded", "03_epoll"):
        assert max(one.in_service for one in runs[name, 12].moments) > 1
        assert runs[name, 12].outcomes.failed == runs[name, 12].outcomes.unserved == 0


@one_comparison
def test_the_server_was_watched(compared):
    runs = runs_of(compared[0])
    assert runs["01_blocking", 12].usage.threads_peak == 1
    assert runs["02_threaded", 12].usage.threads_peak > 2
    assert runs["03_epoll", 12].usage.threads_peak == 1
    for run in runs.values():
        assert run.usage.cpu_us_per_greeting > 0
        assert run.usage.rss_peak > 2**20
        assert run.generator.cpu_share > 0
        first, last = run.usage.readings[0].at, run.usage.readings[-1].at
        assert first < 0.1 < 1.9 < last < 60  # seconds since the start of the load


def percentile_of(rows, share):
    """Return a percentile by the least and the most that the censored rows allow."""
    rows = rows[rows.outcome != "failed"]
    if len(rows) < {90: 10, 99: 100}.get(share, 1):
        return None
    rank = max(ceil(len(rows) * share / 100), 1) - 1
    least = rows.ms.sort_values().iloc[rank]
    most = rows.ms.where(rows.outcome == "answered", float("inf")).sort_values().iloc[rank]
    exact = bool(most < float("inf") and most - least <= 0.01 * most)
    return {"ms": pytest.approx(most if exact else least, abs=2e-3), "exact": exact}


def numbers_of(rows):
    """Return what a run's samples, in a DataFrame, must give: computed with pandas alone."""
    answered = rows[rows.outcome == "answered"]
    counts = answered.request.value_counts()
    greetings = counts.get("first_greeting", 0) + counts.get("later_greeting", 0)
    seconds = rows.ended.max() - rows.began.min()
    latency = {}
    for request in samples.REQUESTS:
        mine = rows[rows.request == request]
        latency[request] = {
            "asked": len(mine),
            "answered": (mine.outcome == "answered").sum(),
            "unanswered": (~mine.outcome.isin(["answered", "failed"])).sum(),
            "failed": (mine.outcome == "failed").sum(),
            **{f"p{share}": percentile_of(mine, share) for share in (50, 90, 99)},
            "max": percentile_of(mine, 100) if len(mine) else None,
        }
    abandoned = counts.get("abandoned_greeting", 0)
    return {
        "latency": latency,
        "seconds": pytest.approx(seconds, abs=1e-5),
        "greetings": greetings,
        "abandoned": abandoned,
        "goodput": pytest.approx(greetings / seconds, rel=1e-4),
        "throughput": pytest.approx((greetings + abandoned) / seconds, rel=1e-4),
        "sessions_per_second": pytest.approx(counts.get("session", 0) / seconds, rel=1e-4),
    }


def outcome_of(rows):
    """Return the outcome of the visitor that has these rows of a DataFrame."""
    last = rows.drop_duplicates("request", keep="last").set_index("request").outcome
    session = rows[rows.request == "session"].iloc[0]
    if (rows.outcome == "failed").any():
        return "failed"
    if last["session"] in ("answered", "timed_out", "not_started"):
        kinds = {"answered": "finished", "timed_out": "gave_up"}
        return kinds.get(last["session"], "not_started")
    if last.get("first_greeting") == "answered":
        return "in_session"
    if "first_greeting" not in last:
        return "idle"
    if session.ms < 500:
        return "too_late"
    return "unserved_" + ("established" if last["connect"] == "answered" else "syn_sent")


@one_comparison
@pytest.mark.parametrize("which", ["compared", "impatient"])
def test_every_number_follows_from_the_samples(which, request):
    out, _ = request.getfixturevalue(which)
    frame = frame_of(out)
    for run in results.read(out / "results.json").runs:
        key = (frame.model == run.model) & (frame.load == run.load) & (frame.repeat == run.repeat)
        rows, found = frame[key], asdict(run)
        expected = numbers_of(rows)
        assert {name: found[name] for name in expected} == expected
        outcomes = [outcome_of(its) for _, its in rows.groupby("session")]
        assert found["outcomes"] == {name: outcomes.count(name) for name in OUTCOMES}
        greetings = rows.request.isin(samples.GREETINGS) & (rows.outcome == "answered")
        assert sum(one.greetings for one in run.moments) == greetings.sum()
        greeted = rows[(rows.request == "first_greeting") & (rows.outcome == "answered")]
        ends = rows[rows.request == "session"].set_index("session").ended
        spans = greeted.set_index("session")[["ended"]].set_axis(["since"], axis=1).join(ends)
        for one in run.moments:
            true = ((spans.since <= one.at) & (spans.ended > one.at)).sum()
            assert abs(one.in_service - true) <= ((spans - one.at).abs() < 1e-5).sum().sum()
        mean = sum(one.in_service for one in run.moments) / len(run.moments)
        assert run.in_service_mean == pytest.approx(mean)
        first = rows[(rows.request == "first_greeting") & (rows.outcome != "failed")]
        for ms, share in run.distribution:
            within = ((first.outcome == "answered") & (first.ms <= ms + 2e-3)).sum()
            assert share <= within / len(first)


@one_comparison
def test_samples_have_microseconds(compared):
    frame = frame_of(compared[0])
    assert tuple(frame.columns[:-1]) == samples.COLUMNS
    assert any(round(1e6 * one) % 10 for one in frame.ended)
    assert (frame.began <= frame.ended).all()
    assert frame.began.min() >= 0  # seconds since the start of the load


@one_comparison
def test_a_picture_and_a_page_that_needs_nothing_else(compared):
    from matplotlib import image

    out, _ = compared
    light, dark = (image.imread(out / f"comparison{name}.png") for name in ("", "-dark"))
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
def test_each_server_gets_the_same_arrivals_and_each_repeat_its_own(impatient):
    frame = frame_of(impatient[0])
    first = frame[(frame.request == "session")]
    first = first[first.began < 2]  # a longer run has some more
    due = {key: sorted(rows.began) for key, rows in first.groupby(["model", "repeat"])}
    for repeat in (0, 1):
        mine, other = (due[name, repeat] for name in ("01_blocking", "03_epoll"))
        assert min(len(mine), len(other)) > 30
        assert all(abs(a - b) < 2e-6 for a, b in zip(mine, other, strict=True))
    assert due["03_epoll", 0][:5] != due["03_epoll", 1][:5]
    # Poisson: 80 in 2 s; 40 more or less is more than four standard deviations.
    assert len(due["03_epoll", 0]) == pytest.approx(80, abs=40)


DRAW = """
from types import SimpleNamespace as Any
from load_tests.locustfile import GreetingUser

def think_times(seed, worker, user, session):
    runner = Any(worker_index=worker)
    user = Any(options=Any(seed=seed), environment=Any(runner=runner), number=user)
    draw = GreetingUser.draw(user, "session", session)
    return tuple(draw.uniform(0.1, 0.3) for _ in range(4))

keys = (1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)
print([think_times(*key) for key in keys])
"""


def test_think_times_depend_on_seed_worker_user_and_session_alone():
    line = [sys.executable, "-c", DRAW]
    runs = [subprocess.run(line, capture_output=True, text=True, cwd=compare.HERE.parent)
            for _ in range(2)]  # fmt: skip
    first, second = (run.stdout.splitlines()[-1] for run in runs)
    assert first == second
    assert len(set(ast.literal_eval(first))) == 5


@one_comparison
def test_visitors_that_give_up_cost_a_server_work(impatient):
    out, text = impatient
    blocking, epoll = (
        next(run for run in results.read(out / "results.json").runs if run.model == name)
        for name in ("01_blocking", "03_epoll")
    )
    assert blocking.outcomes.gave_up > 10
    assert blocking.abandoned > 0
    assert blocking.throughput > blocking.goodput
    assert epoll.throughput == epoll.goodput
    assert epoll.outcomes.gave_up == epoll.outcomes.unserved == 0
    said = " ".join(text.split())
    assert "Open loop: visitors arrive whether or not the server keeps up" in said
    assert "--timeout 0.4" in said
    assert "goodput" in said
    assert re.search(r"\d+-\d+", text.split("03_epoll")[-1])  # quartiles


@one_comparison
def test_old_results_can_be_compared_with_new_ones(impatient, tmp_path):
    old = impatient[0] / "results.json"
    options = ["--arrivals", 40, "--seconds", 0.5, "--repeat", 2, "--against", old]
    done = start("03_epoll", *options, out=tmp_path)
    assert done.returncode == 0, done.stderr
    _, ratios = done.stdout.split("relative to those of")
    assert len(re.findall(r"\d+\.\d\d-\d+\.\d\d", ratios)) >= 2  # not those of lower bounds
    assert "unclear" in ratios or "no change seen" in ratios


def test_a_full_generator_says_so_and_leaves_no_visitor_out(tmp_path):
    options = ["--arrivals", 2000, "--seconds", 0.5, "--compute", 0.05]
    code = "import load_tests.locustfile as file; file.MOST_AT_ONCE = 50\n"
    locustfile = tmp_path / "small.py"
    locustfile.write_text(code + "from load_tests.locustfile import *\n")
    code = f"import pathlib, runpy, sys; from load_tests.harness import runs; del sys.argv[0];\
             runs.LOCUSTFILE = pathlib.Path({str(locustfile)!r});\
             runpy.run_module('load_tests.compare', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", "--no-pictures", *map(str, options)]
    line += ["--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, cwd=compare.HERE.parent)
    assert done.returncode == 0, done.stderr
    run = runs_of(tmp_path)["03_epoll", 2000]
    # Poisson: 1,000 on average, its standard deviation is 32.
    assert 800 < run.outcomes.visitors < 1200 + 2000 * (run.seconds - 0.5)
    assert run.outcomes.not_started > 500
    assert "could not start" in run.generator.limited
    assert "generator-limited: the load generator" in " ".join(done.stdout.split())
    assert re.search(r"03_epoll .*\*", done.stdout)
    assert run.latency["first_greeting"].asked == run.outcomes.visitors


@pytest.mark.parametrize(("load", "outcome"), [("no-think-time", "in_session"), ("idle", "idle")])
def test_other_loads(tmp_path, load, outcome):
    done = start("03_epoll", "--users", 5, "--seconds", 0.8, "--load", load, out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = runs_of(tmp_path)["03_epoll", 5]
    assert getattr(run.outcomes, outcome) == run.outcomes.visitors == 5
    assert (run.greetings > 100) == (load == "no-think-time")


def test_two_workers_lose_no_visitor_and_a_slow_client_is_no_visitor(tmp_path):
    options = ["--users", 6, "--slow-requests", 1, "--compute", 0.05, "--seconds", 2]
    done = start("02_threaded", *options, "--processes", 2, out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = runs_of(tmp_path)["02_threaded", 6]
    assert frame_of(tmp_path).session.str.split("/").str[0].nunique() == 2
    assert run.outcomes.visitors >= 6
    assert run.latency["slow_request"].answered > 0
    assert run.latency["slow_request"].p50.ms >= 50
    assert run.latency["session"].asked == run.outcomes.visitors


def test_bad_servers_are_reported_and_the_others_still_run(tmp_path):
    names = {"wrong": ('b"Hallo, "', 0), "crash": ('b"Hello, "', 10)}
    for name, (answer, last) in names.items():
        text = LISTEN.replace("{answer}", answer).replace("{last}", str(last))
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "ill.py").write_text("raise SystemExit('I am ill')")
    programs = [tmp_path / f"{name}.py" for name in (*names, "ill")]
    done = start(*programs, "03_epoll", "--users", 3, "--seconds", 2, out=tmp_path / "out")
    assert done.returncode == 1
    runs = runs_of(tmp_path / "out")
    text = " ".join(done.stdout.split())
    assert "Hallo" in text
    assert runs["wrong", 3].outcomes.failed > 0
    assert runs["wrong", 3].outcomes.finished == runs["wrong", 3].greetings == 0
    failed = {
        run.model: run.error for run in results.read(tmp_path / "out/results.json").failed_runs
    }
    assert "status 3" in failed["crash"]
    assert "I am so tired" in failed["crash"]
    assert "I am ill" in failed["ill"]
    assert runs["03_epoll", 3].outcomes.finished > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no_such_server"], "no server no_such_server"),
        (["--users", "0"], "whole numbers from 1 to 20000"),
        (["--users", "many"], "whole numbers from 1 to 20000"),
        (["--seconds", "0.1"], "a number from 0.5"),
        (["--load", "think-time", "--against", "missing.json"], "missing.json"),
        (["--arrivals", "5", "--load", "idle"], "leave out --load"),
        (["--slow-requests", "1"], "--slow-requests needs --compute or --wait"),
        (["--retries", "1"], "--retries needs --timeout"),
        (["--users", "2", "--processes", "3"], "--processes"),
    ],
)
def test_bad_options(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        compare.options(options)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("load", [["--users", "1000"], ["--arrivals", "2000"]])
def test_too_few_descriptors(tmp_path, load):
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
    code = f"{limit} del sys.argv[0]; runpy.run_module('load_tests.compare', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", *load, "--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, cwd=compare.HERE.parent)
    assert done.returncode == 1
    assert "ulimit" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reports_what_was_measured_and_leaves_no_process_behind(tmp_path, number):
    options = ["03_epoll", "--users", "2,3", "--seconds", "1", "--out", tmp_path]
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
        time.sleep(0.5)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    assert "Interrupted" in text
    assert len(runs_of(tmp_path)) == 1
    assert (tmp_path / "report.html").is_file()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert not alive
