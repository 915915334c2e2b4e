"""Check a server, written in any language, against the contract of every greeting server.

.venv/bin/python -m clients.contract path/to/server               all checks
.venv/bin/python -m clients.contract 04_mine ctrl_c_ends_it       only some, by their names
.venv/bin/python -m clients.contract 04_mine --json               results for a program to read

CONTRACT.md says on one page what such a program must do. The exit status is 0 only if no check
failed.
"""

import json
import os
import signal
import sys
import textwrap
from dataclasses import asdict, dataclass, field, replace

from rich.console import Console

from clients.console.argtypes import command_parser, number
from clients.console.printable import printable, replace_unencodable
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import CRASHED, CheckResult, run_checks
from clients.system import processes

STYLES = {"passed": "green", "failed": "bold red", "not applicable": "yellow"}


@dataclass
class Report:
    """What --json prints."""

    server: str  # as named on the command line
    passed: bool = False
    checks: list[CheckResult] = field(default_factory=list)
    error: str = ""  # why no check could run
    schema: int = 2


def without_repeated_crashes(results):
    """Yield each CheckResult; the reason of a crash is in the first one only."""
    crashes = set()
    for result in results:
        if result.reason in crashes:
            result = replace(result, reason="the same crash")
        elif result.reason.startswith(CRASHED):
            crashes.add(result.reason)
        yield result


def show(console, result):
    """Print a CheckResult: one line, and the reason below it."""
    console.print(f"{result.outcome:14}  {result.check}", style=STYLES[result.outcome])
    width = max(1, console.width - 17)
    for line in result.reason.splitlines():
        for part in textwrap.wrap(printable(line), width, break_on_hyphens=False):
            console.print(f"{'':16}{part}", markup=False)


def main():
    processes.require_linux()
    parser = command_parser(__doc__)
    parser.add_argument("server", help="a program's path, or a model's name")
    parser.add_argument("check", nargs="*", default=[], help="only these; without any, all")
    parser.add_argument("--json", action="store_true", help="print all results as one JSON object")
    seconds = number(float, 0.1, 3600)
    text = "seconds to wait for each expected event (5)"
    parser.add_argument("--timeout", type=seconds, default=5.0, help=text)
    replace_unencodable()
    args = parser.parse_intermixed_args()  # checks may follow options
    if unknown := set(args.check) - set(CHECKS):
        parser.error(f"no check {', '.join(sorted(unknown))}: clients/CONTRACT.md names them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the server then, too
    # A shell starts a background job with SIGINT ignored, and the server would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console, report = Console(highlight=False), Report(args.server)
    try:
        program = processes.find_server(args.server)
        processes.raise_nofile_limit()  # all servers inherit it
        with processes.running_server(program, timeout=args.timeout):
            pass  # or no check needs to run
        checks = [CHECKS[name] for name in args.check or CHECKS]
        for result in without_repeated_crashes(run_checks(program, checks, timeout=args.timeout)):
            report.checks.append(result)
            if not args.json:
                show(console, result)
        report.passed = all(result.outcome != "failed" for result in report.checks)
    except processes.LaunchError as error:
        report.error = str(error)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)  # at once: threads still wait for servers, which end with this process
    if args.json:
        print(json.dumps(asdict(report), indent=1))
    elif not report.error:
        outcomes = [result.outcome for result in report.checks]
        counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in STYLES)
        console.print(f"\n{printable(args.server)}: {counts}", markup=False)
    return report.error or int(not report.passed)


if __name__ == "__main__":
    sys.exit(main())
