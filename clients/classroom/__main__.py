"""The classroom: a server from inside and from outside, with clients that the teacher controls.

.venv/bin/python -m clients.classroom 01_blocking                 the keys are on the screen; q ends
.venv/bin/python -m clients.classroom --host 0.0.0.0 --port 3267  the students are the clients
.venv/bin/python -m clients.classroom --screenshot scene.svg      a small scene as a picture

The server's program runs unchanged; the screen shows what the kernel and the sampler report, five
times per second.
"""

import asyncio
import sys
from pathlib import Path

from clients.classroom.app import INTERVAL, Classroom
from clients.console.argtypes import command_parser, number
from clients.console.printable import replace_unencodable
from clients.system.processes import LaunchError, find_server, models, require_linux


async def take_screenshot(app, file):
    """Play a small scene without a terminal, and write the screen to file as SVG."""
    async with app.run_test(size=(120, 36)) as pilot:
        while not (app.monitor and app.monitor.is_visible()):
            await pilot.pause(INTERVAL)
        if app.monitor.ended:
            raise LaunchError("\n".join(app.monitor.ended))
        for key in "aasas":
            await pilot.press(key)
        for _ in range(50):  # until all threads sleep, but not forever
            await pilot.pause(INTERVAL)
            if len(app.monitor.connections) == 3 and all(one.fd for one in app.monitor.threads):
                break
        app.marked_until = 0
        await pilot.pause(5 * INTERVAL)  # until that is drawn
        file.write_text(app.picture(), encoding="utf-8")


def options():
    """Return the command line's options; exits with one line if they make no sense."""
    parser = command_parser(__doc__)
    parser.add_argument("server", nargs="?", default="01_blocking", metavar="MODEL|PATH")
    port = number(int, 0, 65_535)
    parser.add_argument("--host", default="127.0.0.1", help="IPv4; 0.0.0.0: all can connect")
    parser.add_argument("--port", type=port, default=0, help="default: a free one")
    parser.add_argument("--backlog", type=port, default=5, help="for listen(); default: 5")
    seconds = number(float, 0, 3600)
    parser.add_argument("--wait", type=seconds, default=0, help="seconds that a greeting sleeps")
    parser.add_argument("--compute", type=seconds, default=0, help="seconds that it computes")
    parser.add_argument("--screenshot", type=Path, metavar="FILE.svg", help="no terminal needed")
    args = parser.parse_args()
    try:
        args.server = find_server(args.server)
    except LaunchError as error:
        parser.error(str(error))
    if not args.host or ":" in args.host:
        parser.error("--host takes a name or an IPv4 address")
    if not args.screenshot and not (sys.stdin and sys.stdin.isatty()):
        parser.error("this needs a terminal; --screenshot FILE.svg does not")
    return args


def main():
    require_linux()
    replace_unencodable()
    args = options()
    programs = list(dict.fromkeys([*models().values(), args.server]))
    place = programs.index(args.server)
    programs = programs[place:] + programs[:place]
    given = ("host", "port", "backlog", "wait", "compute")
    app = Classroom(programs, {name: getattr(args, name) for name in given})
    try:
        if args.screenshot:
            asyncio.run(take_screenshot(app, args.screenshot))
        else:
            app.run()
    except LaunchError as error:  # with --screenshot: otherwise the screen shows it
        return str(error)
    finally:
        app.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
