"""A tab in Locust's page that shows the server under test: its CPU time, memory and queues.

It is there when --server-pid names the server's process, on this machine.
"""

import json
from urllib.parse import urlsplit

import psutil
from flask import Blueprint, render_template, request

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


def preselect(page, name):
    """Open the page with this user class alone selected, and first in the list.

    Locust's page ticks the "availableUserClasses" at first, and lists the "users" (its webui).
    """
    update = page.update_template_args

    def update_and_select():
        update()
        users = page.template_args["users"]
        page.template_args["users"] = {name: users[name], **users}
        page.template_args["available_user_classes"] = [name]

    page.update_template_args = update_and_select
    page.app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}


def add_tab(environment, pid, waiting):
    """Add the tab to the page: on /, and alone on /extend; its rows come with /stats/requests."""
    process, page = psutil.Process(pid), environment.web_ui
    readings = []

    def look():
        readings.append(reading(process, urlsplit(environment.host).port or 3267))
        del readings[1:-2]  # only the first and the last two are used
        return rows(readings[-1], readings[-2:][0], readings[0], waiting())

    extend = Blueprint("extend", __name__)

    @extend.route("/extend")
    def extended_page():
        page.update_template_args()
        return render_template("index.html", template_args={**page.template_args, **TAB})

    @page.app.after_request
    def add_rows(response):
        if request.path == "/stats/requests":
            try:
                table = look()
            except (psutil.AccessDenied, PermissionError) as error:
                table = [{"name": "server", "now": "of another user", "meaning": str(error)}]
            except (psutil.Error, OSError) as error:
                table = [{"name": "server", "now": "ended", "meaning": str(error)}]
            stats = [{"key": "server", "data": table}]
            response.set_data(json.dumps({**response.json, "extended_stats": stats}))
        return response

    page.template_args |= TAB
    page.app.register_blueprint(extend)
