"""A tab in Locust's page that shows the server under test: its CPU time, memory and queues.

It is there when --server-pid names the server's process, on this machine.
"""

import json
import sys
from urllib.parse import urlsplit

import psutil
from flask import request

from clients.system.processes import LaunchError, require_access
from load_tests.harness.monitor import reading

TITLES = {"name": "What", "now": "Now", "meaning": "What it means"}
COLUMNS = [{"key": key, "title": title} for key, title in TITLES.items()]
TABLE = {"key": "server", "structure": COLUMNS}
TAB = {"extended_tabs": [{"title": "Server", "key": "server"}], "extended_tables": [TABLE]}


def rows(now, before, first, since):
    """Return the rows of the tab, from three Readings. since: when each waiting visitor began."""
    share = (now.cpu - before.cpu) / (now.at - before.at or 1)
    oldest, drops = now.at - min(since, default=now.at), now.listen_drops - first.listen_drops
    table = [
        ("waiting now", len(since), "visitors without the answer to their last request"),
        ("oldest wait", f"{oldest:.1f} s", "of these visitors"),
        ("accept queue", now.accept_queue, "connected, and waiting for accept()"),
        ("SYN-SENT", now.clients.get("SYN-SENT", 0), "their connect() has no answer yet"),
        ("ESTABLISHED", now.clients.get("ESTABLISHED", 0), "as the clients see it, with the queue"),
        ("threads", now.threads, "of the server's process"),
        ("descriptors", now.descriptors, "its open files, sockets included"),
        ("memory", f"{now.rss / 2**20:.1f} MiB", "resident, without the kernel's part"),
        ("CPU", f"{share:.0%} of a core", "since the last update"),
        ("SYN drops", drops, "of the whole machine, since this page was opened"),
    ]
    return [
        {"name": f"{place:2} {name}", "now": value, "meaning": meaning}  # the page sorts by name
        for place, (name, value, meaning) in enumerate(table, 1)
    ]


def describe(environment, first, pid, open_requests):
    """Let the page tick the user class named first alone; with a pid, add the tab of that process.

    Locust's page ticks the "available_user_classes" at first. In the state "ready" it has no tabs.
    """
    page = environment.web_ui
    update = page.update_template_args

    def state():
        now = environment.runner.state
        return "stopped" if pid and now == "ready" else now

    def update_and_describe():
        update()
        page.template_args |= {"available_user_classes": [first], "state": state()}

    page.update_template_args = update_and_describe
    if pid:
        page.template_args |= TAB
        look = observe(environment, pid, open_requests)

        @page.app.after_request
        def add_rows(response):  # to the answer that the page asks for every two seconds
            if request.path == "/stats/requests":
                more = {"state": state(), "extended_stats": [{"key": "server", "data": look()}]}
                response.set_data(json.dumps(response.json | more))
            return response


def observe(environment, pid, open_requests):
    """Return a function that returns the rows of the tab now. Exits if pid is unreadable."""
    try:
        process = psutil.Process(pid)
        require_access(process)
    except (psutil.NoSuchProcess, LaunchError) as error:
        sys.exit(f"--server-pid: {error}")
    readings = []

    def look():
        since = {visitor: at for visitor, name, at in open_requests() if name != "session"}
        try:
            readings.append(reading(process, urlsplit(environment.host).port or 3267))
        except (psutil.Error, OSError) as error:
            return [{"name": "server", "now": "ended", "meaning": str(error)}]
        del readings[1:-2]  # only the first and the last two are used
        return rows(readings[-1], readings[-2:][0], readings[0], since.values())

    return look
