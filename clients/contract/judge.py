"""Hold a server program to a claim."""

import psutil

from clients.contract.candidate import A_WHILE, PATIENCE, Candidate
from clients.contract.terms import Broken, NotApplicable
from clients.system.launch import LaunchError, running


def hold(program, claim, *options, patience=PATIENCE, a_while=A_WHILE):
    """Start program as the claim wants it, with more options if any, and hold it to the claim.

    patience, a_while: see Candidate. Raises Broken or NotApplicable, as the claim does.
    """
    limits = {"patience": patience, "grace": patience / 4}
    try:
        with running(program, *claim.options, *options, **limits) as server:
            claim(Candidate(**vars(server), patience=patience, a_while=a_while))
    except LaunchError as error:
        raise Broken(str(error)) from error
    except OSError as error:  # the claim expects every connection to succeed
        raise Broken(f"a connection failed: {error}") from error
    except psutil.Error as error:
        raise Broken(f"the server has ended: {error}") from error


def judge(program, claim, *options, **limits):
    """Hold program to the claim; return "held", "broken" or "not applicable", and why ("": held).

    options, limits: see hold.
    """
    try:
        hold(program, claim, *options, **limits)
    except Broken as error:
        return "broken", str(error)
    except NotApplicable as reason:
        return "not applicable", str(reason)
    return "held", ""
