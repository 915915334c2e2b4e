"""Many clients at once: they come one after the other, greet, think, greet again and leave.

.venv/bin/python -m clients.crowd                       five clients, who waits for whom
.venv/bin/python -m clients.crowd --silent 2            the second one holds the line
.venv/bin/python -m clients.crowd --json crowd.json     every moment, to be drawn

Start a server first. Ctrl-C ends it early; the scoreboard comes in any case.
"""

import argparse
import contextlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clients.client import HOST, PORT, Client

MOST = 1000  # clients: each has a thread here, and a descriptor
ENDS = {"left", "cut off", "failed"}
LOOKS = {  # state: its sign in the picture and its colour
    "connecting": ("~", "magenta"),
    "waiting": ("░", "yellow"),
    "answered": ("█", "green"),
    "thinking": ("─", "cyan"),
    "silent": ("┄", "red"),
    "cut off": ("x", "bold red"),
    "failed": ("!", "bold red"),
}
STEPS = [factor * ten for ten in (0.01, 0.1, 1, 10, 100, 1000) for factor in (1, 2, 5)]


def crowd(
    address, clients=5, every=0.5, greetings=3, think=0.5, silent=None, seconds=30.0, look=None
):
    """Send so many clients to the server at address (host, port); return what happened to each.

    every: seconds between two arrivals. greetings: how often each one greets. think: seconds
    from each answer to its next question. silent: the number of a client, from 1, that greets
    once and stays until all others are gone. seconds: after so many, those who are still there
    are cut off. look: called with the data so far about ten times a second. Ctrl-C cuts all off.

    The returned data is plain: {"address", "options", "interrupted", "seconds": how long it took,
    "clients": [{"number", "silent", "port": its own, "error", "events": [[at, what], ...]}, ...]}.
    at is in seconds since the start; what is "connects", "connected", "asked", "answered", "left",
    "cut off" or "failed" (then error says why). A client that had not come yet at the end has no
    events.
    """
    run = _Run(address, every, greetings, think, silent, seconds)
    for number in range(1, clients + 1):
        run.clients.append(
            {
                "number": number,
                "silent": number == silent,
                "port": None,
                "error": None,
                "events": [],
            }
        )
    options = {"clients": clients, "every": every, "greetings": greetings, "think": think}
    options |= {"silent": silent, "seconds": seconds}
    interrupted = False
    try:
        run.follow(look or (lambda data: None))
    except KeyboardInterrupt:
        interrupted = True
    return {
        "address": list(address),
        "options": options,
        "interrupted": interrupted,
        **run.end(),
    }


