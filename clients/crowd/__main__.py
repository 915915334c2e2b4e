"""Many clients at once: they come one after the other, greet, think, greet again and leave.

.venv/bin/python -m clients.crowd                       five clients, who waits for whom
.venv/bin/python -m clients.crowd --silent 2            the second one holds the line
.venv/bin/python -m clients.crowd --json crowd.json     every moment, to be drawn

Start a server first. Ctrl-C ends it early; the scoreboard comes in any case.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.live import Live

from clients.client import HOST, PORT
from clients.console.argtypes import number
from clients.console.printable import any_terminal
from clients.crowd.simulation import MOST, Plan, crowd
from clients.crowd.stats import scoreboard
from clients.crowd.timeline import at_the_end, picture, summary


def show(address, plan):
    """Run a crowd with its picture on the terminal; without a terminal, with no picture."""
    console = Console()
    if not console.is_terminal:
        return crowd(address, **plan)
    with Live(console=console, refresh_per_second=10, vertical_overflow="crop") as live:

        def look(data):
            live.update(picture(data, console.width, console.height))

        data = crowd(address, **plan, look=look)
        live.update(at_the_end(data, console))
    return data


def options():
    """Return the command line's options; exits with one line if they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=HOST, help="a name or an IPv4 address")
    parser.add_argument("--port", type=number(int, 1, 65_535), default=PORT)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--every", type=float, help="seconds between two arrivals")
    parser.add_argument("--greetings", type=int, help="how often each one greets")
    parser.add_argument("--think", type=float, help="seconds after each answer")
    parser.add_argument("--silent", type=int, metavar="N", help="client N never leaves")
    parser.add_argument("--seconds", type=float, help="then all are cut off")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what happened, and when")
    parser.set_defaults(**vars(Plan()))
    args = parser.parse_args()
    if not (1 <= args.clients <= MOST and 1 <= args.greetings <= 1000):
        parser.error(f"--clients takes 1 to {MOST}, --greetings 1 to 1000")
    if not (0 <= args.every <= 3600 and 0 <= args.think <= 3600 and 0 < args.seconds <= 3600):
        parser.error("--every, --think and --seconds take seconds, up to 3600")
    if args.silent is not None and not 1 <= args.silent <= args.clients:
        parser.error(f"--silent takes the number of a client, 1 to {args.clients}")
    return args


def main():
    any_terminal()
    plan = vars(options())
    address, file = (plan.pop("host"), plan.pop("port")), plan.pop("json")
    data = show(address, plan)
    Console(highlight=False, soft_wrap=True).print(summary(data))
    if file:
        file.write_text(json.dumps(data) + "\n")
    if data["interrupted"]:
        return 130  # as a shell says it of a program that Ctrl-C ended
    return 1 if scoreboard(data)["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
