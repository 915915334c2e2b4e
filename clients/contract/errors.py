"""The terms of the contract: what a claim is, and how it says that a server does not keep it.

A claim takes a running server (candidate.Candidate) and raises Broken when the server does not
keep it, with what was sent, expected and received. It raises NotApplicable, with the reason,
where the claim has no meaning for this server or cannot be tried on this machine.

The address and the process are all that a claim uses, so it holds for any program in any
language. It waits for what must happen (patience), never for a set time, and never longer
than it must: a busy machine makes it slow, not wrong. Some claims watch for a set time (a while)
that something does *not* happen; there a busy machine can only hide a fault, never invent one.
A claim as a whole has a bound, too (LIMIT), and says so when it is met.
"""

LIMIT = 5  # times patience and a while: what a claim may take, in seconds


class Broken(AssertionError):
    """The server did not keep a claim."""


class OutOfTime(BaseException):
    """A claim has met its bound. No Exception: what tries again must not take it for a Broken."""


class NotApplicable(Exception):
    """The claim has no meaning for this server, or cannot be tried on this machine."""


def claim(*options):
    """Make a function a claim; its server is to be started with these options."""

    def mark(function):
        function.options = options
        return function

    return mark


def expect(what, expected, found):
    """Raise Broken unless what was found is what was expected. what: words for the message."""
    if found != expected:
        raise Broken(f"{what}: expected {expected!r:.200}, found {found!r:.200}")