class _Run:
    """The clients of one crowd and their threads; only a client's own thread writes its events."""

    def __init__(self, address, every, greetings, think, silent, seconds):
        self.address, self.every, self.greetings, self.think = address, every, greetings, think
        self.seconds = seconds
        self.began = time.perf_counter()
        self.over, self.others_gone = threading.Event(), threading.Event()
        self.clients, self.lines, self.threads = [], {}, []

    def now(self):
        return time.perf_counter() - self.began

    def left(self):
        """Return the seconds until everybody is cut off, more than 0 as a timeout must be."""
        return max(0.001, self.seconds - self.now())

    def follow(self, look):
        """Start a thread for each client, and call look until all have ended."""
        for client in self.clients:
            thread = threading.Thread(target=self.live, args=(client,), daemon=True)
            self.threads.append(thread)
            thread.start()
        talkers = [
            thread
            for thread, client in zip(self.threads, self.clients, strict=True)
            if not client["silent"]
        ]
        while any(thread.is_alive() for thread in self.threads):
            look(self.so_far())
            if not any(thread.is_alive() for thread in talkers):
                self.others_gone.set()
            alive = [thread for thread in self.threads if thread.is_alive()]
            if alive:
                alive[0].join(0.1)

    def live(self, client):
        """Live the life of one client, and note each step of it."""

        def note(what):
            client["events"].append([self.now(), what])

        self.over.wait(min(self.left(), (client["number"] - 1) * self.every))
        if self.over.is_set() or self.now() >= self.seconds:
            return
        note("connects")
        try:
            with Client(*self.address, self.left()) as line:
                self.lines[client["number"]] = line
                client["port"] = line.socket.getsockname()[1]
                note("connected")
                self.talk(client, line, note)
                note("left")  # before close(): the server may answer the next one at once
        except TimeoutError:
            note("cut off")
        except (OSError, ValueError) as error:
            client["error"] = str(error)
            note("cut off" if self.over.is_set() else "failed")

    def talk(self, client, line, note):
        """Greet and think; raise TimeoutError when the time of the crowd is over."""
        for greeting in range(1 if client["silent"] else self.greetings):
            if greeting:
                self.over.wait(min(self.think, self.left()))
                if self.over.is_set() or self.now() >= self.seconds:
                    raise TimeoutError
            line.socket.settimeout(self.left())
            note("asked")
            line.greet(b"client %d, greeting %d" % (client["number"], greeting + 1))
            note("answered")
        if client["silent"]:
            self.others_gone.wait()

    def so_far(self):
        """Return a copy of the clients as they are now, and how long it has been."""
        clients = [{**client, "events": [*client["events"]]} for client in self.clients]
        return {"seconds": self.now(), "clients": clients}

    def end(self):
        """End all clients that are still there; return what happened, each with an end."""
        self.over.set()
        self.others_gone.set()
        for line in list(self.lines.values()):
            with contextlib.suppress(OSError):  # it has left
                line.socket.shutdown(socket.SHUT_RDWR)
        data = self.so_far()
        for client in data["clients"]:
            if client["events"] and client["events"][-1][1] not in ENDS:
                client["events"].append([data["seconds"], "cut off"])
        return data


def intervals(client, until):
    """Return [(state, began, ended), ...] of one client of the data, without gaps.

    state: "connecting", "waiting", "thinking", "silent" or "gone"; until: seconds at which a
    picture ends, for the state in which the client is then.
    """
    after = {
        "connects": "connecting",
        "connected": "waiting",
        "asked": "waiting",
        "answered": "silent" if client["silent"] else "thinking",
    }
    ends = [*client["events"][1:], (until, None)]
    return [
        (after.get(what, "gone"), began, ended)
        for (began, what), (ended, _) in zip(client["events"], ends, strict=False)
    ]


def scoreboard(data):
    """Return the counts of a crowd, which add up.

    came = left + cut off + failed; asked = answered + still waiting + lost: questions whose
    connection failed; never served: clients without one answer.
    """
    events = [[what for _, what in client["events"]] for client in data["clients"]]
    lives = [steps for steps in events if steps]
    waiting = [steps for steps in lives if "asked" in steps and steps[-2] == "asked"]
    return {
        "came": len(lives),
        **{end: sum(steps[-1] == end for steps in lives) for end in ("left", "cut off", "failed")},
        "asked": sum(steps.count("asked") for steps in lives),
        "answered": sum(steps.count("answered") for steps in lives),
        "still waiting": sum(steps[-1] == "cut off" for steps in waiting),
        "lost": sum(steps[-1] == "failed" for steps in waiting),
        "never connected": sum("connected" not in steps for steps in lives),
        "never served": sum("answered" not in steps for steps in lives),
    }


def state(client, until):
    """Return the state of a client and for how many seconds it has been in it."""
    spans = intervals(client, until)
    if not spans:
        return "to come", 0.0
    name, began, _ = spans[-1]
    if name == "gone":
        return client["events"][-1][1], until - began
    return name, until - began


def picture(data, width, height):
    """Return the timeline for a terminal of so many columns and rows: a row a client."""
    board, status = Table.grid(padding=(0, 1)), 17
    columns = max(10, width - len(str(len(data["clients"]))) - status - 3)
    cell = next((step for step in STEPS if step * columns > data["seconds"]), STEPS[-1])
    shown = data["clients"][: max(1, height - 5)]
    for client in shown:
        name, seconds = state(client, data["seconds"])
        text = name if name in ENDS or name == "to come" else f"{name} {seconds:.1f} s"
        sign = Text(f"{text:<{status}}", style=LOOKS.get(name, ("", ""))[1], no_wrap=True)
        board.add_row(Text(str(client["number"]), justify="right"), row(client, data, cell), sign)
    board.add_row("", axis(columns, cell), "")
    rest = data["clients"][len(shown) :]
    return Group(board, *([others(rest, data["seconds"])] if rest else []), legend())


