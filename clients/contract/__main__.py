"""Check a server, written in any language, against the contract of every greeting server.

.venv/bin/python -m clients.contract path/to/server               all checks
.venv/bin/python -m clients.contract 04_mine ctrl_c_ends_it       only some, by their names
.venv/bin/python -m clients.contract 04_mine --json               results for a program to read

CONTRACT.md says on one page what such a program must do. The exit status is 0 only if no check
failed.
"""

import argparse
import json
import os
import signal
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from rich.console import Console

from clients.console.argtypes import number
from clients.console.printable import printable, replace_unencodable
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import CRASHED, CheckResult, run_check
from clients.system.processes import (
    LaunchError,
    find_server,
    raise_nofile_limit,
    require_linux,
    running_server,
)

SCHEMA = 2  # of the JSON report
JOBS = 4
DEADLINE_FACTOR = 24  # all checks together may take this many times the timeout
STYLES = {
    "passed": "green",
    "failed": "bold red",
    "not applicable": "yellow",
    "not run": "bold red",
}


@dataclass
class Report:
    """What --json prints."""

    server: str  # as named on the command line
    passed: bool
    checks: list[CheckResult]
    error: str = ""  # why no check could run
    schema: int = SCHEMA


def run_checks(program, names, timeout, on_result=lambda result: None):
    """Run the checks against program, call on_result with each CheckResult, return them all.

    JOBS checks run at a time, each with its own server: most of a check is waiting. After
    DEADLINE_FACTOR * timeout seconds, the remaining checks are not run.
    """
    raise_nofile_limit()  # the server inherits it: each check runs with the same limit
    with running_server(program, timeout=timeout):  # if it does not start, no check needs to run
        pass
    limit = DEADLINE_FACTOR * timeout
    deadline = time.monotonic() + limit

    def run(name):
        if time.monotonic() < deadline:
            return run_check(program, CHECKS[name], timeout=timeout)
        return CheckResult(name, "not run", f"{limit:g} s, the limit of a run, have passed")

    results, reasons = [], set()
    with ThreadPoolExecutor(JOBS) as pool:
        for result in pool.map(run, names):
            if result.reason.startswith(CRASHED) and result.reason in reasons:
                result = replace(result, reason="the same crash")
            reasons.add(result.reason)
            results.append(result)
            on_result(result)
    return results


def show(console, result):
    """Print a CheckResult: one line, and the reason below it."""
    console.print(f"{result.outcome:14}  {result.check}", style=STYLES[result.outcome])
    width = max(1, console.width - 17)
    for line in result.reason.splitlines():
        for part in textwrap.wrap(printable(line), width, break_on_hyphens=False):
            console.print(f"{'':16}{part}", markup=False)


def summary(report):
    """Return one line: how many checks of a Report have which outcome."""
    outcomes = [result.outcome for result in report.checks]
    shown = [outcome for outcome in STYLES if outcome != "not run" or outcome in outcomes]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in shown)
    return f"{printable(report.server)}: {counts}"


def main():
    require_linux()
    parser = argparse.ArgumentParser(
        prog="python -m clients.contract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("server", help="a program's path, or a model's name")
    parser.add_argument("check", nargs="*", default=[], help="only these; without any, all")
    parser.add_argument("--json", action="store_true", help="print all results as one JSON object")
    parser.add_argument(
        "--timeout",
        type=number(float, 0.1, 3600),
        default=5.0,
        help="seconds to wait for each expected event (5)",
    )
    replace_unencodable()
    args = parser.parse_intermixed_args()  # checks may follow options
    if unknown := set(args.check) - set(CHECKS):
        parser.error(f"no check {', '.join(sorted(unknown))}: clients/CONTRACT.md names them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the server then, too
    # A shell starts a background job with SIGINT ignored, and the server would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console(highlight=False)
    on_result = (lambda result: None) if args.json else (lambda result: show(console, result))
    report = Report(args.server, False, [])
    try:
        report.checks = run_checks(
            find_server(args.server), args.check or CHECKS, args.timeout, on_result
        )
        outcomes = {result.outcome for result in report.checks}
        report.passed = outcomes <= {"passed", "not applicable"}
    except LaunchError as error:
        report.error = str(error)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)  # at once: threads still wait for servers, which end with this process
    if args.json:
        print(json.dumps(asdict(report), indent=1))
    elif not report.error:
        console.print(f"\n{summary(report)}", markup=False)
    return report.error or int(not report.passed)


if __name__ == "__main__":
    sys.exit(main())
