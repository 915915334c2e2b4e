"""Record servers step by step, line by line with the kernel beside them, and write a page.

.venv/bin/python -m clients.trace                             the page of the three models again,
                                                              and the front page's moving picture
.venv/bin/python -m clients.trace 04_mine                     a page of your own, steps.html
.venv/bin/python -m clients.trace my.py 03_epoll --out m.html of several, side by side

Each story (one falls silent, one never reads, ...) is played to each server, a Python program that
takes the options of CONTRACT.md, in a network of its own: Linux only, a few seconds for each story.
The page is one file: open it in a browser, no network is needed.
"""

import argparse
import signal
import sys
from pathlib import Path

from clients.console.palette import MODELS
from clients.system.processes import distinct_names, find_server, require_linux
from clients.trace.animated_svg import FRONT, draw
from clients.trace.bundle import record
from clients.trace.page import KEPT, build


def options():
    parser = argparse.ArgumentParser(
        prog="python -m clients.trace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "server",
        nargs="*",
        help="a program's path, or a model's name; without any, the three models",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (steps.html here; without servers, clients/trace/steps.html)",
    )
    return parser.parse_args()


def main():
    require_linux()
    args = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started then, too
    file = args.out or (Path("steps.html") if args.server else KEPT)
    try:
        paths = [find_server(one) for one in args.server or MODELS]
        programs = dict(zip(distinct_names(paths), paths, strict=True))
        print(f"recording {', '.join(programs)}: a minute or less", file=sys.stderr)
        recorded = record(programs)
        page = build(recorded)
        file.write_text(page)
        for dark, picture in enumerate(FRONT if file == KEPT else ()):
            picture.write_text(draw(recorded, dark))
    except (RuntimeError, OSError) as error:  # Forbidden and LaunchError are RuntimeErrors
        print("python -m clients.trace: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{file}: {len(page.encode()) / 1000:.0f} KB. Open it in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
