"""Learn by breaking: put a known fault into a server and see which check catches it.

.venv/bin/python -m clients.break_it 03_epoll                       the faults, and what one sees
.venv/bin/python -m clients.break_it 03_epoll never-close           the change, the check, a server
.venv/bin/python -m clients.break_it 03_epoll never-close --hide    find the line yourself

The broken server is a copy in a temporary folder. It runs until Ctrl-C, then the copy is deleted.
When standard input is no terminal, the command ends right after the check: with exit status 0 if
the check has caught the fault.
"""

import argparse
import contextlib
import difflib
import signal
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from clients.console.printable import any_terminal, printable
from clients.contract.checks import CLAIMS
from clients.contract.server_under_test import judge
from clients.system.processes import (
    LaunchError,
    find,
    require_linux,
    running_server,
    tail,
    temp_dir,
)

PATIENCE = 3.0  # seconds to wait for what a broken server will not do


@dataclass(frozen=True)
class Fault:
    """A small change to a server, as faults.toml beside the server tells it.

    claim is the contract's function that catches it. changes are pairs of text: what stands
    once in the server, and what stands there in the broken one.
    """

    program: Path
    name: str
    symptom: str
    teaches: str
    claim: str
    changes: list

    def broken(self):
        """Return the text of the broken server. Raises ValueError if the server has changed."""
        source = self.program.read_text()
        for was, now in self.changes:
            if (times := source.count(was)) != 1:
                raise ValueError(f"{self.program} holds {was!r} {times} times and not once")
            source = source.replace(was, now)
        return source

    def diff(self):
        """Return the change as a unified diff, one string."""
        name = f"{self.program.parent.name}/{self.program.name}"
        before, after = self.program.read_text(), self.broken()
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), name, f"{name} (broken)", n=3, lineterm=""
        )
        return "\n".join(lines)

    @contextlib.contextmanager
    def copied(self):
        """Yield the path of a broken copy, which is deleted afterwards."""
        with temp_dir("broken-") as place:
            copy = Path(place, self.program.parent.name, self.program.name)
            copy.parent.mkdir()
            copy.write_text(self.broken())
            yield copy


def faults_of(program):
    """Return {name: Fault} of a server program; empty if no faults.toml stands beside it."""
    file = program.with_name("faults.toml")
    told = tomllib.loads(file.read_text()) if file.exists() else {}
    return {name: Fault(program, name, **rest) for name, rest in told.items()}


def show_list(console, faults):
    """Print a line a fault: its name and what a user sees."""
    table = Table("fault", "what a user sees", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for fault in faults.values():
        table.add_row(Text(printable(fault.name)), Text(plain(fault.symptom)))
    console.print(table)


def plain(text):
    """Return text from a TOML file on one line, printable."""
    return printable(" ".join(text.split()))


def show(console, fault, copy, hide):
    """Print what the fault is, or only what is seen of it and where the broken copy stands."""
    console.print(f"What a user sees: {plain(fault.symptom)}\n", markup=False)
    if hide:
        where = f"One place in this copy is broken. Find it:\n  {printable(str(copy))}\n"
        console.print(where, markup=False, soft_wrap=True)
    else:
        diff = "\n".join(map(printable, fault.diff().expandtabs().split("\n")))
        console.print(Syntax(diff, "diff", background_color="default", word_wrap=True))
        console.print(f"\nWhat it teaches: {plain(fault.teaches)}\n", markup=False)


def caught(console, fault, copy):
    """Hold the broken copy to its claim and print what happened; say whether it failed there."""
    console.print(f"The check: {fault.claim.replace('_', ' ')} …")
    verdict, why = judge(copy, CLAIMS[fault.claim], patience=PATIENCE)
    if verdict == "broken":
        console.print("failed, as it should:", style="bold green")
        lines = "\n".join(map(printable, why.splitlines()))
        console.print(f"  {lines}\n", markup=False, soft_wrap=True)
    elif verdict == "held":
        console.print("held: the fault was not caught", style="bold red")
    else:
        console.print(f"cannot be tried here: {why}", style="bold red", markup=False)
    return verdict == "broken"


def keep_running(console, fault, copy):
    """Run the broken copy until Ctrl-C, or until it ends by itself."""
    options = [option for option in CLAIMS[fault.claim].options if option != "--quiet"]
    with running_server(copy, *options) as server:
        with_options = f" with {' '.join(options)}" if options else ""
        port = server.address[1]
        console.print(f"The broken server listens on port {port}{with_options}.")
        console.print(
            f"Talk to it in another terminal:\n\n  python3 clients/client.py --port {port}\n"
        )
        console.print("Ctrl-C ends it; then the end of its log is shown.")
        try:
            server.process.wait()
            console.print("The broken server has ended by itself.")
        finally:
            log = tail(server.log(), 8)
            console.print(f"\nThe end of its log:\n  {log}", markup=False, soft_wrap=True)


def practise(console, fault, hide):
    """Show a fault, say whether its check catches it, and on a terminal let the broken copy run."""
    with fault.copied() as copy:
        show(console, fault, copy, hide)
        was_caught = caught(console, fault, copy)
        if sys.stdin and sys.stdin.isatty():  # None: it is closed
            keep_running(console, fault, copy)
    return was_caught


def main():
    require_linux()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", help="a model's name, or a server with a faults.toml beside it")
    parser.add_argument("fault", nargs="?", help="without it, all are listed")
    parser.add_argument("--hide", action="store_true", help="do not show the change")
    any_terminal()
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up then, too
    console = Console(highlight=False)
    try:
        faults = faults_of(find(args.server))
        if not faults:
            return f"no faults.toml stands beside {args.server}"
        if args.fault is None:
            show_list(console, faults)
            return 0
        if args.fault not in faults:
            return f"{args.server} has no fault {args.fault}: take one of {', '.join(faults)}"
        return int(not practise(console, faults[args.fault], args.hide))
    except (LaunchError, ValueError) as error:
        return str(error)
    except KeyboardInterrupt:
        console.print()
        return 0


if __name__ == "__main__":
    sys.exit(main())
