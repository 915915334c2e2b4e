"""Record what threads do in a free-threaded Python, for machines that have none.

.venv/bin/python -m notebooks.free_threaded --python /usr/bin/python3.14t
.venv/bin/python -m notebooks.free_threaded --build       Debian's source of 3.13: a few minutes

The measurement is written to notebooks/lab/free_threaded.json, with its date and machine. Building
needs Debian, with the packages that a compiler brings (gcc, make), in a temporary folder.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from clients.system import processes
from notebooks.lab import gil
from notebooks.lab.tcp import shortened

SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def built(folder):
    """Build a free-threaded Python 3.13 in folder from Debian's source package; return its path."""
    sources, lists, source = folder / "trixie.sources", folder / "lists", folder / "source"
    sources.write_text(SOURCES)
    for path in (lists / "partial", source, folder / "build"):
        path.mkdir(parents=True)
    settings = {"Dir::Etc::sourcelist": sources, "Dir::Etc::SourceParts": "/dev/null"}
    settings |= {"Dir::State::Lists": lists}
    apt = [
        "apt-get",
        *(word for pair in settings.items() for word in ("-o", "{}={}".format(*pair))),
    ]
    run([*apt, "update"], folder)
    run([*apt, "--download-only", "source", "python3.13"], folder)
    [archive] = folder.glob("python3.13_*.orig.tar.xz")
    run(["tar", "xf", archive, "-C", source, "--strip-components=1"], folder)
    run([source / "configure", "--disable-gil", f"--prefix={folder}"], folder / "build")
    run(["make", f"-j{os.cpu_count()}", "install"], folder / "build")
    return folder / "bin" / "python3.13"


def run(line, folder):
    print("+", *line, flush=True)
    with open(folder / "log", "ab") as log:
        with processes.spawn(list(map(str, line)), cwd=folder, stdout=log, stderr=log) as process:
            if status := process.wait():
                raise processes.LaunchError(f"{line[0]} ended with exit status {status}")


def main():
    processes.require_linux()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--python", type=Path, help="a free-threaded Python")
    which.add_argument("--build", action="store_true", help="build one first")
    args = parser.parse_args()
    with processes.temp_dir() as folder:
        try:
            found = gil.measure(args.python or built(Path(folder)))
        except (OSError, processes.LaunchError, subprocess.CalledProcessError) as error:
            return f"{error}"
    cores = len(os.sched_getaffinity(0))
    found.when = f"{datetime.date.today()}, Linux {platform.release()}, {cores} cores"
    gil.RECORDED.write_text(json.dumps(shortened(json.dumps(vars(found)))) + "\n")
    print(f"Python {found.python}: {found.throughput}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
