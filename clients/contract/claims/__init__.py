"""All claims, {name: function}, in the order of CONTRACT.md: a file holds one of its themes."""

from clients.contract.claims import (
    every_byte,
    machine_limits,
    nothing_left_behind,
    other_clients,
    the_program,
)

THEMES = [every_byte, other_clients, nothing_left_behind, machine_limits, the_program]
CLAIMS = {
    name: function
    for theme in THEMES
    for name, function in vars(theme).items()
    if hasattr(function, "options")  # terms.claim has marked it
}
