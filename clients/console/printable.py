"""What others have written, made fit for our screen."""

import ast
import contextlib
import sys


def printable(text):
    """Return text that no terminal takes for a command: a dot for what cannot be printed.

    Escapes, line ends and the marks that turn the direction of writing are among that. For rich it
    is still to be wrapped in a Text, or printed with markup=False: "[red]" is printable.
    """
    return "".join(char if char.isprintable() else "·" for char in text)


def any_terminal():
    """Let standard output take every character: "?" for one that this terminal does not have."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # it is closed, and then None
            stream.reconfigure(errors="replace")


def first_sentence(text):
    """Return the first line of a program's docstring, which says the model in one sentence."""
    with contextlib.suppress(SyntaxError):  # it will not run either, and Python says why
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return ""
