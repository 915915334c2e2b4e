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
import subprocess
import sys

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
    builds = {"with GIL": (args.python, 1), "without GIL": (args.python, 0)}
    if args.ordinary:
        builds["ordinary"] = args.ordinary, None
    try:
        found = gil.measure(args.python)
        found.models = list(map(vars, gil.measure_models(builds)))
    except (OSError, LaunchError, RuntimeError, subprocess.CalledProcessError) as error:
        return f"{error}"
    cores = len(os.sched_getaffinity(0))
    found.when = f"{datetime.date.today()}, Linux {platform.release()}, {cores} cores"
    gil.RECORDED.write_text(json.dumps(shortened(json.dumps(vars(found)))) + "\n")
    print(f"Python {found.python}: {found.throughput}")
    for one in found.models:
        print("{server:16} {build:12} {compute:5} s: {throughput:8.0f}/s,".format(**one), end=" ")
        print(f"{one['cpu_us']:8.0f} µs, {one['rss'] / 2**20:5.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
