"""The classroom: a server from inside and from outside, with clients that the teacher controls.

.venv/bin/python -m clients.classroom 01_blocking                 the keys are on the screen; q ends
.venv/bin/python -m clients.classroom --host 0.0.0.0 --port 3267  the students are the clients

The server's program runs unchanged; the screen shows what the kernel and the sampler report, five
times per second.
"""

import sys

from clients.classroom.app import Classroom
from clients.console.argtypes import command_parser, number
from clients.console.printable import replace_unencodable
from clients.system.processes import LaunchError, find_server, models, require_linux


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
    args = parser.parse_args()
    try:
        args.server = find_server(args.server)
    except LaunchError as error:
        parser.error(str(error))
    if args.server.suffix != ".py":
        parser.error("this shows the lines of Python programs: the name of one ends in .py")
    if not args.host or ":" in args.host:
        parser.error("--host takes a name or an IPv4 address")
    if not (sys.stdin and sys.stdin.isatty()):
        parser.error("this needs a terminal")
    return args


def main():
    require_linux()
    replace_unencodable()
    given = vars(options())
    program = given.pop("server")
    programs = list(dict.fromkeys([*models().values(), program]))
    place = programs.index(program)
    app = Classroom(programs[place:] + programs[:place], given)
    try:
        app.run()
    finally:
        app.end()


if __name__ == "__main__":
    sys.exit(main())
