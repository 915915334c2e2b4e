"""Learn by breaking: make a known fault in a copy of a server, and see which check catches it.

.venv/bin/python -m clients.break_it 03_epoll                the mutants, and their symptoms
.venv/bin/python -m clients.break_it 03_epoll eof-ignored    the change, the check, a server

A mutant is a copy of the server with one fault, in a temporary folder. It runs until Ctrl-C, then
the copy is deleted. Without a terminal on standard input the command ends after the check, with
exit status 0 if the check caught the fault.
"""

import contextlib
import difflib
import signal
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from clients.console.argtypes import command_parser
from clients.console.printable import printable, replace_unencodable
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import run_check
from clients.system import processes

TIMEOUT = 3.0  # seconds to wait for what the mutant will not do


@dataclass(frozen=True)
class Mutant:
    """A server with one fault, as the faults.toml next to the server describes it."""

    program: Path  # the server without the fault
    name: str
    symptom: str  # what a user sees
    teaches: str
    check: str  # the contract's check that catches it
    changes: list[tuple[str, str]]  # text that is in the server once, and what replaces it

    def source(self):
        """Return the text of the mutant. Raises ValueError if the server has changed."""
        source = self.program.read_text()
        for before, after in self.changes:
            if (count := source.count(before)) != 1:
                raise ValueError(f"{self.program} contains {before!r} {count} times and not once")
            source = source.replace(before, after)
        return source

    @contextlib.contextmanager
    def written(self):
        """Yield the path of the mutant's file, which is deleted afterwards."""
        with processes.temp_dir("mutant-") as place:
            copy = Path(place, self.program.parent.name, self.program.name)
            copy.parent.mkdir()
            copy.write_text(self.source())
            yield copy


def mutants_of(program):
    """Return {name: Mutant} of a server program; empty without a faults.toml next to it.

    Raises ValueError if an entry is not complete, or names an unknown check.
    """
    file = program.with_name("faults.toml")
    mutants = {}
    try:
        for name, entry in (tomllib.loads(file.read_text()) if file.exists() else {}).items():
            mutants[name] = Mutant(program, name, **entry)
            if entry["check"] not in CHECKS:
                raise ValueError(f"[{name}] names an unknown check, {entry['check']}")
    except TypeError:
        keys = [field.name for field in fields(Mutant)[2:]]
        raise ValueError(f"{file}: [{name}] needs the keys {', '.join(keys)}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return mutants


def plain(text):
    """Return text from a TOML file on one line, printable."""
    return printable(" ".join(text.split()))


def plain_lines(text):
    """Return lines of text, printable."""
    return "\n".join(map(printable, text.splitlines()))


def show(console, mutant):
    """Print the fault: its symptom, the change, and what it teaches."""
    console.print(f"What a user sees: {plain(mutant.symptom)}\n", markup=False)
    sources = (text.splitlines() for text in (mutant.program.read_text(), mutant.source()))
    name = f"{mutant.program.parent.name}/{mutant.program.name}"
    lines = difflib.unified_diff(*sources, name, f"{name} (mutant)", lineterm="")
    diff = "\n".join(printable(line.expandtabs()) for line in lines)
    console.print(Syntax(diff, "diff", background_color="default", word_wrap=True))
    console.print(f"\nWhat it teaches: {plain(mutant.teaches)}\n", markup=False)


def caught(console, mutant, copy):
    """Run the check of a mutant, print the outcome, and return True if it failed."""
    console.print(f"The check: {mutant.check.replace('_', ' ')} …")
    result = run_check(copy, CHECKS[mutant.check], timeout=TIMEOUT)
    if result.outcome == "failed":
        console.print("failed, as it should:", style="bold green")
        console.print(f"  {plain_lines(result.reason)}\n", markup=False, soft_wrap=True)
        return True
    reason = result.reason or "the fault was not caught"
    console.print(f"{result.outcome}: {reason}", style="bold red", markup=False)
    return False


def keep_running(console, mutant, copy):
    """Run the mutant until Ctrl-C, or until it ends by itself."""
    options = [option for option in CHECKS[mutant.check].options if option != "--quiet"]
    with processes.running_server(copy, *options) as server:
        with_options = f" with {' '.join(options)}" if options else ""
        client = f"python3 clients/client.py --port {server.address[1]}"
        try:  # Ctrl-C may arrive as soon as its line is printed
            console.print(f"The mutant listens{with_options}. Talk to it in another terminal:")
            console.print(f"\n  {client}\n\nCtrl-C ends it; then the end of its log is shown.")
            server.process.wait()
            console.print("The mutant has ended by itself.")
        finally:
            log = processes.tail(server.log(), 8)
            console.print(f"\nThe end of its log:\n  {log}", markup=False, soft_wrap=True)


def main():
    processes.require_linux()
    parser = command_parser(__doc__)
    parser.add_argument("server", help="a model's name, or a server with a faults.toml next to it")
    parser.add_argument("mutant", nargs="?", help="without it, all are listed")
    replace_unencodable()
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # delete the copy then, too
    console = Console(highlight=False)
    try:
        mutants = mutants_of(processes.find_server(args.server))
        if not mutants:
            return f"there is no faults.toml next to {args.server}"
        if args.mutant is None:
            table = Table("mutant", "what a user sees", box=None, pad_edge=False)
            table.columns[0].no_wrap = True
            for mutant in mutants.values():
                table.add_row(Text(printable(mutant.name)), Text(plain(mutant.symptom)))
            console.print(table)
            return 0
        if args.mutant not in mutants:
            return f"{args.server} has no mutant {args.mutant}: take one of {', '.join(mutants)}"
        with (mutant := mutants[args.mutant]).written() as copy:
            show(console, mutant)
            is_caught = caught(console, mutant, copy)
            if sys.stdin and sys.stdin.isatty():  # None: it is closed
                keep_running(console, mutant, copy)
        return int(not is_caught)
    except (processes.LaunchError, ValueError) as error:
        return plain_lines(str(error))
    except KeyboardInterrupt:
        console.print()
        return 0


if __name__ == "__main__":
    sys.exit(main())
