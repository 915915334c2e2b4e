"""A command's line: its parser, and numbers within limits. A wrong value is reported in one line.

parser = command_parser(__doc__)
parser.add_argument("--seconds", type=number(float, 0.5, 3600))
parser.add_argument("--users", type=numbers(int, 1, 20_000), metavar="N,N,...")
"""

import argparse
import contextlib
import sys

NAMES = {int: "whole number", float: "number"}


def command_parser(doc):
    """Return an ArgumentParser for a module that is run with "python -m". doc: its docstring."""
    spec = sys.modules["__main__"].__spec__
    name = spec and f"python -m {spec.name.removesuffix('.__main__')}"
    return argparse.ArgumentParser(
        name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def number(kind, low, high):
    """Return a function that parses one number. kind: int or float; low, high: finite, included."""

    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:  # false for nan and inf
                return value
        raise argparse.ArgumentTypeError(
            f"expected a {NAMES[kind]} from {low} to {high}, not {text!r}"
        )

    return parse


def numbers(kind, low, high, distinct=True):
    """Return a function that parses a list such as "1,10,50".

    kind, low, high: see number. distinct: sort the list and remove duplicates.
    """
    parse_one = number(kind, low, high)

    def parse(text):
        try:
            values = [parse_one(part) for part in text.split(",")]
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(
                f"expected {NAMES[kind]}s from {low} to {high}, such as 1,10,50, not {text!r}"
            ) from None
        return sorted(set(values)) if distinct else values

    return parse
