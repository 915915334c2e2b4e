"""The tab in Locust's page: the server's real numbers, seen through the page and in a browser."""

import contextlib
import json
import re
import subprocess
import urllib.request

import psutil
import pytest

from clients.system.processes import module_command
from clients.system.procfs import accept_queue_limit
from clients.tests.browser import CHROMIUM, in_a_browser, opened
from conftest import cli, skip_unless_root, wait_until
from load_tests.harness.runs import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url():
    """The address of Locust's page for the blocking server."""
    process = subprocess.Popen(
        module_command("load_tests.compare", "--web", "01_blocking"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if found := re.search(r"http://127.0.0.1:\d+", line):
                break
        wait_until(lambda: asked(found[0]), "an answer of Locust's page")
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def browser(url):
    """A browser that has opened the tab before the load is started."""
    if not CHROMIUM:
        yield None
        return
    with opened(f"{url}/?tab=server") as browser:
        yield browser


@pytest.fixture(scope="module")
def before(browser):
    """What the browser shows of the server before the load is started."""
    if not CHROMIUM:
        return None
    with browser.sized(1280, 800):
        browser.until(lambda: re.search(r"NEW\s(?s:.*)8 memory\s", shown(browser)))
        return shown(browser)


@pytest.fixture(scope="module")
def page(url, before):
    """The same address, while 20 users load the server; started as the page's button does."""
    form = b"user_count=20&spawn_rate=20&user_classes=ClosedLoopUser"
    assert json.loads(asked(f"{url}/swarm", form))["success"]
    return url


def asked(url, form=None):
    """Return the page's answer, None if it does not listen yet."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, form) as answer:
        return answer.read().decode()


def rows(url):
    """Return {name: what the tab shows now}."""
    [table] = json.loads(asked(f"{url}/stats/requests"))["extended_stats"]
    assert table["key"] == "server"
    return {row["name"].split(maxsplit=1)[1]: row["now"] for row in table["data"]}


@pytest.mark.xdist_group("page")
def test_the_tab_shows_the_queue(page):
    now = {}

    def full():
        now.update(rows(page))
        return now["accept queue"] == accept_queue_limit(5) and now["SYN-SENT"] > 0

    wait_until(full, lambda: f"a full accept queue: {now}")
    assert now["threads"] == 1
    assert now["waiting now"] >= accept_queue_limit(5)  # these, and those in SYN-SENT
    assert re.fullmatch(r"\d+\.\d s", now["oldest wait"])
    assert re.fullmatch(r"[1-9]\d*\.\d MiB", now["memory"])


@pytest.mark.xdist_group("page")
def test_the_page_opens_with_one_class_selected_and_the_others_to_choose(page):
    found = json.loads(re.search(r"templateArgs\s*=\s*(\{.*\})", asked(page))[1])
    assert found["available_user_classes"] == ["ClosedLoopUser"]  # what is ticked at first
    assert next(iter(found["users"])) == "ClosedLoopUser"
    assert {"OpenLoopUser", "NoThinkTimeUser"} < set(found["users"])


@in_a_browser
@pytest.mark.xdist_group("page")
def test_the_tab_is_there_before_the_load_is_started(before):
    assert re.search(r"Status\s+STOPPED", before)
    assert re.search(r"3 accept queue\s+0\s+connected, and waiting for accept", before)


@in_a_browser
@pytest.mark.xdist_group("page")
def test_the_tab_in_a_browser(page, browser):
    expected = [
        r"3 accept queue\s+\d+\s+connected, and waiting for accept",
        r"6 threads\s+1\s",
        r"8 memory\s+[1-9]\d*\.\d MiB",
    ]
    browser.call("Page.navigate", url=f"{page}/?tab=server")
    browser.until(lambda: all(re.search(one, shown(browser)) for one in expected))


def shown(browser):
    return browser.value("document.body?.innerText ?? ''")


def test_a_process_that_has_ended_is_refused_in_one_line():
    from load_tests.harness import locust_tab  # not at the top: Flask comes with it

    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(SystemExit, match=r"^--server-pid: .*not found") as end:
        locust_tab.observe(None, process.pid, None)
    assert "\n" not in end.value.code


def test_a_process_of_another_user_is_refused_in_one_line():
    skip_unless_root()
    user = ["setpriv", "--reuid", "65534", "--clear-groups"]
    with subprocess.Popen([*user, "sleep", "600"]) as process:
        try:
            wait_until(lambda: psutil.Process(process.pid).uids().real == 65534)
            options = ("--server-pid", process.pid, "--host", "tcp://127.0.0.1:1")
            done = cli(
                "locust",
                *("-f", "load_tests/locustfile.py", "--web-port", free_port(), *options),
                wrapper=["setpriv", "--bounding-set", "-all"],
            )
        finally:
            process.kill()
    [line] = re.findall(r"--server-pid: .*", done.stderr)
    assert "runs as another user" in line
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
