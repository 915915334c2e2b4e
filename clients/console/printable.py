"""Untrusted text made safe for the terminal."""

import ast
import contextlib
import sys


def printable(text):
    """Return text with a dot for each character that cannot be printed.

    These include escape sequences, line ends, and marks that change the direction of writing. Rich
    still needs it in a Text, or printed with markup=False: "[red]" is printable.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "·" for c in text)


def replace_unencodable():
    """Make standard output and error print "?" for a character that the terminal does not have."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None: the stream is closed
            stream.reconfigure(errors="replace")


def docstring_summary(text):
    """Return the first line of a program's docstring, or "" if there is none."""
    with contextlib.suppress(SyntaxError):  # such a program does not run either
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return ""
