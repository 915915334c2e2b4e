"""The decorator that marks a function as a check, and how a check fails.

A check takes a running server (server_under_test.ServerUnderTest). It uses its address, process and
log only, so it fits a program in any language. It waits for an event at most for a timeout, never
for a fixed time: a busy machine makes it slow, not wrong. Some checks verify that something does
not happen during a quiet period: on a busy machine they can miss a fault, but not invent one.
"""

import contextlib
import re

DEADLINE_FACTOR = 5  # a check may take this many times its timeout and quiet period, in seconds


class ContractViolation(AssertionError):
    """The server failed a check. The message says what was sent, expected and received."""


class DeadlineExceeded(BaseException):
    """A check has reached its deadline. Not an Exception: no check may catch it and go on."""


class NotApplicable(Exception):
    """The check has no meaning for this server, or cannot run on this machine."""


def check(*options, alone=False):
    """Mark a function as a check whose server is started with these options.

    alone: no other check uses this server, because the check ends it or changes its limits.
    """

    def mark(function):
        function.options, function.alone = options, alone
        return function

    return mark


def expect(condition, message):
    """Raise ContractViolation unless condition is true."""
    if not condition:
        raise ContractViolation(message)


@contextlib.contextmanager
def explaining(beginning, message=None):
    """Put the beginning of a sentence, and a message, before that of an error in the block."""
    try:
        yield
    except (OSError, ContractViolation) as error:
        beginning += "" if message is None else f"{message!r:.100}"
        raise ContractViolation(f"{beginning}: {error}") from error


def expect_equal(description, expected, found):
    """Raise ContractViolation unless found equals expected."""
    expect(found == expected, f"{description}: expected {expected!r:.200}, found {found!r:.200}")


def difference(expected, received):
    """Return how two byte strings differ: both, or from the first byte on if they are long."""
    if max(len(expected), len(received)) <= 100:
        return f"expected {expected!r}, received {received!r}"
    pairs, shorter = zip(expected, received, strict=False), min(len(expected), len(received))
    start = next((place for place, (one, other) in enumerate(pairs) if one != other), shorter)
    return (
        f"expected {len(expected)} bytes, received {len(received)}, which differ from byte {start} "
        f"on: {expected[start : start + 20]!r} and {received[start : start + 20]!r}"
    )


def last_exception(log):
    """Return the last line of the last Python traceback in a log: "NameError: ..."; "" if none."""
    found = re.findall(r"^Traceback .*\n(?:[ \t].*\n)*(\S.*)", log, re.MULTILINE)
    return found[-1] if found else ""
