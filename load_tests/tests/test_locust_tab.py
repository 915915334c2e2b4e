"""The tab in Locust's page: the server's real numbers, seen through the page and in a browser."""

import json
import re
import subprocess
import time
import urllib.request

import pytest

from clients.system.processes import module_command
from clients.system.procfs import accept_queue_limit
from clients.tests.browser import in_a_browser, opened


@pytest.fixture(scope="module")
def page():
    """The address of Locust's page, while 20 visitors storm the blocking server."""
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
    form = b"user_count=20&spawn_rate=20&user_classes=Visitors"
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/swarm", form) as answer:
                assert json.load(answer)["success"]
                return
        except OSError:  # it does not listen yet
            time.sleep(0.1)
    pytest.fail("Locust's page never answered")


def rows(url):
    """Return {name: what the tab shows now}."""
    with urllib.request.urlopen(f"{url}/stats/requests") as answer:
        [table] = json.load(answer)["extended_stats"]
    assert table["key"] == "server"
    return {row["name"].split(" ", 1)[1]: row["now"] for row in table["data"]}


@pytest.mark.xdist_group("page")
def test_the_tab_tells_who_waits(page):
    for _ in range(300):
        now = rows(page)
        if now["accept queue"] == accept_queue_limit(5) and now["SYN-SENT"] > 0:
            break
        time.sleep(0.1)
    assert now["accept queue"] == accept_queue_limit(5)
    assert now["SYN-SENT"] > 0
    assert now["threads"] == 1
    assert re.fullmatch(r"[1-9]\d*\.\d MiB", now["memory"])


@pytest.mark.xdist_group("page")
def test_the_page_opens_with_visitors_alone_chosen_and_the_others_to_choose(page):
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
    found = json.loads(re.search(r"templateArgs\s*=\s*(\{.*\})", text)[1])
    assert found["available_user_classes"] == ["Visitors"]  # what is ticked at first
    assert next(iter(found["users"])) == "Visitors"
    assert {"Arrivals", "Chatterbox", "Idlers"} < set(found["users"])


@in_a_browser
@pytest.mark.xdist_group("page")
@pytest.mark.parametrize("path", ["/?tab=server", "/extend?tab=server"])
def test_the_tab_in_a_browser(page, path):
    told = [
        r"1 accept queue\s+\d+\s+connected, and waiting for accept",
        r"4 threads\s+1\s",
        r"6 memory\s+[1-9]\d*\.\d MiB",
    ]
    with opened(page + path) as browser:
        browser.until(lambda: all(re.search(one, shown(browser)) for one in told))


def shown(browser):
    return browser.value("document.body?.innerText ?? ''")
