"""The decorator that marks a function as a check, and the exceptions with which a check ends.

A check takes a running server (server_under_test.ServerUnderTest). It uses its address, process and
log only, so it fits a program in any language.

A check waits for an event at most for a timeout, never for a fixed time: a busy machine makes it
slow, not wrong. Some checks verify that something does not happen during a quiet period: on a busy
machine they can miss a fault, but cannot report one that is not there. A whole check has a
deadline, too: DEADLINE_FACTOR.
"""

DEADLINE_FACTOR = 5  # a check may take this many times its timeout and quiet period, in seconds


class ContractViolation(AssertionError):
    """The server failed a check. The message says what was sent, expected and received."""


class DeadlineExceeded(BaseException):
    """A check has reached its deadline. Not an Exception: no check may catch it and go on."""


class NotApplicable(Exception):
    """The check has no meaning for this server, or cannot run on this machine."""


def check(*options):
    """Mark a function as a check whose server is started with these options."""

    def mark(function):
        function.options = options
        return function

    return mark


def assert_equal(description, expected, found):
    """Raise ContractViolation unless found equals expected."""
    if found != expected:
        raise ContractViolation(f"{description}: expected {expected!r:.200}, found {found!r:.200}")
