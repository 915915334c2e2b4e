"""Record servers step by step, line by line with the kernel's side, and write a page.

.venv/bin/python -m clients.trace                             the page of the three models again,
                                                              and the front page's moving picture
.venv/bin/python -m clients.trace 04_mine                     a page of your own, steps.html
.venv/bin/python -m clients.trace my.py 03_epoll --out m.html of several, side by side
.venv/bin/python -m clients.trace 04_mine --scenario two      of one scenario only

Each scenario is played to each server, a Python program that takes the options of CONTRACT.md, in
a network namespace of its own: Linux only, a few seconds per scenario. The page is one file: open
it in a browser, no network is needed.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from clients.console.argtypes import command_parser
from clients.console.palette import MODELS
from clients.system.processes import distinct_names, find_server, require_linux
from clients.trace.animated_svg import FRONT, draw
from clients.trace.bundle import record
from clients.trace.page import STEPS, build
from clients.trace.scenarios import SCENARIOS


def parse_options():
    parser = command_parser(__doc__)
    text = "a program's path, or a model's name; without any, the three models"
    parser.add_argument("server", nargs="*", help=text)
    text = "record only this one (may be repeated)"
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help=text)
    text = "the page (steps.html here; without servers, clients/trace/steps.html)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    return parser.parse_args()


def write(file, text):
    """Write a text in UTF-8; the file is replaced when all of it is written."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(f"cannot write {file}: {error.strerror}") from error


def main():
    require_linux()
    args = parse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started, too
    problems = []
    file = args.out or (Path("steps.html") if args.server else STEPS)
    try:
        if not os.access(file.parent, os.W_OK):  # known before a minute of recording
            raise OSError(f"cannot write {file}")
        paths = [find_server(one) for one in args.server or MODELS]
        programs = dict(zip(distinct_names(paths), paths, strict=True))
        scenarios = {name: SCENARIOS[name] for name in args.scenario or SCENARIOS}
        print(f"recording {', '.join(programs)}: a minute or less", file=sys.stderr)
        bundle, failed = record(programs, scenarios)
        problems += [f"{program}: {why}" for (_, program), why in failed.items()]
        if bundle["recordings"]:
            page = build(bundle)
            write(file, page)
            for picture, is_dark in (FRONT if file == STEPS else {}).items():
                write(picture, draw(bundle, is_dark))
            size = f"{len(page.encode()) / 1000:.0f} KB"
            try:
                print(f"{file}: {size}. Open it in a browser.", flush=True)
            except BrokenPipeError:
                sys.stdout = None  # or Python would flush it once more
    except (RuntimeError, OSError) as error:  # NamespaceDenied, LaunchError are RuntimeErrors
        problems.append(str(error))
    except KeyboardInterrupt:
        return 130
    for text in dict.fromkeys(problems):
        print(f"python -m clients.trace: {' '.join(text.split())}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
