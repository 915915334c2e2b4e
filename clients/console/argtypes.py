"""Types for argparse: numbers within limits. What is wrong gets one clear line.

parser.add_argument("--seconds", type=number(float, 0.5, 3600))
parser.add_argument("--users", type=numbers(int, 1, 20_000), metavar="N,N,...")
"""

import argparse
import contextlib

NAMES = {int: "whole number", float: "number"}


def number(kind, low, high):
    """Return a reader of one number. kind: int or float; low, high: finite, both may be given."""

    def read(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:  # not so for nan and inf
                return value
        raise argparse.ArgumentTypeError(
            f"expected a {NAMES[kind]} from {low} to {high}, not {text!r}"
        )

    return read


def numbers(kind, low, high, distinct=True):
    """Return a reader of numbers with commas between them, "1,10,50": it returns a list.

    kind, low, high: see number. distinct: whether the list is sorted and holds each number once;
    otherwise it is as it was given.
    """
    read_one = number(kind, low, high)

    def read(text):
        try:
            values = [read_one(part) for part in text.split(",")]
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(
                f"expected {NAMES[kind]}s from {low} to {high}, as in 1,10,50, not {text!r}"
            ) from None
        return sorted(set(values)) if distinct else values

    return read