def row(client, data, cell):
    """Return the past of one client, so many seconds a character."""
    line = [None] * (int(data["seconds"] / cell) + 1)
    for name, began, ended in intervals(client, data["seconds"]):
        for place in range(int(began / cell), int(ended / cell) + 1):
            line[place] = name
    for at, what in client["events"]:
        if what in LOOKS:
            line[int(at / cell)] = what
    text = Text(no_wrap=True)
    for name in line:
        text.append(*LOOKS.get(name, (" ", "")))
    return text


def axis(columns, cell):
    """Return the seconds under the picture, every ten characters."""
    marks = [f"{place * cell:g} s" for place in range(0, columns - 9, 10)]
    return Text("".join(f"{mark:<10}" for mark in marks), style="dim")


def others(clients, until):
    """Return one line about the clients for whom there is no row."""
    states = [state(client, until)[0] for client in clients]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    return Text(f"and {len(clients)} more: {counts}", style="bold")


def legend():
    """Return what the signs mean."""
    text = Text(no_wrap=True)
    for name, (sign, style) in LOOKS.items():
        text.append(f"{sign} ", style).append(f"{name}  ")
    return text


def scores(data):
    """Return the scoreboard as a table, with the questions and the clients each in a sentence."""
    board = scoreboard(data)
    table = Table.grid(padding=(0, 1))
    for name in ("asked", "answered", "still waiting", "never served"):
        table.add_row(Text(str(board[name]), justify="right"), name)
    ends = ", ".join(f"{board[end]} {end}" for end in ("left", "cut off", "failed"))
    came = (
        f"{board['came']} of {len(data['clients'])} clients came: {ends}; {data['seconds']:.1f} s"
    )
    errors = {client["error"] for client in data["clients"]} if board["failed"] else set()
    return Group(came, table, *sorted(errors - {None}))


def show(address, settings):
    """Run a crowd with its picture on the terminal; without a terminal, with no picture."""
    console = Console()
    if not console.is_terminal:
        return crowd(address, **settings)
    with Live(console=console, refresh_per_second=10, vertical_overflow="crop") as live:

        def look(data):
            live.update(picture(data, console.width, console.height))

        data = crowd(address, **settings, look=look)
        look(data)
    return data


def options():
    """Return the command line's options; exits with one line if they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two arrivals")
    parser.add_argument("--greetings", type=int, default=3, help="how often each one greets")
    parser.add_argument("--think", type=float, default=0.5, help="seconds after each answer")
    parser.add_argument("--silent", type=int, metavar="N", help="client N never leaves")
    parser.add_argument("--seconds", type=float, default=30.0, help="then all are cut off")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what happened, and when")
    args = parser.parse_args()
    if not (1 <= args.clients <= MOST and 1 <= args.greetings <= 1000):
        parser.error(f"--clients takes 1 to {MOST}, --greetings 1 to 1000")
    if not (0 <= args.every <= 3600 and 0 <= args.think <= 3600 and 0 < args.seconds <= 3600):
        parser.error("--every, --think and --seconds take seconds, up to 3600")
    if args.silent is not None and not 1 <= args.silent <= args.clients:
        parser.error(f"--silent takes the number of a client, 1 to {args.clients}")
    return args


def main():
    settings = vars(options())
    address, file = (settings.pop("host"), settings.pop("port")), settings.pop("json")
    data = show(address, settings)
    Console(highlight=False, soft_wrap=True).print(scores(data))
    if file:
        file.write_text(json.dumps(data) + "\n")
    if data["interrupted"]:
        return 130  # as a shell says it of a program that Ctrl-C ended
    return 1 if scoreboard(data)["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
