"""All claims, {name: function}, in the order of CONTRACT.md: a file holds one of its themes."""

from clients.contract.checks import (
    framing,
    isolation,
    leaks,
    lifecycle,
    resource_limits,
)

THEMES = [framing, isolation, leaks, resource_limits, lifecycle]
CLAIMS = {
    name: function
    for theme in THEMES
    for name, function in vars(theme).items()
    if hasattr(function, "options")  # errors.claim has marked it
}
