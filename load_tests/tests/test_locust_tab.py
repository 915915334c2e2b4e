"""The tab in Locust's page: the server's real numbers, seen through the page and in a browser."""

import contextlib
import json
import re
import subprocess
import urllib.request

import pytest

from clients.system.processes import module_command
from clients.system.procfs import accept_queue_limit
from clients.tests.browser import in_a_browser, opened
from conftest import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page():
    """The address of Locust's page, while 20 users load the blocking server."""
    process = subprocess.Popen(
        module_command("load_tests.compare", "--web", "01_blocking"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if found := re.search(r"http://127.0.0.1:\d+", line):
                break
        swarm(found[0])
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def swarm(url):
    """Start 20 visitors as the page's button does, as soon as Locust answers."""
    form = b"user_count=20&spawn_rate=20&user_classes=ClosedLoopUser"

    def started():
        with contextlib.suppress(OSError):  # it does not listen yet
            with urllib.request.urlopen(f"{url}/swarm", form) as answer:
                return json.load(answer)["success"]

    wait_until(started, "an answer of Locust's page")


def rows(url):
    """Return {name: what the tab shows now}."""
    with urllib.request.urlopen(f"{url}/stats/requests") as answer:
        [table] = json.load(answer)["extended_stats"]
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
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
    found = json.loads(re.search(r"templateArgs\s*=\s*(\{.*\})", text)[1])
    assert found["available_user_classes"] == ["ClosedLoopUser"]  # what is ticked at first
    assert next(iter(found["users"])) == "ClosedLoopUser"
    assert {"OpenLoopUser", "NoThinkTimeUser", "IdleUser"} < set(found["users"])
    assert found["users"]["OpenLoopUser"]["load"].startswith("Open loop: --arrivals visitors")


@in_a_browser
@pytest.mark.xdist_group("page")
@pytest.mark.parametrize("path", ["/?tab=server", "/extend?tab=server"])
def test_the_tab_in_a_browser(page, path):
    expected = [
        r"3 accept queue\s+\d+\s+connected, and waiting for accept",
        r"6 threads\s+1\s",
        r"8 memory\s+[1-9]\d*\.\d MiB",
    ]
    with opened(page + path) as browser:
        browser.until(lambda: all(re.search(one, shown(browser)) for one in expected))


def shown(browser):
    return browser.value("document.body?.innerText ?? ''")
