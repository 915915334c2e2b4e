"""All checks, {name: function}, in the order of CONTRACT.md; each file has one subject."""

from clients.contract.checks import framing, isolation, leaks, lifecycle, resource_limits

CHECKS = {
    name: function
    for subject in (framing, isolation, leaks, resource_limits, lifecycle)
    for name, function in vars(subject).items()
    if hasattr(function, "options")  # errors.check has marked it
}
