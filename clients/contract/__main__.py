"""Hold a server, written in any language, to what every greeting server owes its clients.

.venv/bin/python -m clients.contract path/to/server               to all claims
.venv/bin/python -m clients.contract 04_mine ctrl_c_ends_it       only to some, by their names
.venv/bin/python -m clients.contract 04_mine --json               results for a program to read

CONTRACT.md tells on one page what such a program must do. The exit status is 0 only if no claim
is broken.
"""

import argparse
import json
import signal
import sys
import textwrap
import time

from rich.console import Console

from clients.console.argtypes import number
from clients.console.printable import any_terminal, printable
from clients.contract.checks import CLAIMS
from clients.contract.server_under_test import judge
from clients.system.processes import (
    LaunchError,
    find,
    raise_nofile_limit,
    require_linux,
    running_server,
)

WHOLE = 24  # times patience: the seconds that all claims together may take
MARKS = {
    "held": ("held  ", "green"),
    "broken": ("BROKEN", "bold red"),
    "not applicable": ("n/a   ", "yellow"),
    "not tried": ("-     ", "bold red"),
}


def judge_all(program, names, patience, console):
    """Hold program to the claims, tell of each to console (None: do not), return the results.

    A result is {"claim", "verdict", "why"}. When the whole has taken WHOLE * patience seconds, the
    rest is not tried.
    """
    raise_nofile_limit()  # for the server, too: a claim alone has what it has among all
    with running_server(program, patience=patience):  # no start, no need to try each claim
        pass
    results, until = [], time.monotonic() + WHOLE * patience
    for name in names:
        if time.monotonic() < until:
            verdict, why = judge(program, CLAIMS[name], patience=patience)
        else:
            first = not results or results[-1]["verdict"] != "not tried"
            why = f"{WHOLE * patience:g} s, the bound of the whole, are over" if first else ""
            verdict = "not tried"
        results.append({"claim": name, "verdict": verdict, "why": why})
        if console:
            tell(console, **results[-1])
    return results


def tell(console, claim, verdict, why):
    """Print a result: one line, and below it why, if there is something to explain."""
    mark, style = MARKS[verdict]
    console.print(f"{mark}  {claim}", style=style)
    for line in why.splitlines():
        for part in textwrap.wrap(
            printable(line), max(1, console.width - 9), break_on_hyphens=False
        ):
            console.print(f"        {part}", markup=False)


def report(name, results, console):
    """Print the sum of all results; return the exit status."""
    verdicts = [result["verdict"] for result in results]
    keeps = not {"broken", "not tried"}.intersection(verdicts)
    if console:
        counts = [f"{verdicts.count(what)} {what}" for what in MARKS]
        if "not tried" not in verdicts:
            counts.pop()
        console.print(f"\n{printable(name)}: {', '.join(counts)}", markup=False)
    else:
        print(json.dumps({"server": name, "keeps": keeps, "claims": results}, indent=1))
    return int(not keeps)


def main():
    require_linux()
    parser = argparse.ArgumentParser(
        prog="python -m clients.contract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("server", help="a program's path, or a model's name")
    parser.add_argument("claim", nargs="*", default=[], help="only these; without any, all")
    parser.add_argument("--json", action="store_true", help="print all results as one JSON object")
    parser.add_argument(
        "--patience",
        type=number(float, 0.1, 3600),
        default=5.0,
        help="seconds to wait for what must happen (5)",
    )
    any_terminal()
    args = parser.parse_intermixed_args()  # claims may follow options
    if unknown := set(args.claim) - set(CLAIMS):
        parser.error(f"no claim {', '.join(sorted(unknown))}: clients/CONTRACT.md names them")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the server then, too
    # Behind an & a script's programs ignore Ctrl-C, and so would a server that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = None if args.json else Console(highlight=False)
    try:
        results = judge_all(find(args.server), args.claim or CLAIMS, args.patience, console)
    except LaunchError as error:
        if args.json:
            print(json.dumps({"server": args.server, "keeps": False, "why": str(error)}))
        return str(error)
    except KeyboardInterrupt:
        return 130
    return report(args.server, results, console)


if __name__ == "__main__":
    sys.exit(main())
