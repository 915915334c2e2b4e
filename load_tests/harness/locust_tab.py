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

TAB = {
    "extended_tabs": [{"title": "Server", "key": "server"}],
    "extended_tables": [
        {
            "key": "server",
            "structure": [
                {"key": "name", "title": "What"},
                {"key": "now", "title": "Now"},
                {"key": "meaning", "title": "What it means"},
            ],
        }
    ],
}


def rows(now, before, first, waits):
    """Return the rows of the tab, from three Readings. waits: seconds, the longest first."""
    seconds = now.at - before.at
    share = (now.cpu - before.cpu) / seconds if seconds else 0.0
    oldest, drops = f"{waits[0]:.1f} s" if waits else "-", now.listen_drops - first.listen_drops
    table = [
        ("waiting now", len(waits), "visitors without the answer to their last request"),
        ("oldest wait", oldest, "of these visitors"),
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


def describe_classes(page, first):
    """Open the page with the user class named first alone selected, and the load of each in words.

    Locust's page ticks the "availableUserClasses" at first, and lists the "users" with their hosts.
    """
    update = page.update_template_args

    def update_and_describe():
        update()
        users = page.template_args["users"]
        for name, one in users.items():
            user_class = page.environment.available_user_classes[name]
            load = user_class.__doc__.partition("\n")[0]
            one["host"] = f"{page.environment.host or user_class.host.split()[0]} {load}"
        page.template_args |= {"users": {first: users[first], **users}}
        page.template_args["available_user_classes"] = [first]

    page.update_template_args = update_and_describe
    page.app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}


def add_tab(environment, pid, waiting):
    """Add the tab to the page; its rows come with /stats/requests. Exits if pid is unreadable."""
    try:
        process = psutil.Process(pid)
        require_access(process)
    except (psutil.NoSuchProcess, LaunchError) as error:
        sys.exit(f"--server-pid: {error}")
    page, readings = environment.web_ui, []
    update = page.update_template_args

    def look():
        readings.append(reading(process, urlsplit(environment.host).port or 3267))
        del readings[1:-2]  # only the first and the last two are used
        return rows(readings[-1], readings[-2:][0], readings[0], waiting())

    def state():
        """Return the state for the page, which has no tabs in Locust's first one, "ready"."""
        now = environment.runner.state
        return "stopped" if now == "ready" else now

    def update_and_show():
        update()
        page.template_args["state"] = state()

    @page.app.after_request
    def add_rows(response):
        if request.path == "/stats/requests":
            try:
                table = look()
            except (psutil.Error, OSError) as error:
                table = [{"name": "server", "now": "ended", "meaning": str(error)}]
            more = {"state": state(), "extended_stats": [{"key": "server", "data": table}]}
            response.set_data(json.dumps(response.json | more))
        return response

    page.template_args |= TAB
    page.update_template_args = update_and_show
