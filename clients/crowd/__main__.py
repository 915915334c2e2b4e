"""Runs many clients at once: they arrive in turn, greet, think, greet again and leave.

.venv/bin/python -m clients.crowd                       five clients, and which waits for which
.venv/bin/python -m clients.crowd --silent 2            the second one stays to the end

Start a server first. Ctrl-C ends it early; the summary comes in any case.
"""

import functools
import signal
import sys

from rich.console import Console
from rich.live import Live

from clients.client import HOST, PORT
from clients.console.argtypes import command_parser, number
from clients.console.printable import replace_unencodable
from clients.crowd.simulation import MOST, Config, crowd
from clients.crowd.stats import summary
from clients.crowd.timeline import final_timeline, summary_table, timeline
from clients.system.processes import LaunchError


def show(address, config):
    """Run a crowd, with its timeline if there is a terminal; return its CrowdResult."""
    console = Console()
    if not console.is_terminal:
        return crowd(address, **config)
    with Live(console=console, refresh_per_second=10, vertical_overflow="crop") as live:
        draw = functools.partial(timeline, width=console.width, height=console.height)
        result = crowd(address, **config, progress=lambda so_far: live.update(draw(so_far)))
        live.update(final_timeline(result, console))
    return result


def options():
    """Return the command line's options; exits with one line if they make no sense."""
    parser = command_parser(__doc__)
    parser.add_argument("--host", default=HOST, help="a name or an IPv4 address")
    parser.add_argument("--port", type=number(int, 1, 65_535), default=PORT)
    clients, seconds = number(int, 1, MOST), number(float, 0, 3600)
    parser.add_argument("--clients", type=clients)
    parser.add_argument("--every", type=seconds, help="seconds between two arrivals")
    parser.add_argument("--greetings", type=number(int, 1, 1000), help="per client")
    parser.add_argument("--think", type=seconds, help="seconds after each answer")
    parser.add_argument("--silent", type=clients, metavar="N", help="greets once and leaves last")
    cut_off = number(float, 0.001, 3600)
    parser.add_argument("--seconds", type=cut_off, help="then all clients are cut off")
    parser.set_defaults(**vars(Config()))
    args = parser.parse_args()
    if args.silent and args.silent > args.clients:
        parser.error(f"argument --silent: expected the number of a client, 1 to {args.clients}")
    return args


def interrupt_once(number, _frame):
    """Interrupt the crowd; a further Ctrl-C interrupts neither the cut-off nor the summary."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    replace_unencodable()
    config = vars(options())
    address = config.pop("host"), config.pop("port")
    signal.signal(signal.SIGINT, interrupt_once)
    try:
        result = show(address, config)
    except LaunchError as error:
        return str(error)
    Console(highlight=False, soft_wrap=True).print(summary_table(result))
    if result.interrupted:
        return 130  # as a shell reports a program that Ctrl-C ended
    return 1 if summary(result).failed else 0


if __name__ == "__main__":
    sys.exit(main())
