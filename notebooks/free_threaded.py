"""Record what servers do in a free-threaded Python, for machines that have none.

.venv/bin/python -m notebooks.free_threaded --python python3.14t --ordinary python3.14

Such a Python comes with `uv python install 3.14t`, `pyenv install 3.14t`, or a package of the
distribution (Fedora: python3.14-freethreading). What is measured is written to
notebooks/lab/free_threaded.json, with its date and machine.
"""

import datetime
import json
import os
import platform
import sys
from dataclasses import asdict

from clients.console.argtypes import command_parser
from clients.system.processes import LaunchError, require_linux
from notebooks.lab import gil
from notebooks.lab.tcp import shortened


def main():
    require_linux()
    parser = command_parser(__doc__)
    parser.add_argument("--python", required=True, help="a free-threaded Python")
    parser.add_argument("--ordinary", help="the ordinary build of the same version")
    args = parser.parse_args()
    try:
        found = gil.measure(args.python, ordinary=args.ordinary)
    except (OSError, LaunchError, RuntimeError) as error:
        return f"{error}"
    cores = len(os.sched_getaffinity(0))
    found.when = f"{datetime.date.today()}, Linux {platform.release()}, {cores} cores"
    gil.RECORDED.write_text(json.dumps(shortened(json.dumps(asdict(found)))) + "\n")
    print(*found.models, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
