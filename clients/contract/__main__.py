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

from rich.console import Console

from clients.contract import claims
from clients.contract.claims import CLAIMS, Broken, NotApplicable, hold
from clients.system.launch import LaunchError, find, running


def judge(program, function):
    """Hold program to one claim; return {"claim", "verdict", "why"}, why is "" if it holds."""
    verdict, why = "held", ""
    try:
        hold(program, function)
    except Broken as error:
        verdict, why = "broken", str(error)
    except NotApplicable as reason:
        verdict, why = "not applicable", str(reason)
    return {"claim": function.__name__, "verdict": verdict, "why": why}


def tell(console, result):
    """Print a result: one line, and below it why, if there is something to explain."""
    mark, style = {
        "held": ("held  ", "green"),
        "broken": ("BROKEN", "bold red"),
        "not applicable": ("n/a   ", "yellow"),
    }[result["verdict"]]
    console.print(f"{mark}  {result['claim']}", style=style)
    for line in textwrap.wrap(result["why"], console.width - 9, break_on_hyphens=False):
        console.print(f"        {line}", markup=False)


def judge_all(program, functions, console):
    """Hold program to functions, tell of each to console (None: do not) and return the results."""
    with running(program, patience=claims.PATIENCE):  # no start, no need to try each claim
        pass
    results = []
    for function in functions:
        results.append(judge(program, function))
        if console:
            tell(console, results[-1])
    return results


def report(name, results, console):
    """Print the sum of all results; return the exit status."""
    verdicts = [result["verdict"] for result in results]
    held, broken = verdicts.count("held"), verdicts.count("broken")
    if console:
        rest = len(verdicts) - held - broken
        console.print(f"\n{name}: {held} held, {broken} broken, {rest} not applicable")
    else:
        print(json.dumps({"server": name, "keeps": not broken, "claims": results}, indent=1))
    return int(broken > 0)


def main():
    by_name = {function.__name__: function for function in CLAIMS}
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("server", help="a program's path, or a model's name")
    parser.add_argument("claim", nargs="*", help="only these; without any, all")
    parser.add_argument("--json", action="store_true", help="print all results as one JSON object")
    parser.add_argument(
        "--patience", type=float, default=5, help="seconds to wait for what must happen (5)"
    )
    args = parser.parse_args()
    if unknown := set(args.claim) - set(by_name):
        parser.error(f"no claim {', '.join(sorted(unknown))}: clients/CONTRACT.md names them")
    if not 0 < args.patience <= 3600:
        parser.error("--patience takes a number of seconds above 0, up to 3600")
    claims.PATIENCE = args.patience
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the server then, too
    console = None if args.json else Console(highlight=False)
    try:
        program = find(args.server)
        results = judge_all(program, [by_name[name] for name in args.claim or by_name], console)
    except LaunchError as error:
        if args.json:
            print(json.dumps({"server": args.server, "keeps": False, "why": str(error)}))
        return str(error)
    except KeyboardInterrupt:
        return 130
    return report(args.server, results, console)


if __name__ == "__main__":
    sys.exit(main())
